"""ConvMAE: a masked autoencoder whose encoder begins with convolutions.

Gao et al., "ConvMAE: Masked Convolution Meets Masked Autoencoders", NeurIPS 2022, arXiv 2205.03892
(renamed MCMAE).

    E1, E2, E3 = encoder(visible cells)                     section 3.2: masked convolutions, one
                                                            mask for all stages
    memory     = LN(E3 + conv4x4(E1) + conv2x2(E2))         section 3.2, "Multi-scale Decoder"
    prediction = decoder([memory ; mask tokens] + positions)
    loss       = mean over masked patches |prediction - target|^2

Decoder and loss are MAE's (methods/autoencoder.py), without a class token. As official: the norm
follows the sum, which the paper does not say.

Letters: B images, N patches (cells), V visible ones, D encoder width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.layers.cells import join_tiles, side_of
from mimlib.layers.masking import complementary_masks
from mimlib.layers.patches import grid_of, normalize
from mimlib.methods.autoencoder import Autoencoder, AutoencoderConfig, MAEViews
from mimlib.methods.objectives.masked import Grid, Patches
from mimlib.protocol import PatchMask


@dataclass(frozen=True, kw_only=True)
class ConvMAEConfig(AutoencoderConfig):
    """A masked autoencoder with a hybrid encoder. Defaults: the paper, section 4.1."""

    encoder: ConvViTConfig
    multi_scale: bool = True  # the decoder sees all stages, not the last alone (section 3.2)
    complementary: bool = False  # FastConvMAE: encode every patch, in groups that hide each other

    def __post_init__(self):
        super().__post_init__()
        if self.complementary and self.num_patches % self.num_visible:
            raise ValueError(
                f"complementary masks split {self.num_patches} patches into groups of "
                f"{self.num_visible} visible ones, which leaves some over; choose another "
                f"mask_ratio than {self.mask_ratio}"
            )

    def build(self) -> "ConvMAE":
        """Make the method, freshly initialised."""
        return ConvMAE(self)


class ConvMAE(Autoencoder):
    """Masked convolutions and attention for what is visible, MAE's decoder for what is not."""

    def __init__(self, config: ConvMAEConfig):
        super().__init__(config)
        if config.multi_scale:
            one, two, three = config.encoder.widths
            sides = [side_of(layout) for layout in config.encoder.layouts]
            # as official: the default initialisation of convolutions.
            self.stage1_output_decode = nn.Conv2d(one, three, sides[0], stride=sides[0])
            self.stage2_output_decode = nn.Conv2d(two, three, sides[1], stride=sides[1])

    def sample_views(self, batch: tuple, generator: torch.Generator) -> MAEViews:
        """Normalise `batch.images` and draw a mask each, or complementary masks (FastConvMAE).

        Complementary masks show every patch of an image in one of N / V groups. The groups are
        images of their own: first those of all images' first group, and so on.
        """
        if not self.config.complementary:
            return super().sample_views(batch, generator)
        h, w = grid_of(batch.images, self.patch_size)
        num_visible = self.config.count_visible(h * w)
        masks = complementary_masks(len(batch.images), h * w, num_visible, generator)
        groups = h * w // num_visible
        return MAEViews(normalize(batch.images).repeat(groups, 1, 1, 1), masks)

    def encode(self, patches: Patches, mask: PatchMask, grid: Grid) -> Float[Tensor, "B V D"]:
        """Encode the visible cells alone, and put what all stages know together."""
        stages = self.encoder.stages(patches, grid, mask)
        return self.encoder.norm(self.fuse(*stages) if self.config.multi_scale else stages[-1])

    def fuse(
        self,
        stage_1: Float[Tensor, "B _ C1"],
        stage_2: Float[Tensor, "B _ C2"],
        stage_3: Float[Tensor, "B V D"],
    ) -> Float[Tensor, "B V D"]:
        """Add what the first two stages know of each cell to its token."""
        one, two, _ = self.config.encoder.layouts
        fine = join_tiles(stage_1, self.stage1_output_decode, one)  # [B, V, D]
        return stage_3 + fine + join_tiles(stage_2, self.stage2_output_decode, two)
