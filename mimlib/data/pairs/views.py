"""What CroCo does to a pair before masking: crops and color jitter, each view on its own.

The released code, not the v1 paper's first text, is the model: images are stored at 256 pixels,
each view is cropped to 224 somewhere else, and its colors are changed differently. No flips.

Letters: B pairs, U random numbers per pair (order.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimlib.checks import check_positive, check_range
from mimlib.data.order import registers
from mimlib.data.transforms.colors import jitter_colors
from mimlib.data.transforms.crops import crop_corners, take_window

PAIR = registers(corner_1=2, corner_2=2, color_1=4, color_2=4, tilt_1=3, tilt_2=3)
CORNERS = (PAIR.corner_1, PAIR.corner_2)
COLORS = (PAIR.color_1, PAIR.color_2)
MIDDLE = 0.5  # in place of a random number: what is not augmented is cut in the middle


@dataclass(frozen=True, kw_only=True)
class PairAugmentation:
    """Independent crops and color jitter of the two views."""

    size: int  # pixels, side of the images handed out
    jitter: float = 0.4  # brightness, contrast and saturation are multiplied by 1 - this ... 1 + it
    margin: float = 1 / 7  # share by which stored images are larger than crops: 256 for 224

    def __post_init__(self):
        check_positive(self, "size", hint="use 64 or 224, for instance")
        check_range(self, "jitter", least=0, most=1, hint="0 leaves colors alone")
        check_range(self, "margin", least=0, hint="0 stores images as large as crops")

    @property
    def stored_size(self) -> int:
        """Side of the images that crops are cut from: 256 for 224, 73 for 64."""
        return round(self.size * (1 + self.margin))

    def corners(
        self, draws: np.ndarray | None, view: int, count: int, shape: Sequence[int]
    ) -> np.ndarray:
        """Return where views of `count` images of this height and width are cut, [count, 2]."""
        places = np.full((count, 2), MIDDLE) if draws is None else draws[:, CORNERS[view]]
        return crop_corners(places, shape, (self.size, self.size))

    def cut(self, images: Sequence[Tensor], corners: np.ndarray) -> Tensor:
        """Cut B of [C, H, W] at their corners to [B, C, size, size]."""
        sides = (self.size, self.size)
        return torch.stack([take_window(i, corner, sides) for i, corner in zip(images, corners)])

    def color(self, images: Tensor, draws: np.ndarray | None, view: int) -> Tensor:
        """Change the colors of views [B, 3, H, W] uint8, if there are draws."""
        if draws is None:
            return images
        return jitter_colors(images, draws[:, COLORS[view]], self.jitter)
