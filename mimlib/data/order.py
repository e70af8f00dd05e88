"""Which images a step sees, and which random numbers each of them gets.

A source counts the images it hands out: position 0 is the first image of step 0, and so on without
end. Epoch e holds the positions e * size ... (e + 1) * size - 1 in an order of its own. Everything
is a function of (seed, position) by a counter-based generator, so any step can be reached without
replaying the ones before it, and neither the number of ranks nor of worker processes matters.

Letters: U random numbers per image.
"""

import itertools
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

DRAWS_PER_IMAGE = 24  # U; a multiple of 4, since one Philox counter value makes 4 numbers
_SHUFFLE, AUGMENT, COLORS = 0, 1, 2  # streams of one seed


def registers(**counts: int) -> SimpleNamespace:
    """Name the random numbers of an image, one after the other: how many decide what.

    By name an index into the U numbers, or a slice for more than one; ValueError beyond U of them.
    """
    if sum(counts.values()) > DRAWS_PER_IMAGE:
        raise ValueError(f"{counts} are more random numbers than the {DRAWS_PER_IMAGE} of an image")
    ends = itertools.accumulate(counts.values())
    spans = {name: slice(end - counts[name], end) for name, end in zip(counts, ends)}
    return SimpleNamespace(**{n: s.start if counts[n] == 1 else s for n, s in spans.items()})


class Request(NamedTuple):
    """The images of one batch, and what their random numbers come from."""

    indices: np.ndarray  # [B] int64, into the source
    first: int  # position of the first one; the others follow
    seed: int | None  # None: no augmentation
    exact: bool = False  # no image may stand in for another that cannot be read

    def draws(self, stream: int = AUGMENT) -> np.ndarray | None:
        """Return the random numbers [B, U] of these images, see `augmentation_draws`, or None."""
        if self.seed is None:
            return None
        return augmentation_draws(self.seed, self.first, len(self.indices), stream)


class EndlessOrder:
    """Shuffled epochs of `size` images one after the other, without gaps between them.

    # differs from official: the images at the end of an epoch that do not fill a batch are not
    # dropped; the batch is filled with the start of the next epoch. So every image is seen equally
    # often, and sets smaller than a batch work.
    """

    def __init__(self, size: int, seed: int):
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; use 0 or more")
        if size < 1:
            raise ValueError(f"a set of {size} images has no order; it needs at least one")
        self.size = size
        self.seed = seed
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def request(self, step: int, batch_size: int, rank: int = 0, num_ranks: int = 1) -> Request:
        """Return what `rank` sees at `step`: its part of the step's batch_size * num_ranks images.

        ValueError if a number is out of its range.
        """
        if step < 0 or batch_size < 1 or not 0 <= rank < num_ranks:
            raise ValueError(
                f"got step {step}, batch size {batch_size}, rank {rank} of {num_ranks}; expected "
                "step >= 0, batch size >= 1 and 0 <= rank < number of ranks"
            )
        first = (step * num_ranks + rank) * batch_size
        return Request(self.indices(first, batch_size), first, self.seed)

    def indices(self, first: int, count: int) -> np.ndarray:
        """Return the images at positions first ... first + count - 1, [count] int64."""
        parts = []
        while count > 0:
            epoch, start = divmod(first, self.size)
            part = self._epoch_order(epoch)[start : start + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            stream = np.random.Philox(key=[self.seed, _SHUFFLE], counter=[0, epoch, 0, 0])
            self._shuffled = np.random.Generator(stream).permutation(self.size)
            self._epoch = epoch
        return self._shuffled


def augmentation_draws(seed: int, first: int, count: int, stream: int = AUGMENT) -> np.ndarray:
    """Return the random numbers of the images at positions first ... first + count - 1.

    [count, U] float64, uniform in [0, 1); row i depends on (seed, first + i) only. Another stream,
    COLORS, has others, as independent, where those of AUGMENT are spoken for.
    """
    counter = first * (DRAWS_PER_IMAGE // 4)
    stream = np.random.Philox(key=[seed, stream], counter=[counter, 0, 0, 0])
    return np.random.Generator(stream).random((count, DRAWS_PER_IMAGE))
