"""Pairs made of one image by two different homographies: the control of CroCo's table 2.

The transforms are those of the v1 paper's code: a perspective tilt, then a rotation, drawn for each
view on its own. Scene geometry plays no part: the network can invert the family of transforms.

Letters: B pairs, U random numbers per pair (order.py). Pixels are (x right, y down) with centers
at +0.5; a homography is a 3x3 matrix from pixels of the view to pixels of the image.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import grid_sample

from mimlib.checks import check_range
from mimlib.data.batches import PairBatch
from mimlib.data.files.source import FileSource
from mimlib.data.images.configs import ImageFolderConfig, PhotosConfig, WorldImagesConfig
from mimlib.data.order import Request
from mimlib.data.pairs.views import PAIR, PairAugmentation
from mimlib.data.source import IndexedSource

UNAUGMENTED_SEED = 0  # of the transforms in `first` and `once`: without one, views would be equal


@dataclass(frozen=True, kw_only=True)
class HomographyPairsConfig(PairAugmentation):
    """Two views of one image each, by tilt, rotation, crop and colors."""

    images: WorldImagesConfig | PhotosConfig | ImageFolderConfig  # their crops and flips are off
    tilt: float = 0.5  # largest skew of a side, as a share of the image's side
    rotation: float = 10.0  # degrees, largest, to either side

    def __post_init__(self):
        super().__post_init__()
        if self.images.size < self.size:
            raise ValueError(
                f"images of {self.images.size} pixels are smaller than the crop of {self.size}; "
                f"set images.size to {self.stored_size}"
            )
        check_range(self, "tilt", least=0, most=1)
        check_range(self, "rotation", least=0, most=180, hint="in degrees")

    def build(self) -> "HomographySource":
        """Build the source of the images."""
        return HomographySource(self.images.build(), self)


class HomographySource(IndexedSource):
    """Pairs from the un-augmented images of another source."""

    def __init__(self, images: IndexedSource, config: HomographyPairsConfig):
        self.images = images
        self.config = config
        self.workers = getattr(config.images, "workers", 0)

    def __len__(self) -> int:
        return len(self.images)

    def identity(self) -> str:
        """Return that of the images."""
        return self.images.identity()

    def load(self, request: Request) -> tuple:
        """Transform each image of a request twice; answer as the source of the images does."""
        answer = self.images.load(request._replace(seed=None))
        if isinstance(self.images, FileSource):
            batch, bad = answer
            return self.pairs(batch.images, request), bad
        return self.pairs(answer.images, request)

    def accept(self, answer: tuple) -> PairBatch:
        """Let the source of the images say what it could not read."""
        return self.images.accept(answer)

    def pairs(self, images: Tensor, request: Request) -> PairBatch:
        """Transform each of the images [B, 3, H, W] twice."""
        config, draws = self.config, request.draws()
        tilts = request._replace(seed=UNAUGMENTED_SEED).draws() if draws is None else draws
        views = []
        for view, tilt in enumerate((PAIR.tilt_1, PAIR.tilt_2)):
            matrix = draw_homographies(tilts[:, tilt], images.shape[-1], config)
            corners = config.corners(draws, view, len(images), images.shape[-2:])
            cut = warp(images, matrix @ shifts(corners), config.size)
            views.append(config.color(cut, draws, view))
        return PairBatch(*views)


def draw_homographies(draws: np.ndarray, side: int, config: HomographyPairsConfig) -> np.ndarray:
    """Draw tilts and rotations of square images.

    A tilt lengthens the left, right, top or bottom side by the same amount at both ends: an
    integer of pixels from 1 to the largest skew. What leaves the image is lost, nothing is blank.
    Draws are [B, 3] in [0, 1): direction, skew, rotation; the `side` of the images is in pixels.
    Returns [B, 3, 3] float64 from pixels of the view to pixels of the image.
    """
    direction = (4 * draws[:, 0]).astype(np.int64)
    largest = math.ceil(config.tilt * side)
    skew = np.minimum(1 + np.floor(draws[:, 1] * largest), largest)
    angle = np.deg2rad(config.rotation) * (2 * draws[:, 2] - 1)
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=np.float64)
    # Left, right, top, bottom: which corners move, and where to.
    moves = np.zeros((4, 4, 2))
    moves[0, [0, 3]] = (0, -1), (0, 1)
    moves[1, [1, 2]] = (0, -1), (0, 1)
    moves[2, [0, 1]] = (-1, 0), (1, 0)
    moves[3, [3, 2]] = (-1, 0), (1, 0)
    moved = corners + skew[:, None, None] * moves[direction]  # [B, 4, 2]
    return solve_homographies(moved, corners) @ rotations(angle, side / 2)


def solve_homographies(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Find the homographies [B, 3, 3] that take four points [B, 4, 2] to four points [4, 2]."""
    x, y = start[..., 0], start[..., 1]
    u, v = (np.broadcast_to(part, x.shape) for part in (end[..., 0], end[..., 1]))
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    system = np.concatenate([rows_u, rows_v], axis=1)  # [B, 8, 8]
    solution = np.linalg.solve(system, np.concatenate([u, v], axis=1)[..., None])[..., 0]
    entries = np.concatenate([solution, np.ones((len(start), 1))], axis=1)  # [B, 9]
    return rearrange(entries, "b (row column) -> b row column", row=3)


def rotations(angle: np.ndarray, center: float) -> np.ndarray:
    """Return the turns [B, 3, 3] by angles [B] in radians around the point (center, center)."""
    matrix = np.zeros((len(angle), 3, 3))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    matrix[:, 0, 2] = center - center * (cos - sin)
    matrix[:, 1, 2] = center - center * (sin + cos)
    matrix[:, 2, 2] = 1
    return matrix


def shifts(corners: np.ndarray) -> np.ndarray:
    """Return the matrices [B, 3, 3] from pixels of crops at (top, left) [B, 2] to the whole."""
    matrix = np.tile(np.eye(3), (len(corners), 1, 1))
    matrix[:, 0, 2], matrix[:, 1, 2] = corners[:, 1], corners[:, 0]
    return matrix


def warp(images: Tensor, homographies: np.ndarray, size: int) -> Tensor:
    """Read square views of `size` pixels out of images [B, 3, H, W] uint8, bicubically.

    The homographies [B, 3, 3] lead from pixels of the view to pixels of the image.

    # differs from official: beyond its border the image is mirrored, where the official code
    # shows black corners that give the rotation away.
    """
    line = np.arange(size) + 0.5
    x, y = np.meshgrid(line, line)
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(size * size)])  # [3, size * size]
    mapped = homographies @ pixels  # [B, 3, size * size]
    extent = np.array([images.shape[-1], images.shape[-2]])[:, None]
    grid = 2 * mapped[:, :2] / mapped[:, 2:] / extent - 1
    grid = torch.from_numpy(grid).float().movedim(1, -1).unflatten(1, (size, size))
    views = grid_sample(
        images.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return views.round().clamp(0, 255).to(torch.uint8)
