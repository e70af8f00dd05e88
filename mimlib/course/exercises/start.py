"""Exercises of lesson 00: patches, counts, positions."""

from functools import partial

import torch
from einops import rearrange

from mimlib.course.exercises.exercise import Exercise
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import patchify
from mimlib.layers.positions import sincos_table
from mimlib.methods.mae import MAEConfig


def _image_cases():
    small = torch.arange(12.0).reshape(1, 3, 2, 2)
    wide, batch = torch.arange(72.0).reshape(1, 3, 4, 6), torch.arange(384.0).reshape(2, 3, 8, 8)
    return ((small, 1), (small, 2), (wide, 2), (batch, 4))


def _cut(images, patch_size, order):
    return rearrange(images, f"b c (h p) (w q) -> b {order}", p=patch_size, q=patch_size)


PATCHES = Exercise(
    name="start.1",
    answer=patchify,
    source=patchify,
    cases=_image_cases,
    wrong={
        partial(_cut, order="(h w) (c p q)"): "inside a patch the channel must vary fastest: (p q "
        "c), not (c p q). The convolution's weight has the other order, which is why this is easy "
        "to mix up",
        partial(_cut, order="(w h) (p q c)"): "patches are counted row by row, as one reads: (h "
        "w), not (w h)",
        partial(_cut, order="(h w) (q p c)"): "inside a patch the row comes before the column: (p "
        "q c), not (q p c); you see every patch mirrored at its diagonal",
        (lambda x, size: x.reshape(len(x), -1, size**2 * 3)): "a reshape keeps the memory order "
        "and cuts strips, not squares: the axes have to be split and moved first",
    },
    hints=(
        "split H into (h p) and W into (w q) with einops.rearrange, then say the order you want",
        'the right side of the pattern is "b (h w) (p q c)"',
    ),
)


def _count_visible(num_patches, mask_ratio):
    """How many patches MAE leaves visible."""
    encoder = ViTConfig(width=4, depth=1, heads=1, patch_size=1, image_size=32)
    return MAEConfig(encoder=encoder, mask_ratio=mask_ratio).count_visible(num_patches)


COUNTS = Exercise(
    name="start.3",
    answer=_count_visible,
    source=MAEConfig.count_visible,
    cases=lambda: ((64, 0.75), (196, 0.7), (196, 0.9), (64, 0.9), (196, 0.85), (100, 0.9)),
    wrong={
        (lambda count, ratio: round(count * (1 - ratio))): "rounding to the nearest agrees most of "
        "the time, but MAE cuts the fraction off the VISIBLE share: 196 * 0.1 = 19.6 leaves 19",
        (lambda count, ratio: count - int(count * ratio)): "you cut the fraction off the HIDDEN "
        "share, which rounds the visible one up. That is CroCo's rounding: 20 of 196 at 0.9, where "
        "MAE shows 19",
        (lambda count, ratio: int(count * (1 - ratio) + 1e-9)): "MAE's count is int(N * (1 - "
        "ratio)) to the last bit: 100 * (1 - 0.9) is 9.999999999999998 in floating point, so that "
        "9 are left. Tolerances, ceil and N - N * ratio leave 10",
        (lambda count, ratio: int(count * ratio)): "that is the number of HIDDEN patches",
    },
    hints=(
        "the ratio is the hidden share; what is left is num_patches * (1 - mask_ratio)",
        "int() cuts the fraction off",
    ),
)


def _positions(grid, width):
    """[sin(c w), cos(c w), sin(r w), cos(r w)], w_k = 10000^(-k / q), q = D / 4, per place."""
    return sincos_table(grid, width)


def _table(grid, width, sign=-1, rows_first=False, pairs=False):
    quarter = width // 4
    frequency = 10000.0 ** (sign * torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1, 1) * frequency for axis in (column, row)]  # [N, 1, D/4] each
    halves = [torch.cat([angle.sin(), angle.cos()], dim=1) for angle in angles]
    halves = halves[::-1] if rows_first else halves
    return torch.cat([(h.mT if pairs else h).flatten(1) for h in halves], dim=1).float()


POSITIONS = Exercise(
    name="start.2",
    answer=_positions,
    source=sincos_table,
    cases=lambda: (((1, 2), 4), ((2, 1), 4), ((2, 3), 8), ((4, 4), 64)),
    wrong={
        partial(_table, rows_first=True): "the first half encodes the COLUMN, the second half the "
        "row. The official helper's variable names suggest the opposite; loading its weights with "
        "your table would turn every image on its diagonal",
        partial(_table, pairs=True): "sine and cosine are blocks, q sines and then q cosines, not "
        "pairs next to each other as in the first Transformer",
        partial(_table, sign=1): "the exponent is negative: frequencies fall from 1 to 1/10000",
    },
    hints=(
        "make the angles of all rows and all columns first: outer products with the frequencies",
        "torch.meshgrid(..., indexing='ij') gives row and column of every place in raster order",
        "torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)",
    ),
)
