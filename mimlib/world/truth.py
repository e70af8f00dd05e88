"""Ground truth of one view, each kind rendered only when asked for by name.

Letters: B views, K = H * W pixels, R object slots, Q people, J joints.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from mimlib.world.cameras import Cameras, inside, intrinsics, project, world_from_camera
from mimlib.world.levels import NUM_ROOM_CLASSES
from mimlib.world.people import NUM_LIMBS, limbs_around_joints
from mimlib.world.render import Surfaces
from mimlib.world.scenes import Scenes, pick_rows, rotate, rotate_planes, yaw_rotation

Truth = Callable[[Scenes, Cameras, Surfaces, int], dict[str, Tensor]]


def depth_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return depth [B, H, W] along the optical axis in metres."""
    return {"depth": surfaces.depth.unflatten(1, (size, size))}


def normals_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return normals [B, 3, H, W] in the camera's frame, unit, towards the camera."""
    normal = rotate_planes(cameras.rotation.transpose(1, 2), surfaces.normal)
    return {"normals": normal.unflatten(2, (size, size))}


def instances_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return instance ids [B, H, W] uint8: 0 floor, 1 walls, 2 ceiling, then the objects."""
    return {"instances": surfaces.instance.unflatten(1, (size, size)).to(torch.uint8)}


def classes_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return semantic classes [B, H, W] uint8, indices of CLASSES."""
    classes = scenes.objects.class_id.gather(1, surfaces.instance)
    return {"classes": classes.unflatten(1, (size, size)).to(torch.uint8)}


def boxes_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return tight boxes of what is visible of each object; row r is instance id r.

    `boxes` [B, R, 4] xyxy in pixels, right and bottom exclusive; `boxes_valid` [B, R] bool, False
    for the room itself and for objects not seen; `boxes_class` [B, R] int64, -1 for empty slots.
    """
    instance = rearrange(surfaces.instance, "b (h w) -> b 1 h w", h=size)
    slots = torch.arange(scenes.objects.class_id.shape[1], device=instance.device)
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
        "boxes_class": scenes.objects.class_id,
    }


def keypoints_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return the joints of people.

    `keypoints` [B, Q, J, 2] in pixels; `keypoints_valid` [B, Q, J] bool, the joint projects into
    the image; `keypoints_visible` [B, Q, J] bool, the pixel there shows a limb around the joint;
    `keypoints_person` [B, Q] int64 instance id, -1 for nobody.
    """
    people, num_people = scenes.people, scenes.people.slot.shape[1]
    slot = people.slot.clamp(min=0)
    turn = yaw_rotation(scenes.objects.yaw.gather(1, slot))[:, :, None]  # [B, Q, 1, 3, 3]
    foot = pick_rows(scenes.objects.position, slot)[:, :, None]
    joints = rearrange(rotate(turn, people.joints) + foot, "b q j i -> b i (q j)")
    pixels, depth = project(cameras, joints, size)
    valid = inside(pixels, depth, size).unflatten(1, (num_people, -1))
    valid = valid & (people.slot >= 0)[..., None]
    column, row = pixels.clamp(0, size - 1).long().unbind(1)
    hit = surfaces.slot.gather(1, row * size + column).unflatten(1, (num_people, -1))
    limb = hit - people.first_limb[..., None]  # [B, Q, J]
    on_person = (limb >= 0) & (limb < NUM_LIMBS)
    around = limbs_around_joints(limb)
    joint = torch.arange(around.shape[0], device=limb.device)
    visible = valid & on_person & around[joint, limb.clamp(0, NUM_LIMBS - 1)]
    pixels = rearrange(pixels, "b i (q j) -> b q j i", q=num_people)
    return {
        "keypoints": torch.where(valid[..., None], pixels, 0.0),
        "keypoints_valid": valid,
        "keypoints_visible": visible,
        "keypoints_person": people.slot,
    }


def camera_truth(scenes: Scenes, cameras: Cameras, surfaces: Surfaces, size: int) -> dict:
    """Return `intrinsics` [B, 3, 3] in pixels and `world_from_camera` [B, 4, 4] in metres."""
    return {
        "intrinsics": intrinsics(cameras, size),
        "world_from_camera": world_from_camera(cameras),
    }


VIEW_TRUTH: dict[str, Truth] = {
    "depth": depth_truth,
    "normals": normals_truth,
    "instances": instances_truth,
    "classes": classes_truth,
    "boxes": boxes_truth,
    "keypoints": keypoints_truth,
    "camera": camera_truth,
}
WIDE = {"instances": torch.long, "classes": torch.long}  # stored as uint8, handed out wider
