"""Cells: squares of pixels that are visible or hidden as a whole, on the maps of several stages.

ConvMAE, section 3.2, "Block-wise Masking": the mask is drawn for the tokens of the last stage and
up-sampled to the earlier ones, so a cell of stride x stride pixels has one fate in all stages. On
the map of a stage a cell is a square of positions. Wherever windows do not overlap nothing leaves
its cell, and the visible cells can be computed alone.

Tokens [B, K*T, C] come cell by cell, and inside a cell in nested order: the squares that become
one position of the next stage follow each other, so that entering a stage is a reshape. A layout
(a, b) says how a cell is nested: a x a squares of b x b positions, T = a*a*b*b.

Letters: B images, K cells, T positions in a cell, C and D channels, h and w the grid of cells, H
and W the map of a stage.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from mimlib.layers.masking import gather_tokens

Layout = tuple[int, int]


class Places(NamedTuple):
    """Where the tokens of a batch lie on the map of their stage."""

    rows: Tensor  # [B*K*T] int64, of the flattened maps [B*H*W, C]
    size: tuple[int, int]  # H, W


def side_of(layout: Layout) -> int:
    """Return how many positions lie along the side of a cell."""
    return layout[0] * layout[1]


def nest_pixels(
    patches: Shaped[Tensor, "B K pixels"], layout: Layout, side: int
) -> Shaped[Tensor, "B positions 3"]:
    """Put the pixels of patches, one for each cell, in nested order.

    The layout is that of a cell on the map of the first stage, `side` the pixels along a position.
    """
    sizes = dict(zip("abcdpq", (*layout, *layout, side, side)))
    return rearrange(patches, "n k (a b p c d q rgb) -> n (k a c b d p q) rgb", **sizes, rgb=3)


def join_tiles(
    tokens: Float[Tensor, "B positions C"], conv: nn.Conv2d, layout: Layout
) -> Float[Tensor, "B tiles D"]:
    """Apply a convolution of kernel = stride = a * b to nested tokens, as one matrix product."""
    sizes = dict(zip("abcd", (*layout, *layout)))
    # In two steps, of which each copies long runs: three times faster on a CPU than in one.
    weight = rearrange(conv.weight, "o i p q -> o (p q i)")
    weight = rearrange(weight, "o (a b c d i) -> o (a c b d i)", **sizes)
    tiles = rearrange(tokens, "n (k t) i -> n k (t i)", t=side_of(layout) ** 2)
    return F.linear(tiles, weight, conv.bias)


def as_map(
    tokens: Shaped[Tensor, "B positions C"], grid: tuple[int, int], layout: Layout
) -> Shaped[Tensor, "B C H W"]:
    """Lay the tokens of all cells out as the map of their stage."""
    sizes = dict(zip("hwabcd", (*grid, *layout, *layout)))
    return rearrange(tokens, "n (h w a c b d) ch -> n ch (h a b) (w c d)", **sizes)


def as_tokens(maps: Shaped[Tensor, "B C H W"], layout: Layout) -> Shaped[Tensor, "B positions C"]:
    """Nest the positions of maps: the inverse of `as_map`."""
    sizes = dict(zip("abcd", (*layout, *layout)))
    return rearrange(maps, "n ch (h a b) (w c d) -> n (h w a c b d) ch", **sizes)


def pick_cells(
    tokens: Shaped[Tensor, "B positions C"], cells: Int[Tensor, "B K"], layout: Layout
) -> Shaped[Tensor, "B picked C"]:
    """Keep the tokens of some cells, of tokens of all cells."""
    num_positions = side_of(layout) ** 2
    tiles = rearrange(tokens, "n (k t) c -> n k (t c)", t=num_positions)
    return rearrange(gather_tokens(tiles, cells), "n k (t c) -> n (k t) c", t=num_positions)


def find_places(cells: Int[Tensor, "B K"], grid: tuple[int, int], layout: Layout) -> Places:
    """Find the positions of these cells on the maps of a stage."""
    height, width = (side * side_of(layout) for side in grid)
    raster = torch.arange(height * width, device=cells.device).view(1, 1, height, width)
    table = rearrange(as_tokens(raster, layout), "1 (n t) 1 -> n t", n=grid[0] * grid[1])
    first = torch.arange(len(cells), device=cells.device) * (height * width)  # [B]
    rows = table[cells] + first[:, None, None]  # [B, K, T]
    return Places(rows.flatten(), (height, width))
