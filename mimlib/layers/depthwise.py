"""Depthwise convolution of maps of which only some places are there.

Two functions do the work, `_convolve` and `_correlate`, in plain torch on every device. On a GPU a
kernel that reads neighbors through an index would need neither maps of zeros nor one product for
each tap; it would take their places.

Letters: B images, K tokens, C channels, H and W the map, k the side of the kernel.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.cells import Places


class DepthwiseConv(nn.Conv2d):
    """A k x k convolution of each channel alone, stride 1; places without a token count as zero.

    ConvMAE, section 3.2, "Masked Convolution". That is the convolution of a whole map multiplied
    by the mask, read where the mask is 1, with nothing kept of the hidden places.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, tokens: Float[Tensor, "B K C"], places: Places) -> Float[Tensor, "B K C"]:
        """Convolve; `places` says where the tokens lie, and all others are zero."""
        weight, bias = self.weight.to(tokens.dtype), self.bias.to(tokens.dtype)
        mixed = _Convolve.apply(tokens, weight, places.rows, places.size)
        return mixed + bias


class _Convolve(torch.autograd.Function):
    """The convolution without bias, and a backward pass that keeps and reads tokens only."""

    @staticmethod
    def forward(ctx, tokens, weight, rows, size):
        """Convolve, and keep the tokens, not the maps."""
        ctx.save_for_backward(tokens, weight, rows)
        ctx.size = size
        return _convolve(tokens, weight, rows, size)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of tokens and weight."""
        tokens, weight, rows = ctx.saved_tensors
        to_tokens = _convolve(gradient, weight.flip(2, 3), rows, ctx.size)
        to_weight = _correlate(tokens, gradient, weight.shape[-1], rows, ctx.size)
        return to_tokens, to_weight, None, None


def _convolve(tokens: Tensor, weight: Tensor, rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Put the tokens on maps of zeros, convolve those, and read them where the tokens were."""
    batch, _, channels = tokens.shape
    maps = tokens.new_zeros(batch * size[0] * size[1], channels)
    maps.index_copy_(0, rows, tokens.flatten(0, 1))
    maps = maps.view(batch, *size, channels).permute(0, 3, 1, 2)  # [B, C, H, W], channels last
    maps = F.conv2d(maps, weight, padding=weight.shape[-1] // 2, groups=channels)
    return maps.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, rows).view(tokens.shape)


def _correlate(
    tokens: Tensor, gradient: Tensor, kernel: int, rows: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the gradient of the weight: for each tap, what it read times what it went into.

    Written out because that of torch takes ten times as long on a CPU, and reads hidden places.
    """
    gradient = gradient.flatten(0, 1)  # [B*K, C]
    flat = F.pad(tokens.flatten(0, 1), (0, 0, 0, 1))  # the last row is the zero of hidden places
    taps = [
        (flat.index_select(0, read) * gradient).sum(dim=0)
        for read in _tokens_read(rows, len(tokens), size, kernel)
    ]
    return torch.stack(taps, dim=1).unflatten(1, (1, kernel, kernel))


def _tokens_read(rows: Tensor, batch: int, size: tuple[int, int], kernel: int) -> Tensor:
    """Return which token each tap reads for each token; their number where there is none."""
    reach = kernel // 2
    height, width = (side + 2 * reach for side in size)  # with a border that no token is on
    line, column = rows // size[1], rows % size[1]
    image, line = line // size[0], line % size[0]
    center = (image * height + line + reach) * width + column + reach  # [B*K]
    count = torch.arange(len(rows), device=rows.device)
    token_at = torch.full((batch * height * width,), len(rows), device=rows.device)
    token_at = token_at.index_copy(0, center, count)
    steps = torch.arange(-reach, reach + 1, device=rows.device)
    offsets = (steps[:, None] * width + steps).flatten()  # [k*k]
    return token_at[center + offsets[:, None]]
