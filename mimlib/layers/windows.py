"""Attention within windows of the grid, with a learned bias for every displacement: detection.

Li et al. 2021 (arXiv 2111.11429), section 2.2, and MIMDet (arXiv 2204.02964): most blocks attend
within windows, which are not shifted, a few everywhere. The bias of Swin (arXiv 2103.14030, section
3.2) starts at zero, so that a pre-trained encoder begins as it was.

Letters: B images, A heads, K tokens that see each other, d width of a head, D token width, h and w
the grid of an image, U windows of one.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

# Larger grids attend strip by strip of so many tokens, since all pairs of 64 x 64 cells are 17
# million biases a head, in each block that sees everything (layers/attention.py).
STRIP_TOKENS = 1024


class RelativeBias(nn.Module):
    """A number for every head and every displacement between two cells; zero at first."""

    def __init__(self, heads: int, side: int):
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.zeros(heads, 2 * side - 1, 2 * side - 1))

    def forward(
        self, grid: tuple[int, int], rows: tuple[int, int] | None = None
    ) -> Float[Tensor, "A _ K"]:
        """Lay the table out for all pairs of cells of a grid, which may be smaller than it is.

        The bias from cell (r, c) to (i, j) is table[r - i + side - 1, c - j + side - 1]. Sliding
        over the mirrored table has a much cheaper gradient than looking up every pair. With `rows`,
        first and end, only for pairs from cells in these rows of the grid. ValueError if the grid
        is larger than the table.
        """
        h, w = grid
        if max(grid) > self.side:
            raise ValueError(
                f"a grid of {h} x {w} cells is larger than the {self.side} x {self.side} that the "
                "relative bias is made for; set the encoder's image_size to that of the images"
            )
        first, end = rows or (0, h)
        columns = slice(self.side - w, self.side + w - 1)
        mirrored = self.table[:, self.side - h + first : self.side + end - 1, columns].flip(1, 2)
        pairs = mirrored.unfold(1, h, 1).unfold(2, w, 1).flip(1, 2)  # [A, rows, w, h, w]
        return rearrange(pairs, "a r c i j -> a (r c) (i j)")


class Window(NamedTuple):
    """Whom each token of a grid sees, and what is added to how much."""

    side: int  # cells; 0: the whole grid is one window
    grid: tuple[int, int]  # (h, w), multiples of the side
    bias: Tensor | RelativeBias  # [A, K, K], from row to column; or what lays out strips of it

    def partition(self, heads: Float[Tensor, "B A N d"]) -> Float[Tensor, "windows A K d"]:
        """Gather the tokens of each window."""
        if not self.side:
            return heads
        sizes = {"h": self.grid[0] // self.side, "p": self.side, "q": self.side}
        return rearrange(heads, "b a (h p w q) d -> (b h w) a (p q) d", **sizes)  # [B*U, A, K, d]

    def merge(self, tokens: Float[Tensor, "windows K D"]) -> Float[Tensor, "B N D"]:
        """Put the tokens of the windows back in the order of the grid."""
        if not self.side:
            return tokens
        sizes = {"h": self.grid[0] // self.side, "w": self.grid[1] // self.side, "p": self.side}
        return rearrange(tokens, "(b h w) (p q) d -> b (h p w q) d", **sizes)  # [B, N, D]


class Windows(nn.Module):
    """Says for every block of an encoder whom its tokens see.

    As official (MIMDet), all windowed blocks share one table, and all others another.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        heads: int,
        num_blocks: int,
        side: int,
        global_blocks: tuple[int, ...],
    ):
        """Make the tables, for windows of `side` cells and blocks that see the whole grid.

        ValueError if windows do not fill the grid or there is no such block.
        """
        super().__init__()
        self.side = side
        self.check(grid)
        if not set(global_blocks) < set(range(num_blocks)):
            raise ValueError(
                f"global_blocks {global_blocks} must be some of the blocks 0 ... {num_blocks - 1}, "
                "but not all"
            )
        self.is_global = tuple(i in global_blocks for i in range(num_blocks))
        self.window_bias = RelativeBias(heads, side)
        self.global_bias = RelativeBias(heads, max(grid)) if global_blocks else None

    def check(self, grid: tuple[int, int]) -> None:
        """Raise ValueError if the windows do not fill a grid."""
        if self.side < 1 or any(length % self.side for length in grid):
            raise ValueError(
                f"windows of {self.side} cells do not fill a grid of {grid[0]} x {grid[1]}; choose "
                "a divisor of both, or images whose grid they fill"
            )

    def forward(self, grid: tuple[int, int]) -> list[Window]:
        """Return the window of each block, for images of this grid; see `check`."""
        self.check(grid)
        some, bias = Window(self.side, grid, self.window_bias((self.side,) * 2)), self.global_bias
        if bias is not None and grid[0] * grid[1] <= STRIP_TOKENS:
            bias = bias(grid)
        return [Window(0, grid, bias) if is_global else some for is_global in self.is_global]
