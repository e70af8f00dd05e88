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
from jaxtyping import Float, Int
from torch import Tensor, nn

from mimlib.layers.attention import Sight
from mimlib.layers.blocks import NORM_EPS, Block, initialize
from mimlib.layers.cells import Layout, as_map, find_places, nest_pixels, pick_cells
from mimlib.layers.conv_block import ConvBlock, Entry
from mimlib.layers.masking import gather_tokens
from mimlib.layers.patches import grid_of, patchify
from mimlib.layers.positions import fit_table, look_up, resize_table, sincos_table
from mimlib.layers.windows import Windows
from mimlib.protocol import Encoder, Features, PatchMask

# Widths, depths, heads, MLP ratios. Only B is in the official code; S and L are from the paper, and
# have its numbers of parameters.
CONVVIT_SIZES = {
    "S": ((128, 256, 384), (2, 2, 11), 6, (4, 4, 4)),
    "B": ((256, 384, 768), (2, 2, 11), 12, (4, 4, 4)),
    "L": ((384, 768, 1024), (2, 2, 23), 16, (8, 8, 4)),
}


@dataclass(frozen=True, kw_only=True)
class ConvViTConfig:
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
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the stride {self.patch_size}, "
                f"the product of entries {self.entries}; choose one that is"
            )
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise ValueError(f"kernel is {self.kernel}; choose an odd number of positions")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path is {self.drop_path}; choose a rate in [0, 1)")

    @property
    def width(self) -> int:
        """Channels of a token after the last stage, D."""
        return self.widths[-1]

    @property
    def patch_size(self) -> int:
        """Pixels along the side of a cell: the stride of the last stage."""
        return prod(self.entries)

    @property
    def class_token(self) -> bool:
        """Whether there is a class token: never."""
        return False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells at the configured image size."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def num_patches(self) -> int:
        """N at the configured image size."""
        return self.grid[0] * self.grid[1]

    @property
    def layouts(self) -> tuple[Layout, Layout, Layout]:
        """How a cell is nested on the map of each stage."""
        _, second, third = self.entries
        return (third, second), (third, 1), (1, 1)

    def build(self) -> "ConvViT":
        """Make the encoder, freshly initialised."""
        return ConvViT(self)


def convvit_config(size: str, image_size: int, **changes) -> ConvViTConfig:
    """Return the configuration of a named size: S, B or L.

    Raises:
        ValueError: if the size is unknown.
    """
    if size not in CONVVIT_SIZES:
        raise ValueError(f"unknown ConvViT size {size!r}; choose one of {', '.join(CONVVIT_SIZES)}")
    names = ("widths", "depths", "heads", "mlp_ratios")
    shape = dict(zip(names, CONVVIT_SIZES[size]))
    return ConvViTConfig(**{**shape, "image_size": image_size, **changes})


class ConvViT(Encoder):
    """Convolutions on fine maps, attention on a coarse one; computes visible cells only."""

    def __init__(self, config: ConvViTConfig):
        super().__init__()
        self.config = config
        self.windows: Windows | None = None  # see `attend_in_windows`
        self.stride, self.width, self.num_layers = config.patch_size, config.width, config.depths[2]
        one, two, three = config.widths
        table = sincos_table(config.grid, self.width)[None]  # [1, N, D]
        if config.learned_positions:
            self.pos_embed = nn.Parameter(table)
        else:
            self.register_buffer("pos_embed", table)
        self.patch_embed1 = Entry(3, one, config.entries[0])
        self.patch_embed2 = Entry(one, two, config.entries[1])
        self.patch_embed3 = Entry(two, three, config.entries[2])
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
        """Encode normalised images; under a mask only the visible cells are computed.

        Args:
            images: ImageNet-normalised, sides multiples of the stride.
            mask: which cells to compute; None for all.
            levels: stages 1, 2, 3 (or -1) whose outputs, before the final norm, are returned as
                maps [B, C, h*s, w*s], s positions along the side of a cell. Only without a mask.

        Raises:
            ValueError: if levels or windows are asked for under a mask, or there is no such stage.
        """
        if mask is not None and (levels or self.windows):
            raise ValueError("levels and windows need the whole grid; encode without a mask")
        if not set(levels) <= {1, 2, 3, -1}:
            raise ValueError(f"levels are the stages 1, 2 and 3 (or -1); got {levels}")
        grid = grid_of(images, self.stride)
        # Not by `self`: what training wraps as an entrance must not be entered from within.
        stages = ConvViT.stages(self, patchify(images, self.stride), grid, mask)
        which = [level - 1 if level > 0 else level for level in levels]
        maps = tuple(as_map(stages[i], grid, self.config.layouts[i]) for i in which)
        return Features(self.norm(stages[-1]), None, grid, maps)

    def stages(
        self,
        patches: Float[Tensor, "B N pixels"],
        grid: tuple[int, int],
        mask: PatchMask | None = None,
    ) -> tuple[Float[Tensor, "B _ C1"], Float[Tensor, "B _ C2"], Float[Tensor, "B K D"]]:
        """Return what each stage makes of the (visible) cells of images that are patches already.

        Returns:
            [B, K*T, C] of each stage, nested as in layers/cells.py; the last before the final norm.
        """
        every = torch.arange(patches.shape[1], device=patches.device).expand(len(patches), -1)
        shown = every if mask is None else mask.visible  # [B, K]
        seen = shown if self.config.masked else every
        if seen is not every:
            patches = gather_tokens(patches, seen)
        stages = self._convolve(patches, seen, grid)
        if seen is not shown:
            pairs = zip(stages, self.config.layouts)
            stages = tuple(pick_cells(tokens, shown, layout) for tokens, layout in pairs)
        tokens = self.locate(stages[-1], shown, grid)  # [B, K, D]
        windows = self.windows(grid) if self.windows else [None] * self.num_layers
        for block, window in zip(self.blocks3, windows):
            tokens = block(tokens, sight=Sight(window=window))
        return *stages, tokens

    def locate(
        self,
        tokens: Float[Tensor, "B positions C2"],
        cells: Int[Tensor, "B K"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "B K D"]:
        """Enter the last stage: one token for each cell, which knows its position."""
        tokens = self.patch_embed4(self.patch_embed3(tokens))  # [B, K, D]
        table = resize_table(self.pos_embed[0], self.config.grid, grid)  # [N, D]
        return tokens + look_up(table, cells, class_token=False)

    def attention_maps(
        self, images: Float[Tensor, "B 3 H W"], block: int = -1
    ) -> Float[Tensor, "B A N N"]:
        """Return the attention weights of one block of the last stage.

        Raises:
            ValueError: if the blocks attend in windows.
        """
        if self.windows:
            raise ValueError("the blocks attend in windows; ask before `attend_in_windows`")
        grid = grid_of(images, self.stride)
        patches = patchify(images, self.stride)
        cells = torch.arange(patches.shape[1], device=patches.device).expand(len(patches), -1)
        tokens = self.locate(self._convolve(patches, cells, grid)[-1], cells, grid)
        blocks = self.blocks3[: block % self.num_layers + 1]
        for earlier in blocks[:-1]:
            tokens = earlier(tokens)
        return blocks[-1].attn.weights(blocks[-1].norm1(tokens))

    def attend_in_windows(self, side: int, global_blocks: tuple[int, ...]) -> None:
        """Let all but some blocks of the last stage attend within windows, with a relative bias.

        Args:
            side: of a window, in cells.
            global_blocks: of the last stage, that see the whole grid, from 0.

        Raises:
            ValueError: if the windows do not fit.
        """
        config = self.config
        self.windows = Windows(config.grid, config.heads, self.num_layers, side, global_blocks)

    def fit_positions(self, table: Float[Tensor, "1 rows D"]) -> Float[Tensor, "1 new_rows D"]:
        """Resize the position table of another (square) image size to this one's grid."""
        return fit_table(table, self.config.grid)

    def layer_of(self, name: str) -> int:
        """Depth of the parameter `name`; as official, both stages of convolutions are layer 0."""
        part, _, rest = name.partition(".")
        if part == "blocks3":
            return int(rest.partition(".")[0]) + 1
        return self.num_layers + 1 if part in ("norm", "windows") else 0

    def _convolve(
        self, patches: Tensor, cells: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Run the two stages of convolutions on these cells: [B, K*T, C] of each."""
        layouts = self.config.layouts
        tokens = nest_pixels(patches, layouts[0], self.config.entries[0])
        outputs = []
        for enter, blocks, layout in zip(
            (self.patch_embed1, self.patch_embed2), (self.blocks1, self.blocks2), layouts
        ):
            tokens, places = enter(tokens), find_places(cells, grid, layout)
            for block in blocks:
                tokens = block(tokens, places)
            outputs.append(tokens)
        return outputs[0], outputs[1]
