"""Co-visibility of two views from depth maps and poses, as CroCo's data generator measures it.

A point of one view counts as seen by the other if that one has a point within 5 cm. There is no
test of occlusion beyond this distance.

Letters: H and W pixels, K points. World and camera coordinates are in metres; a camera looks along
z, with x right and y down; pixel centers are at +0.5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

RADIUS = 0.05  # metres; as official
LEAST_COVISIBILITY = 0.5  # as official: pairs below are not used
LEAST_VALID = 0.7  # share of pixels with depth; as official


class Cloud(NamedTuple):
    """The points that a depth camera sees."""

    points: np.ndarray  # [K, 3] metres, in the world; K <= num_pixels
    num_pixels: int  # looked at, with depth or without


def back_project(
    depth: np.ndarray,
    valid: np.ndarray,
    intrinsics: np.ndarray,
    world_from_camera: np.ndarray,
    step: int = 1,
) -> Cloud:
    """Find the point behind each pixel that has a depth.

    Depths [H, W] are metres along the optical axis, `valid` [H, W] is False where they are unknown;
    intrinsics [3, 3] lead from camera coordinates to pixels, the pose is [4, 4]. Only every step-th
    row and column is looked at, from the middle of the first cell on.

    ValueError if shapes do not fit, or a valid depth is not positive or not finite.
    """
    if depth.ndim != 2 or valid.shape != depth.shape:
        raise ValueError(
            f"depth has shape {depth.shape} and valid {valid.shape}; expected the same [H, W]"
        )
    start = (step - 1) // 2
    rows, columns = np.meshgrid(*(np.arange(start, n, step) for n in depth.shape), indexing="ij")
    known = valid[rows, columns]
    z = depth[rows, columns][known].astype(np.float64)  # [K]
    if not (np.isfinite(z) & (z > 0)).all():
        raise ValueError(
            "valid depths must be finite and above 0 metres; mark unknown ones (0, inf, nan) as "
            "not valid"
        )
    pixels = np.stack([columns[known] + 0.5, rows[known] + 0.5, np.ones(len(z))])  # [3, K]
    local = np.linalg.inv(np.asarray(intrinsics, np.float64)) @ pixels * z
    pose = np.asarray(world_from_camera, dtype=np.float64)
    return Cloud((pose[:3, :3] @ local + pose[:3, 3:]).T, rows.size)


def covisibility(
    cloud_1: Cloud, cloud_2: Cloud, radius: float = RADIUS, trees: Sequence[KDTree] = ()
) -> float:
    """Measure how much two views see of the same, in [0, 1].

    min(n_1, n_2) over the number of pixels, with n_1 the points of view 1 whose nearest point of
    view 2 is closer than the radius, and n_2 the other way round.

    Args:
        cloud_1: of view 1.
        cloud_2: of view 2.
        radius: metres.
        trees: to search in, made before; their pixels may lie denser than those of the clouds.
    """
    tree_1, tree_2 = trees or (KDTree(cloud.points) for cloud in (cloud_1, cloud_2))
    shares = [
        count_near(cloud.points, tree, radius) / cloud.num_pixels
        for cloud, tree in ((cloud_1, tree_2), (cloud_2, tree_1))
    ]
    return min(shares)


def count_near(points: np.ndarray, tree: KDTree, radius: float) -> int:
    """Count the points [K, 3] that have one of the tree closer than a radius."""
    if not len(points) or not tree.n:
        return 0
    distance, _ = tree.query(points, distance_upper_bound=radius)
    return int(np.isfinite(distance).sum())  # inf: none within the bound
