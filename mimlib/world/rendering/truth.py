"""Ground truth of one view, each kind rendered only when asked for by name, and between two views.

Whether one view sees the points of another is decided by a ray from its camera to each point, not
by comparing depths. Letters: B views, K pixels or points, R object slots, Q people, J joints.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.world.rendering.cameras import (
    inside,
    intrinsics,
    pixel_centers,
    project,
    world_from_camera,
)
from mimlib.world.rendering.cast import reaches
from mimlib.world.rendering.render import Frame, Surfaces, shade, shape_frames
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import NUM_ROOM_CLASSES
from mimlib.world.rooms.people import JOINTS, NUM_LIMBS, PARTS
from mimlib.world.rooms.scenes import Placed, pick_rows, rotate, rotate_planes, yaw_rotation


def as_image(values: Tensor, frame: Frame) -> Tensor:
    """Lay the pixels [..., K] out as [..., H, W]."""
    return values.unflatten(-1, (frame.size, frame.size))


def depth_truth(frame: Frame) -> dict:
    """Return depth [B, H, W] along the optical axis in meters."""
    return {"depth": as_image(frame.surfaces.depth, frame)}


def normals_truth(frame: Frame) -> dict:
    """Return normals [B, 3, H, W] in the camera's frame, unit, towards the camera."""
    normal = rotate_planes(frame.cameras.rotation.transpose(1, 2), frame.surfaces.normal)
    return {"normals": as_image(normal, frame)}


def instances_truth(frame: Frame) -> dict:
    """Return instance ids [B, H, W] uint8: 0 floor, 1 walls, 2 ceiling, then the objects."""
    return {"instances": as_image(frame.surfaces.instance, frame).to(torch.uint8)}


def classes_truth(frame: Frame) -> dict:
    """Return semantic classes [B, H, W] uint8, indices of CLASSES."""
    classes = frame.scenes.objects.class_id.gather(1, frame.surfaces.instance)
    return {"classes": as_image(classes, frame).to(torch.uint8)}


def boxes_truth(frame: Frame) -> dict:
    """Return tight boxes of what is visible of each object; row r is instance id r.

    `boxes` [B, R, 4] xyxy in pixels, right and bottom exclusive; `boxes_valid` [B, R] bool, False
    for the room itself and for objects not seen; `boxes_class` [B, R] int64, -1 for empty slots.
    """
    size, objects = frame.size, frame.scenes.objects
    instance = as_image(frame.surfaces.instance, frame)[:, None]
    slots = torch.arange(objects.class_id.shape[1], device=instance.device)
    mask = instance == slots[:, None, None]  # [B, R, H, W]
    line = torch.arange(size, device=instance.device)
    edges = []
    for along in (mask.any(2), mask.any(3)):  # [B, R, W], [B, R, H]
        low = torch.where(along, line, size).amin(2)
        high = torch.where(along, line + 1, 0).amax(2)
        edges.append((low, high))
    (left, right), (top, bottom) = edges
    valid = (right > left) & (slots >= NUM_ROOM_CLASSES)
    boxes = torch.stack((left, top, right, bottom), 2).float()
    return {
        "boxes": torch.where(valid[..., None], boxes, 0.0),
        "boxes_valid": valid,
        "boxes_class": objects.class_id,
    }


def keypoints_truth(frame: Frame) -> dict:
    """Return the joints of people.

    `keypoints` [B, Q, J, 2] in pixels; `keypoints_valid` [B, Q, J] bool, the joint projects into
    the image; `keypoints_visible` [B, Q, J] bool, the pixel there shows a limb around the joint;
    `keypoints_person` [B, Q] int64 instance id, -1 for nobody.
    """
    scenes, size = frame.scenes, frame.size
    people, num_people = scenes.people, scenes.people.slot.shape[1]
    slot = people.slot.clamp(min=0)
    turn = yaw_rotation(scenes.objects.yaw.gather(1, slot))[:, :, None]  # [B, Q, 1, 3, 3]
    foot = pick_rows(scenes.objects.position, slot)[:, :, None]
    joints = rearrange(rotate(turn, people.joints) + foot, "b q j i -> b i (q j)")
    pixels, depth = project(frame.cameras, joints, size)
    valid = inside(pixels, depth, size).unflatten(1, (num_people, -1))
    valid = valid & (people.slot >= 0)[..., None]
    column, row = pixels.clamp(0, size - 1).long().unbind(1)
    hit = frame.surfaces.slot.gather(1, row * size + column).unflatten(1, (num_people, -1))
    limb = hit - people.first_limb[..., None]  # [B, Q, J]
    on_person = (limb >= 0) & (limb < NUM_LIMBS)
    around = [[joint in joints for _, joints in PARTS] for joint in JOINTS]
    around = torch.tensor(around, device=limb.device)  # [J, L]
    joint = torch.arange(len(JOINTS), device=limb.device)
    visible = valid & on_person & around[joint, limb.clamp(0, NUM_LIMBS - 1)]
    pixels = rearrange(pixels, "b i (q j) -> b q j i", q=num_people)
    return {
        "keypoints": torch.where(valid[..., None], pixels, 0.0),
        "keypoints_valid": valid,
        "keypoints_visible": visible,
        "keypoints_person": people.slot,
    }


def camera_truth(frame: Frame) -> dict:
    """Return `intrinsics` [B, 3, 3] in pixels and `world_from_camera` [B, 4, 4] in meters."""
    return {
        "intrinsics": intrinsics(frame.cameras, frame.size),
        "world_from_camera": world_from_camera(frame.cameras),
    }


VIEW_TRUTH: dict[str, Callable[[Frame], dict[str, Tensor]]] = {
    "depth": depth_truth,
    "normals": normals_truth,
    "instances": instances_truth,
    "classes": classes_truth,
    "boxes": boxes_truth,
    "keypoints": keypoints_truth,
    "camera": camera_truth,
}
VIEW_KINDS = ("image", *VIEW_TRUTH)
WIDE = {  # stored as uint8, handed out wider
    name + view: torch.long for name in ("instances", "classes") for view in ("", "_1", "_2")
}


def view_fields(kind: str, frame: Frame, atlas: Atlas) -> dict[str, Tensor]:
    """Return the fields of one kind of VIEW_KINDS; the image's is called image."""
    return {"image": shade(frame, atlas)} if kind == "image" else VIEW_TRUTH[kind](frame)


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
