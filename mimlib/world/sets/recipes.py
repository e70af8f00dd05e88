"""What a set consists of: how its items are drawn and rendered, and what it is named by.

Items are drawn in groups, so that an item never depends on the length of the set. Group j is drawn
from a generator seeded by the set's parameters and j; items that are no good are drawn again until
the group is full.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import index
from typing import ClassVar

import torch
from torch import Tensor

from mimlib.checks import check_choice, check_range
from mimlib.world.rendering.render import Frame
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import LEVELS
from mimlib.world.rooms.scenes import Tree, concatenate, take
from mimlib.world.sets.cache import Fields

MAX_ROUNDS = 1000  # about three suffice; one view in fifteen aimed at a lamp is good


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """A set, apart from how many items of it and which ground truth."""

    seed: int
    size: int  # px, image side
    level: str

    kinds: ClassVar[tuple[str, ...]]  # of ground truth that can be asked for
    extras: ClassVar[tuple[str, ...]] = ()  # fields of the items that come with every set
    group_size: ClassVar[int]  # items drawn together
    levels: ClassVar[tuple[str, ...]] = tuple(LEVELS)

    def __post_init__(self):
        """Check what can be checked without rendering; numpy's integers count as integers."""
        for name in ("seed", "size"):
            object.__setattr__(self, name, index(getattr(self, name)))
        check_choice(self, "level", self.levels)
        check_range(self, "size", least=8, most=1024, hint="it is in pixels")

    def key(self, truth: str) -> dict[str, object]:
        """Return what one kind of ground truth of this set is cached under."""
        return asdict(self) | {"recipe": type(self).__name__, "truth": truth}

    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> dict[str, Fields]:
        """Render items where they are: {kind: {field: [B, ...]}}."""
        frames = self.trace(items) if any(kind not in self.extras for kind in kinds) else []
        return {
            kind: {kind: getattr(items, kind)}
            if kind in self.extras
            else self.truth(kind, items, frames, atlas)
            for kind in kinds
        }

    @abstractmethod
    def draw(self, group: int) -> tuple:
        """Draw the items of a group on the CPU."""

    @abstractmethod
    def trace(self, items: tuple) -> list[Frame]:
        """Find what every image of the items sees."""

    @abstractmethod
    def truth(self, kind: str, items: tuple, frames: list[Frame], atlas: Atlas) -> Fields:
        """Return the fields of one kind of ground truth; only images need the atlas."""


def seeded(*key: object) -> torch.Generator:
    """Return a CPU generator whose seed is a hash of the key, so that near keys share nothing."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def fill_group(count: int, attempt: Callable[[int], tuple[Tree, Tensor]], what: str) -> Tree:
    """Call `attempt` until the items it has drawn hold `count` good ones ([B] bool).

    Raises:
        RuntimeError: if good items are too rare.
    """
    kept, missing = [], count
    for _ in range(MAX_ROUNDS):
        items, good = attempt(missing + missing // 3 + 2)
        kept.append(take(items, good))
        missing -= int(good.sum())
        if missing <= 0:
            return take(concatenate(kept), slice(0, count))
    raise RuntimeError(f"only {count - missing} of {count} {what} in {MAX_ROUNDS} rounds")
