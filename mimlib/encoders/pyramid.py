"""Four maps of different scales from one encoder, for detection and segmentation.

With s the stride of the encoder in pixels, the maps have strides s/4, s/2, s and 2 s: 4, 8, 16 and
32 for patches of 16, as the stages of a convolutional network have them.

Letters: B images, D encoder width, C channels of a map, h and w the grid of the encoder.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.protocol import Encoder

NUM_MAPS = 4
NORM_EPS = 1e-6


def build_encoder(config: EncoderConfig) -> Encoder:
    """Build an encoder of which maps are read: its final norm comes after them and stays fixed."""
    encoder = config.build()
    encoder.norm.requires_grad_(False)
    return encoder


def quarters(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of an encoder: 2, 5, 8 and 11 of 12.

    Raises:
        ValueError: if there are fewer than four blocks.
    """
    if depth < NUM_MAPS:
        raise ValueError(
            f"{depth} blocks have no quarters; use an encoder of {NUM_MAPS} blocks or more, or "
            "read the last block alone"
        )
    return tuple((i + 1) * depth // NUM_MAPS - 1 for i in range(NUM_MAPS))


class Pyramid(nn.Module):
    """Bring the levels of an encoder to four scales.

    ConvMAE (section 3.3) has three of them in its stages, and pools the last for the fourth. A
    plain ViT has one. Transposed convolutions double it, max-pooling halves it, and each map is
    made either from the last block (ViTDet, arXiv 2203.16527, section 3, "simple feature pyramid",
    whose finer maps are narrower) or from a block of its own, the earliest for the finest (Li et
    al. 2021, arXiv 2111.11429, section 2.1, which MAE uses for COCO).
    """

    def __init__(self, config: EncoderConfig, blocks: tuple[int, ...] = (-1,)) -> None:
        """Build the layers for an encoder of this config.

        Of a ViT, `blocks` are read: one, or four in ascending order (see `quarters`). The last one
        must be the encoder's last: those after it would not learn.

        Raises:
            ValueError: on other numbers of blocks, or an encoder without maps at these scales, as
                Swin is.
        """
        super().__init__()
        if isinstance(config, ConvViTConfig):
            self.levels, self.widths = _stages(config), (*config.widths, config.width)
            scales = [nn.Identity() for _ in range(3)]
        elif isinstance(config, ViTConfig):
            self.levels, width = _blocks(config, blocks), config.width
            half, quarter = (width // 2, width // 4) if len(blocks) == 1 else (width, width)
            self.widths = (quarter, half, width, width)
            norm = LayerNorm2d(half, eps=NORM_EPS)
            finest = nn.Sequential(_double(width, half), norm, nn.GELU(), _double(half, quarter))
            scales = [finest, _double(width, half), nn.Identity()]
        else:
            raise ValueError(
                f"a {type(config).__name__} makes no pyramid: its own stride is that of its "
                "coarsest map; use the blocks of a ViT or the stages of a ConvViT"
            )
        self.scales = nn.ModuleList([*scales, nn.MaxPool2d(kernel_size=2)])

    def forward(
        self, encoder: Encoder, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode normalized images and return the maps, finest first.

        They are [B, C_i, h_i, w_i] with h_i = 4 h, 2 h, h, h / 2 (rounded down), C_i = widths[i].
        """
        maps = encoder(images, levels=self.levels).levels
        finest, fine, middle, coarse = (scale(m) for scale, m in zip(self.scales, maps))
        return finest, fine, middle, coarse


def _stages(config: ConvViTConfig) -> tuple[int, int, int, int]:
    if config.entries[1:] != (2, 2):
        raise ValueError(
            f"entries {config.entries} make no pyramid; expected each stage after the first to "
            "halve the map, as (4, 2, 2) does"
        )
    return 0, 1, 2, 2


def _blocks(config: ViTConfig, blocks: tuple[int, ...]) -> tuple[int, ...]:
    depth = config.depth
    levels = tuple(block % depth for block in blocks) * (NUM_MAPS if len(blocks) == 1 else 1)
    if len(levels) != NUM_MAPS or levels[-1] != depth - 1:
        raise ValueError(
            f"a pyramid reads the last block or four blocks up to the last, of {depth}; "
            f"got {blocks}"
        )
    if config.patch_size % 4:
        raise ValueError(
            f"patch_size {config.patch_size} is not a multiple of 4, so that there is no map "
            "of a quarter of its stride; use patches of 8 or 16 pixels"
        )
    return levels


def _double(width: int, new_width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, new_width, kernel_size=2, stride=2)
