"""Images of several lengths in one row of tokens, so that one product sees all of them.

Then most weights are made narrow (bfloat16) once, and get their gradient from one product, with
nothing to add up. With few images, that is what a second product costs.

Letters: B images of one length, K tokens of each, R tokens of the row.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]  # (B, K) of each part: how many images, how many tokens each


def pack(parts: Sequence[Shaped[Tensor, "_ _ D"]]) -> tuple[Shaped[Tensor, "1 R D"], Shapes]:
    """Lay tokens [B, K, D] of several lengths one after the other."""
    shapes = tuple((part.shape[0], part.shape[1]) for part in parts)
    return torch.cat([part.flatten(0, 1) for part in parts])[None], shapes


def unpack(row: Shaped[Tensor, "1 R *D"], shapes: Shapes) -> list[Shaped[Tensor, "_ _ *D"]]:
    """Return the tokens of each length, [B, K, ...]: views of the row."""
    parts = row[0].split([images * tokens for images, tokens in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes)]
