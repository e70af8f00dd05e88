"""Cameras: where they stand, what they see, which views are worth keeping.

A camera's frame is x right, y down, z forward. Image points are (x right, y down) in pixels with
pixel centers at +0.5. Letters: B cameras, K rays or candidates, H = W = size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.world.rooms.scenes import rotate_planes


class Cameras(NamedTuple):
    """One pinhole camera per scene, square images."""

    position: Tensor  # [B, 3] m
    rotation: Tensor  # [B, 3, 3] world from camera; columns right, down, forward
    focal: Tensor  # [B] focal length in image sides


def look(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Return world-from-camera rotations [..., 3, 3] for a heading and a pitch upwards [...]."""
    sin_yaw, cos_yaw, zero = yaw.sin(), yaw.cos(), torch.zeros_like(yaw)
    right = torch.stack((sin_yaw, -cos_yaw, zero), -1)
    level = torch.stack((cos_yaw, sin_yaw, zero), -1)
    up = torch.stack((zero, zero, zero + 1), -1)
    sin_pitch, cos_pitch = pitch.sin()[..., None], pitch.cos()[..., None]
    forward = cos_pitch * level + sin_pitch * up
    down = sin_pitch * level - cos_pitch * up
    return torch.stack((right, down, forward), -1)


def pixel_centers(size: int, like: Tensor) -> Tensor:
    """Return the centers of all pixels, row by row, [2, size * size], of the kind of `like`."""
    line = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()))


def pixel_rays(cameras: Cameras, size: int) -> Tensor:
    """Return the directions of the rays through all pixels, in the world, [B, 3, K].

    They are 1 long along the optical axis: the ray parameter is metric depth.
    """
    x, y = pixel_centers(size, cameras.focal) / size - 0.5
    right, down, forward = (column[..., None] for column in cameras.rotation.unbind(2))  # [B, 3, 1]
    focal = cameras.focal[:, None, None]
    return right * (x / focal) + down * (y / focal) + forward


def project(cameras: Cameras, points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Project world points [B, 3, K] to pixels [B, 2, K] and depths [B, K] in meters.

    Pixels mean nothing where the depth is not positive.
    """
    local = rotate_planes(cameras.rotation.transpose(1, 2), points - cameras.position[..., None])
    depth = local[:, 2]
    ahead = torch.where(depth.abs() < 1e-6, 1e-6, depth)
    pixels = (local[:, :2] / ahead[:, None] * cameras.focal[:, None, None] + 0.5) * size
    return pixels, depth


def inside(pixels: Tensor, depth: Tensor, size: int) -> Tensor:
    """Tell which projections [B, 2, K] fall into the image, in front of the camera, [B, K]."""
    return (depth > 0.05) & ((pixels > 0) & (pixels < size)).all(1)


def intrinsics(cameras: Cameras, size: int) -> Tensor:
    """Return the matrices [B, 3, 3] from camera coordinates to pixels."""
    matrix = torch.zeros_like(cameras.rotation)
    matrix[:, 0, 0] = matrix[:, 1, 1] = cameras.focal * size
    matrix[:, :2, 2] = size / 2
    matrix[:, 2, 2] = 1
    return matrix


def world_from_camera(cameras: Cameras) -> Tensor:
    """Return the poses as matrices [B, 4, 4]."""
    upper = torch.cat((cameras.rotation, cameras.position[..., None]), 2)
    last = upper.new_tensor((0.0, 0, 0, 1)).expand(len(upper), 1, 4)
    return torch.cat((upper, last), 1)
