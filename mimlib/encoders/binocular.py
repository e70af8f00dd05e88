"""What a task asks of a network that looks at two images: CroCo's encoder with its decoder."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from mimlib.protocol import Encoder


class Binocular(nn.Module, ABC):
    """Two images in, tokens of the first one out, block after block."""

    encoder: Encoder  # of both images
    num_encoder_blocks: int
    level_widths: tuple[int, ...]  # D of each level

    @abstractmethod
    def levels(self, image_1: Tensor, image_2: Tensor) -> list[Tensor]:
        """Look at normalised images [B, 3, H, W], nothing masked.

        Returns:
            Tokens of image 1 after each block, [B, N, D_i] in raster order: those of the encoder,
            the last one after its final norm, then those of the decoder, the last one after its
            final norm.
        """


class BinocularConfig(Protocol):
    """A config of such a network."""

    def build(self) -> Binocular:
        """Make the network, freshly initialised."""
