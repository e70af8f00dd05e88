"""What every measurement needs: evaluation mode, parts of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode without gradients, then give every part its mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def split(batch: NamedTuple, batch_size: int, device: torch.device) -> Iterator[NamedTuple]:
    """Split a batch into batches of at most `batch_size` items, on the device."""
    for parts in zip(*(field.split(batch_size) for field in batch)):
        yield type(batch)(*(part.to(device) for part in parts))
