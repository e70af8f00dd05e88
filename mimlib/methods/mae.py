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

from jaxtyping import Float
from torch import Tensor

from mimlib.encoders.vit import ViTConfig
from mimlib.methods.autoencoder import Autoencoder, AutoencoderConfig, MAEViews
from mimlib.methods.objectives.masked import Grid, Patches
from mimlib.protocol import PatchMask

__all__ = ["MAE", "MAEConfig", "MAEViews"]


@dataclass(frozen=True, kw_only=True)
class MAEConfig(AutoencoderConfig):
    """A masked autoencoder with a Vision Transformer."""

    encoder: ViTConfig

    def build(self) -> "MAE":
        """Make the method, freshly initialised."""
        return MAE(self)


class MAE(Autoencoder):
    """A masked autoencoder: a ViT for what is visible, a light decoder for what is not."""

    def encode(self, patches: Patches, mask: PatchMask, grid: Grid) -> Float[Tensor, "B K D"]:
        """Encode the visible patches alone; the class token is row 0."""
        return self.encoder.encode(patches, grid, mask)
