"""Sources over a set of images that can be counted: the order, the workers, sets held in memory."""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mimlib.data.batches import DenseBatch, ImageBatch, LabelBatch, StretchedBatch
from mimlib.data.order import EndlessOrder, Request
from mimlib.data.transforms.crops import Augmentation, cut_image, cut_map

SAMPLED = 16  # images held in memory whose pixels tell their set from others


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
    def identity(self) -> str:
        """Return what tells this set from others by its content (see `Source` in protocol.py)."""

    @abstractmethod
    def load(self, request: Request) -> tuple:
        """Answer a request, in a worker process if there are any."""

    def accept(self, answer: tuple) -> NamedTuple:
        """Turn an answer into a batch, in the training process."""
        return answer

    def batches(
        self, start: int, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[NamedTuple]:
        """Yield without end the augmented batches number start, start + 1, ... of this rank."""
        order = EndlessOrder(len(self), seed)
        order.request(start, batch_size, rank, num_ranks)  # wrong numbers fail here, not later
        requests = (
            order.request(step, batch_size, rank, num_ranks) for step in itertools.count(start)
        )
        return self._answer(requests)

    def once(self, batch_size: int) -> Iterator[NamedTuple]:
        """Yield the whole set once, in order and un-augmented; the last batch may be smaller."""
        starts = range(0, len(self), batch_size)
        ranges = (np.arange(start, min(start + batch_size, len(self))) for start in starts)
        return self._answer(Request(each, int(each[0]), None, exact=True) for each in ranges)

    def first(self, count: int) -> NamedTuple:
        """Return `count` un-augmented images as one batch, always the same ones."""
        if not 1 <= count <= len(self):
            raise ValueError(f"asked for {count} images of a set of {len(self)}")
        request = Request(self.preview(count), 0, None, exact=True)
        return next(self._answer([request], workers=0))

    def preview(self, count: int) -> np.ndarray:
        """Return which images `first` shows, [count]."""
        return np.arange(count)

    def __getitem__(self, request: Request) -> tuple:
        """Answer a request; DataLoader's name for it."""
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
        return map(self.accept, loader)


def _unchanged(answer: tuple) -> tuple:
    return answer


def fingerprint(count: int, *parts: np.ndarray) -> str:
    """Return the number of images and a hash of arrays: what `identity` says of a set."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(f"{part.dtype.kind} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"{count} images, {digest.hexdigest()}"


class HeldSource(IndexedSource):
    """A set held in memory: tensors, or lists of them, with a row for each image."""

    def __init__(
        self, fields: Iterable[Sequence[Tensor] | None], workers: int = 0, made_by: str = ""
    ):
        """Take what is held, and what makes it; told by some of its pixels if that is empty."""
        self._held = [field for field in fields if field is not None]
        self.workers, self.made_by = workers, made_by

    def __len__(self) -> int:
        return len(self._held[0])

    def identity(self) -> str:
        """Return what makes the images, or a hash of some and of what comes with them."""
        if self.made_by:
            return f"{len(self)} images, {self.made_by}"
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), SAMPLED)).astype(int))
        samples = (field[row].numpy() for field in self._held for row in rows.tolist())
        return fingerprint(len(self), *samples)


class MemorySource(HeldSource):
    """Images held in memory, with a class each, a target per pixel, or nothing beside them.

    A tensor of images is held in the order of its pixels (channels last), in which a crop is
    resized in two thirds of the time.
    """

    def __init__(
        self,
        images: Tensor | Sequence[Tensor],  # [n, 3, H, W] uint8, or n of [3, H, W] of any size
        augmentation: Augmentation,
        labels: Tensor | None = None,  # [n] int64
        targets: Tensor | None = None,  # [n, H, W]
        workers: int = 0,
        made_by: str = "",
    ):
        if isinstance(images, Tensor):
            images = images.contiguous(memory_format=torch.channels_last)
        super().__init__((images, labels, targets), workers, made_by)
        self.images, self.augmentation = images, augmentation
        self.labels, self.targets = labels, targets
        some = images[:1] if isinstance(images, Tensor) else images  # all of a tensor are alike
        self.square = all(image.shape[1] == image.shape[2] for image in some)

    def load(self, request: Request) -> NamedTuple:
        """Cut the images of a request, and their targets in the same way."""
        indices = request.indices.tolist()
        chosen = [self.images[index] for index in indices]
        shapes = np.array([image.shape[1:] for image in chosen])  # [B, 2]
        placements = self.augmentation.placements(request.draws(), shapes)
        images = torch.stack(list(map(cut_image, chosen, placements)))
        if self.labels is not None:
            return LabelBatch(images, self.labels[torch.from_numpy(request.indices)])
        if self.targets is None:
            if self.square or request.seed is None or not self.augmentation.whole:
                return ImageBatch(images)
            return StretchedBatch(images, torch.from_numpy(shapes))
        targets = (self.targets[index] for index in indices)
        target = torch.stack(list(map(cut_map, targets, placements)))
        return DenseBatch(images, target, _known(target))


def _known(target: Tensor) -> Tensor:
    """Return where there is ground truth: positive finite depth, or a class of 0 and up."""
    if target.is_floating_point():
        return target.isfinite() & (target > 0)
    return target >= 0
