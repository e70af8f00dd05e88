"""The decoder of CroCo: encoded patches of image 1, informed by those of image 2.

It is a part of its own because stereo and flow keep it (CroCo v2, section 4): there both images
are complete; in pre-training image 1 is visible tokens followed by mask tokens.

Letters: B pairs, N patches, M those that are wanted, D encoder width, E decoder width, d width per
head, L blocks, h and w the grid.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from mimlib.checks import check_choice, check_range
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.attention import Sight
from mimlib.layers.blocks import initialize
from mimlib.layers.cross import CatBlock, CrossBlock
from mimlib.layers.positions import fit_table, look_up, resize_table, sincos_table
from mimlib.layers.rope import rotary_table
from mimlib.protocol import Features

BLOCKS = {"cross": CrossBlock, "cat": CatBlock}


@dataclass(frozen=True, kw_only=True)
class PairDecoderConfig:
    """Shape of the decoder. Defaults: CroCo, section 4.

    Positions, MLPs, norms and biases are of the encoder's kind.
    """

    width: int = 512  # E, channels of a token
    depth: int = 8  # L, blocks
    heads: int = 16  # A, attention heads
    kind: Literal["cross", "cat"] = "cross"  # CrossBlock or CatBlock (table 1)
    norm_memory: bool = True  # each CrossBlock normalizes the memory before it looks there

    def __post_init__(self):
        check_choice(self, "kind", BLOCKS)
        check_range(self, "depth", least=1)
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"decoder width {self.width} must be a multiple of 4 and of heads {self.heads}; "
                "choose another width"
            )
        if self.kind == "cat" and not self.norm_memory:
            raise ValueError("a CatBlock has one norm for both images; leave norm_memory on")

    def build(self, encoder: ViTConfig) -> "PairDecoder":
        """Make the decoder of such an encoder, freshly initialised."""
        return PairDecoder(self, encoder)


class PairDecoder(nn.Module):
    """Blocks that look at a second image."""

    def __init__(self, config: PairDecoderConfig, encoder: ViTConfig):
        super().__init__()
        self.config = config
        self.grid, self.rotary, self.rotary_base = encoder.grid, encoder.rotary, encoder.rotary_base
        self.embed = nn.Linear(encoder.width, config.width)
        table = None if self.rotary else sincos_table(self.grid, config.width)[None]  # [1, N, E]
        self.register_buffer("pos_embed", table)
        options = {name: getattr(encoder, name) for name in ("mlp_ratio", "norm_eps", "qkv_bias")}
        if config.kind == "cross":
            options["norm_memory"] = config.norm_memory
        block = partial(BLOCKS[config.kind], config.width, config.heads, **options)
        self.blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=encoder.norm_eps)
        self.apply(initialize)

    def forward(
        self,
        tokens: Float[Tensor, "B N E"],
        memory: Float[Tensor, "B N E"],
        grid: tuple[int, int],
        order: Int[Tensor, "B N"] | None = None,
        num_outputs: int | None = None,
        levels: tuple[int, ...] = (),
    ) -> Features:
        """Run all blocks on the tokens of image 1; both images have been through `embed`.

        Args:
            tokens: of image 1.
            memory: tokens of image 2, row by row.
            grid: (h, w) of both images.
            order: the patch that each token of image 1 stands for; None: row by row.
            num_outputs: how many of the last tokens are wanted; None: all.
            levels: blocks whose outputs are returned as maps [B, E, h, w], as those of an
                encoder are; ValueError unless all tokens are wanted, row by row.
        """
        if levels and (order is not None or num_outputs is not None):
            raise ValueError("levels are maps of the whole grid; ask for them without order")
        tokens, memory, sight = self.add_positions(tokens, memory, grid, order)
        outputs = []
        for i, block in enumerate(self.blocks):
            is_last = i == self.config.depth - 1
            tokens, memory = block(tokens, memory, num_outputs if is_last else None, sight)
            if levels:
                outputs.append(tokens)
        maps = tuple(outputs[level].transpose(1, 2).unflatten(2, grid) for level in levels)
        return Features(self.norm(tokens), None, grid, maps)

    def add_positions(
        self,
        tokens: Float[Tensor, "B N E"],
        memory: Float[Tensor, "B N E"],
        grid: tuple[int, int],
        order: Int[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, "B N E"], Float[Tensor, "B N E"], Sight]:
        """Tell every token its position, the same way in both images; the sight is for rotary."""
        if self.rotary:
            head_width = self.config.width // self.config.heads
            table = rotary_table(grid, head_width, tokens.device, self.rotary_base)  # [N, factors]
        else:
            table = resize_table(self.pos_embed[0], self.grid, grid)  # [N, E]
        rows = table[None] if order is None else look_up(table, order, class_token=False)
        if self.rotary:
            return tokens, memory, Sight(rows, table[None])
        return tokens + rows, memory + table, Sight()

    def cross_attention_maps(
        self,
        tokens: Float[Tensor, "B N E"],
        memory: Float[Tensor, "B N E"],
        grid: tuple[int, int],
        order: Int[Tensor, "B N"] | None = None,
        block: int = -1,
    ) -> Float[Tensor, "B A N N"]:
        """Return where each token of image 1 (row) looks in image 2 (column), in one block."""
        tokens, memory, sight = self.add_positions(tokens, memory, grid, order)
        blocks = self.blocks[: block % self.config.depth + 1]
        for earlier in blocks[:-1]:
            tokens, memory = earlier(tokens, memory, sight=sight)
        return blocks[-1].cross_weigh(tokens, memory, sight)

    def fit_positions(self, table: Float[Tensor, "1 rows E"]) -> Float[Tensor, "1 new_rows E"]:
        """Resize the position table of a decoder for another (square) image size."""
        return fit_table(table, self.grid)
