"""Depth of single images from files: 7-Scenes, and NYUv2 as it is usually unpacked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mimlib.data.batches import DenseBatch
from mimlib.data.formats import read_depth_png
from mimlib.data.images import read_image
from mimlib.data.indexed import IndexedSource
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.transforms import Augmentation, centre_boxes, crop_resized, crop_targets

COLOURS = (".png", ".jpg")


@dataclass(frozen=True, kw_only=True)
class DepthFilesConfig(Augmentation):
    """Images with metric depth, 16-bit PNGs in which 0 and 65535 mean unknown.

    seven_scenes: NAME.color.png (or .jpg) with NAME.depth.png, in sub-folders too.
    nyuv2: rgb/NAME.png (or .jpg) with depth/NAME.png.
    """

    root: str  # path of the data set
    layout: Literal["seven_scenes", "nyuv2"]
    unit: float = 1e-3  # metres of one step in the files
    workers: int = 0  # decoding processes

    def __post_init__(self):
        super().__post_init__()
        if self.unit <= 0:
            raise ValueError(f"unit {self.unit} is not above 0; 0.001 for files in millimetres")

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
        return DenseBatch(
            torch.stack([crop_resized(image, box, config.size, flip) for image, box, flip in cuts]),
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
    for ending in COLOURS:
        image = stem.with_name(stem.name + ending)
        if image.exists():
            return image
    raise ValueError(f"{depth} has no image {stem}{' or '.join(COLOURS)}; unpack the images, too")
