"""What sources yield and methods read. Images are uint8 RGB until a method takes them."""

from typing import NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """Images alone."""

    images: Tensor  # [B, 3, H, W] uint8


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


class DensePairBatch(NamedTuple):
    """Two images and where each pixel of the first one is in the second."""

    image_1: Tensor  # [B, 3, H, W] uint8; the left one of a stereo pair
    image_2: Tensor  # [B, 3, H, W] uint8
    target: Tensor  # [B, H, W, C] float32 pixels: flow (dx, dy), C = 2, or disparity >= 0, C = 1
    valid: Tensor  # [B, H, W] bool, False where there is no ground truth
