"""What every measurement needs: evaluation mode, parts of a batch, sane settings."""

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


def split(batch: NamedTuple, batch_size: int) -> Iterator[NamedTuple]:
    """Cut a batch into batches of at most `batch_size` items."""
    return map(type(batch)._make, zip(*(field.split(batch_size) for field in batch)))


def check_positive(config: object, *names: str) -> None:
    """Refuse fields of a config that are not above 0.

    Raises:
        ValueError: naming the field.
    """
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
