"""What is done to an image with its label map: scale, crop, mirror, colors, padding.

The augmentation that UPerNet, Semantic FPN and nearly all others train with on ADE20K and VOC.

Letters: U random numbers per image (order.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from mimlib.data.dense.label_maps import UNLABELED
from mimlib.data.transforms.colors import distort_colors
from mimlib.data.transforms.crops import crop_corners, nearest_pixels

TRIES = 10  # as official: crops drawn before one that shows almost one class is taken after all
LONGEST = 4  # as official, 2048 / 512: the long side at scale 1, in short sides, is at most this
MEAN_COLOR = (124, 116, 104)  # of ImageNet: about 0 when normalized
# Which of the random numbers of an image decides what; those of colors are of another stream.
CORNERS, SCALE, FLIP = slice(0, 2 * TRIES), 20, 21


@dataclass(frozen=True, kw_only=True)
class SegmentationAugmentation:
    """Random scale, crop, flip and colors."""

    size: int  # pixels, side of the crops handed out
    scale: tuple[float, float] = (0.5, 2.0)  # of images; 1: the short side is `size`
    largest_share: float = 0.75  # of one class in a crop, if ten draws find such a crop; 1: any
    flip: bool = True  # mirror half of the images left and right
    distort: bool = True  # change brightness, contrast, saturation, hue, each in half of the images

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"image size {self.size} is not positive; use 64 or 512, for instance")
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale} is no range; expected 0 < low <= high")
        if not 0 < self.largest_share <= 1:
            raise ValueError(
                f"largest_share {self.largest_share} is no share; expected 0 < share <= 1"
            )


def augment(
    image: Tensor,
    labels: Tensor,
    draws: np.ndarray,
    colors: np.ndarray,
    config: SegmentationAugmentation,
) -> tuple[Tensor, Tensor]:
    """Scale, crop, mirror, color and pad an image with its label map.

    A scaled image smaller than the crop is padded on the right and below, by the mean color and
    by UNLABELED.

    # differs from official: cut first and scaled then, which is the same but for rounding; and
    # images that shrink are antialiased.

    Args:
        image: [3, H, W] uint8.
        labels: class ids [H, W] int64, UNLABELED where there is none.
        draws: [U] in [0, 1).
        colors: [U] in [0, 1), others.
        config: how much of it.

    Returns:
        The image [3, size, size] uint8 and its labels [size, size].
    """
    (top, left, height, width), sides = choose_crop(labels, draws, config)
    image = image[:, top : top + height, left : left + width]
    if image.shape[1:] != sides:
        image = v2.resize(image, list(sides), InterpolationMode.BILINEAR, antialias=True)
    rows, columns = (
        start + nearest_pixels(old, new)
        for start, old, new in zip((top, left), (height, width), sides)
    )
    labels = labels[rows][:, columns]
    if config.flip and draws[FLIP] < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    if config.distort:
        image = distort_colors(image, colors)
    return pad_corner(image, labels, (config.size, config.size))


def choose_crop(
    labels: Tensor, draws: np.ndarray, config: SegmentationAugmentation
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Return a box (top, left, height, width) of an image, and the sides it is scaled to.

    As official: of up to ten boxes the first one that shows two classes or more, none of them in
    more than a given share of the labeled pixels; else the last one.
    """
    shape = np.array(labels.shape)
    low, high = config.scale
    factor = (low + (high - low) * draws[SCALE]) * config.size
    factor *= min(1 / shape.min(), LONGEST / shape.max())
    box = np.minimum(shape, np.rint(config.size / factor).clip(min=1).astype(int))
    sides = np.where(box < shape, config.size, np.rint(shape * factor).clip(1, config.size))
    for pair in rearrange(draws[CORNERS], "(tries sides) -> tries sides", sides=2):
        top, left = crop_corners(pair, *labels.shape, box).tolist()
        if is_mixed(labels[top : top + box[0], left : left + box[1]], config.largest_share):
            break
    return (top, left, int(box[0]), int(box[1])), (int(sides[0]), int(sides[1]))


def is_mixed(labels: Tensor, largest_share: float) -> bool:
    """Say whether a crop's label map shows two classes or more, none in more than a share of it."""
    if largest_share >= 1:
        return True
    counts = torch.bincount(labels[labels != UNLABELED])
    return int((counts > 0).sum()) > 1 and bool(counts.max() < largest_share * counts.sum())


def pad_corner(image: Tensor, labels: Tensor, sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Enlarge an image [3, H, W] and its labels [H, W] to the right and below, to `sides`."""
    height, width = labels.shape
    if (height, width) == sides:
        return image, labels
    around = (0, sides[1] - width, 0, sides[0] - height)
    padded = torch.tensor(MEAN_COLOR, dtype=image.dtype)[:, None, None].repeat(1, *sides)
    padded[:, :height, :width] = image
    return padded, pad(labels, around, value=UNLABELED)
