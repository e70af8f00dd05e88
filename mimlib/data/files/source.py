"""What all sources of files share: what cannot be read is replaced, counted and named."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.files.listing import Listing
from mimlib.data.order import Request
from mimlib.data.source import IndexedSource, fingerprint

REPLACEMENTS = 32  # unreadable items in a row before a data set is given up
BAD_SHARE = 0.1  # of the items seen that may be unreadable before a data set is given up


class FileSource(IndexedSource):
    """Items that lie in files, decoded as they are needed.

    Training goes on without what cannot be read: the next readable item stands in for it, so that
    a batch still depends on its step alone. Each such file is named once in a warning, `unreadable`
    holds them all (path -> reason), and too many of them stop the run.

    What is looked at and measured (`first`, `once`) is the set itself: there a file that cannot be
    read is an error by its name, as a number measured on other images would not be of this set.
    """

    known: np.ndarray | None = None  # of the items, beside their files; part of their identity

    def __init__(self, files: Listing, config: Any, reader: Callable[..., Any] | None = None):
        """Take the files, how they are augmented, and what reads their ground truth."""
        self.files, self.augmentation, self.reader = files, config, reader
        self.workers = config.workers
        self.unreadable: dict[str, str] = {}
        self._asked = 0

    @abstractmethod
    def read(self, index: int) -> Any:
        """Read an item, whole; ValueError if it cannot be read or its files do not fit together."""

    @abstractmethod
    def batch(self, items: list[Any], request: Request) -> NamedTuple:
        """Augment the items of a request and make a batch of them."""

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return what to call item `index` in a message: the path of its first file."""
        return self.files.path(index)

    def preview(self, count: int) -> np.ndarray:
        """Spread `first` evenly over the set, so that it shows many classes and scenes."""
        return np.arange(count) * len(self) // count

    def identity(self) -> str:
        """Return a hash of the files' names and some of their sizes, and of what else is known."""
        files = self.files.identity()
        if self.known is None:
            return files
        return fingerprint(len(self), np.array(files), self.known)

    def load(self, request: Request) -> tuple[NamedTuple, dict[str, str]]:
        """Answer a request, and say what could not be read: path -> reason."""
        bad: dict[str, str] = {}
        items = [self._readable(index, request.exact, bad) for index in request.indices.tolist()]
        return self.batch(items, request), bad

    def accept(self, answer: tuple[NamedTuple, dict[str, str]]) -> NamedTuple:
        """Return the batch of an answer, warn once of every unreadable file; ValueError on many."""
        batch, bad = answer
        self._asked += len(batch[0])
        new = {path: why for path, why in bad.items() if path not in self.unreadable}
        if not new:
            return batch
        self.unreadable |= new
        seen = min(len(self), max(self._asked, 100))
        if len(self.unreadable) > BAD_SHARE * seen:
            raise ValueError(self._too_many(self.unreadable))
        warnings.warn(
            f"{len(new)} unreadable images skipped, {len(self.unreadable)} so far of {len(self)} "
            f"in {self.files.root}; the next one stands in for each:\n{_listed(new)}",
            stacklevel=2,
        )
        return batch

    def _readable(self, index: int, exact: bool, bad: dict[str, str]) -> Any:
        """Return the first readable item at `index` or after it, and note those before it."""
        failed = {}
        for step in range(min(REPLACEMENTS, len(self))):
            candidate = (index + step) % len(self)
            try:
                item = self.read(candidate)
            except ValueError as error:
                if exact:
                    raise ValueError(
                        f"{error}. Training goes on without such a file, but nothing can stand in "
                        "for it where the whole set is measured: repair it, or take it out"
                    ) from error
                failed[self.path(candidate)] = str(error)
                continue
            bad |= failed
            return item
        raise ValueError(self._too_many(failed))

    def _too_many(self, bad: dict[str, str]) -> str:
        return (
            f"{len(bad)} images in {self.files.root} cannot be read, too many to go on without "
            f"them; remove or repair them:\n{_listed(bad)}"
        )


def _listed(bad: dict[str, str], most: int = 20) -> str:
    lines = [f"  {why}" for why in bad.values()]
    rest = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(lines[:most] + rest)


def check_sizes(files: Sequence[str], *sizes: Sequence[int]) -> None:
    """Refuse files of one item that differ in (height, width); the first is the image's."""
    if len({tuple(size) for size in sizes}) > 1:
        held = ", ".join(f"{os.path.basename(f)} {tuple(s)}" for f, s in zip(files, sizes))
        raise ValueError(
            f"{files[0]} and what belongs to it have different sizes ({held}, height and width); "
            "resize the ground truth (nearest) to the image"
        )


def stack_alike(items: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Stack fields, B of [...] each to [B, ...]; ValueError if whole images differ in size."""
    fields = list(zip(*items))
    sizes = sorted({tuple(part.shape[-2:]) for part in fields[0]})
    if len(sizes) > 1:
        raise ValueError(f"whole images of the sizes {sizes} make no batch; ask for one at a time")
    return [torch.stack(field) for field in fields]
