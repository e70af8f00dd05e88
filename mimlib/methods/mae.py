"""MAE: hide most of an image, encode the rest, predict the hidden pixels.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377.

    memory     = encoder(visible patches)                                  section 3, "MAE encoder"
    prediction = decoder([memory ; mask tokens] + positions)               section 3, "MAE decoder"
    loss       = mean over masked patches |prediction - target|^2          section 3

Decoder and loss are those of every masked autoencoder, in methods/autoencoder.py. The same function
as the official code, but only visible patches are embedded, not all of them followed by a
selection.

Letters: B images, N patches, K the class token and the visible patches, D encoder width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import scatter_tokens
from mimlib.methods.autoencoder import Autoencoder, AutoencoderConfig, MAEViews
from mimlib.methods.objectives.masked import Grid, Patches
from mimlib.protocol import PatchMask

__all__ = ["MAE", "MAEConfig", "MAEViews"]


@dataclass(frozen=True, kw_only=True)
class MAEConfig(AutoencoderConfig):
    """A masked autoencoder with a Vision Transformer."""

    encoder: ViTConfig
    encode_masked: bool = False  # the encoder, not the decoder, takes mask tokens (table 1c)

    def build(self) -> "MAE":
        """Make the method, freshly initialised."""
        return MAE(self)


class MAE(Autoencoder):
    """A masked autoencoder: a ViT for what is visible, a light decoder for what is not."""

    def __init__(self, config: MAEConfig):
        super().__init__(config)
        if config.encode_masked:  # the pixels that the encoder embeds as its mask token
            self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, self.decoder_pred.out_features))

    def encode(self, patches: Patches, mask: PatchMask, grid: Grid) -> Float[Tensor, "B K D"]:
        """Encode the visible patches alone, or mask tokens after them; the class token is row 0."""
        if self.config.encode_masked:
            blank = self.mask_token.expand(*mask.masked.shape, -1)  # [B, M, P*P*3]
            patches = scatter_tokens(patches, mask.masked, blank)
            order = torch.cat(mask, dim=1)  # [B, N]
            mask = PatchMask(order, order[:, :0])
        return self.encoder.encode(patches, grid, mask)
