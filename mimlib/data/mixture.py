"""Several sources as one: the sets that CroCo v2, CroCo-Stereo and CroCo-Flow train on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from mimlib.checks import check_positive
from mimlib.data.order import Request
from mimlib.data.source import IndexedSource, fingerprint

PLACES = ("root", "crops")  # fields of parts that hold paths


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source, and how often it is seen in one epoch of the mixture."""

    pairs: object  # config with build() -> IndexedSource; its `workers` do not count here
    repeats: int = 1  # times per epoch, each time with another augmentation

    def __post_init__(self):
        check_positive(self, "repeats", hint="leave the part out instead")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Sources shuffled into one, "40 x Sintel + FlyingChairs"; every batch may hold all of them."""

    parts: tuple[Part, ...]
    root: str = ""  # folder that the parts' own paths are relative to
    workers: int = 0  # decoding processes

    def __post_init__(self):
        if not self.parts:
            raise ValueError("a mixture of no parts; name at least one")
        sizes = {part.pairs.size for part in self.parts}
        if len(sizes) > 1:
            raise ValueError(f"the parts of a mixture have the sizes {sorted(sizes)}; expected one")

    @property
    def size(self) -> int | tuple[int, int]:
        """Size of the images of all parts."""
        return self.parts[0].pairs.size

    def build(self) -> "MixtureSource":
        """Build the sources of all parts."""
        sources = [self._placed(part.pairs).build() for part in self.parts]
        return MixtureSource(sources, [part.repeats for part in self.parts], self.workers)

    def _placed(self, pairs: object) -> object:
        """Put the paths of a part below the root."""
        places = {name: getattr(pairs, name) for name in PLACES if hasattr(pairs, name)}
        places = {n: os.path.join(self.root, os.path.expanduser(p)) for n, p in places.items()}
        return replace(pairs, **places)


class MixtureSource(IndexedSource):
    """The images of several sources, each of them `repeats` times, in one shuffled order.

    What a position sees depends on (seed, position) alone, as in any source: augmentation is that
    of the position in the mixture, so that repeats of an image differ.
    """

    def __init__(self, sources: Sequence[IndexedSource], repeats: Sequence[int], workers: int = 0):
        self.sources, self.workers = sources, workers
        self._ends = np.cumsum([len(s) * times for s, times in zip(sources, repeats)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def preview(self, count: int) -> np.ndarray:
        """Spread `first` evenly over the mixture."""
        return np.arange(count) * len(self) // count

    def identity(self) -> str:
        """Return a hash of those of the sources, and of how often each is seen."""
        return fingerprint(len(self), self._ends, np.array([s.identity() for s in self.sources]))

    def place(self, index: int) -> tuple[int, int]:
        """Return which source image `index` of the mixture is from, and its index there."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[part - 1]) if part else 0
        return part, (index - begin) % len(self.sources[part])

    def load(self, request: Request) -> tuple:
        """Ask the sources for one image after the other, in a worker process if there are any."""
        answers = []
        for row, index in enumerate(request.indices.tolist()):
            part, own = self.place(index)
            one = request._replace(indices=np.array([own]), first=request.first + row)
            answers.append((part, self.sources[part].load(one)))
        return tuple(answers)

    def accept(self, answer: tuple) -> NamedTuple:
        """Make one batch of the sources' answers; ValueError if their kinds or sizes differ."""
        batches = [self.sources[part].accept(one) for part, one in answer]
        kinds = {(type(b), *(tuple(field.shape[1:]) for field in b)) for b in batches}
        if len(kinds) > 1:
            raise ValueError(
                f"the parts of a mixture give {sorted(f'{k.__name__}{s}' for k, *s in kinds)}; "
                "expected images, and ground truth, of one kind and size (whole images: ask for "
                "one at a time)"
            )
        return type(batches[0])(*map(torch.cat, zip(*batches)))
