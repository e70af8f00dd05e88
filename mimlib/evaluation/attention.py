"""Where each patch of an image looks, and how much that differs from patch to patch.

SelfPatch (arXiv 2206.07990) shows that under an image-level loss all patches look at the same
places. Here it is a number.

Letters: B images, N patches, A heads, K tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mimlib.checks import check_positive
from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.evaluation.measurement import Measurement, evaluating
from mimlib.layers.patches import grid_of, normalize
from mimlib.protocol import Encoder, Trainable


def patch_attention(encoder: Encoder, images: Tensor, block: int = -1) -> Tensor:
    """Return the attention of one block among the patches, [B, N, N], on the CPU.

    Of images [B, 3, H, W] uint8, the mean over heads; -1 is the last block. A class token's row
    and column are left out, so that rows sum to at most 1.
    Raises ValueError if the encoder has no attention over the whole image.
    """
    if not hasattr(encoder, "attention_maps"):
        raise ValueError(
            f"{type(encoder).__name__} has no `attention_maps`: its patches do not see the whole "
            "image, so that there is no map to show; take a ViT or a ConvViT"
        )
    device = next(encoder.parameters()).device
    h, w = grid_of(images, encoder.stride)
    with evaluating(encoder):
        maps = [
            encoder.attention_maps(normalize(image[None]).to(device), block) for image in images
        ]
    extra = maps[0].shape[-1] - h * w  # 1 with a class token
    return torch.cat([m.float().mean(dim=1)[:, extra:, extra:].cpu() for m in maps])


def attention_diversity(attention: Tensor) -> Tensor:
    """Return how little two patches of an image look at the same, 0 (all alike) to 1 (disjoint).

    With p_i [N] the attention of patch i, a row of [B, N, N], N >= 2, summing to 1, the overlap of
    two patches is sum_j min(p_ij, p_kj); the diversity [B] is 1 minus its mean over all pairs.
    """
    count = attention.shape[1]
    shares = attention / attention.sum(dim=2, keepdim=True)
    # In ascending order the r-th number is the smaller one of a pair N - 1 - r times: no N^3.
    times = torch.arange(count - 1, -1, -1, device=attention.device, dtype=shares.dtype)
    overlap = (shares.sort(dim=1).values * times[:, None]).sum((1, 2))  # [B]
    return 1 - overlap / (count * (count - 1) / 2)


@dataclass(frozen=True, kw_only=True)
class AttentionDiversityConfig:
    """How different the attention of an image's patches is, on held-out images."""

    source: WorldImagesConfig | ImageFolderConfig
    num_images: int = 64
    block: int = -1  # whose attention; -1: the last
    name: str = "attention"

    def __post_init__(self) -> None:
        check_positive(self, "num_images")

    def build(self) -> "AttentionDiversity":
        """Make the measurement with its images."""
        return AttentionDiversity(self.source.build(), self)


class AttentionDiversity(Measurement):
    """Measure the attention of an encoder, averaged over images."""

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return `diversity`, 0 if all patches look at the same, 1 if no two of them do."""
        attention = patch_attention(model.encoder, self.images.images, self.config.block)
        return {"diversity": float(attention_diversity(attention).mean())}
