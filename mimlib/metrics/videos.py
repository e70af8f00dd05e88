"""How well objects are followed through a video: region and boundary, J and F.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016, section 5, with the means of Pont-Tuset et al., "The 2017 DAVIS Challenge", 2017 (arXiv
1704.00675), section 4.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy.spatial import KDTree
from torch import Tensor

TOLERANCE = 0.008  # of the diagonal: how far apart boundaries may be, as official
FOUND = 0.5  # J or F above which an object counts as found in a frame


def region_similarity(found: np.ndarray, true: np.ndarray) -> float:
    """Return J, the intersection of two masks [H, W] bool over their union; 1 if both are empty."""
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0


def boundary_accuracy(found: np.ndarray, true: np.ndarray) -> float:
    """Return F, the harmonic mean of how much of either boundary lies near the other one.

    Precision is the share of the found boundary that is near the true one, recall the share of the
    true boundary that is near the found one; near is within ceil(0.008 diagonal) pixels. Two masks
    without boundary agree, one without and one with do not at all. Both are [H, W] bool.
    """
    ours, theirs = boundary_pixels(found), boundary_pixels(true)
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    near = math.ceil(TOLERANCE * math.hypot(*true.shape))
    precision = float((KDTree(theirs).query(ours)[0] <= near).mean())
    recall = float((KDTree(ours).query(theirs)[0] <= near).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Return where a mask [H, W] ends, [K, 2] (row, column).

    # as official: pixels that differ from their neighbour to the right, below or on the diagonal
    between; half a pixel towards the origin, and none along the border of the image.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    neighbors = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.argwhere(np.any([mask != neighbor for neighbor in neighbors], axis=0))


class VideoScores:
    """J and F of every object of every video.

    # as official: a mean over frames for each object, then over the objects of all videos; recall
    is the share of frames above 0.5, averaged likewise. Neither the first nor the last frame of a
    video counts.
    """

    def __init__(self) -> None:
        self.objects: list[dict[str, float]] = []  # one for each object of each video

    def update(
        self, found: Sequence[Tensor], true: Sequence[Tensor], objects: Sequence[int]
    ) -> None:
        """Count a video: object ids [H, W] of each frame that counts, as found and in truth.

        `objects` are the ids that are followed; others are background.
        """
        pairs = [(f.cpu().numpy(), t.cpu().numpy()) for f, t in zip(found, true, strict=True)]
        for number in objects:
            masks = [(f == number, t == number) for f, t in pairs]
            scores = {}
            for name, measure in (("j", region_similarity), ("f", boundary_accuracy)):
                values = [measure(*both) for both in masks]
                scores[f"{name}_mean"] = fmean(values)
                scores[f"{name}_recall"] = fmean(value > FOUND for value in values)
            self.objects.append(scores)

    def compute(self) -> dict[str, float]:
        """Return j_and_f, j_mean, j_recall, f_mean, f_recall; ValueError if no object counted."""
        if not self.objects:
            raise ValueError("nothing was counted: there is no video with an object to follow")
        means = {name: fmean(each[name] for each in self.objects) for name in self.objects[0]}
        return {"j_and_f": (means["j_mean"] + means["f_mean"]) / 2, **means}
