"""Depth of single images from files: 7-Scenes, and NYUv2 as it is usually unpacked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DenseBatch
from mimlib.data.files.listing import Listing, find_beside
from mimlib.data.files.numbers import read_depth_png
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource, check_sizes
from mimlib.data.order import COLORS, Request, registers
from mimlib.data.transforms.colors import jitter_colors, shift_hues
from mimlib.data.transforms.crops import CROP, Augmentation, crop_corners, cut_image, cut_map

LAYOUTS = {  # images, depth; * for their names
    "seven_scenes": ("*.color", "*.depth.png"),
    "nyuv2": ("rgb/*", "depth/*.png"),
}
JITTER = registers(color=4, hue=1, jittered=1, gray=1)  # of the stream COLORS


@dataclass(frozen=True, kw_only=True)
class DepthFilesConfig(Augmentation):
    """Images with metric depth, 16-bit PNGs in which 0 and 65535 mean unknown.

    seven_scenes: NAME.color.png (or .jpg) with NAME.depth.png, in sub-folders too.
    nyuv2: rgb/NAME.png (or .jpg) with depth/NAME.png.
    """

    root: str  # path of the data set
    layout: Literal[tuple(LAYOUTS)]
    unit: float = 1e-3  # metres of one step in the files
    square: bool = False  # crop the largest square, anywhere, in place of crop_scale
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # brightness, contrast, saturation, 0 to 1
    hue: float = 0.0  # largest turn of the hues, to either side, as a share of the circle
    jittered: float = 1.0  # share of images whose colors and hues are changed
    gray: float = 0.0  # share of images that lose their colors
    workers: int = 0  # decoding processes

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "unit", hint="0.001 for files in millimetres")
        if len(self.jitter) != 3:
            raise ValueError(f"jitter is {self.jitter}; expected brightness, contrast, saturation")
        check_range(self, "jitter", "jittered", "gray", least=0, most=1)
        check_range(self, "hue", least=0, most=0.5)

    def boxes(self, draws: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        if not self.square:
            return super().boxes(draws, shapes)
        sides = shapes.min(axis=1, keepdims=True).repeat(2, axis=1)
        return np.concatenate([crop_corners(draws[:, CROP.corner], shapes, sides), sides], axis=1)

    def colors(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """Change the colors of images [B, 3, H, W] uint8; draws [B, U] of the stream COLORS."""
        jittered = jitter_colors(images, draws[:, JITTER.color], self.jitter)
        jittered = shift_hues(jittered, self.hue * (2 * draws[:, JITTER.hue] - 1))
        images = _choose(draws[:, JITTER.jittered] < self.jittered, jittered, images)
        if not self.gray:
            return images
        gray = v2.rgb_to_grayscale(images, num_output_channels=3)
        return _choose(draws[:, JITTER.gray] < self.gray, gray, images)

    def build(self) -> "DepthFiles":
        """List the files; ValueError if there is no depth map, or one without its image."""
        root = Path(os.path.expanduser(self.root))
        pairs = find_beside(root, *LAYOUTS[self.layout])
        files = Listing(root, pairs, f"in the layout {self.layout!r}")
        return DepthFiles(files.check("unpack the images, too"), self)


def _choose(chosen: np.ndarray, images: Tensor, others: Tensor) -> Tensor:
    """Take some images [B, 3, H, W] from the first, the rest from the others."""
    return torch.where(torch.from_numpy(chosen)[:, None, None, None], images, others)


class DepthFiles(FileSource):
    """Images with depth, decoded as they are needed."""

    def read(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return an image [3, H, W], its depth [H, W] in metres and where that is known."""
        files = self.files.paths(index)
        image, depth = read_image(files[0]), read_depth_png(files[1], self.augmentation.unit)
        check_sizes(files, image.shape[1:], depth.valid.shape)
        return image, depth.values[..., 0], depth.valid

    def batch(self, items: list[tuple[Tensor, Tensor, Tensor]], request: Request) -> DenseBatch:
        """Cut images, and their depth as they are cut; change the colors of what is augmented."""
        config, (images, depths, valids) = self.augmentation, zip(*items)
        placements = config.placements(request.draws(), np.array([v.shape for v in valids]))
        views = torch.stack(list(map(cut_image, images, placements)))
        colors = request.draws(COLORS)
        return DenseBatch(
            views if colors is None else config.colors(views, colors),
            torch.stack(list(map(cut_map, depths, placements))),
            torch.stack(list(map(cut_map, valids, placements))),
        )
