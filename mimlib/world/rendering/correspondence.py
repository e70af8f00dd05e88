"""Where the points of one view are in another one, and whether they are seen there.

Visibility is decided by a ray from the second camera to each point, not by comparing depths.
Letters: B pairs, K points or pixels.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.world.rendering.cameras import inside, pixel_centers, project
from mimlib.world.rendering.cast import reaches
from mimlib.world.rendering.render import Frame, Surfaces, shape_frames
from mimlib.world.rooms.scenes import Placed, rotate_planes


class Match(NamedTuple):
    """Where points appear in a view."""

    pixels: Tensor  # [B, 2, K] x right, y down
    valid: Tensor  # [B, K] bool, in front of the camera
    visible: Tensor  # [B, K] bool, inside the image and not hidden


def carry(surfaces: Surfaces, moved: Placed) -> Tensor:
    """Move surface points with the shapes they lie on, to where those are later, [B, 3, K] m."""
    rotation, center, half_size = shape_frames(moved, surfaces.slot)
    point = center + rotate_planes(rotation, surfaces.local * half_size)
    return torch.where(surfaces.slot[:, None] < 0, surfaces.point, point)


def match(points: Tensor, frame: Frame) -> Match:
    """Find world points [B, 3, K] in the views of a frame."""
    cameras, placed = frame.cameras, frame.placed
    pixels, depth = project(cameras, points, frame.size)
    free = reaches(frame.scenes, placed, cameras.position, points - cameras.position[..., None])
    return Match(pixels, depth > 0.05, free & inside(pixels, depth, frame.size))


def flow_truth(found: Match, size: int) -> dict[str, Tensor]:
    """Return the displacement of every pixel of view 1 to view 2.

    `flow` [B, H, W, 2] in pixels (dx, dy); `flow_valid` [B, H, W] bool, False where the point is
    behind camera 2; `visible` [B, H, W] bool, True where camera 2 sees the point.
    """
    flow = found.pixels - pixel_centers(size, found.pixels)
    flow = torch.where(found.valid[:, None], flow, 0.0)
    return {
        "flow": rearrange(flow, "b c (h w) -> b h w c", h=size),
        "flow_valid": found.valid.unflatten(1, (size, size)),
        "visible": found.visible.unflatten(1, (size, size)),
    }
