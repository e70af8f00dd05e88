"""The DPT head: maps of tokens from four blocks in, some numbers per pixel out.

Ranftl et al. 2021 (arXiv 2103.13413), section 3.2, in the form that CroCo uses for stereo and flow.

Letters: B images, h and w the grid of tokens, D_i width of hooked block i, C numbers per pixel.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

NUM_HOOKS = 4


def default_hooks(encoder_depth: int, decoder_depth: int = 0) -> tuple[int, ...]:
    """Choose the four blocks to read from, of the encoder's blocks followed by the decoder's.

    The last block and three before it, evenly spaced: a third of the decoder's depth apart (3, 4
    and 8 blocks for depths 8, 12 and 24), or a quarter of the encoder's where there is no decoder.

    # as official: with 8 decoder blocks the first hook is the encoder's second-to-last block.
    Raises ValueError if there are fewer than four blocks.
    """
    last = encoder_depth + decoder_depth - 1
    step = math.ceil(decoder_depth / 3) if decoder_depth else encoder_depth // NUM_HOOKS
    hooks = tuple(last - i * step for i in reversed(range(NUM_HOOKS)))
    if step < 1 or hooks[0] < 0:
        raise ValueError(
            f"{encoder_depth} encoder and {decoder_depth} decoder blocks are too few for a DPT "
            f"head, which reads from four of them, {max(step, 1)} apart; use a deeper encoder"
        )
    return hooks


class DPTHead(nn.Module):
    """Bring the maps to four scales, fuse them from coarse to fine, predict.

    Patches of 16 pixels end at the pixels exactly; with others the finest map, 8 cells a patch, is
    interpolated to them.
    """

    def __init__(
        self,
        token_widths: Sequence[int],  # of the four hooked blocks
        num_outputs: int,  # C
        scale_widths: Sequence[int] = (96, 192, 384, 768),  # of the maps before they are projected
        width: int = 256,  # of the fused maps
        last_width: int = 32,  # before the last layer
    ) -> None:
        """Build the head; the defaults are CroCo's, finest map first."""
        super().__init__()
        if len(token_widths) != NUM_HOOKS or len(scale_widths) != NUM_HOOKS:
            raise ValueError(
                f"a DPT head fuses {NUM_HOOKS} maps; got {len(token_widths)} token widths and "
                f"{len(scale_widths)} scale widths"
            )
        resize = (
            lambda d: nn.ConvTranspose2d(d, d, kernel_size=4, stride=4),
            lambda d: nn.ConvTranspose2d(d, d, kernel_size=2, stride=2),
            lambda d: nn.Identity(),
            lambda d: nn.Conv2d(d, d, kernel_size=3, stride=2, padding=1),
        )
        self.reassemble = nn.ModuleList(
            nn.Sequential(nn.Conv2d(tokens, scale, kernel_size=1), make(scale))
            for tokens, scale, make in zip(token_widths, scale_widths, resize)
        )
        self.project = nn.ModuleList(
            nn.Conv2d(scale, width, kernel_size=3, padding=1, bias=False) for scale in scale_widths
        )
        # differs from official: the coarsest map has nothing to be added to it, so the residual
        # unit for that, which the official code makes and never uses, is not made.
        self.fuse = nn.ModuleList(Fusion(width, adds=i < NUM_HOOKS - 1) for i in range(NUM_HOOKS))
        self.predict = nn.ModuleList([
            nn.Conv2d(width, width // 2, kernel_size=3, padding=1),
            nn.Conv2d(width // 2, last_width, kernel_size=3, padding=1),
            nn.Conv2d(last_width, num_outputs, kernel_size=1),
        ])  # fmt: skip

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
        """Predict for every pixel of an image of this size by the hooked maps [B, D_i, h, w]."""
        fused = self.fused_maps(self.scale_maps(maps))[0]  # [B, width, 8h, 8w]
        narrow, convolve, predict = self.predict
        hidden = interpolate(narrow(fused), size=size, mode="bilinear", align_corners=True)
        return predict(relu(convolve(hidden)))  # from [B, width / 2, H, W]

    def scale_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Make maps of 4, 2, 1 and 1/2 cells a patch, each of the width of the fused ones."""
        return [p(r(m)) for m, r, p in zip(maps, self.reassemble, self.project)]

    def fused_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Add each map to what comes from the coarser ones, doubled each time; finest first."""
        *finer, coarsest = zip(maps, self.fuse)
        fused = [coarsest[1](coarsest[0], None)]
        for added, fuse in reversed(finer):
            above = fused[0][..., : added.shape[-2], : added.shape[-1]]  # of odd sides, rounded up
            fused.insert(0, fuse(above, added))
        return fused


class Fusion(nn.Module):
    """Add a finer map to a coarser one, refine, double (RefineNet, arXiv 1611.06612)."""

    def __init__(self, width: int, adds: bool) -> None:
        super().__init__()
        self.unit_1 = ResidualUnit(width) if adds else None
        self.unit_2 = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, hidden: Tensor, added: Tensor | None) -> Tensor:
        """Return a map of twice the side."""
        if added is not None:
            hidden = hidden + self.unit_1(added)
        hidden = self.unit_2(hidden)
        return self.out(interpolate(hidden, scale_factor=2, mode="bilinear", align_corners=True))


class ResidualUnit(nn.Module):
    """Two convolutions, with a ReLU before each, beside a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return hidden + self.conv2(relu(self.conv1(relu(hidden))))
