"""RGB-D sequences with poses as pairs for CroCo: 7-Scenes, mined by co-visibility."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from mimlib.checks import check_positive, check_range
from mimlib.data.files.listing import Listing, is_hidden, read_text
from mimlib.data.files.numbers import read_depth_png
from mimlib.data.files.reading import reading
from mimlib.data.pairs.covisibility import (
    LEAST_COVISIBILITY,
    LEAST_VALID,
    Cloud,
    back_project,
    covisibility,
)
from mimlib.data.pairs.files import PairFileSource
from mimlib.data.pairs.views import PairAugmentation

INTRINSICS = "camera-intrinsics.txt"
FOCAL = 585.0  # pixels, 7-Scenes, for 640 x 480; the principal point is the middle
COLORS, POSE = (".color.png", ".color.jpg"), ".pose.txt"
TREE_STEP, QUERY_STEP = 4, 8  # every 4th pixel is searched in: at 4 m they are 2.7 cm apart
CLOUDS_KEPT = 64  # frames; about half a megabyte each


@dataclass(frozen=True, kw_only=True)
class RGBDPairsConfig(PairAugmentation):
    """Pairs of frames of one sequence that see enough of the same, by depth and pose."""

    root: str  # path of a scene or sequence; sub-folders are sequences of their own
    covisibility: tuple[float, float] = (LEAST_COVISIBILITY, 1.0)  # share, least and most
    partners: int = 8  # frames tried for each frame, at random
    seed: int = 0  # of the partners
    workers: int = 0  # decoding processes

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "covisibility", least=0, most=1, ordered=True)
        check_positive(self, "partners")

    def build(self) -> PairFileSource:
        """Mine the pairs; ValueError if no two frames see enough of the same."""
        root = os.path.expanduser(self.root)
        mined = [pair for sequence in find_sequences(root) for pair in self.mine(sequence)]
        kind = f"to pair by a co-visibility within {self.covisibility}; try a wider range"
        return PairFileSource(Listing(root, [(a, b) for a, b, _ in mined], kind), self)

    def mine(self, sequence: "RGBDSequence") -> list[tuple[str, str, float]]:
        """Return the accepted pairs of a sequence: color images 1 and 2, and co-visibility."""
        generator = np.random.default_rng(self.seed)
        count, found = len(sequence.frames), []
        for first in range(count):
            others = np.delete(np.arange(count), first)
            for second in generator.permutation(others)[: self.partners].tolist():
                clouds, trees = zip(sequence.cloud(first), sequence.cloud(second))
                if any(len(c.points) < LEAST_VALID * c.num_pixels for c in clouds):
                    continue
                share = covisibility(*clouds, trees=trees)
                if self.covisibility[0] <= share <= self.covisibility[1]:
                    paths = sequence.frames[first].color, sequence.frames[second].color
                    found.append((*paths, share))
        return found


class RGBDFrame(NamedTuple):
    """The files of one frame."""

    color: str
    depth: str
    pose: str


class RGBDSequence:
    """The frames of one folder with depth, pose and color, in the order of their names."""

    def __init__(self, folder: str, frames: list[RGBDFrame]):
        self.folder, self.frames = folder, frames
        path = os.path.join(folder, INTRINSICS)
        self._intrinsics = read_matrix(path, 3) if os.path.exists(path) else None
        self.cloud = lru_cache(CLOUDS_KEPT)(self._cloud)

    def _cloud(self, index: int) -> tuple[Cloud, KDTree]:
        """Return what frame `index` sees: points to be looked for, and a tree to look in."""
        frame = self.frames[index]
        depth, valid = read_depth_png(frame.depth)
        depth, valid = depth[..., 0].numpy(), valid.numpy()
        pose, matrix = read_matrix(frame.pose, 4), self._intrinsics
        if matrix is None:
            height, width = depth.shape
            matrix = np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]])
        dense = back_project(depth, valid, matrix, pose, TREE_STEP)
        return back_project(depth, valid, matrix, pose, QUERY_STEP), KDTree(dense.points)


def find_sequences(root: str) -> list[RGBDSequence]:
    """List the sequences below a folder, frames with all three files only; ValueError if none."""
    sequences = []
    for folder, _, names in sorted(os.walk(root)):
        frames, present = [], set(names)
        for name in sorted(n for n in names if n.endswith(POSE) and not is_hidden(n)):
            stem = name.removesuffix(POSE)
            color = next((stem + ending for ending in COLORS if stem + ending in present), None)
            if color and f"{stem}.depth.png" in present:
                files = (color, f"{stem}.depth.png", name)
                frames.append(RGBDFrame(*(os.path.join(folder, file) for file in files)))
        if frames:
            sequences.append(RGBDSequence(folder, frames))
    if not sequences:
        raise ValueError(
            f"{root} holds no RGB-D frames: expected NAME.color.png or .jpg, NAME.depth.png and "
            "NAME.pose.txt, as 7-Scenes has them"
        )
    return sequences


def read_matrix(path: str, side: int) -> np.ndarray:
    """Read a square matrix of numbers from a text file, [side, side] float64."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    with reading(f"a matrix from {path}"):
        matrix = np.array(rows).astype(np.float64)
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise ValueError(
            f"{path} has shape {matrix.shape} or values that are not finite; expected a "
            f"{side} x {side} matrix: leave out frames whose pose is unknown"
        )
    return matrix
