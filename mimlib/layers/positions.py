"""Position tables: fixed sine-cosine codes of the patch grid, resized and looked up.

Letters: h and w the patch grid, N = h*w, D token width, B images, K any list of patches.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def sincos_table(
    grid: tuple[int, int], width: int, class_token: bool = False
) -> Float[Tensor, "rows D"]:
    """Encode each place of a grid by sines and cosines.

    MoCo v3 and MAE (appendix A.1). With q = D / 4 and w_k = 10000^(-k/q) the patch at row r and
    column c gets [sin(c w), cos(c w), sin(r w), cos(r w)]: columns first, q channels each. Rows are
    in raster order, after one of zeros if there is a class token.

    Raises:
        ValueError: if the width D is not a multiple of 4.
    """
    check_quarters("width", width)
    h, w = grid
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)  # [D/4]
    row = torch.arange(h, dtype=torch.float64)[:, None] * frequency  # [h, D/4]
    column = torch.arange(w, dtype=torch.float64)[:, None] * frequency  # [w, D/4]
    parts = [column.sin()[None], column.cos()[None], row.sin()[:, None], row.cos()[:, None]]
    table = torch.cat([part.expand(h, w, quarter) for part in parts], dim=-1)  # [h, w, D]
    table = rearrange(table, "h w d -> (h w) d").float()
    return F.pad(table, (0, 0, 1, 0)) if class_token else table


def check_quarters(name: str, width: int) -> None:
    """Raise ValueError if a width does not divide into the four parts of a position."""
    if width % 4:
        below = width // 4 * 4
        raise ValueError(
            f"{name} {width} is not a multiple of 4, which positions in two dimensions need; use "
            f"{below or 4} or {below + 4}"
        )


def resize_table(
    table: Float[Tensor, "rows D"],
    grid: tuple[int, int],
    new_grid: tuple[int, int],
    nudge: float = 0.0,
) -> Float[Tensor, "new_rows D"]:
    """Resize a position table to another grid by bicubic interpolation.

    DeiT and MAE do this when they fine-tune at another resolution. A row in front of the N rows of
    the grid belongs to a class token and is kept. As official, DINO and SelfPatch sample as if the
    new grid were 0.1 cells longer (`nudge`), which was meant against rounding and moves every
    sample a little. ValueError if the table has neither N nor N + 1 rows.
    """
    num_patches = grid[0] * grid[1]
    num_extra = table.shape[0] - num_patches
    if num_extra not in (0, 1):
        raise ValueError(
            f"a table of {table.shape[0]} rows does not belong to a grid of {grid[0]}x{grid[1]}; "
            f"expected {num_patches} rows, or {num_patches + 1} with a class token"
        )
    if grid == new_grid:
        return table
    extra, places = table[:num_extra], table[num_extra:]
    image = rearrange(places, "(h w) d -> 1 d h w", h=grid[0])
    scales = [(new + nudge) / old for new, old in zip(new_grid, grid)]
    wanted = {"scale_factor": scales} if nudge else {"size": new_grid}
    image = F.interpolate(image, **wanted, mode="bicubic", align_corners=False)
    return torch.cat([extra, rearrange(image, "1 d h w -> (h w) d")])


def fit_table(
    table: Float[Tensor, "1 rows D"],
    new_grid: tuple[int, int],
    class_token: bool = False,
    nudge: float = 0.0,
) -> Float[Tensor, "1 new_rows D"]:
    """Resize a table made for some square grid; one that is not square is returned as it is."""
    num_patches = table.shape[1] - int(class_token)
    side = round(num_patches**0.5)
    if side * side != num_patches:
        return table
    return resize_table(table[0], (side, side), new_grid, nudge)[None]


def look_up(
    table: Float[Tensor, "rows D"], index: Int[Tensor, "B K"], class_token: bool
) -> Float[Tensor, "B rows_of_index D"]:
    """Read the rows of patches `index`, after the class token's row if there is one."""
    rows = F.pad(index + 1, (1, 0)) if class_token else index
    return F.embedding(rows, table)
