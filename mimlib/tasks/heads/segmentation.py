"""Heads for semantic segmentation: from four maps of different scales to classes.

A head is built from the widths C_i of the maps, finest first, the channels inside it, the number of
classes and the share of the channels that are dropped before the last layer.

Letters: B images, C_i channels of map i (finest first), G classes, h and w sides of the finest map.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork

from mimlib.layers.collectives import SyncBatchNorm

POOLED_SIDES = (1, 2, 3, 6)  # cells along the side, as in PSPNet (arXiv 1612.01105, section 3.2)
AUXILIARY_CHANNELS = 256  # as official; no more than those of the head
CLASSES_STD = 0.01  # as official: of the weights of the last layer
GROUPS, SMALLEST_GROUP = 32, 4  # of group normalisation: number, and channels of one at least


class UPerNetHead(nn.Module):
    """Pyramid pooling on the coarsest map, then a feature pyramid network, then all maps together.

    Xiao et al. 2018, "Unified Perceptual Parsing" (arXiv 1807.10221), section 3.1. Batch
    normalisation is over the images of all ranks, as official. It needs two of them, since the
    coarsest pooled map has one cell; with micro-batches it is over those of one.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        *fine, coarse = widths
        self.pooled = nn.ModuleList(convolution(coarse, channels, 1) for _ in POOLED_SIDES)
        self.context = convolution(coarse + len(POOLED_SIDES) * channels, channels, 3)
        self.lateral = nn.ModuleList(convolution(width, channels, 1) for width in fine)
        self.smooth = nn.ModuleList(convolution(channels, channels, 3) for _ in fine)
        self.fuse = convolution(len(widths) * channels, channels, 3)
        self.classify = classifier(channels, num_classes, dropout)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B G h w"]:
        """Return logits at the resolution of the finest map."""
        merged = [self.pool_pyramid(maps[-1])]  # [B, channels, h_i, w_i] each, coarsest first
        for lateral, fine in zip(reversed(self.lateral), reversed(maps[:-1])):
            side = lateral(fine)
            merged.append(side + resize(merged[-1], like=side))
        coarse, *finer = merged
        smoothed = [conv(fine) for conv, fine in zip(self.smooth, reversed(finer))] + [coarse]
        together = torch.cat([resize(part, like=smoothed[0]) for part in smoothed], dim=1)
        return self.classify(self.fuse(together))

    def pool_pyramid(self, coarse: Tensor) -> Tensor:
        """Add to each cell of a map what is seen in larger and larger parts of the image."""
        parts = [
            resize(conv(pool(coarse, side)), like=coarse)
            for side, conv in zip(POOLED_SIDES, self.pooled)
        ]
        return self.context(torch.cat([coarse, *parts], dim=1))


class SemanticFPNHead(nn.Module):
    """A feature pyramid network, each map brought to the finest scale, and their sum.

    Kirillov et al. 2019, "Panoptic Feature Pyramid Networks" (arXiv 1901.02446), section 3.1:
    each doubling is a convolution, group normalisation, ReLU and bilinear interpolation. The number
    of images in a batch does not matter. After the pyramid, of 256 channels in the paper, are half.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(widths), channels)
        half = max(1, channels // 2)
        self.branches = nn.ModuleList(
            Branch(channels, half, max(1, scale)) for scale in range(len(widths))
        )
        self.classify = classifier(half, num_classes, dropout)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B G h w"]:
        """Return logits at the resolution of the finest map."""
        named = {str(index): level for index, level in enumerate(maps)}
        levels = list(self.pyramid(named).values())  # [B, channels, h_i, w_i] each
        finest, *others = self.branches
        total = finest(levels[0], levels[:1])  # [B, channels / 2, h, w]
        for index, branch in enumerate(others):
            total = total + branch(levels[index + 1], levels[index::-1])
        return self.classify(total)


class Branch(nn.Module):
    """The way of one map to the finest scale."""

    def __init__(self, width: int, new_width: int, num_stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            convolution(new_width if i else width, new_width, 3, group_norm(new_width))
            for i in range(num_stages)
        )

    def forward(self, level: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Return a map of the sides of the last of the finer maps, one of them for each stage."""
        for stage, like in zip(self.stages, finer):
            level = resize(stage(level), like)
        return level


def auxiliary_head(width: int, channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Build the small fully convolutional head that is trained beside UPerNet's, on one map."""
    channels = min(AUXILIARY_CHANNELS, channels)
    return nn.Sequential(
        convolution(width, channels, 3), *classifier(channels, num_classes, dropout)
    )


def convolution(
    width: int, new_width: int, kernel_size: int, norm: nn.Module | None = None
) -> nn.Sequential:
    """Build a convolution with normalisation (None: over the batch) and ReLU; sides stay."""
    conv = nn.Conv2d(width, new_width, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, SyncBatchNorm(new_width) if norm is None else norm, nn.ReLU())


def group_norm(channels: int) -> nn.GroupNorm:
    """Build group normalisation: 32 groups, fewer where they would have under four channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels // SMALLEST_GROUP, channels), channels)


def classifier(channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Build the last layer, with dropout of whole channels before it."""
    last = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.normal_(last.weight, std=CLASSES_STD)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Dropout2d(dropout), last)


def pool(maps: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C side side"]:
    """Average a map over side x side parts; parts overlap where its sides do not divide.

    The same as adaptive average pooling, which not every device has for all sides.
    """
    rows, columns = (shares(length, side, maps) for length in maps.shape[-2:])
    return torch.einsum("ih,bchw,jw->bcij", rows, maps, columns)


def shares(length: int, count: int, like: Tensor) -> Float[Tensor, "count length"]:
    """Return how much each of `length` cells counts in the mean of each of `count` parts."""
    part = torch.arange(count, device=like.device)[:, None]
    cell = torch.arange(length, device=like.device)
    inside = (cell >= part * length // count) & (cell * count < (part + 1) * length)
    return (inside / inside.sum(dim=1, keepdim=True)).to(like.dtype)


def resize(maps: Tensor, like: Tensor) -> Tensor:
    """Interpolate to the sides of another map."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return interpolate(maps, size=like.shape[-2:], mode="bilinear")
