"""Masked autoencoders: what MAE and ConvMAE have in common, which is all but how they encode.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377.

    prediction = decoder([memory ; mask tokens] + positions)               section 3, "MAE decoder"
    loss       = mean over masked patches |prediction - target|^2          section 3

The same function as the official code, reordered so that no work is thrown away:
    - the decoder sees [class, visible, masked]; attention does not care about the order, so
      nothing is shuffled back;
    - the last decoder block, the prediction and the loss are computed for masked patches only.

Letters: B images, N patches, V visible, M masked, D encoder width, E decoder width, P patch side.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_positive
from mimlib.layers.blocks import Block, initialize
from mimlib.layers.masking import random_mask
from mimlib.layers.patches import grid_of, normalize, patchify
from mimlib.layers.positions import look_up, resize_table, sincos_table
from mimlib.methods.objectives.masked import Grid, Hidden, MaskedConfig, MaskedMethod, Patches
from mimlib.protocol import Output, PatchMask


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(MaskedConfig):
    """A masked autoencoder. Defaults: MAE, section 4.1 and appendix A.1."""

    decoder_width: int = 512  # E, for every encoder size (table 1b)
    decoder_depth: int = 8  # decoder blocks (table 1a)
    decoder_heads: int = 16  # as official
    decoder_mlp_ratio: float = 4.0  # as official
    mask_ratio: float = 0.75  # part of the patches that is hidden (figure 5)
    predict_visible: bool = False  # visible patches count in the loss, too

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "decoder_depth", hint="the decoder has a block at least")
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            raise ValueError(
                f"decoder_width {self.decoder_width} must be a multiple of 4 and of "
                f"decoder_heads {self.decoder_heads}; choose another width"
            )

    def count_masked(self, num_patches: int) -> int:
        """Count the patches that are not visible."""
        return num_patches - self.count_visible(num_patches)

    def count_visible(self, num_patches: int) -> int:
        """Turn the ratio into a count as the paper's code does: floor(N * (1 - ratio)).

        The product is a float, so 0.9 of 196 leaves 19 and 0.8 leaves 39.
        """
        return int(num_patches * (1 - self.mask_ratio))


class MAEViews(NamedTuple):
    """What a masked autoencoder sees of a batch."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    mask: PatchMask


class Autoencoder(MaskedMethod):
    """An encoder for what is visible, a light decoder for what is not."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.patch_size = config.encoder.patch_size
        width = config.decoder_width
        self.encoder = config.encoder.build()
        self.decoder_embed = nn.Linear(self.encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        table = sincos_table(config.encoder.grid, width, config.encoder.class_token)
        self.register_buffer("decoder_pos_embed", table[None])  # [1, N + 1, E]
        self.decoder_blocks = nn.ModuleList(
            Block(
                width, config.decoder_heads, config.decoder_mlp_ratio,
                norm_eps=config.encoder.norm_eps, qkv_bias=config.encoder.qkv_bias,
            )
            for _ in range(config.decoder_depth)
        )  # fmt: skip
        self.decoder_norm = nn.LayerNorm(width, eps=config.encoder.norm_eps)
        self.decoder_pred = nn.Linear(width, self.patch_size**2 * 3)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def sample_views(self, batch: tuple, generator: torch.Generator) -> MAEViews:
        """Normalise `batch.images` (uint8, of any batch that has them) and draw one mask each."""
        h, w = grid_of(batch.images, self.patch_size)
        num_masked = self.config.count_masked(h * w)
        mask = random_mask(len(batch.images), h * w, num_masked, generator)
        return MAEViews(normalize(batch.images), mask)

    def forward(self, views: MAEViews) -> Output:
        """Predict the masked patches [B, M, P*P*3], or all [B, N, P*P*3], visible ones first."""
        grid, mask = grid_of(views.images, self.patch_size), views.mask
        patches = patchify(views.images, self.patch_size)  # [B, N, P*P*3]
        memory = self.encode(patches, mask, grid)  # [B, 1 + V, D]
        if self.config.predict_visible:
            order = torch.cat(mask, dim=1)  # [B, N]
            mask = PatchMask(order[:, :0], order)
        prediction = self.decode(memory, mask, grid)  # [B, M, P*P*3]
        return self.score(prediction, patches, mask, "reconstruction")

    @abstractmethod
    def encode(self, patches: Patches, mask: PatchMask, grid: Grid) -> Float[Tensor, "B K D"]:
        """Encode the visible patches alone; a class token is row 0."""

    def decode(self, memory: Float[Tensor, "B K D"], mask: PatchMask, grid: Grid) -> Hidden:
        """Predict the pixels of the masked patches from the encoded visible ones."""
        num_masked = mask.masked.shape[1]
        tokens = self.fill_in(memory, mask, grid)  # [B, 1 + V + M, E]
        for block in self.decoder_blocks[:-1]:
            tokens = block(tokens)
        tokens = self.decoder_blocks[-1](tokens, num_outputs=num_masked)  # [B, M, E]
        return self.decoder_pred(self.decoder_norm(tokens))  # [B, M, P*P*3]

    def fill_in(
        self, memory: Float[Tensor, "B K D"], mask: PatchMask, grid: Grid
    ) -> Float[Tensor, "B full E"]:
        """Append a mask token for each patch not encoded and tell every token its position."""
        table = resize_table(self.decoder_pos_embed[0], self.config.encoder.grid, grid)
        order = torch.cat([mask.visible, mask.masked], dim=1)  # [B, N]
        tokens, class_token = self.decoder_embed(memory), self.config.encoder.class_token
        if num_missing := order.shape[1] + class_token - tokens.shape[1]:
            mask_tokens = self.mask_token.expand(len(tokens), num_missing, -1)  # [B, M, E]
            tokens = torch.cat([tokens, mask_tokens], dim=1)  # [B, 1 + N, E]
        return tokens + look_up(table, order, class_token)
