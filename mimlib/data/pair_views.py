"""What CroCo does to a pair before masking: crops and colour jitter, each view on its own.

The released code, not the v1 paper's first text, is the model: images are stored at 256 pixels,
each view is cropped to 224 somewhere else, and its colours are changed differently. No flips.

Letters: B pairs, U random numbers per pair (order.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision's rgb_to_grayscale
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
BRIGHTNESS, CONTRAST, SATURATION = range(3)
# Which of the random numbers of a pair decides what, for view 1 and view 2.
CROP = (slice(0, 2), slice(2, 4))  # row, column
COLOUR = (slice(4, 8), slice(8, 12))  # brightness, contrast, saturation, their order
TILT = (slice(12, 15), slice(15, 18))  # direction, skew, rotation; homography.py


@dataclass(frozen=True, kw_only=True)
class PairAugmentation:
    """Independent crops and colour jitter of the two views."""

    size: int  # pixels, side of the images handed out
    jitter: float = 0.4  # brightness, contrast and saturation are multiplied by 1 - this ... 1 + it
    margin: float = 1 / 7  # share by which stored images are larger than crops: 256 for 224

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"image size {self.size} is not positive; use 64 or 224, for instance")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter {self.jitter} is out of range; expected 0 (off) to 1")
        if self.margin < 0:
            raise ValueError(f"margin {self.margin} is negative; 0 stores images as large as crops")

    @property
    def stored_size(self) -> int:
        """Side of the images that crops are cut from: 256 for 224, 73 for 64."""
        return round(self.size * (1 + self.margin))


def crop_corners(
    draws: np.ndarray,
    height: int | np.ndarray,
    width: int | np.ndarray,
    size: tuple[int, int] | np.ndarray,
) -> np.ndarray:
    """Choose the top left corner of a crop, each place equally likely.

    Args:
        draws: [B, 2] in [0, 1), for row and column.
        height: of the image or of each image, pixels.
        width: likewise.
        size: (height, width) of the crop, or of each crop.

    Returns:
        [B, 2] int64 (top, left).

    Raises:
        ValueError: if an image is smaller than the crop.
    """
    room = np.stack(np.broadcast_arrays(height, width), axis=-1) - np.array(size) + 1
    if (room < 1).any():
        raise ValueError(
            f"an image of {np.min(height)} x {np.min(width)} pixels is smaller than the crop of "
            f"{size[0]} x {size[1]}; use a smaller crop or larger images"
        )
    return np.floor(draws * room).astype(np.int64)


def cut(image: Tensor, corner: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Cut `size` (height, width) out of [C, H, W] at a corner (top, left)."""
    top, left = int(corner[0]), int(corner[1])
    return image[:, top : top + size[0], left : left + size[1]]


def jitter_colours(
    images: Tensor, draws: np.ndarray, strength: float | tuple[float, float, float]
) -> Tensor:
    """Change brightness, contrast and saturation of each image, in an order of its own.

    Every change is a blend f x + (1 - f) reference, with the reference black (brightness), the
    mean grey of the image (contrast) or the grey of the pixel (saturation), clipped to the range
    of pixels; f is uniform in 1 - strength ... 1 + strength. As torchvision's ColorJitter.

    # differs from official: rounded to 8 bits once, at the end, and not after each change.

    Args:
        images: [B, 3, H, W] uint8.
        draws: [B, 4] in [0, 1): three factors and the order.
        strength: 0 (nothing happens) to 1, of all three or of each.
    """
    if not np.any(strength):
        return images
    factors = 1 + np.array(strength) * (2 * draws[:, :3] - 1)
    order = np.array(ORDERS)[(draws[:, 3] * len(ORDERS)).astype(np.int64)]  # [B, 3]
    values = images.float()
    for step in range(3):
        kind = torch.from_numpy(order[:, step])
        factor = torch.from_numpy(np.take_along_axis(factors, order[:, step : step + 1], 1))
        factor, kind = (rearrange(part, "b ... -> b (...) 1 1") for part in (factor, kind))
        red, green, blue = values.unbind(1)
        grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]  # [B, 1, H, W]
        reference = torch.where(kind == CONTRAST, grey.mean((2, 3), keepdim=True), grey)
        reference = reference.masked_fill(kind == BRIGHTNESS, 0.0)
        values = torch.lerp(reference, values, factor.float()).clamp(0, 255)
    return values.round().to(torch.uint8)


def turn_hues(images: Tensor, turns: np.ndarray) -> Tensor:
    """Turn the hues of each image around the circle, as torchvision does.

    Args:
        images: [B, 3, H, W] uint8.
        turns: [B] shares of the circle, -1/2 to 1/2.
    """
    if not turns.any():
        return images
    return torch.stack([v2.adjust_hue(i, turn) for i, turn in zip(images, turns.tolist())])
