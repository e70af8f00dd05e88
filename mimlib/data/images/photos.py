"""Real photographs that lie inside the installed packages: no download, no license to click.

scikit-image and scikit-learn carry them in their wheels. They are read from the packages' folders
directly, never through functions that would fetch what is missing.

The embedded world hangs the photographs of scikit-image on its walls. Where a picture must be new
to a network trained there, take the `UNSEEN` ones or the motorcycle pair.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.batches import DensePairBatch
from mimlib.data.files.pictures import read_image
from mimlib.data.transforms.crops import center_square, cut_image, cut_map

PHOTOGRAPHS = {  # color photographs of the visible world, height x width in pixels
    "astronaut": ("skimage", "data/astronaut.png"),  # 512 x 512
    "chelsea": ("skimage", "data/chelsea.png"),  # 300 x 451, a cat
    "coffee": ("skimage", "data/coffee.png"),  # 400 x 600
    "rocket": ("skimage", "data/rocket.jpg"),  # 427 x 640
    "china": ("sklearn", "datasets/images/china.jpg"),  # 427 x 640, a temple
    "flower": ("sklearn", "datasets/images/flower.jpg"),  # 427 x 640
}
UNSEEN = ("china", "flower")  # in no texture of the world
MOTORCYCLE = ("data/motorcycle_left.png", "data/motorcycle_right.png", "data/motorcycle_disp.npz")


class Stereo(NamedTuple):
    """A rectified pair with ground truth: left pixel (x, y) is right pixel (x - disparity, y)."""

    left: Tensor  # [3, H, W] uint8
    right: Tensor  # [3, H, W] uint8
    disparity: Tensor  # [H, W] float32 pixels, positive, on the left image's grid; 0 where unknown
    valid: Tensor  # [H, W] bool, disparity is known and its point lies inside the right image
    focal_length: float  # pixels
    baseline: float  # metres between the cameras
    offset: float  # pixels, right minus left principal point in x

    def depth(self) -> Tensor:
        """Return metric depth [H, W] in metres, 0 where unknown: f * b / (disparity + offset)."""
        depth = self.focal_length * self.baseline / (self.disparity + self.offset)
        return depth * (self.disparity > 0)

    def batch(self) -> DensePairBatch:
        """Return the pair as a batch of one, left image first."""
        target = self.disparity[None, :, :, None]
        return DensePairBatch(self.left[None], self.right[None], target, self.valid[None])


def photographs(size: int) -> dict[str, Tensor]:
    """Return every bundled photograph by name, center-cropped and resized to [3, size, size]."""
    return {name: _centered(image, size) for name, image in whole_photographs().items()}


def whole_photographs() -> dict[str, Tensor]:
    """Return every bundled photograph by name, uncropped, [3, H, W] uint8."""
    return {name: read_image(_inside(*place)) for name, place in PHOTOGRAPHS.items()}


def stereo_motorcycle(size: int | None = None) -> Stereo:
    """Return the Middlebury 2014 "Motorcycle" pair with its ground truth, as in scikit-image.

    Calibration of the 500 x 741 images, from scikit-image's documentation: focal length 994.978,
    principal points 31.086 apart, baseline 193.001 mm. With a size the center squares, resized to
    this side: lengths in pixels are scaled with them; the crop is the same in both images, so
    disparities keep their meaning.
    """
    left, right = (read_image(_inside("skimage", name)) for name in MOTORCYCLE[:2])
    with np.load(_inside("skimage", MOTORCYCLE[2])) as file:
        disparity = torch.from_numpy(file["arr_0"].astype(np.float32))
    scale = 1.0
    if size is not None:
        square = center_square(*disparity.shape, size)
        disparity = cut_map(disparity, square)
        left, right = (_centered(image, size) for image in (left, right))
        scale = size / square.box[2]
    known = disparity.isfinite() & (disparity > 0)
    disparity = torch.where(known, disparity * scale, 0.0)
    column = torch.arange(disparity.shape[1]) + 0.5  # pixel centers
    valid = known & (column - disparity >= 0)
    return Stereo(left, right, disparity, valid, 994.978 * scale, 0.193001, 31.086 * scale)


def _centered(image: Tensor, size: int) -> Tensor:
    return cut_image(image, center_square(*image.shape[1:], size))


def _inside(package: str, name: str) -> Path:
    """Return the path of a file inside an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / name if spec else None
    if path is None or not path.is_file():
        source = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ValueError(
            f"the installed {source} has no file {name}; reinstall it with 'pip install "
            f"--force-reinstall {source}', whose wheel carries it"
        )
    return path
