"""How things and the camera move through a clip; frame t of a clip never depends on its length.

Letters: B clips, R object slots, Q people, K directions; time is counted in frames.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.world.rooms.levels import CLASSES
from mimlib.world.rooms.people import NUM_LIMBS, Traits, limb_shapes, pose_joints
from mimlib.world.rooms.scenes import People, Scenes, Shapes, uniform
from mimlib.world.sets.viewpoints import Rig

MOVERS = {"person": 0.9, "ball": 0.85, "crate": 0.35, "chair": 0.3}  # chance to move
SPEED = (0.04, 0.11)  # m a frame
MAX_SPIN = 0.1  # rad a frame
MAX_PATH = 2.0  # m; things go to and fro on a straight path
LEG = 0.88  # m, of a person of average height


class Motion(NamedTuple):
    """Straight paths of the objects, gentle swings of the camera."""

    moving: Tensor  # [B, R] bool
    heading: Tensor  # [B, R] rad
    speed: Tensor  # [B, R] m a frame
    path: Tensor  # [B, R] m
    spin: Tensor  # [B, R] rad a frame
    sway: Tensor  # [B, 3] m, how far the camera swings
    turn: Tensor  # [B] rad, how far it turns
    period: Tensor  # [B] frames of a swing


def sample_motion(scenes: Scenes, generator: torch.Generator) -> Motion:
    """Let some objects move where there is room, and the camera swing."""
    objects = scenes.objects
    shape = objects.yaw.shape
    chances = torch.tensor([MOVERS.get(name, 0.0) for name in CLASSES] + [0.0])
    willing = uniform(generator, 0, 1, *shape) < chances[objects.class_id]
    willing = willing & (objects.radius > 0)
    heading, free = free_heading(scenes, generator)
    angle = uniform(generator, -math.pi, math.pi, shape[0])
    sway = torch.stack((angle.cos(), angle.sin(), 0.3 * angle.sin()), 1)
    return Motion(
        moving=willing & (free > 0.4),
        heading=heading,
        speed=uniform(generator, *SPEED, *shape),
        path=free.clamp(0.4, MAX_PATH),
        spin=uniform(generator, -MAX_SPIN, MAX_SPIN, *shape),
        sway=sway * uniform(generator, 0.05, 0.3, shape[0], 1),
        turn=uniform(generator, -0.25, 0.25, shape[0]),
        period=uniform(generator, 24, 60, shape[0]),
    )


def free_heading(
    scenes: Scenes, generator: torch.Generator, tries: int = 12, steps: int = 8
) -> tuple[Tensor, Tensor]:
    """Find for every object the freest of K directions; returns rad and meters, [B, R] each."""
    objects, room = scenes.objects, scenes.room.size[:, None, None, None, :2]
    place, radius = objects.position[..., :2], objects.radius
    angle = uniform(generator, -math.pi, math.pi, *radius.shape, tries)
    direction = torch.stack((angle.cos(), angle.sin()), -1)[..., None, :]
    reach = torch.linspace(0, MAX_PATH, steps + 1)[1:]
    path = place[:, :, None, None] + direction * reach[:, None]  # [B, R, K, steps, 2]
    wall = torch.minimum(path, room - path).amin(-1) - radius[:, :, None, None]
    num_objects = radius.shape[1]
    clear = wall > 0.02
    for other in range(num_objects):
        gap = (path - place[:, other, None, None, None]).square().sum(-1).sqrt()
        apart = gap > (radius + radius[:, other, None])[..., None, None]
        blocks = (radius[:, other] > 0)[:, None].repeat(1, num_objects)
        blocks[:, other] = False
        clear &= apart | ~blocks[..., None, None]
    free = clear.long().cumprod(-1).sum(-1) * (MAX_PATH / steps)  # [B, R, K]
    best = free.max(-1)
    return angle.gather(2, best.indices[..., None])[..., 0], best.values


def scenes_at(scenes: Scenes, motion: Motion, time: int) -> Scenes:
    """Return the rooms as they are in a frame."""
    objects, moving = scenes.objects, motion.moving
    gone = motion.speed * time
    lap = torch.remainder(gone, 2 * motion.path)
    returning = lap > motion.path
    along = torch.where(returning, 2 * motion.path - lap, lap) * moving
    direction = torch.stack((motion.heading.cos(), motion.heading.sin()), -1)
    position = objects.position.clone()
    position[..., :2] += along[..., None] * direction
    is_person = objects.class_id == CLASSES.index("person")
    facing = motion.heading + torch.where(returning, math.pi, 0.0) - math.pi / 2
    yaw = torch.where(is_person, facing, objects.yaw + motion.spin * time)
    yaw = torch.where(moving, yaw, objects.yaw)
    people = walk(scenes.people, gone * moving)
    return scenes._replace(
        objects=objects._replace(position=position, yaw=yaw),
        people=people,
        shapes=bend_limbs(scenes.shapes, people),
    )


def walk(people: People, gone: Tensor) -> People:
    """Swing the limbs of people for the way they have gone, meters [B, R]."""
    way = gone.gather(1, people.slot.clamp(min=0))  # [B, Q]
    traits = people.traits.clone()
    step = 4 * LEG * torch.sin(0.2 + 0.5 * traits[..., Traits._fields.index("stride")])
    traits[..., Traits._fields.index("phase")] += way / step
    joints = pose_joints(traits.flatten(0, 1)).unflatten(0, way.shape)
    return people._replace(traits=traits, joints=joints)


def bend_limbs(shapes: Shapes, people: People) -> Shapes:
    """Put the limbs of people where their joints are."""
    center, rotation = shapes.center.clone(), shapes.rotation.clone()
    half_size = shapes.half_size.clone()
    girth = people.traits[..., Traits._fields.index("girth")]
    limbs = torch.arange(NUM_LIMBS, device=center.device)
    for index in range(people.slot.shape[1]):
        rows = (people.slot[:, index] >= 0).nonzero()
        columns = people.first_limb[rows[:, 0], index, None] + limbs
        here = rows[:, 0]
        values = limb_shapes(people.joints[here, index], girth[here, index])
        center[rows, columns], rotation[rows, columns], half_size[rows, columns] = values
    return shapes._replace(center=center, rotation=rotation, half_size=half_size)


def rig_at(rig: Rig, motion: Motion, time: int) -> Rig:
    """Return the camera as it stands in a frame."""
    swing = torch.sin(2 * math.pi * time / motion.period)
    return rig._replace(
        position=rig.position + swing[:, None] * motion.sway, yaw=rig.yaw + swing * motion.turn
    )
