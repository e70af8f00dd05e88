"""Heads: from what an encoder says about patches to classes and to pixels."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mimlib.protocol import Features


def patch_map(features: Features) -> Float[Tensor, "B D h w"]:
    """Lay the patch tokens out as a map."""
    h, _ = features.grid
    return rearrange(features.tokens, "b (h w) d -> b d h w", h=h)


class UpsamplingHead(nn.Module):
    """A small convolutional decoder: a map of patch tokens in, C numbers per pixel out.

    Starting from the patch grid, the map is doubled (bilinear) and convolved, with half the
    channels each time, until a cell is two pixels or less; the prediction made there is
    interpolated to the pixels. The work of all stages is about equal.
    """

    def __init__(
        self,
        width: int,  # of the incoming map, D
        stride: int,  # pixels per cell of that map
        channels: int,  # at the first, coarsest stage
        num_outputs: int = 1,  # numbers per pixel, C
        start: float = 0.0,  # what an untrained head predicts on average
    ) -> None:
        super().__init__()
        num_doublings = max(0, math.ceil(math.log2(stride)) - 1)
        widths = [max(8, channels >> i) for i in range(num_doublings + 1)]
        self.project = nn.Conv2d(width, widths[0], kernel_size=3, padding=1)
        self.stages = nn.ModuleList(
            nn.Conv2d(coarse, fine, kernel_size=3, padding=1)
            for coarse, fine in zip(widths[:-1], widths[1:])
        )
        self.predict = nn.Conv2d(widths[-1], num_outputs, kernel_size=3, padding=1)
        nn.init.constant_(self.predict.bias, start)

    def forward(
        self, feature_map: Float[Tensor, "B D h w"], size: tuple[int, int]
    ) -> Float[Tensor, "B C H W"]:
        """Predict the numbers of each pixel of an image of `size` (H, W)."""
        hidden = functional.gelu(self.project(feature_map))  # [B, channels, h, w]
        for stage in self.stages:
            hidden = functional.interpolate(hidden, scale_factor=2.0, mode="bilinear")
            hidden = functional.gelu(stage(hidden))  # [B, half the channels, 2 h, 2 w]
        prediction = self.predict(hidden).float()
        return functional.interpolate(prediction, size=size, mode="bilinear")


def pooled(features: Features, pool: str) -> Float[Tensor, "B D"]:
    """Pool an image to one vector: its class token, which must exist, or its mean patch token."""
    if pool == "mean":
        return torch.mean(features.tokens, dim=1)
    if features.class_token is None:
        raise ValueError("pool='class_token', but this encoder has no class token; use 'mean'")
    return features.class_token
