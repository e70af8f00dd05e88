"""Convolutions over the frames, rows and columns of a clip.

Two frameworks put different zeros around a map. With a kernel of k positions and a stride of s,
n positions become ceil(n / s), for which they must grow by

    max((ceil(n / s) - 1) s + k - n, 0)      "same" (TensorFlow), the smaller half in front
    2 (k // 2)                               "symmetric" (PyTorch)

The two agree for odd kernels of stride 1. At stride 2, they look at places one position apart where
n is even: weights learned with one are at home with that one alone.

Letters: B clips, C channels, T frames, H and W height and width of a map.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.collectives import SyncBatchNorm

Triple = tuple[int, int, int]  # along frames, rows and columns
Padding = Literal["same", "symmetric"]
STD_OF_CUT_NORMAL = 0.87962566103423978  # of a standard normal that is cut at two units


def paddings(size: int, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return how many positions are added in front of one axis and behind it."""
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad(
    maps: Float[Tensor, "B C T H W"],
    kernel: Triple,
    stride: Triple,
    padding: Padding,
    value: float = 0.0,
) -> Float[Tensor, "B C T2 H2 W2"]:
    """Surround maps with what a kernel needs at the borders."""
    axes = list(zip(maps.shape[2:], kernel, stride))
    amounts = [amount for axis in reversed(axes) for amount in paddings(*axis, padding)]
    return F.pad(maps, amounts, value=value) if any(amounts) else maps


class Conv3d(nn.Conv3d):
    """A convolution without bias, which the norm behind it would undo."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        around: Padding = "same",
    ):
        middle = tuple(side // 2 for side in kernel)
        super().__init__(channels, width, kernel, stride, padding=middle, bias=False)
        self.around = around
        # as official: Keras' VarianceScaling of the inputs, a normal cut at two units.
        inputs = self.weight[0].numel()
        std = inputs**-0.5 / STD_OF_CUT_NORMAL
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, maps: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D T2 H2 W2"]:
        """Convolve; ceil(n / s) positions are left of n."""
        if self.around == "symmetric" or max(self.stride) == 1:  # as the layer below pads
            return super().forward(maps)
        maps = pad(maps, self.kernel_size, self.stride, self.around)
        return F.conv3d(maps, self.weight, stride=self.stride)


class MaxPool3d(nn.Module):
    """The largest value around each position that is kept; what is beyond the border never is."""

    def __init__(self, kernel: Triple, stride: Triple, around: Padding = "same"):
        super().__init__()
        self.kernel, self.stride, self.around = kernel, stride, around

    def forward(self, maps: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T2 H2 W2"]:
        """Pool; ceil(n / s) positions are left of n."""
        maps = pad(maps, self.kernel, self.stride, self.around, float("-inf"))
        return F.max_pool3d(maps, self.kernel, self.stride)


class ClipNorm(SyncBatchNorm):
    """Batch normalization over the clips, frames and positions of all ranks.

    As official: epsilon 1e-5, and running statistics that move by a tenth of the way.
    """

    def forward(self, maps: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """Normalize each channel, see SyncBatchNorm."""
        return super().forward(maps.flatten(2, 3)).reshape(maps.shape)
