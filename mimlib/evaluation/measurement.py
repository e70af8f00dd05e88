"""What measurements need: held-out images, evaluation mode, parts, answers that never look."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Measurement:
    """What is measured on the images of one source, as its `config` says."""

    def __init__(self, source: object, config: object) -> None:
        self.name, self.source, self.config = config.name, source, config

    @cached_property
    def images(self) -> NamedTuple:
        """The held-out batch."""
        return self.source.first(self.config.num_images)


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


def answer_blind(labeled: tuple, held_out: tuple) -> tuple[Tensor, Tensor]:
    """Return an answer that is the same for all images, and what is true, where that is valid.

    From targets [B, ...] of labeled images and where they are valid, place by place: the commonest
    class id, the lowest on a tie; the mean depth [B, H, W] (of squared errors); the median of each
    component of displacements [B, H, W, C]. Valid nowhere: class 0, or the mean of all places.
    ValueError if no place is valid in any image.
    """
    (target, valid), (truth, counted) = labeled, held_out
    if not valid.any():
        raise ValueError("nothing is valid in the labeled images; give some that have a truth")
    if not target.is_floating_point():
        ids = range(int(target[valid].max()) + 1)
        best = torch.stack([((target == g) & valid).sum(dim=0) for g in ids]).argmax(dim=0)
    else:
        known = target.clone()
        known[~valid] = torch.nan
        best = known.nanmean(dim=0) if target.ndim == 3 else known.nanmedian(dim=0).values
        best = best.nan_to_num(float(known.nanmean()))
    return best.expand_as(truth)[counted], truth[counted]
