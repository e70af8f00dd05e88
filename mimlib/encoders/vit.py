"""The Vision Transformer: patches in, tokens out.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, in the form MAE uses: pre-norm blocks,
sine-cosine positions, one class token that is never masked.

Letters: B images, N patches, K computed patches, D width, A heads, L blocks, h and w the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.encoders.grid import GridConfig, GridEncoder
from mimlib.layers.attention import Sight
from mimlib.layers.blocks import NORM_EPS, Block, initialize
from mimlib.layers.masking import gather_tokens
from mimlib.layers.packing import pack, unpack
from mimlib.layers.patches import PatchEmbed, grid_of, patchify
from mimlib.layers.positions import look_up, resize_table, sincos_table
from mimlib.layers.rope import rotary_table
from mimlib.protocol import Features, PatchMask

# Width, depth, heads. Ti, S: DeiT, table 1. B, L, H: ViT, table 1.
VIT_SIZES = {
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "H": (1280, 32, 16),
}


@dataclass(frozen=True, kw_only=True)
class ViTConfig(GridConfig):
    """Shape of a Vision Transformer."""

    width: int  # D, channels of a token; a multiple of 4 and of heads
    depth: int  # L, blocks
    heads: int  # A, attention heads
    patch_size: int  # P, pixels
    image_size: int  # pixels, the side the position table is made for; others resize the table
    class_token: bool = True  # one extra learned token in front
    drop_path: float = 0.0  # stochastic depth of the last block, rising linearly from 0
    learned_positions: bool = False  # True: trained (fine-tuning); False: a fixed table
    position_nudge: float = 0.0  # cells, see `resize_table`; 0.1 in DINO and SelfPatch
    rotary: bool = False  # rotate queries and keys by their places (CroCo v2), in place of a table
    rotary_base: float = 100.0  # the larger, the more slowly the last channels rotate
    mlp_ratio: float = 4.0  # hidden width of the MLPs over the width
    norm_eps: float = NORM_EPS  # of every LayerNorm
    qkv_bias: bool = True  # queries, keys and values have biases

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} does not divide into {self.heads} heads; "
                "choose a width that is a multiple of heads"
            )
        if self.width % 4 and not self.learned_positions:
            raise ValueError(f"width {self.width} is not a multiple of 4; the positions need that")
        self.check_grid()
        if self.rotary and (self.learned_positions or self.head_width % 4):
            raise ValueError(
                f"rotary positions with learned_positions={self.learned_positions} and "
                f"{self.head_width} channels per head; switch learned positions off, and choose "
                "width and heads so that a head has a multiple of 4"
            )

    @property
    def head_width(self) -> int:
        """Channels of one attention head, d."""
        return self.width // self.heads

    def build(self) -> "ViT":
        """Make the encoder, freshly initialised."""
        return ViT(self)


def vit_config(size: str, patch_size: int, image_size: int, **changes) -> ViTConfig:
    """Return the configuration of a named size: Ti, S, B, L or H, else raise ValueError."""
    if size not in VIT_SIZES:
        raise ValueError(f"unknown ViT size {size!r}; choose one of {', '.join(VIT_SIZES)}")
    shape = dict(zip(("width", "depth", "heads"), VIT_SIZES[size]))
    return ViTConfig(**{**shape, "patch_size": patch_size, "image_size": image_size, **changes})


class ViT(GridEncoder):
    """A Vision Transformer that computes visible patches only; its levels are its blocks."""

    blocks_name = "blocks"

    def __init__(self, config: ViTConfig):
        super().__init__(config, config.depth, config.depth)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width)) if config.class_token else None
        if self.width % 4:
            table = torch.zeros(config.num_patches + config.class_token, self.width)
        else:
            table = sincos_table(config.grid, self.width, config.class_token)  # [N + 1, D]
        self.add_positions(None if config.rotary else table)
        self.patch_embed = PatchEmbed(config.patch_size, self.width)
        shape, last = (self.width, config.heads, config.mlp_ratio), max(1, config.depth - 1)
        self.blocks = nn.ModuleList(
            Block(*shape, config.drop_path * i / last, config.norm_eps, config.qkv_bias)
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(self.width, eps=config.norm_eps)
        self.apply(initialize)
        if config.class_token:
            nn.init.normal_(self.cls_token, std=0.02)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        mask: PatchMask | None = None,
        levels: tuple[int, ...] = (),
    ) -> Features:
        """Encode images, see `Encoder`; levels are maps [B, D, h, w], and windows need no mask."""
        self.check_levels(levels, mask)
        grid = grid_of(images, self.stride)
        tokens, sight = self.enter(patchify(images, self.stride), grid, mask)  # [B, 1 + K, D]
        sights = [sight._replace(window=each) for each in self.windows_of(grid, mask is None)]
        tokens, outputs = self._run_blocks(tokens, sights, levels)
        return self._features(grid, self.norm(tokens), *outputs)

    def encode(
        self,
        patches: Float[Tensor, "B N pixels"],
        grid: tuple[int, int],
        mask: PatchMask | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Encode images that are already patches; a class token is row 0 of the result."""
        tokens, sight = self.enter(patches, grid, mask)
        return self.norm(self._run_blocks(tokens, [sight] * self.num_layers)[0])

    def encode_together(
        self,
        patches: Sequence[Float[Tensor, "_ _ pixels"]],
        grids: Sequence[tuple[int, int]],
        masks: Sequence[PatchMask | None],
        levels: tuple[int, ...] = (),
    ) -> tuple[Features, ...]:
        """Encode images of several kinds in one pass (layers/packing.py), as `forward` does each.

        Patches, grids and masks are those of all images of the first kind, of the second, ...
        """
        row, shapes = pack([self.embed(*each) for each in zip(patches, grids, masks)])  # [1, R, D]
        rope = None
        if self.config.rotary:
            ropes = [self.rope(*each) for each in zip(grids, masks)]
            rope, _ = pack([each.expand(count, -1, -1) for each, (count, _) in zip(ropes, shapes)])
        sights = [Sight(rope, packed=shapes)] * self.num_layers
        last, outputs = self._run_blocks(row, sights, levels)
        kinds = zip(*(unpack(each, shapes) for each in (self.norm(last), *outputs)))
        return tuple(self._features(grid, *each) for grid, each in zip(grids, kinds))

    def encode_sizes(
        self, images: Sequence[Float[Tensor, "_ 3 _ _"]], levels: tuple[int, ...] = ()
    ) -> tuple[Features, ...]:
        """Encode images of several sizes, [B, 3, H, W] each, in one pass."""
        if self.windows or len(images) == 1:
            return super().encode_sizes(images, levels)
        grids = [grid_of(each, self.stride) for each in images]
        patches = [patchify(each, self.stride) for each in images]
        # Not by `self`: what training wraps as an entrance must not be entered from within.
        return ViT.encode_together(self, patches, grids, [None] * len(images), levels)

    def embed(
        self,
        patches: Float[Tensor, "B N pixels"],
        grid: tuple[int, int],
        mask: PatchMask | None = None,
    ) -> Float[Tensor, "B K D"]:
        """Turn the (visible) patches into tokens with positions, class token in front."""
        if mask is not None:
            patches = gather_tokens(patches, mask.visible)  # [B, V, P*P*3]
        tokens = self.patch_embed(patches)  # [B, K, D]
        if self.cls_token is not None:
            class_token = self.cls_token.expand(len(tokens), -1, -1)
            tokens = torch.cat([class_token, tokens], dim=1)  # [B, 1 + K, D]
        if self.config.rotary:
            return tokens.to(self.norm.weight.dtype)  # as the sum with a table would be
        nudge = self.config.position_nudge
        table = resize_table(self.pos_embed[0], self.config.grid, grid, nudge)  # [N + 1, D]
        rows = table if mask is None else look_up(table, mask.visible, self.config.class_token)
        return tokens + rows  # [B, 1 + K, D]

    def rope(
        self, grid: tuple[int, int], mask: PatchMask | None = None
    ) -> Float[Tensor, "_ K factors"] | None:
        """Return the rotary positions of (class token and visible) patches; None without such."""
        if not self.config.rotary:
            return None
        config, device = self.config, self.patch_embed.proj.weight.device
        table = rotary_table(grid, config.head_width, device, config.rotary_base)  # [N, factors]
        if config.class_token:  # it does not rotate, as the first place does not
            table = torch.cat([table[:1], table])  # [N + 1, factors]
        return table[None] if mask is None else look_up(table, mask.visible, config.class_token)

    def enter(
        self,
        patches: Float[Tensor, "B N pixels"],
        grid: tuple[int, int],
        mask: PatchMask | None = None,
    ) -> tuple[Float[Tensor, "B K D"], Sight]:
        """Return the embedded (visible) patches, and where they are."""
        return self.embed(patches, grid, mask), Sight(self.rope(grid, mask))

    def _run_blocks(
        self, tokens: Tensor, sights: Sequence[Sight], levels: tuple[int, ...] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks, each with a sight of its own."""
        outputs = []
        for block, sight in zip(self.blocks, sights):
            tokens = block(tokens, sight=sight)
            outputs += [tokens] if levels else []
        return tokens, [outputs[level] for level in levels]

    def _features(self, grid: tuple[int, int], normed: Tensor, *outputs: Tensor) -> Features:
        first = int(self.cls_token is not None)
        maps = (each[:, first:].transpose(1, 2).unflatten(2, grid) for each in outputs)
        return Features(normed[:, first:], normed[:, 0] if first else None, grid, tuple(maps))
