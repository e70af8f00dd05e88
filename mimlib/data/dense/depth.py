"""Depth of single images from files: 7-Scenes, and NYUv2 as it is usually unpacked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision.transforms.v2 import functional as v2

from mimlib.data.batches import DenseBatch
from mimlib.data.files.numbers import read_depth_png
from mimlib.data.files.pictures import read_image
from mimlib.data.order import COLOURS, Request, augmentation_draws
from mimlib.data.source import IndexedSource
from mimlib.data.transforms.colours import jitter_colours, turn_hues
from mimlib.data.transforms.crops import (
    COLUMN,
    ROW,
    Augmentation,
    centre_boxes,
    crop_corners,
    crop_resized,
    crop_targets,
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
    jittered: float = 1.0  # share of images whose colours and hues are changed
    grey: float = 0.0  # share of images that lose their colours
    workers: int = 0  # decoding processes

    def __post_init__(self):
        super().__post_init__()
        if self.unit <= 0:
            raise ValueError(f"unit {self.unit} is not above 0; 0.001 for files in millimetres")
        shares = (*self.jitter, 2 * self.hue, self.jittered, self.grey)
        if len(self.jitter) != 3 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                f"jitter {self.jitter}, hue {self.hue}, jittered {self.jittered} or grey "
                f"{self.grey} is out of range; expected 0 to 1, of the hue 0 to 1/2"
            )

    def boxes(self, draws: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
        """Return the crop of each image, [B, 4]."""
        if not self.square:
            return super().boxes(draws, height, width)
        side = np.minimum(height, width)
        corners = crop_corners(draws[:, [ROW, COLUMN]], height, width, side[:, None])
        return np.column_stack([corners, side, side])

    def colours(self, images: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Change the colours of images [B, 3, H, W] uint8; draws [B, U] of the stream COLOURS."""
        changed = torch.from_numpy(draws[:, 5] < self.jittered)
        jittered = jitter_colours(images, draws[:, :4], self.jitter)
        jittered = turn_hues(jittered, self.hue * (2 * draws[:, 4] - 1))
        images = torch.where(changed[:, None, None, None], jittered, images)
        grey = torch.from_numpy(draws[:, 6] < self.grey)
        if not grey.any():
            return images
        without = v2.rgb_to_grayscale(images, num_output_channels=3)
        return torch.where(grey[:, None, None, None], without, images)

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
        return DepthFiles(files, self)


class DepthFiles(IndexedSource):
    """Images with depth, decoded as they are needed."""

    def __init__(self, files: list[tuple[Path, Path]], config: DepthFilesConfig):
        self.files, self.config = files, config
        self.workers = config.workers

    def __len__(self) -> int:
        return len(self.files)

    def load(self, request: Request) -> DenseBatch:
        """Decode the images of a request, and cut their depth as they are cut.

        Raises:
            ValueError: if a file cannot be read, or an image and its depth differ in size.
        """
        config, items = self.config, [self._read(index) for index in request.indices.tolist()]
        height, width = np.array([valid.shape for *_, valid in items]).T
        if request.seed is None:
            boxes, flips = centre_boxes(height, width), np.zeros(len(items), dtype=bool)
        else:
            draws = augmentation_draws(request.seed, request.first, len(items))
            boxes, flips = config.boxes(draws, height, width), config.flips(draws)
        images, depths, valids = zip(*items)
        cuts = zip(images, boxes.tolist(), flips.tolist())
        views = torch.stack([crop_resized(i, box, config.size, flip) for i, box, flip in cuts])
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(items), COLOURS)
            views = config.colours(views, draws)
        return DenseBatch(
            views,
            crop_targets(depths, boxes, flips, config.size),
            crop_targets(valids, boxes, flips, config.size),
        )

    def _read(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return an image [3, H, W], its depth [H, W] in metres and where that is known."""
        image_path, depth_path = self.files[index]
        image = read_image(image_path)
        depth, valid = read_depth_png(depth_path, self.config.unit)
        if image.shape[1:] != valid.shape:
            raise ValueError(
                f"{image_path} has {tuple(image.shape[1:])} pixels, its depth "
                f"{tuple(valid.shape)}; resize the depth (nearest) to the image"
            )
        return image, depth[..., 0], valid


def find_seven_scenes(root: Path) -> Iterator[tuple[Path, Path]]:
    """List the frames of 7-Scenes."""
    for depth in sorted(root.rglob("*.depth.png")):
        stem = depth.name.removesuffix(".depth.png")
        yield _with_colours(depth, depth.parent / f"{stem}.color"), depth


def find_nyuv2(root: Path) -> Iterator[tuple[Path, Path]]:
    """List the images of NYUv2."""
    for depth in sorted((root / "depth").rglob("*.png")):
        stem = depth.relative_to(root / "depth").with_suffix("")
        yield _with_colours(depth, root / "rgb" / stem), depth


FINDERS = {"seven_scenes": find_seven_scenes, "nyuv2": find_nyuv2}


def _with_colours(depth: Path, stem: Path) -> Path:
    """Return the image that belongs to a depth map."""
    for ending in PICTURES:
        image = stem.with_name(stem.name + ending)
        if image.exists():
            return image
    raise ValueError(f"{depth} has no image {stem}{' or '.join(PICTURES)}; unpack the images, too")
