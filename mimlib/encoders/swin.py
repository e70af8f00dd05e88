"""The Swin Transformer: attention within shifted windows, on maps that shrink stage by stage.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
arXiv 2103.14030. The network is timm's; here it speaks the language of our encoders.

Letters: B images, D width of the last stage, D_s of stage s, h and w the grid of the last stage.
"""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mimlib.encoders.grid import GridConfig
from mimlib.layers.patches import grid_of
from mimlib.protocol import Encoder, Features, PatchMask


@dataclass(frozen=True, kw_only=True)
class SwinConfig(GridConfig):
    """Shape of a Swin Transformer. Defaults: Swin-T (table 7)."""

    first_width: int = 96  # channels of the first stage; each stage doubles them
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (3, 6, 12, 24)  # attention heads of each stage
    first_patch: int = 4  # pixels along a cell of the first stage; each stage doubles them
    window: int = 7  # cells along the side of a window
    image_size: int = 224  # pixels; others work, windows that do not fit are padded
    drop_path: float = 0.0  # stochastic depth of the last block, rising linearly from 0

    def __post_init__(self):
        if not self.depths or len(self.depths) != len(self.heads) or min(self.depths) < 1:
            raise ValueError(
                f"depths {self.depths} and heads {self.heads} must name each stage once, with one "
                "block or more"
            )
        for stage, heads in enumerate(self.heads):
            if self.first_width * 2**stage % heads:
                raise ValueError(
                    f"width {self.first_width * 2**stage} of stage {stage + 1} does not divide "
                    f"into {heads} heads; choose others"
                )
        self.check_grid()

    @property
    def patch_size(self) -> int:
        """Pixels along a cell of the last stage, the stride."""
        return self.first_patch * 2 ** (len(self.depths) - 1)

    @property
    def width(self) -> int:
        """Channels of the last stage, D."""
        return self.first_width * 2 ** (len(self.depths) - 1)

    def build(self) -> "Swin":
        """Make the encoder, freshly initialised."""
        return Swin(self)


class Swin(Encoder):
    """A Swin Transformer: its tokens are the cells of the last stage, its levels the stages."""

    def __init__(self, config: SwinConfig):
        super().__init__()
        self.config = config
        self.stride, self.width = config.patch_size, config.width
        self.num_layers, self.num_levels = sum(config.depths), len(config.depths)
        self.network = SwinTransformer(
            img_size=config.image_size,
            patch_size=config.first_patch,
            embed_dim=config.first_width,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
            drop_path_rate=config.drop_path,
            num_classes=0,
            global_pool="",
            strict_img_size=False,
        )

    @property
    def norm(self) -> nn.LayerNorm:
        """The norm after the last stage."""
        return self.network.norm

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        mask: PatchMask | None = None,
        levels: tuple[int, ...] = (),
    ) -> Features:
        """Encode images, see `Encoder`; raises ValueError if there is a mask."""
        if mask is not None:
            raise ValueError("Swin attends within windows of whole images; encode without a mask")
        self.check_levels(levels)
        grid = grid_of(images, self.stride)
        cells, maps = self.network.patch_embed(images), []
        for stage in self.network.layers:
            cells = stage(cells)
            maps.append(cells)  # [B, h_s, w_s, D_s]
        tokens = rearrange(self.norm(maps[-1]), "b h w d -> b (h w) d")
        chosen = tuple(rearrange(maps[level], "b h w d -> b d h w") for level in levels)
        return Features(tokens, None, grid, chosen)

    def layer_of(self, name: str) -> int:
        """Depth of the parameter `name`: 0 for embeddings, i + 1 for block i, L + 1 after them."""
        parts = name.removeprefix("network.").split(".")
        if parts[0] == "patch_embed":
            return 0
        if parts[0] != "layers":
            return self.num_layers + 1
        before = sum(self.config.depths[: int(parts[1])])
        return before + 1 + (int(parts[3]) if parts[2] == "blocks" else 0)
