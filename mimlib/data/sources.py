"""Sources: where the batches of a run come from, and the configs that build them.

Every source hands out augmented batches without end (`batches`), and un-augmented images for
looking and measuring (`first`, `once`).
"""

import itertools
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mimlib import world
from mimlib.data.batches import DenseBatch, ImageBatch, LabelBatch
from mimlib.data.images import ImageFolder, class_names
from mimlib.data.order import EndlessOrder, Request, augmentation_draws
from mimlib.data.photos import whole_photographs
from mimlib.data.transforms import (
    crop_resized,
    crop_target,
    evaluation_view,
    flip_some,
    random_crop_boxes,
)

FLIP = 22  # which of an image's random numbers decides its flip; the crop uses those before
REPLACEMENTS = 32  # unreadable images in a row before a folder is given up
BAD_SHARE = 0.1  # of a folder's images that may be unreadable before it is given up


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random resized crop and flip: all that MAE uses (appendix A.1)."""

    size: int  # pixels, side of the images handed out
    crop_scale: tuple[float, float] = (0.2, 1.0)  # share of the area; (1, 1): no crop
    flip: bool = True  # mirror every second image, at random
    clip: bool = False  # one draw, clipped to the image: MAE's linear probing

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"image size {self.size} is not positive; use 64 or 224, for instance")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale {self.crop_scale} is no range of areas; expected 0 < low <= high <= 1"
            )

    def boxes(self, draws: np.ndarray, height: Sequence[int], width: Sequence[int]) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        return random_crop_boxes(draws, height, width, self.crop_scale, self.clip)

    def flips(self, draws: np.ndarray) -> np.ndarray:
        """Return whether each image is mirrored, [B] bool."""
        return (draws[:, FLIP] < 0.5) & self.flip


class IndexedSource(ABC):
    """A set of images with an endless shuffled order (see `Source` in protocol.py).

    Subclasses say how long it is and how a request becomes a batch. With `workers` processes the
    requests are answered ahead of time; the batches are the same.
    """

    workers: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def load(self, request: Request) -> tuple[NamedTuple, dict[str, str]]:
        """Return the batch of a request, and what could not be read: path -> reason."""

    def batches(
        self, start: int, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[NamedTuple]:
        """Yield without end the augmented batches number start, start + 1, ... of this rank."""
        order = EndlessOrder(len(self), seed)
        order.request(start, batch_size, rank, num_ranks)  # wrong numbers fail here, not later
        requests = (order.request(step, batch_size, rank, num_ranks) for step in itertools.count(start))
        return self._answer(requests)

    def once(self, batch_size: int) -> Iterator[NamedTuple]:
        """Yield the whole set once, in order and un-augmented; the last batch may be smaller."""
        starts = range(0, len(self), batch_size)
        ranges = (np.arange(start, min(start + batch_size, len(self))) for start in starts)
        return self._answer(Request(indices, int(indices[0]), None) for indices in ranges)

    def first(self, count: int) -> NamedTuple:
        """Return `count` un-augmented images as one batch, always the same ones."""
        if not 1 <= count <= len(self):
            raise ValueError(f"asked for {count} images of a set of {len(self)}")
        return next(self._answer([Request(self.preview(count), 0, None)], workers=0))

    def preview(self, count: int) -> np.ndarray:
        """Return which images `first` shows, [count]."""
        return np.arange(count)

    def __getitem__(self, request: Request) -> tuple[NamedTuple, dict[str, str]]:
        """Answer a request; the name under which DataLoader calls `load`."""
        return self.load(request)

    def _answer(self, requests: Iterable[Request], workers: int | None = None) -> Iterator:
        workers = self.workers if workers is None else workers
        loader = DataLoader(
            self,
            batch_size=None,  # a request is a whole batch already
            sampler=requests,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # else DataLoader would advance the global one
        )
        for batch, unreadable in loader:
            self.report(unreadable, len(batch[0]))
            yield batch

    def report(self, unreadable: dict[str, str], count: int) -> None:
        """Tell the user about images that could not be read while `count` were asked for."""


def _unchanged(answer: tuple) -> tuple:
    return answer


class MemorySource(IndexedSource):
    """Images held in memory, with a class each, a target per pixel, or nothing beside them."""

    def __init__(
        self,
        images: Tensor | Sequence[Tensor],  # [n, 3, H, W] uint8, or n of [3, H, W] of any size
        augmentation: Augmentation,
        labels: Tensor | None = None,  # [n] int64
        target: Tensor | None = None,  # [n, H, W]
        workers: int = 0,
    ):
        self.images = images
        self.augmentation = augmentation
        self.labels = labels
        self.target = target
        self.workers = workers

    def __len__(self) -> int:
        return len(self.images)

    def load(self, request: Request) -> tuple[NamedTuple, dict[str, str]]:
        """Cut the images of a request, and their targets in the same way."""
        size = self.augmentation.size
        chosen = [self.images[index] for index in request.indices.tolist()]
        height, width = np.array([image.shape[1:] for image in chosen]).T
        if request.seed is None:
            images = torch.stack([evaluation_view(image, size, 1.0) for image in chosen])
            boxes = _centre_boxes(height, width)
            flips = np.zeros(len(chosen), dtype=bool)
        else:
            draws = augmentation_draws(request.seed, request.first, len(chosen))
            boxes = self.augmentation.boxes(draws, height, width)
            flips = self.augmentation.flips(draws)
            crops = [crop_resized(image, box, size) for image, box in zip(chosen, boxes.tolist())]
            images = flip_some(torch.stack(crops), flips)  # [B, 3, size, size]
        indices = torch.from_numpy(request.indices)
        if self.labels is not None:
            return LabelBatch(images, self.labels[indices]), {}
        if self.target is None:
            return ImageBatch(images), {}
        target = flip_some(crop_target(self.target[indices], boxes, size), flips)
        return DenseBatch(images, target, _known(target)), {}


def _centre_boxes(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    side = np.minimum(height, width)
    return np.stack([(height - side) // 2, (width - side) // 2, side, side], axis=1)


def _known(target: Tensor) -> Tensor:
    """Return where there is ground truth: positive finite depth, or a class of 0 and up."""
    if target.is_floating_point():
        return target.isfinite() & (target > 0)
    return target >= 0


class FolderSource(IndexedSource):
    """Images decoded from files as they are needed.

    An image that cannot be read is replaced by the next readable one of the folder, so a batch
    still depends on its step alone. `unreadable` holds what was met so far: path -> reason.
    """

    def __init__(
        self,
        folder: ImageFolder,
        augmentation: Augmentation,
        labels: np.ndarray | None,
        evaluation_share: float,
        workers: int,
    ):
        self.folder = folder
        self.augmentation = augmentation
        self.labels = labels
        self.evaluation_share = evaluation_share
        self.workers = workers
        self.unreadable: dict[str, str] = {}
        self._asked = 0

    def __len__(self) -> int:
        return len(self.folder)

    def preview(self, count: int) -> np.ndarray:
        """Spread `first` evenly over the folder, so that it shows many classes."""
        return np.arange(count) * len(self) // count

    def load(self, request: Request) -> tuple[NamedTuple | None, dict[str, str]]:
        """Decode and cut the images of a request, skipping what cannot be read."""
        unreadable: dict[str, str] = {}
        images, indices = [], []
        draws = None
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(request.indices))
        for row, wanted in enumerate(request.indices.tolist()):
            index, image = self._read_from(wanted, unreadable)
            indices.append(index)
            images.append(self._cut(image, None if draws is None else draws[row : row + 1]))
        batch = torch.stack(images)  # [B, 3, size, size]
        if self.labels is None:
            return ImageBatch(batch), unreadable
        return LabelBatch(batch, torch.from_numpy(self.labels[indices])), unreadable

    def report(self, unreadable: dict[str, str], count: int) -> None:
        """Warn once of every unreadable image.

        Raises:
            ValueError: if more than a tenth of the folder's images cannot be read.
        """
        self._asked += count
        new = {path: why for path, why in unreadable.items() if path not in self.unreadable}
        if not new:
            return
        self.unreadable |= new
        seen = min(len(self), max(self._asked, 100))
        if len(self.unreadable) > BAD_SHARE * seen:
            raise ValueError(_too_many(self.folder.root, self.unreadable))
        warnings.warn(
            f"{len(new)} unreadable images skipped, {len(self.unreadable)} so far of {len(self)} "
            f"in {self.folder.root}; the next one stands in for each:\n{_listed(new)}",
            stacklevel=3,
        )

    def _read_from(self, index: int, unreadable: dict[str, str]) -> tuple[int, Tensor]:
        """Return the first readable image at `index` or after it, and note those before it."""
        failed = {}
        for step in range(min(REPLACEMENTS, len(self))):
            candidate = (index + step) % len(self)
            try:
                image = self.folder.read(candidate)
            except ValueError as error:
                failed[self.folder.path(candidate)] = str(error)
                continue
            unreadable |= failed
            return candidate, image
        raise ValueError(_too_many(self.folder.root, failed))

    def _cut(self, image: Tensor, draws: np.ndarray | None) -> Tensor:
        size = self.augmentation.size
        if draws is None:
            return evaluation_view(image, size, self.evaluation_share)
        box = self.augmentation.boxes(draws, *([side] for side in image.shape[1:]))
        crop = crop_resized(image, box[0].tolist(), size)
        return crop.flip(-1) if self.augmentation.flips(draws)[0] else crop
