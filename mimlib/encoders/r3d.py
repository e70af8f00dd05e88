"""R3D: a residual network on clips, whose kernels see frames and positions in turn.

Yuan et al., "Contextualized Spatio-Temporal Contrastive Learning with Self-Supervision" (ConST-CL),
CVPR 2022, arXiv 2112.05181, use the R3D-50 of Qian et al. (CVRL), CVPR 2021, arXiv 2008.03800: a
ResNet-50 whose later stages look at three frames.

Letters: B clips, T frames, C channels, D width of the last stage, D_s of stage s, h and w the grid
of the last stage, t its frames.
"""

from dataclasses import dataclass
from math import prod

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_choice, check_positive
from mimlib.layers.convolution3d import ClipNorm, Conv3d, MaxPool3d, Padding
from mimlib.protocol import Encoder, Features, PatchMask


@dataclass(frozen=True, kw_only=True)
class R3DConfig:
    """Shape of an R3D. Defaults: R3D-50 as ConST-CL's published settings have it.

    # differs from official: the defaults in its code are another network, which its settings undo.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels inside the blocks of each stage
    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of each stage
    kernels: tuple[int, ...] = (1, 1, 3, 3)  # frames that the blocks of each stage look at; odd
    strides: tuple[int, ...] = (1, 2, 2, 2)  # of each stage, in rows and columns; never in frames
    expansion: int = 4  # channels that a block gives over those inside it
    stem_width: int = 64  # channels of the first convolution
    stem_kernel: tuple[int, int] = (5, 7)  # its frames, and its rows and columns; odd
    stem_stride: tuple[int, int] = (2, 2)  # the same
    pool: bool = True  # halve rows and columns once more before the first stage
    padding: Padding = "same"  # as official; "symmetric" is PyTorch's, see layers/convolution3d.py

    def __post_init__(self):
        stages = {name: getattr(self, name) for name in ("widths", "depths", "kernels", "strides")}
        if len({len(values) for values in stages.values()}) > 1 or not self.widths:
            told = ", ".join(f"{name} {values}" for name, values in stages.items())
            raise ValueError(f"{told} must name each stage once; give them one length")
        check_positive(self, *stages, "expansion", "stem_width", "stem_kernel", "stem_stride")
        if even := [side for side in (*self.kernels, *self.stem_kernel) if side % 2 == 0]:
            raise ValueError(
                f"kernels {self.kernels} or stem_kernel {self.stem_kernel} hold {even[0]}, which "
                "has no middle; choose odd numbers"
            )
        check_choice(self, "padding", ("same", "symmetric"))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Channels that each stage gives, D_s."""
        return tuple(width * self.expansion for width in self.widths)

    @property
    def width(self) -> int:
        """Channels of the last stage, D."""
        return self.outputs[-1]

    @property
    def patch_size(self) -> int:
        """Pixels along a cell of the last stage, the stride."""
        return self.stem_stride[1] * (2 if self.pool else 1) * prod(self.strides)

    def build(self) -> "R3D":
        """Make the encoder, freshly initialised."""
        return R3D(self)

    def build_stage(self, stage: int) -> nn.Sequential:
        """Make the blocks of one stage, counted from 0, or -1 for the last."""
        stage %= len(self.widths)
        inputs = (self.stem_width, *self.outputs)[stage]
        blocks = []
        for i in range(self.depths[stage]):
            stride = self.strides[stage] if i == 0 else 1
            block = Bottleneck(
                inputs, self.widths[stage], self.outputs[stage], self.kernels[stage], stride,
                self.padding,
            )  # fmt: skip
            blocks.append(block)
            inputs = self.outputs[stage]
        return nn.Sequential(*blocks)


class Bottleneck(nn.Module):
    """A block that looks over frames, then over positions, in few channels.

        x <- ReLU(shortcut(x) + BN(Expand(ReLU(BN(Spatial(ReLU(BN(Temporal(x)))))))))

    with kernels of k x 1 x 1, 1 x 3 x 3 (which carries the stride) and 1 x 1 x 1. The shortcut is a
    convolution of 1 x 1 x 1 with a norm where the channels or the grid change, else nothing.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, kernel: int, stride: int, padding: Padding
    ):
        super().__init__()
        across = (1, stride, stride)
        self.temporal_conv = Conv3d(inputs, width, (kernel, 1, 1), around=padding)
        self.norm1 = ClipNorm(width)
        self.spatial_conv = Conv3d(width, width, (1, 3, 3), across, padding)
        self.norm2 = ClipNorm(width)
        self.expand_conv = Conv3d(width, outputs, (1, 1, 1), around=padding)
        self.norm3 = ClipNorm(outputs)
        self.shortcut_conv = self.norm0 = nn.Identity()
        if inputs != outputs or stride > 1:
            self.shortcut_conv = Conv3d(inputs, outputs, (1, 1, 1), across, padding)
            self.norm0 = ClipNorm(outputs)

    def forward(self, maps: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D T h w"]:
        """Look at frames and positions around each one."""
        hidden = self.norm1(self.temporal_conv(maps)).relu()  # [B, width, T, H, W]
        hidden = self.norm2(self.spatial_conv(hidden)).relu()  # [B, width, T, h, w]
        return (self.norm0(self.shortcut_conv(maps)) + self.norm3(self.expand_conv(hidden))).relu()


class R3D(Encoder):
    """A residual network on clips: its levels are its stages, maps [B, D_s, t, h_s, w_s].

    Its tokens are the positions of the last stage, frame by frame and row by row; their mean stands
    for the clip.
    """

    def __init__(self, config: R3DConfig):
        super().__init__()
        self.config = config
        self.stride, self.width = config.patch_size, config.width
        self.num_layers, self.num_levels = sum(config.depths), len(config.depths)
        (frames, side), (slower, across) = config.stem_kernel, config.stem_stride
        self.stem_conv = Conv3d(
            3, config.stem_width, (frames, side, side), (slower, across, across), config.padding
        )
        self.stem_norm = ClipNorm(config.stem_width)
        self.pool = MaxPool3d((1, 3, 3), (1, 2, 2), config.padding) if config.pool else None
        self.stages = nn.Sequential(*map(config.build_stage, range(self.num_levels)))

    def forward(
        self,
        clips: Float[Tensor, "B 3 T H W"],
        mask: PatchMask | None = None,
        levels: tuple[int, ...] = (),
    ) -> Features:
        """Encode clips of any length and size, see `Encoder`; ValueError if there is a mask.

        Args:
            clips: pixels from -1 to 1 (as official; not ImageNet-normalized).
            mask: None.
            levels: the stages whose maps are returned.

        Returns:
            Tokens [B, t*h*w, D]; the grid is that of one of their frames.
        """
        if mask is not None:
            raise ValueError("R3D convolves whole clips; encode without a mask")
        self.check_levels(levels)
        maps = self.stem_norm(self.stem_conv(clips)).relu()
        if self.pool is not None:
            maps = self.pool(maps)
        found = []
        for stage in self.stages:
            maps = stage(maps)  # [B, D_s, t, h_s, w_s]
            found.append(maps)
        tokens = rearrange(maps, "b d t h w -> b (t h w) d").contiguous()  # FSDP2 warns of views
        return Features(tokens, None, tuple(maps.shape[-2:]), tuple(found[i] for i in levels))

    def layer_of(self, name: str) -> int:
        """Depth of the parameter `name`: 0 for the stem, i + 1 for block i."""
        part, _, rest = name.partition(".")
        if part != "stages":
            return 0
        stage, block = map(int, rest.split(".")[:2])
        return sum(self.config.depths[:stage]) + block + 1
