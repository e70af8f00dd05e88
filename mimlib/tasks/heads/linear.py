"""Heads: from what an encoder says about patches to classes and to pixels."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mimlib.protocol import Features


def check_head(num_classes: int, pool: str, has_class_token: bool) -> None:
    """Refuse a classifier that cannot be built on this encoder.

    Raises:
        ValueError: if there are fewer than two classes or no class token where one is asked for.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
    if pool == "class_token" and not has_class_token:
        raise ValueError("pool='class_token' needs an encoder with one; use pool='mean'")


def linear_head(width: int, num_classes: int, std: float) -> nn.Linear:
    """Build a classifier whose weights start near zero: truncated normal, `std`; bias 0."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=std)
    nn.init.zeros_(head.bias)
    return head


def probe_head(width: int, num_classes: int) -> nn.Sequential:
    """Build the linear probe: standardise each feature, then one linear layer.

    MAE, appendix A.1, "Linear probing": a BatchNorm without affine parameters in front of the
    classifier, because pixels reconstructed from them do not fix the scale of features.
    """
    norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
    return nn.Sequential(norm, linear_head(width, num_classes, std=0.01))


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
        self, width: int, stride: int, channels: int, num_outputs: int = 1, start: float = 0.0
    ) -> None:
        """Build the decoder.

        Args:
            width: channels of the incoming map, D.
            stride: pixels per cell of that map.
            channels: channels at the first, coarsest stage.
            num_outputs: numbers per pixel, C.
            start: what an untrained head predicts on average.
        """
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
    """Describe each image by one vector: its class token, or the mean of its patch tokens.

    Raises:
        ValueError: if the class token is asked for and the encoder has none.
    """
    if pool == "mean":
        return torch.mean(features.tokens, dim=1)
    if features.class_token is None:
        raise ValueError("pool='class_token', but this encoder has no class token; use 'mean'")
    return features.class_token
