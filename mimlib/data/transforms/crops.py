"""Crops, flips and the evaluation view, on uint8 images.

Random crops are drawn for a whole batch at once, from given random numbers (order.py), and cut
image by image: PyTorch's uint8 kernel resizes one crop after the other as fast as one grid_sample
resizes a batch of 32 pixels, ten times as fast at 224, and to the bit as torchvision does it.
A box is (top, left, height, width) in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

ASPECT_RATIO = (3 / 4, 4 / 3)  # width over height of a crop, as torchvision and MAE have it
TRIES = 10  # as torchvision: draws before a crop that does not fit is given up
ROW, COLUMN, FLIP = 20, 21, 22  # which random number of an image decides what; 0 ... 19: the tries
STRIP = 4  # longer images are cut to this many times their short side before an evaluation view


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random resized crop and flip: all that MAE pre-trains with (appendix A.1)."""

    size: int  # pixels, side of the images handed out
    crop_scale: tuple[float, float] = (0.2, 1.0)  # share of the area; (1, 1): no crop
    crop_clip: bool = False  # one draw, clipped to the image: MAE's linear probing
    flip: bool = True  # mirror half of the images, at random

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"image size {self.size} is not positive; use 64 or 224, for instance")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale {self.crop_scale} is no range of areas; expected 0 < low <= high <= 1"
            )

    @property
    def whole(self) -> bool:
        """Whether images are not cut, but stretched to a square if they are none."""
        return self.crop_scale[0] >= 1

    def cuts(
        self, draws: np.ndarray | None, height: np.ndarray, width: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the crop of each image [B, 4] and whether it is mirrored [B].

        Without draws: the largest square in the middle, as it is.
        """
        if draws is None:
            return center_boxes(height, width), np.zeros(len(height), dtype=bool)
        return self.boxes(draws, height, width), self.flips(draws)

    def boxes(self, draws: np.ndarray, height: Sequence[int], width: Sequence[int]) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        return random_crop_boxes(draws, height, width, self.crop_scale, self.crop_clip)

    def flips(self, draws: np.ndarray) -> np.ndarray:
        """Return whether each image is mirrored left and right, [B] bool."""
        return (draws[:, FLIP] < 0.5) & self.flip


def random_crop_boxes(
    draws: np.ndarray,
    height: Sequence[int],
    width: Sequence[int],
    scale: tuple[float, float],
    clip: bool = False,
) -> np.ndarray:
    """Draw the boxes of a random resized crop, the augmentation of MAE (appendix A.1).

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform in 3/4 ... 4/3.
    A box that does not fit is drawn again, ten times at most; then the largest centered box of an
    allowed ratio is taken.

    Args:
        draws: random numbers [B, U] in [0, 1), see order.py.
        height: of each image, [B] pixels.
        width: of each image, [B] pixels.
        scale: smallest and largest area as a share of the image; (1, 1) takes the whole image.
        clip: draw once and clip the box to the image instead of drawing again, as MAE does for
            linear probing (the crop of AlexNet's and VGG's time, which keeps small scales likely).

    Returns:
        Boxes [B, 4] int64, each inside its image and at least one pixel large.
    """
    height, width = np.asarray(height, dtype=np.int64), np.asarray(width, dtype=np.int64)
    if scale[0] >= 1:
        return np.stack([0 * height, 0 * width, height, width], axis=1)
    area = scale[0] + (scale[1] - scale[0]) * draws[:, :TRIES]
    area = area * (height * width)[:, None]  # [B, tries]
    low, high = map(math.log, ASPECT_RATIO)
    ratio = np.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES])
    box_height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    box_width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    if clip:
        box_height = box_height[:, 0].clip(1, height)
        box_width = box_width[:, 0].clip(1, width)
        fits = np.ones(len(draws), dtype=bool)
    else:
        inside = (box_height <= height[:, None]) & (box_width <= width[:, None])
        inside &= (box_height > 0) & (box_width > 0)
        chosen = np.arange(len(draws)), inside.argmax(axis=1)
        fits = inside.any(axis=1)
        box_height = np.where(fits, box_height[chosen], _largest(height, width))
        box_width = np.where(fits, box_width[chosen], _largest(width, height))
    row, column = draws[:, ROW], draws[:, COLUMN]
    row, column = np.where(fits, row, 0.5), np.where(fits, column, 0.5)
    top = np.floor(row * (height - box_height + 1)).astype(np.int64)
    left = np.floor(column * (width - box_width + 1)).astype(np.int64)
    return np.stack([top, left, box_height, box_width], axis=1)  # [B, 4]


def _largest(side: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return `side`, cut so that it is at most 4/3 of the other one."""
    return np.minimum(side, np.rint(other * ASPECT_RATIO[1])).astype(np.int64).clip(1)


def center_boxes(height: Sequence[int], width: Sequence[int]) -> np.ndarray:
    """Return the largest centered square of each image, [B, 4] int64."""
    height, width = np.asarray(height, dtype=np.int64), np.asarray(width, dtype=np.int64)
    side = np.minimum(height, width)
    return np.stack([(height - side) // 2, (width - side) // 2, side, side], axis=1)


def crop_resized(
    image: Tensor,
    box: tuple[int, int, int, int],
    size: int | tuple[int, int],
    flip: bool = False,
) -> Tensor:
    """Cut a box out of an image [3, H, W] and resize it bicubically, with antialiasing.

    Returns:
        [3, size, size], or [3, *size], of the type of the image, mirrored left and right if `flip`.
    """
    top, left, height, width = box
    sides = size if isinstance(size, tuple) else (size, size)
    crop = image[:, top : top + height, left : left + width]
    if (height, width) != sides:
        crop = interpolate(crop[None], sides, mode="bicubic", antialias=True)[0]
    return crop.flip(-1) if flip else crop


def cut_resized(
    images: Sequence[Tensor], boxes: np.ndarray, flips: np.ndarray, size: int
) -> Tensor:
    """Cut a box out of each of B images, [B, 3, size, size]; see `crop_resized`."""
    cuts = zip(images, boxes.tolist(), flips.tolist())
    return torch.stack([crop_resized(image, box, size, flip) for image, box, flip in cuts])


def nearest_pixels(old: int, new: int) -> Tensor:
    """Return which of `old` pixels is at the center of each of `new` pixels, exact in integers."""
    return (torch.arange(new) * 2 + 1) * old // (2 * new)


def crop_targets(
    targets: Sequence[Tensor], boxes: np.ndarray, flips: np.ndarray, size: int
) -> Tensor:
    """Cut and mirror per-pixel targets as their images are, by nearest sampling.

    Values stay what they are: a crop that enlarges an image does not bring the things in it
    nearer, so metric depth is not scaled. (The enlarged image has a longer focal length, which is
    why depth from one image is ambiguous under this augmentation.)

    Args:
        targets: B of [H, W], of any type.
        boxes: [B, 4], each inside its target.
        flips: [B] bool.
        size: side of the result in pixels.

    Returns:
        [B, size, size] of the type of the targets.
    """
    centers = np.arange(size) * 2 + 1  # twice (i + 0.5), so that all is exact in integers
    top, left, height, width = rearrange(boxes, "b side -> side b 1")
    rows = torch.from_numpy(top + centers * height // (2 * size))  # [B, size]
    columns = left + centers * width // (2 * size)
    columns = torch.from_numpy(np.where(flips[:, None], columns[:, ::-1], columns))
    cut = [t.index_select(0, r).index_select(1, c) for t, r, c in zip(targets, rows, columns)]
    return torch.stack(cut)


def evaluation_view(image: Tensor, size: int, share: float) -> Tensor:
    """Resize the short side to size / share and cut the center, [3, size, size].

    MAE's evaluation on ImageNet is size 224 and share 224/256: resize to 256, center crop.

    Args:
        image: [3, H, W] uint8.
        size: side of the result in pixels.
        share: part of the short side that is kept, in (0, 1].
    """
    short = min(image.shape[-2:])
    if max(image.shape[-2:]) > STRIP * short:  # a 1 x 5000 strip would become 256 x 1,280,000
        cut = [min(side, STRIP * short) for side in image.shape[-2:]]
        image = v2.center_crop(image, cut)
    side = round(size / share)
    image = v2.resize(image, [side], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.center_crop(image, [size, size])


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
