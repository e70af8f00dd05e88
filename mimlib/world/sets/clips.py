"""Clips: moving people and things before a moving camera, with constant ids.

Frame t of a clip never depends on its length. Letters: B clips, T frames, Q tracked points or
people, K pixels or directions, R object slots; time is counted in frames.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.checks import check_range
from mimlib.world.rendering.render import Frame, trace
from mimlib.world.rendering.truth import VIEW_KINDS, carry, flow_truth, match, view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import CLASSES, LEVELS
from mimlib.world.rooms.people import NUM_LIMBS, Traits, limb_shapes, pose_joints
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.rooms.scenes import People, Scenes, Shapes, uniform
from mimlib.world.sets.cache import Fields
from mimlib.world.sets.recipes import Recipe, fill_group, seeded
from mimlib.world.sets.views import (
    PROBE,
    Rig,
    find_boring,
    find_stuck,
    head_towards,
    sample_room_view,
)

TRACKS = 128  # points; one half anywhere, the other on what moves
PROBED_FRAMES = (0, 8)  # something moving must be seen in these
MOVING_SHARE = 0.02  # of the probe rays
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


class Clips(NamedTuple):
    """Rooms at frame 0, how they move, and who looks."""

    scenes: Scenes
    motion: Motion
    rig: Rig
    lots: Tensor  # [B, Q] in [0, 1), which pixels of frame 0 are tracked


@dataclass(frozen=True, kw_only=True)
class ClipsRecipe(Recipe):
    """Clips."""

    level: str = "clip"
    frames: int

    kinds = (*VIEW_KINDS, "flow", "tracks")
    group_size = 8

    def __post_init__(self):
        """Check the length, too."""
        super().__post_init__()
        check_range(self, "frames", least=2, most=256)

    def draw(self, group: int) -> Clips:
        """Draw clips."""
        generator = seeded("clips", self.seed, group)

        def attempt(count: int) -> tuple[Clips, Tensor]:
            scenes = sample_scenes(count, generator, LEVELS["clip"])
            motion = sample_motion(scenes, generator)
            rig = aim_at_mover(scenes, motion, sample_room_view(scenes, generator), generator)
            clips = Clips(scenes, motion, rig, uniform(generator, 0, 1, count, TRACKS))
            good = motion.moving.any(1)
            for time in PROBED_FRAMES:
                frame = clip_frame(clips, time, PROBE)
                mover = motion.moving.gather(1, frame.surfaces.instance).float().mean(1)
                stuck = find_stuck(frame.placed, frame.cameras.position)
                good &= (mover > MOVING_SHARE) & ~stuck & ~find_boring(frame.surfaces)
            return clips, good

        return fill_group(self.group_size, attempt, "clips")

    def trace(self, items: Clips) -> list[Frame]:
        """Trace the images of each clip, frame by frame."""
        return [clip_frame(items, time, self.size) for time in range(self.frames)]

    def truth(self, kind: str, items: Clips, frames: list[Frame], atlas: Atlas) -> Fields:
        """Return the fields of one kind, [B, T, ...]; flow has T - 1 frames."""
        if kind == "tracks":
            return tracks_truth(items, frames)
        if kind == "flow":
            steps = itertools.pairwise(frames)
            points = [(carry(now.surfaces, after.placed), after) for now, after in steps]
            fields = [flow_truth(match(*point), self.size) for point in points]
        else:
            fields = [view_fields(kind, frame, atlas) for frame in frames]
        return {name: torch.stack([f[name] for f in fields], 1) for name in fields[0]}


def aim_at_mover(scenes: Scenes, motion: Motion, rig: Rig, generator: torch.Generator) -> Rig:
    """Turn cameras towards something that moves."""
    lot = uniform(generator, 0.1, 1, *motion.moving.shape) * motion.moving
    chosen = lot.argmax(1)
    target = scenes.objects.position[torch.arange(len(chosen)), chosen]
    yaw, _ = head_towards(rig.position, target)
    return rig._replace(yaw=yaw + uniform(generator, -0.3, 0.3, len(chosen)))


def clip_frame(clips: Clips, time: int, size: int) -> Frame:
    """Trace one frame of every clip."""
    scenes = scenes_at(clips.scenes, clips.motion, time)
    return trace(scenes, rig_at(clips.rig, clips.motion, time).cameras(), size)


def tracks_truth(clips: Clips, frames: list[Frame]) -> dict[str, Tensor]:
    """Follow points seen in frame 0.

    `tracks` [B, T, Q, 2] in pixels; `tracks_valid` [B, T, Q] bool, in front of the camera;
    `tracks_visible` [B, T, Q] bool; `tracks_instance` [B, Q] int64.
    """
    first = frames[0].surfaces
    moves = clips.motion.moving.gather(1, first.instance)
    anywhere, on_movers = clips.lots.chunk(2, dim=1)
    pixel = torch.cat(
        (pick_pixels(torch.ones_like(moves), anywhere), pick_pixels(moves, on_movers)), 1
    )
    found = []
    for frame in frames:
        points = carry(first, frame.placed).gather(2, pixel[:, None].expand(-1, 3, -1))
        found.append(match(points, frame))
    pixels = rearrange([now.pixels for now in found], "t b i q -> b t q i")
    valid = torch.stack([now.valid for now in found], 1)
    return {
        "tracks": torch.where(valid[..., None], pixels, 0.0),
        "tracks_valid": valid,
        "tracks_visible": torch.stack([now.visible for now in found], 1),
        "tracks_instance": first.instance.gather(1, pixel),
    }


def pick_pixels(allowed: Tensor, lots: Tensor) -> Tensor:
    """Return for each lot [B, Q] in [0, 1) one of the allowed pixels [B, K], or any if none is."""
    allowed = allowed | ~allowed.any(1, keepdim=True)
    rank = allowed.long().cumsum(1)
    wanted = (lots * rank[:, -1:]).long() + 1
    return torch.searchsorted(rank, wanted.clamp(max=rank[:, -1:]))


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
    gap = (path[..., None, :] - place[:, None, None, None]).square().sum(-1).sqrt()  # [..., R]
    apart = gap > (radius[:, :, None] + radius[:, None])[:, :, None, None]
    harmless = torch.eye(radius.shape[1], dtype=torch.bool) | (radius <= 0)[:, None]  # [B, R, R]
    clear = (wall > 0.02) & (apart | harmless[:, :, None, None]).all(-1)
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
    rows, person = (people.slot >= 0).nonzero().unbind(1)
    girth = people.traits[rows, person, Traits._fields.index("girth")]
    bent = limb_shapes(people.joints[rows, person], girth)
    limbs = torch.arange(NUM_LIMBS, device=rows.device)
    slots = rows[:, None], people.first_limb[rows, person, None] + limbs
    parts = zip(("center", "rotation", "half_size"), bent)
    return shapes._replace(**{name: getattr(shapes, name).index_put(slots, v) for name, v in parts})


def rig_at(rig: Rig, motion: Motion, time: int) -> Rig:
    """Return the camera as it stands in a frame."""
    swing = torch.sin(2 * math.pi * time / motion.period)
    return rig._replace(
        position=rig.position + swing[:, None] * motion.sway, yaw=rig.yaw + swing * motion.turn
    )
