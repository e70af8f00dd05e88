"""Rotary positions in two dimensions: queries and keys are rotated by the place of their patch.

Su et al., "RoFormer", 2021, section 3.2, for rows and columns as CroCo v2 does (section 3.2).

Letters: B images, A heads, K tokens, d width per head, h and w the patch grid, N = h*w patches;
"factors" is 2 d.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mimlib.layers.positions import check_quarters

BASE = 100.0  # as official (CroCo v2); sentences use 10000, a grid has no long distances


def rotary_table(
    grid: tuple[int, int], head_width: int, device: torch.device | None = None, base: float = BASE
) -> Float[Tensor, "N factors"]:
    """Return how each place of a grid rotates: factors of every channel, then of its partner.

    With f = d / 4 and w_k = base^(-k/f) the patch at row r and column c is rotated by the angles
    [r w, r w, c w, c w], one for each channel: rows first. The first d factors are the cosines, the
    others the sines, negative for the first of each pair; see `rotate`. Rows are in raster order,
    and read by index like those of any position table. ValueError if d is not a multiple of 4.
    """
    check_quarters("width per head", head_width)
    quarter = head_width // 4
    frequency = base ** (-torch.arange(quarter, device=device) / quarter)  # [d/4]
    places = torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid))  # [N, 2]
    row, column = (places.T[:, :, None] * frequency).unbind()  # [N, d/4] each
    cosines = [angle.cos() for angle in (row, row, column, column)]
    sines = [-row.sin(), row.sin(), -column.sin(), column.sin()]
    return torch.cat([*cosines, *sines], dim=1)  # [N, 2*d]


def rotate(
    heads: Float[Tensor, "B A K d"], rope: Float[Tensor, "_ K factors"]
) -> Float[Tensor, "B A K d"]:
    """Rotate queries or keys by the places of their tokens.

    CroCo v2, section 3.2: one half of a head's channels follows the row, the other the column. In
    each half of length n, channel i is paired with i + n/2 (not with its neighbour), and a pair
    (u, v) becomes (u cos - v sin, v cos + u sin). The product of a rotated query with a rotated key
    depends on how far their places lie apart, not on where they are. `rope` are rows of
    `rotary_table`, one set for all images (leading axis 1) or one for each.
    """
    own, other = rope[:, :, None].chunk(2, dim=-1)  # [_, K, 1, d] each
    # Computed as [B, K, A, d], which is how projections leave heads in memory, and attention too.
    exact = torch.promote_types(heads.dtype, rope.dtype)
    # A compiler differentiates the plain products as well, and takes no forward derivative of ours.
    function = _rotate if torch.compiler.is_compiling() else _Rotate.apply
    return function(heads.transpose(1, 2).to(exact), own, other).to(heads.dtype).transpose(1, 2)


def _rotate(channels: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Multiply every channel of [B, K, A, d] by its factor, and add its partner times another."""
    halves = channels.unflatten(-1, (2, -1))  # of the row, of the column
    partners = halves.roll(halves.shape[-1] // 2, dims=-1).flatten(-2)
    return torch.addcmul(channels * own, partners, other)


class _Rotate(torch.autograd.Function):
    """`_rotate` with derivatives: back by the opposite angle.

    With whole channels, several times as fast on a CPU as pair by pair; its derivative, put
    together from the derivatives of the parts, would take twice as long.
    """

    generate_vmap_rule = True
    forward = staticmethod(_rotate)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep the factors, which are constants."""
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Rotate the gradient back."""
        own, other = ctx.saved_tensors
        return _Rotate.apply(gradient, own, -other), None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_: Tensor | None) -> Tensor:
        """Rotate the tangent."""
        return _Rotate.apply(tangent, *ctx.saved_tensors)
