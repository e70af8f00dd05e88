"""Draw the items of a set in groups, so that an item never depends on the length of the set.

Group j is drawn from a generator seeded by the set's parameters and j; items that are no good are
drawn again until the group is full.
"""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mimlib.world.rooms.scenes import concatenate, take

MAX_ROUNDS = 60  # about three suffice
Items = TypeVar("Items", bound=tuple)


def seeded(*key: object) -> torch.Generator:
    """Return a CPU generator whose seed is a hash of the key, so that near keys share nothing."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def fill_group(count: int, attempt: Callable[[int], tuple[Items, Tensor]], what: str) -> Items:
    """Call `attempt` until it has given `count` good items.

    Args:
        count: items to return.
        attempt: draws a number of items; returns them and which are good, [B] bool.
        what: the items in words, for the error.

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
