"""Depth of single images from files: 7-Scenes, and NYUv2 as it is usually unpacked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from mimlib.data.batches import DenseBatch
from mimlib.data.files.listing import Listing, files_by_stem, walk_files
from mimlib.data.files.numbers import read_depth_png
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource, check_sizes
from mimlib.data.order import COLORS, Request
from mimlib.data.transforms.colors import jitter_colors, shift_hues
from mimlib.data.transforms.crops import (
    COLUMN,
    ROW,
    Augmentation,
    crop_corners,
    crop_targets,
    cut_resized,
)

PICTURES = (".png", ".jpg")


@dataclass(frozen=True, kw_only=True)
class DepthFilesConfig(Augmentation):
    """Images with metric depth, 16-bit PNGs in which 0 and 65535 mean unknown.

    seven_scenes: NAME.color.png (or .jpg) with NAME.depth.png, in sub-folders too.
    nyuv2: rgb/NAME.png (or .jpg) with depth/NAME.png.
    """

    root: str  # path of the data set
    layout: Literal["seven_scenes", "nyuv2"]
    unit: float = 1e-3  # metres of one step in the files
    square: bool = False  # crop the largest square, anywhere, in place of crop_scale
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # brightness, contrast, saturation, 0 to 1
    hue: float = 0.0  # largest turn of the hues, to either side, as a share of the circle
    jittered: float = 1.0  # share of images whose colors and hues are changed
    gray: float = 0.0  # share of images that lose their colors
    workers: int = 0  # decoding processes

    def __post_init__(self):
        super().__post_init__()
        if self.unit <= 0:
            raise ValueError(f"unit {self.unit} is not above 0; 0.001 for files in millimetres")
        shares = (*self.jitter, 2 * self.hue, self.jittered, self.gray)
        if len(self.jitter) != 3 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                f"jitter {self.jitter}, hue {self.hue}, jittered {self.jittered} or gray "
                f"{self.gray} is out of range; expected 0 to 1, of the hue 0 to 1/2"
            )

    def boxes(self, draws: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        if not self.square:
            return super().boxes(draws, height, width)
        side = np.minimum(height, width)
        corners = crop_corners(draws[:, [ROW, COLUMN]], height, width, side[:, None])
        return np.column_stack([corners, side, side])

    def colors(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """Change the colors of images [B, 3, H, W] uint8; draws [B, U] of the stream COLORS."""
        changed = torch.from_numpy(draws[:, 5] < self.jittered)
        jittered = jitter_colors(images, draws[:, :4], self.jitter)
        jittered = shift_hues(jittered, self.hue * (2 * draws[:, 4] - 1))
        images = torch.where(changed[:, None, None, None], jittered, images)
        gray = torch.from_numpy(draws[:, 6] < self.gray)
        if not gray.any():
            return images
        without = v2.rgb_to_grayscale(images, num_output_channels=3)
        return torch.where(gray[:, None, None, None], without, images)

    def build(self) -> "DepthFiles":
        """List the files.

        Raises:
            ValueError: if there is no depth map, or one without its image.
        """
        root = Path(os.path.expanduser(self.root))
        files = list(FINDERS[self.layout](root))
        if not files:
            raise ValueError(
                f"{root} holds nothing in the layout {self.layout!r}; data/README.md says what "
                "goes where"
            )
        return DepthFiles(Listing(root, files), self, self.workers)


class DepthFiles(FileSource):
    """Images with depth, decoded as they are needed."""

    augmentation: DepthFilesConfig

    def read(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return an image [3, H, W], its depth [H, W] in metres and where that is known.

        Raises:
            ValueError: if a file cannot be read, or an image and its depth differ in size.
        """
        files = self.files.paths(index)
        image, (depth, valid) = (
            read_image(files[0]),
            read_depth_png(files[1], self.augmentation.unit),
        )
        check_sizes(files, image.shape[1:], valid.shape)
        return image, depth[..., 0], valid

    def batch(self, items: list[tuple[Tensor, Tensor, Tensor]], request: Request) -> DenseBatch:
        """Cut images, and their depth as they are cut; change the colors of what is augmented."""
        config, (images, depths, valids) = self.augmentation, zip(*items)
        shapes = np.array([valid.shape for valid in valids])
        boxes, flips = config.cuts(request.draws(), *shapes.T)
        views = cut_resized(images, boxes, flips, config.size)
        colors = request.draws(COLORS)
        return DenseBatch(
            views if colors is None else config.colors(views, colors),
            crop_targets(depths, boxes, flips, config.size),
            crop_targets(valids, boxes, flips, config.size),
        )


def find_seven_scenes(root: Path) -> Iterator[tuple[str, str]]:
    """List the frames of 7-Scenes."""
    pictures = files_by_stem(root, PICTURES)
    for depth in sorted(walk_files(root, (".depth.png",))):
        yield _with_colors(depth, depth[: -len(".depth.png")] + ".color", pictures), depth


def find_nyuv2(root: Path) -> Iterator[tuple[str, str]]:
    """List the images of NYUv2."""
    pictures = {f"rgb/{stem}": f"rgb/{path}" for stem, path in files_by_stem(root / "rgb").items()}
    for depth in sorted(walk_files(root / "depth", (".png",))):
        yield _with_colors(f"depth/{depth}", f"rgb/{depth[:-4]}", pictures), f"depth/{depth}"


FINDERS = {"seven_scenes": find_seven_scenes, "nyuv2": find_nyuv2}


def _with_colors(depth: str, stem: str, pictures: dict[str, str]) -> str:
    """Return the image that belongs to a depth map."""
    if stem not in pictures:
        raise ValueError(
            f"{depth} has no image {stem}{' or '.join(PICTURES)}; unpack the images, too"
        )
    return pictures[stem]
