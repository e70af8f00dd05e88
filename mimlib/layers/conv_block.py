"""What ConvMAE's stages of convolutions are made of.

Letters: B images, K tokens (the visible positions of a map), C channels.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mimlib.layers.blocks import ResidualBlock
from mimlib.layers.cells import Places, join_tiles
from mimlib.layers.depthwise import DepthwiseConv
from mimlib.layers.recompute import recompute

CONV_NORM_EPS = 1e-5  # as official: of the stages with convolutions; the third has 1e-6
# Such blocks have 4 or 16 tokens where attention has one: it pays to compute their activations
# again in narrower networks. ConvMAE-S begins with this width.
RECOMPUTE_CONV_FROM_WIDTH = 128


class Entry(nn.Module):
    """The way into a stage: a convolution with kernel = stride, LayerNorm over channels, GELU."""

    def __init__(self, channels: int, width: int, side: int):
        super().__init__()
        # as official: the first two stages keep the convolution's default initialisation.
        self.proj = nn.Conv2d(channels, width, side, stride=side)
        self.norm = nn.LayerNorm(width, eps=CONV_NORM_EPS)
        self.recomputes = width >= RECOMPUTE_CONV_FROM_WIDTH

    def forward(self, tokens: Float[Tensor, "B positions C"]) -> Float[Tensor, "B tiles D"]:
        """Make one token of each side x side positions that follow each other."""
        tiles = join_tiles(tokens, self.proj, (1, self.proj.kernel_size[0]))

        def finish(tiles: Tensor) -> Tensor:
            return functional.gelu(self.norm(tiles))

        return recompute(finish, tiles) if self.recomputes else finish(tiles)


class ConvBlock(ResidualBlock):
    """x <- x + Conv2(Depthwise(m * Conv1(LN(x)))); x <- x + MLP(LN(x)).

    ConvMAE, section 3.1 and figure 2; conv1, conv2 and the MLP are 1 x 1 convolutions, so they are
    linear maps of tokens. Masked positions are not there: the mask m comes after conv1 and its
    bias, so that what they add to a depthwise sum is exactly nothing. There is no activation
    between the three, and sums with fewer terms are not scaled up.
    """

    def __init__(self, width: int, kernel: int, mlp_ratio: float = 4.0, drop_path: float = 0.0):
        super().__init__(
            width,
            DepthwiseConv(width, kernel),
            mlp_ratio,
            drop_path,
            CONV_NORM_EPS,
            RECOMPUTE_CONV_FROM_WIDTH,
        )
        self.conv1 = nn.Linear(width, width)
        self.conv2 = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B K C"], places: Places) -> Float[Tensor, "B K C"]:
        """Update tokens; `places` says where they lie on the map."""
        tokens, values = self._chain(self.norm1, self.conv1, tokens)  # [B, K, C] each
        mixed = self.conv2(self.attn(values, places))  # [B, K, C]
        return self.add_mlp(self.norm2, tokens, self.drop_path(mixed))
