"""The hybrid encoder of ConvMAE: two stages of masked convolutions, one of attention.

Gao et al., "ConvMAE: Masked Convolution Meets Masked Autoencoders", NeurIPS 2022, arXiv 2205.03892,
section 3.1.

The same function as the official code, reordered so that no work is thrown away: the official code
computes the first two stages everywhere and then picks the visible tokens. Here the visible cells
alone go through all stages (layers/cells.py), and only the depthwise convolution sees a map.

Letters: B images, N cells (tokens of the last stage), K computed cells, T positions in a cell, C
channels of a stage, D width of the last, A heads, h and w the grid of cells.
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.encoders.grid import GridConfig, GridEncoder
from mimlib.layers.attention import EVERYONE, Sight
from mimlib.layers.blocks import NORM_EPS, Block, initialize
from mimlib.layers.cells import Layout, as_map, find_places, nest_pixels, pick_cells
from mimlib.layers.conv_block import ConvBlock, Entry
from mimlib.layers.masking import gather_tokens
from mimlib.layers.patches import grid_of, patchify
from mimlib.layers.positions import look_up, resize_table, sincos_table
from mimlib.protocol import Features, PatchMask

# Widths, depths, heads, MLP ratios. Only B is in the official code; S and L are from the paper, and
# have its numbers of parameters.
CONVVIT_SIZES = {
    "S": ((128, 256, 384), (2, 2, 11), 6, (4, 4, 4)),
    "B": ((256, 384, 768), (2, 2, 11), 12, (4, 4, 4)),
    "L": ((384, 768, 1024), (2, 2, 23), 16, (8, 8, 4)),
}


@dataclass(frozen=True, kw_only=True)
class ConvViTConfig(GridConfig):
    """Shape of a hybrid encoder. Defaults: ConvMAE-B, section 4.1."""

    widths: tuple[int, int, int] = (256, 384, 768)  # channels of each stage; the last is D
    depths: tuple[int, int, int] = (2, 2, 11)  # blocks of each stage
    heads: int = 12  # A, attention heads of the last stage
    mlp_ratios: tuple[int | float, ...] = (4, 4, 4)  # hidden width of the MLPs over the width
    entries: tuple[int, int, int] = (4, 2, 2)  # kernel = stride of each stage's first convolution
    image_size: int = 224  # pixels, the side the position table is made for; others resize it
    norm_eps: float = NORM_EPS  # of the last stage's LayerNorms
    qkv_bias: bool = True  # queries, keys and values have biases
    kernel: int = 5  # positions along the side of the depthwise convolutions; odd
    drop_path: float = 0.0  # stochastic depth of the last block, rising linearly from 0
    learned_positions: bool = False  # False: fixed (pre-training); True: trained (fine-tuning)
    masked: bool = True  # False: convolutions see hidden positions, which leaks (an ablation)

    def __post_init__(self):
        for name in ("widths", "depths", "mlp_ratios", "entries"):
            values = getattr(self, name)
            if len(values) != 3 or min(values) < 1:
                raise ValueError(f"{name} is {values}; give one number of 1 or more per stage, 3")
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width {self.width} of the last stage must be a multiple of 4 and of heads "
                f"{self.heads}; choose another width"
            )
        self.check_grid()
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise ValueError(f"kernel is {self.kernel}; choose an odd number of positions")

    @property
    def width(self) -> int:
        """Channels of a token after the last stage, D."""
        return self.widths[-1]

    @property
    def patch_size(self) -> int:
        """Pixels along the side of a cell: the stride of the last stage."""
        return prod(self.entries)

    @property
    def layouts(self) -> tuple[Layout, Layout, Layout]:
        """How a cell is nested on the map of each stage."""
        _, second, third = self.entries
        return (third, second), (third, 1), (1, 1)

    def build(self) -> "ConvViT":
        """Make the encoder, freshly initialised."""
        return ConvViT(self)


def convvit_config(size: str, image_size: int, **changes) -> ConvViTConfig:
    """Return the configuration of a named size: S, B or L, else raise ValueError."""
    if size not in CONVVIT_SIZES:
        raise ValueError(f"unknown ConvViT size {size!r}; choose one of {', '.join(CONVVIT_SIZES)}")
    names = ("widths", "depths", "heads", "mlp_ratios")
    shape = dict(zip(names, CONVVIT_SIZES[size]))
    return ConvViTConfig(**{**shape, "image_size": image_size, **changes})


class ConvViT(GridEncoder):
    """Convolutions on fine maps, attention on a coarse one; computes visible cells only.

    Its levels are its three stages. As official, both stages of convolutions are layer 0.
    """

    blocks_name = "blocks3"

    def __init__(self, config: ConvViTConfig):
        super().__init__(config, config.depths[2], len(config.depths))
        one, two, three = config.widths
        self.add_positions(sincos_table(config.grid, self.width))
        self.patch_embed1, self.patch_embed2, self.patch_embed3 = map(
            Entry, (3, one, two), config.widths, config.entries
        )
        self.patch_embed4 = nn.Linear(three, three)
        last = max(1, sum(config.depths) - 1)
        rates = iter([config.drop_path * i / last for i in range(sum(config.depths))])
        ratios, kernel = [float(ratio) for ratio in config.mlp_ratios], config.kernel
        self.blocks1, self.blocks2 = (
            nn.ModuleList(
                ConvBlock(config.widths[i], kernel, ratios[i], next(rates))
                for _ in range(config.depths[i])
            )
            for i in (0, 1)
        )
        self.blocks3 = nn.ModuleList(
            Block(three, config.heads, ratios[2], next(rates), config.norm_eps, config.qkv_bias)
            for _ in range(config.depths[2])
        )
        self.norm = nn.LayerNorm(three, eps=config.norm_eps)
        for part in (self.patch_embed4, self.blocks3):
            part.apply(initialize)
        nn.init.xavier_uniform_(self.patch_embed3.proj.weight.data.flatten(1))  # as official

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        mask: PatchMask | None = None,
        levels: tuple[int, ...] = (),
    ) -> Features:
        """Encode images, see `Encoder`; levels are maps [B, C, h*s, w*s], s positions to a cell."""
        self.check_levels(levels, mask)
        grid = grid_of(images, self.stride)
        # Not by `self`: what training wraps as an entrance must not be entered from within.
        stages = ConvViT.stages(self, patchify(images, self.stride), grid, mask)
        maps = tuple(as_map(stages[i], grid, self.config.layouts[i]) for i in levels)
        return Features(self.norm(stages[-1]), None, grid, maps)

    def stages(
        self,
        patches: Float[Tensor, "B N pixels"],
        grid: tuple[int, int],
        mask: PatchMask | None = None,
    ) -> tuple[Float[Tensor, "B _ C1"], Float[Tensor, "B _ C2"], Float[Tensor, "B K D"]]:
        """Return what each stage makes of the (visible) cells of images that are patches already.

        Nested as in layers/cells.py; the last is as it is before the final norm.
        """
        *stages, tokens = self._convolve(patches, grid, mask)
        for block, window in zip(self.blocks3, self.windows_of(grid, mask is None)):
            tokens = block(tokens, sight=Sight(window=window))
        return *stages, tokens

    def enter(
        self, patches: Float[Tensor, "B N pixels"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N D"], Sight]:
        """Return the tokens with which the last stage begins."""
        return self._convolve(patches, grid)[-1], EVERYONE

    def _convolve(
        self, patches: Tensor, grid: tuple[int, int], mask: PatchMask | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return both stages of convolutions [B, K*T, C] and the tokens that attend [B, K, D]."""
        every = torch.arange(patches.shape[1], device=patches.device).expand(len(patches), -1)
        shown = every if mask is None else mask.visible  # [B, K]
        cells = shown if self.config.masked else every
        if cells is not every:
            patches = gather_tokens(patches, cells)
        layouts, stages = self.config.layouts, []
        tokens = nest_pixels(patches, layouts[0], self.config.entries[0])
        parts = (self.patch_embed1, self.blocks1), (self.patch_embed2, self.blocks2)
        for (entry, blocks), layout in zip(parts, layouts):
            tokens, places = entry(tokens), find_places(cells, grid, layout)
            for block in blocks:
                tokens = block(tokens, places)
            stages.append(tokens)
        if cells is not shown:
            stages = [pick_cells(each, shown, layout) for each, layout in zip(stages, layouts)]
        tokens = self.patch_embed4(self.patch_embed3(stages[1]))  # [B, K, D]
        table = resize_table(self.pos_embed[0], self.config.grid, grid)  # [N, D]
        return *stages, tokens + look_up(table, shown, class_token=False)
