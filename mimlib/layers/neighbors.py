"""Which patches lie around a patch, and which of them look most like it.

Yun et al., "Patch-level Representation Learning for Self-supervised Vision Transformers", CVPR
2022, arXiv 2206.07990, section 3.1: the k most similar of the patches in a window around the query
are its positives.

Letters: B images, N patches, h and w the grid, D token width; "near" counts the patches in the
window but the one in its middle.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

EVERYWHERE = 0  # a window that is the whole image


class Neighbors(NamedTuple):
    """Some patches for every patch."""

    index: Tensor  # [B, N, k] int64
    valid: Tensor  # [B, N, k] bool, False where a patch at the border has fewer


def neighbor_offsets(grid: tuple[int, int], window: int) -> list[tuple[int, int]]:
    """Return the steps (rows, columns) from a patch to the others in its window, row by row."""
    if window == EVERYWHERE:  # on a torus, each other patch is one of these steps away
        rows, columns = (range(side) for side in grid)
    else:
        rows = columns = range(-(window // 2), window // 2 + 1)
    return [(row, column) for row in rows for column in columns if (row, column) != (0, 0)]


def neighbor_table(
    grid: tuple[int, int], window: int, wrap: bool = True, device: torch.device | None = None
) -> tuple[Int[Tensor, "N near"], Bool[Tensor, "N near"]]:
    """List the patches in the window around each patch, and which of them count.

    As official, a window reaches over the border to the other side of the image. Without `wrap`
    there is nothing beyond the border, and a corner has 3 neighbors and not 8. See `check_window`.
    """
    check_window(grid, window, wrap)
    return _table(grid, window, wrap, device)


@lru_cache(maxsize=16)
def _table(
    grid: tuple[int, int], window: int, wrap: bool, device: torch.device | None
) -> tuple[Tensor, Tensor]:
    """Make the table once for each grid: it is asked for in every step, and lists travel slowly."""
    offsets = torch.tensor(neighbor_offsets(grid, window), device=device).reshape(-1, 2)
    sides = torch.tensor(grid, device=device)
    rows = torch.arange(grid[0] * grid[1], device=device)
    places = torch.stack([rows // grid[1], rows % grid[1]], dim=1)  # [N, 2]
    reached = places[:, None] + offsets  # [N, near, 2]
    inside = ((reached >= 0) & (reached < sides)).all(dim=-1)
    row, column = (reached % sides).unbind(dim=-1)
    return row * grid[1] + column, inside | (wrap or window == EVERYWHERE)


def check_window(grid: tuple[int, int], window: int, wrap: bool) -> None:
    """Raise ValueError if a window (its odd side in patches, or 0: the whole image) cannot be.

    One that wraps may not be wider than the grid, where it would meet itself.
    """
    if window != EVERYWHERE and (window < 3 or window % 2 == 0):
        raise ValueError(f"window is {window}; choose an odd side from 3, or 0 for the whole image")
    if wrap and window > min(grid):
        raise ValueError(
            f"a window of {window} patches that wraps around a grid of {grid[0]} x {grid[1]} meets "
            "itself; choose larger crops, a smaller window or wrap=False"
        )


def nearest_neighbors(
    tokens: Float[Tensor, "B N D"],
    grid: tuple[int, int],
    k: int,
    window: int = 3,
    wrap: bool = True,
) -> Neighbors:
    """Choose, for each patch, the k in its window whose tokens have the largest cosine to its own.

    Each step of the window is one product of the normalized map with a view of itself, shifted; in
    float32, since neighbors are much alike. For `window` and `wrap` see `neighbor_table`.
    """
    table, inside = neighbor_table(grid, window, wrap, tokens.device)  # [N, near]
    maps = rearrange(F.normalize(tokens.float(), dim=-1), "b (h w) d -> b h w d", h=grid[0])
    # Wrapped around once, so that every shifted map is a view.
    reach = window // 2
    rows, columns = (
        torch.arange(-reach, side + (reach or side), device=tokens.device) % side for side in grid
    )
    wrapped = maps.index_select(1, rows).index_select(2, columns)
    cosines = []
    for row, column in neighbor_offsets(grid, window):
        row, column = row + reach, column + reach
        shifted = wrapped[:, row : row + grid[0], column : column + grid[1]]  # [B, h, w, D]
        cosines.append((maps * shifted).sum(dim=-1).flatten(1))  # [B, N]
    cosines = torch.stack(cosines, dim=-1).masked_fill(~inside, -torch.inf)  # [B, N, near]
    best, place = cosines.topk(k, dim=-1)  # [B, N, k]
    index = table.expand(len(tokens), -1, -1).gather(2, place)
    return Neighbors(index, best > -torch.inf)
