"""Where images are cut, flips and the evaluation view, on uint8 images.

Random crops are drawn for a whole batch at once, from given random numbers (order.py), and cut
image by image: PyTorch's uint8 kernel resizes one crop after the other as fast as one grid_sample
resizes a batch of 32 pixels, ten times as fast at 224, and to the bit as torchvision does it.
A box is (top, left, height, width) in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from mimlib.checks import check_positive, check_range
from mimlib.data.order import registers

ASPECT_RATIO = (3 / 4, 4 / 3)  # width over height of a crop, as torchvision and MAE have it
TRIES = 10  # as torchvision: draws before a crop that does not fit is given up
CROP = registers(area=TRIES, ratio=TRIES, corner=2, flip=1)
STRIP = 4  # longer images are cut to this many times their short side before an evaluation view


class Placement(NamedTuple):
    """Which part of an image is seen, and how; where it does not fill its square it is padded."""

    box: tuple[int, int, int, int]  # top, left, height, width in the image
    sides: tuple[int, int]  # height and width that the box is resized to
    flip: bool = False  # mirrored left and right


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random resized crop and flip: all that MAE pre-trains with (appendix A.1)."""

    size: int  # pixels, side of the images handed out
    crop_scale: tuple[float, float] = (0.2, 1.0)  # share of the area; (1, 1): no crop
    crop_clip: bool = False  # one draw, clipped to the image: MAE's linear probing
    flip: bool = True  # mirror half of the images, at random

    def __post_init__(self):
        check_positive(self, "size", hint="use 64 or 224, for instance")
        check_range(self, "crop_scale", above=0, most=1, ordered=True)

    @property
    def whole(self) -> bool:
        """Whether images are not cut, but stretched to a square if they are none."""
        return self.crop_scale[0] >= 1

    def placements(self, draws: np.ndarray | None, shapes: np.ndarray) -> list[Placement]:
        """Place images of heights and widths [B, 2]; without draws: the square in the middle."""
        if draws is None:
            return [center_square(*shape, self.size) for shape in shapes.tolist()]
        boxes, flips = self.boxes(draws, shapes).tolist(), self.flips(draws).tolist()
        sides = (self.size, self.size)
        return [Placement(tuple(box), sides, flip) for box, flip in zip(boxes, flips)]

    def boxes(self, draws: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        return random_crop_boxes(draws, shapes, self.crop_scale, self.crop_clip)

    def flips(self, draws: np.ndarray) -> np.ndarray:
        """Return whether each image is mirrored left and right, [B] bool."""
        return (draws[:, CROP.flip] < 0.5) & self.flip


def random_crop_boxes(
    draws: np.ndarray, shapes: np.ndarray, scale: tuple[float, float], clip: bool = False
) -> np.ndarray:
    """Draw the boxes of a random resized crop, the augmentation of MAE (appendix A.1).

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform in 3/4 ... 4/3.
    A box that does not fit is drawn again, ten times at most; then the largest centered box of an
    allowed ratio is taken.

    Args:
        draws: random numbers [B, U] in [0, 1), see order.py.
        shapes: height and width of each image, [B, 2] pixels.
        scale: smallest and largest area as a share of the image; (1, 1) takes the whole image.
        clip: draw once and clip the box to the image instead of drawing again, as MAE does for
            linear probing (the crop of AlexNet's and VGG's time, which keeps small scales likely).

    Returns:
        Boxes [B, 4] int64, each inside its image and at least one pixel large.
    """
    shapes = np.asarray(shapes, dtype=np.int64)
    if scale[0] >= 1:
        return np.concatenate([0 * shapes, shapes], axis=1)
    area = scale[0] + (scale[1] - scale[0]) * draws[:, CROP.area]
    area = area * shapes.prod(axis=1, keepdims=True)  # [B, tries]
    low, high = map(math.log, ASPECT_RATIO)
    ratio = np.exp(low + (high - low) * draws[:, CROP.ratio])
    drawn = np.stack([area / ratio, area * ratio], axis=-1)  # [B, tries, 2]
    drawn = np.rint(np.sqrt(drawn)).astype(np.int64)
    if clip:
        return _place(draws[:, CROP.corner], shapes, drawn[:, 0].clip(1, shapes))
    inside = ((drawn > 0) & (drawn <= shapes[:, None])).all(axis=2)
    fits = inside.any(axis=1)[:, None]
    largest = np.minimum(shapes, np.rint(shapes[:, ::-1] * ASPECT_RATIO[1])).astype(np.int64)
    chosen = drawn[np.arange(len(drawn)), inside.argmax(axis=1)]
    boxes = np.where(fits, chosen, largest.clip(1))
    return _place(np.where(fits, draws[:, CROP.corner], 0.5), shapes, boxes)


def _place(draws: np.ndarray, shapes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Put boxes of these sides [B, 2] somewhere into their images, [B, 4]."""
    return np.concatenate([crop_corners(draws, shapes, sides), sides], axis=1)


def crop_corners(draws: np.ndarray, shapes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Choose the top left corner of a crop, [B, 2] int64, each place equally likely.

    Draws are [B, 2] in [0, 1), for row and column; shapes and sides height and width of the image
    and the crop in pixels, or of each. ValueError if an image is smaller than the crop.
    """
    room = np.asarray(shapes) - np.asarray(sides) + 1
    if (room < 1).any():
        height, width = np.atleast_2d(shapes).min(axis=0)
        raise ValueError(
            f"an image of {height} x {width} pixels is smaller than the crop of "
            f"{sides[0]} x {sides[1]}; use a smaller crop or larger images"
        )
    return np.floor(draws * room).astype(np.int64)


def center_square(height: int, width: int, size: int) -> Placement:
    """Place the largest centered square of an image, resized to `size`."""
    side = min(height, width)
    return Placement(((height - side) // 2, (width - side) // 2, side, side), (size, size))


def take_window(values: Tensor, corner: Sequence[int], sides: tuple[int, int]) -> Tensor:
    """Cut `sides` (height, width) out of [..., H, W] at a corner (top, left), as it is."""
    top, left = map(int, corner)
    return values[..., top : top + sides[0], left : left + sides[1]]


def cut_image(image: Tensor, placement: Placement, mode: str = "bicubic") -> Tensor:
    """Cut, resize (with antialiasing) and mirror an image, [3, H, W] to [3, *sides]."""
    box, sides, flip = placement
    crop = take_window(image, box[:2], box[2:])
    if box[2:] != sides:
        crop = interpolate(crop[None], sides, mode=mode, antialias=True)[0]
    return crop.flip(-1) if flip else crop


def cut_map(values: Tensor, placement: Placement) -> Tensor:
    """Cut, resize and mirror [..., H, W] as its image is, by nearest sampling: [..., *sides].

    Values stay what they are: a crop that enlarges an image does not bring the things in it
    nearer, so metric depth is not scaled. (The enlarged image has a longer focal length, which is
    why depth from one image is ambiguous under this augmentation.)
    """
    (top, left, height, width), sides, flip = placement
    rows = top + nearest_pixels(height, sides[0])
    columns = left + nearest_pixels(width, sides[1])
    columns = columns.flip(0) if flip else columns
    return values.index_select(-2, rows).index_select(-1, columns)


def nearest_pixels(old: int, new: int) -> Tensor:
    """Return which of `old` pixels is at the center of each of `new` pixels, exact in integers."""
    return (torch.arange(new) * 2 + 1) * old // (2 * new)


def pad_corner(values: Tensor, size: int, fill: float | Sequence[int]) -> Tensor:
    """Enlarge [..., H, W] to the right and below, to [..., size, size]; `fill` may be a color."""
    height, width = values.shape[-2:]
    if height == width == size:
        return values
    padded = values.new_empty(*values.shape[:-2], size, size)
    padded[:] = torch.tensor(fill, dtype=values.dtype)[..., None, None]
    padded[..., :height, :width] = values
    return padded


def evaluation_view(image: Tensor, size: int, share: float) -> Tensor:
    """Resize the short side of [3, H, W] uint8 to size / share and cut the center out of it.

    MAE's evaluation on ImageNet is size 224 and share 224/256: resize to 256, center crop. Size in
    pixels; the share of the short side that is kept lies in (0, 1].
    """
    short = min(image.shape[-2:])
    if max(image.shape[-2:]) > STRIP * short:  # a 1 x 5000 strip would become 256 x 1,280,000
        image = v2.center_crop(image, [min(side, STRIP * short) for side in image.shape[-2:]])
    side = round(size / share)
    image = v2.resize(image, [side], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return v2.center_crop(image, [size, size])
