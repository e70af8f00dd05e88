"""What sources yield and methods read. Images are uint8 RGB until a method takes them."""

from typing import Any, NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """Images alone."""

    images: Tensor  # [B, 3, H, W] uint8


class StretchedBatch(NamedTuple):
    """Whole images of any shape, each stretched to a square: whoever cuts crops can undo it."""

    images: Tensor  # [B, 3, H, W] uint8
    stretched_from: Tensor  # [B, 2] int64, height and width before, in pixels


class LabelBatch(NamedTuple):
    """Images with one class each."""

    images: Tensor  # [B, 3, H, W] uint8
    labels: Tensor  # [B] int64


class DenseBatch(NamedTuple):
    """Images with one value or class per pixel."""

    images: Tensor  # [B, 3, H, W] uint8
    target: Tensor  # [B, H, W] float32 metres (depth) or int64 class ids (segmentation)
    valid: Tensor  # [B, H, W] bool, False where there is no ground truth


class PairBatch(NamedTuple):
    """Two views of one scene."""

    image_1: Tensor  # [B, 3, H, W] uint8
    image_2: Tensor  # [B, 3, H, W] uint8


class ClipPairBatch(NamedTuple):
    """Two clips of each video, perhaps with boxes in their middle frames."""

    clip_a: Tensor  # [B, 3, T, H, W] uint8
    clip_b: Tensor  # [B, 3, T, H, W] uint8
    boxes_a: Tensor | None = None  # [B, R, 4] float32 xyxy in pixels, right and bottom exclusive;
    boxes_b: Tensor | None = None  # a clip with fewer boxes has some without area


class DensePairBatch(NamedTuple):
    """Two images and where each pixel of the first one is in the second."""

    image_1: Tensor  # [B, 3, H, W] uint8; the left one of a stereo pair
    image_2: Tensor  # [B, 3, H, W] uint8
    target: Tensor  # [B, H, W, C] float32 pixels: flow (dx, dy), C = 2, or disparity >= 0, C = 1
    valid: Tensor  # [B, H, W] bool, False where there is no ground truth


class DetectionBatch(NamedTuple):
    """Images and the objects in them; images with fewer objects have rows of label -1 at the end.

    An image of another shape lies at the top left of its square, the rest is gray.
    """

    images: Tensor  # [B, 3, H, W] uint8
    boxes: Tensor  # [B, R, 4] float32 xyxy in pixels, right and bottom exclusive
    labels: Tensor  # [B, R] int64 from 0 without gaps
    masks: Tensor  # [B, R, H, W / 8] uint8, a bit for each pixel: `unpack_masks`
    crowd: Tensor  # [B, R] bool: many things in one, or too small: neither learned nor counted
    sizes: Tensor  # [B, 2] int64, height and width of the image as it is stored
    image_ids: Tensor  # [B] int64, names of the images in their data set
    truth: tuple[list[dict[str, Any]], ...] = ()  # of each image that is measured, in COCO's form
