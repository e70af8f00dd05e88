"""What is done to an image with its label map: scale, crop, mirror, colors, padding.

The augmentation that UPerNet, Semantic FPN and nearly all others train with on ADE20K and VOC.

Letters: U random numbers per image (order.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mimlib.checks import check_positive, check_range
from mimlib.data.dense.label_maps import UNLABELED
from mimlib.data.order import registers
from mimlib.data.transforms.colors import distort_colors
from mimlib.data.transforms.crops import (
    Placement,
    crop_corners,
    cut_image,
    cut_map,
    pad_corner,
    take_window,
)

TRIES = 10  # as official: crops drawn before one that shows almost one class is taken after all
LONGEST = 4  # as official, 2048 / 512: the long side at scale 1, in short sides, is at most this
MEAN_COLOR = (124, 116, 104)  # of ImageNet: about 0 when normalized
VIEW = registers(corners=2 * TRIES, scale=1, flip=1)


@dataclass(frozen=True, kw_only=True)
class SegmentationAugmentation:
    """Random scale, crop, flip and colors."""

    size: int  # pixels, side of the crops handed out
    scale: tuple[float, float] = (0.5, 2.0)  # of images; 1: the short side is `size`
    largest_share: float = 0.75  # of one class in a crop, if ten draws find such a crop; 1: any
    flip: bool = True  # mirror half of the images left and right
    distort: bool = True  # change brightness, contrast, saturation, hue, each in half of the images

    def __post_init__(self):
        check_positive(self, "size", hint="use 64 or 512, for instance")
        check_range(self, "scale", above=0, ordered=True)
        check_range(self, "largest_share", above=0, most=1)


def augment(
    image: Tensor,
    labels: Tensor,
    draws: np.ndarray,
    colors: np.ndarray,
    config: SegmentationAugmentation,
) -> tuple[Tensor, Tensor]:
    """Scale, crop, mirror, color and pad an image with its label map.

    A scaled image smaller than the crop is padded on the right and below, by the mean color and
    by UNLABELED. Images are [3, H, W] uint8, labels [H, W] int64 class ids or
    UNLABELED; draws and colors are different random numbers [U] in [0, 1).

    # differs from official: cut first and scaled then, which is the same but for rounding; and
    # images that shrink are antialiased.
    """
    placement = choose_crop(labels, draws, config)
    image, labels = cut_image(image, placement, "bilinear"), cut_map(labels, placement)
    if config.distort:
        image = distort_colors(image, colors)
    return pad_corner(image, config.size, MEAN_COLOR), pad_corner(labels, config.size, UNLABELED)


def choose_crop(labels: Tensor, draws: np.ndarray, config: SegmentationAugmentation) -> Placement:
    """Choose which part of an image is seen, and how large.

    As official: of up to ten boxes the first one that shows two classes or more, none of them in
    more than a given share of the labeled pixels; else the last one.
    """
    shape = np.array(labels.shape)
    low, high = config.scale
    factor = (low + (high - low) * draws[VIEW.scale]) * config.size
    factor *= min(1 / shape.min(), LONGEST / shape.max())
    box = np.minimum(shape, np.rint(config.size / factor).clip(min=1).astype(int))
    sides = np.where(box < shape, config.size, np.rint(shape * factor).clip(1, config.size))
    for pair in rearrange(draws[VIEW.corners], "(tries sides) -> tries sides", sides=2):
        corner = crop_corners(pair, shape, box)
        if is_mixed(take_window(labels, corner, box), config.largest_share):
            break
    flip = config.flip and bool(draws[VIEW.flip] < 0.5)
    return Placement((*corner.tolist(), *box.tolist()), tuple(sides.astype(int).tolist()), flip)


def is_mixed(labels: Tensor, largest_share: float) -> bool:
    """Say whether a crop's label map shows two classes or more, none in more than a share of it."""
    if largest_share >= 1:
        return True
    counts = torch.bincount(labels[labels != UNLABELED])
    return int((counts > 0).sum()) > 1 and bool(counts.max() < largest_share * counts.sum())
