"""Single views: of a room, worth looking at, or aimed at one object of a given class.

Candidates are judged by a few probe rays. Letters: B scenes, K candidates, R object slots.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.checks import check_choice
from mimlib.world.rendering.cameras import Cameras, look
from mimlib.world.rendering.render import Frame, Surfaces, trace
from mimlib.world.rendering.truth import VIEW_KINDS, view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import CLASSES, LEVELS, NUM_ROOM_CLASSES, Level
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.rooms.scenes import (
    Placed,
    Scenes,
    clearance,
    concatenate,
    place_shapes,
    rotate,
    take,
    uniform,
)
from mimlib.world.sets.cache import Fields
from mimlib.world.sets.recipes import MAX_ROUNDS, Recipe, fill_group, seeded

AIMS = ("room", "object")
PROBE = 16  # probe rays along a side of the image
NEAR = 0.45  # m; closer things fill the view
MIN_INSTANCES = 5  # in a view of the room, walls, floor and ceiling included
MARGIN = 0.35  # m kept from the walls
AIM_SHARE = (0.06, 0.6)  # of the pixels that the object aimed at should cover
OPENING = (1.0, 1.3)  # rad, field of view


class Views(NamedTuple):
    """Rooms with one camera each."""

    scenes: Scenes
    cameras: Cameras
    label: Tensor  # [B] int64 class of the object aimed at, -1 for views of the room


@dataclass(frozen=True, kw_only=True)
class ViewsRecipe(Recipe):
    """Single views."""

    aim: str = "room"

    kinds = VIEW_KINDS
    group_size = 64

    def __post_init__(self):
        """Check the aim, too."""
        super().__post_init__()
        check_choice(self, "aim", AIMS)

    @property
    def extras(self) -> tuple[str, ...]:
        """Add the class of the object aimed at."""
        return ("label",) if self.aim == "object" else ()

    def draw(self, group: int) -> Views:
        """Draw views."""
        generator = seeded("views", self.seed, self.level, self.aim, group)
        if self.aim == "object":
            return draw_aimed_views(self.group_size, self.level, generator)

        def attempt(count: int) -> tuple[Views, Tensor]:
            scenes, rig, _, _, good = sample_candidates(count, generator, LEVELS[self.level])
            return Views(scenes, rig.cameras(), torch.full((count,), -1)), good

        return fill_group(self.group_size, attempt, f"views of rooms at level {self.level!r}")

    def trace(self, items: Views) -> list[Frame]:
        """Trace the one image of each view."""
        return [trace(items.scenes, items.cameras, self.size)]

    def truth(self, kind: str, items: Views, frames: list[Frame], atlas: Atlas) -> Fields:
        """Return the fields of one kind of VIEW_KINDS."""
        return view_fields(kind, frames[0], atlas)


class Rig(NamedTuple):
    """Cameras as they are steered; [B] or, for candidates, [B, K]."""

    position: Tensor  # [B, 3] m
    yaw: Tensor  # rad
    pitch: Tensor  # rad, upwards
    focal: Tensor  # image sides

    def cameras(self) -> Cameras:
        """Return the cameras with their rotations."""
        return Cameras(self.position, look(self.yaw, self.pitch), self.focal)


def sample_focal(count: int, generator: torch.Generator) -> Tensor:
    """Draw focal lengths [B] in image sides."""
    return 0.5 / torch.tan(uniform(generator, *OPENING, count) / 2)


def head_towards(position: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return yaw and pitch [...] of the direction from position to target [..., 3]."""
    dx, dy, dz = (target - position).unbind(-1)
    return torch.atan2(dy, dx), torch.atan2(dz, (dx**2 + dy**2).sqrt())


def sample_room_view(scenes: Scenes, generator: torch.Generator, tries: int = 10) -> Rig:
    """Stand on free floor and look roughly at the middle of the room."""
    count = len(scenes.room.size)
    size = scenes.room.size[:, None, :2]
    places = MARGIN + uniform(generator, 0, 1, count, tries, 2) * (size - 2 * MARGIN)
    freedom = clearance(scenes.objects, places).clamp(max=0.4)
    best = (freedom + uniform(generator, 0, 0.1, count, tries)).argmax(1)
    place = places[torch.arange(count), best]
    height = uniform(generator, 0.9, 1.8, count)
    position = torch.cat((place, height[:, None]), 1)
    share = uniform(generator, 0.25, 0.75, count, 2)
    target = torch.cat((scenes.room.size[:, :2] * share, height[:, None]), 1)
    yaw, _ = head_towards(position, target)
    yaw = yaw + uniform(generator, -0.25, 0.25, count)
    pitch = -0.05 - uniform(generator, 0, 0.3, count) * height
    return Rig(position, yaw, pitch, sample_focal(count, generator))


def find_stuck(placed: Placed, position: Tensor) -> Tensor:
    """Tell which positions [B, 3] lie within a shape (or the box around it), [B]."""
    offset = position[:, None] - placed.center
    local = rotate(placed.rotation.transpose(2, 3), offset) / (placed.half_size + 0.05)
    return (local.abs() < 1).all(-1).any(-1)


def find_boring(surfaces: Surfaces) -> Tensor:
    """Tell which views [B] show too little, or have something right before the camera."""
    slots = torch.arange(int(surfaces.instance.max()) + 1)
    present = (surfaces.instance[:, :, None] == slots).any(1)
    blocked = surfaces.depth.quantile(0.1, dim=1) < NEAR
    return blocked | (present.sum(1) < MIN_INSTANCES)


def sample_candidates(
    count: int, generator: torch.Generator, level: Level
) -> tuple[Scenes, Rig, Placed, Surfaces, Tensor]:
    """Draw B rooms and stand in them; tell what PROBE x PROBE rays see, and if it is good, [B]."""
    scenes = sample_scenes(count, generator, level)
    rig, placed = sample_room_view(scenes, generator), place_shapes(scenes)
    view = trace(scenes, rig.cameras(), PROBE, placed).surfaces
    good = ~(find_boring(view) | find_stuck(placed, rig.position))
    return scenes, rig, placed, view, good


def draw_aimed_views(count: int, level: str, generator: torch.Generator) -> Views:
    """Draw views aimed at one object each; all classes are equally likely."""
    wanted = torch.randint(NUM_ROOM_CLASSES, len(CLASSES), (count,), generator=generator)
    missing, kept, rows = torch.arange(count), [], []
    for _ in range(MAX_ROUNDS):
        scenes = sample_scenes(len(missing), generator, LEVELS[level], wanted[missing])
        rig, good = sample_aimed_view(scenes, wanted[missing], generator)
        kept.append(take(Views(scenes, rig.cameras(), wanted[missing]), good))
        rows.append(missing[good])
        missing = missing[~good]
        if not len(missing):
            return take(concatenate(kept), torch.cat(rows).argsort())
    raise RuntimeError(f"no good view of a {CLASSES[int(wanted[missing[0]])]} at level {level!r}")


def first_good(rig: Rig, judge: Callable[[Tensor, Rig], Tensor]) -> tuple[Rig, Tensor]:
    """Return the first of K candidates [B, K] that passes, and whether there is one, [B].

    `judge` gets the scene of each camera [B * K] and the cameras; it tells which ones pass.
    """
    rows = torch.arange(len(rig.yaw))
    scenes = rows.repeat_interleave(rig.yaw.shape[1])
    good = judge(scenes, Rig(*(part.flatten(0, 1) for part in rig))).view(rig.yaw.shape)
    first = rows, good.float().argmax(1)
    return take(rig, first), good[first]


def sample_aimed_view(
    scenes: Scenes, wanted: Tensor, generator: torch.Generator, tries: int = 6
) -> tuple[Rig, Tensor]:
    """Aim at one object of the wanted class [B] in each room; tell where it is well seen, [B].

    The distance follows the size of the object; of several cameras the first one is kept in which
    the object covers a share of the probe rays within AIM_SHARE, and the middle of the image.
    """
    there = scenes.objects.class_id == wanted[:, None]  # [B, R]
    there[:, :NUM_ROOM_CLASSES] = False
    slot = (torch.rand(there.shape, generator=generator) * there).argmax(1)
    placed = place_shapes(scenes)
    low, high = object_extent(scenes, placed, slot)
    center, extent = (low + high) / 2, (high - low).square().sum(1).sqrt()

    def judge(rows: Tensor, rig: Rig) -> Tensor:
        shapes = take(placed, rows)
        view = trace(take(scenes, rows), rig.cameras(), PROBE, shapes).surfaces
        hit = view.instance == slot[rows][:, None]
        share = hit.float().mean(1)
        middle = hit.unflatten(1, (PROBE, PROBE))[:, 5:11, 5:11].float().mean((1, 2))
        good = (share >= AIM_SHARE[0]) & (share <= AIM_SHARE[1]) & (middle > 0.3)
        far = view.depth.quantile(0.1, dim=1) > NEAR
        return good & far & ~find_stuck(shapes, rig.position)

    rig, good = first_good(orbit(scenes, center, extent, generator, tries), judge)
    return rig, good & there.any(1)


def object_extent(scenes: Scenes, placed: Placed, slot: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners [B, 3] of an upright box in the world around object `slot` [B]."""
    reach = (placed.rotation.abs() * placed.half_size[:, :, None]).sum(-1)  # [B, S, 3]
    used = placed.center[..., 2] > -10
    own = ((scenes.shapes.owner == slot[:, None]) & used)[..., None]
    low = torch.where(own, placed.center - reach, 1e3).amin(1)
    high = torch.where(own, placed.center + reach, -1e3).amax(1)
    return low, high


def orbit(
    scenes: Scenes, center: Tensor, extent: Tensor, generator: torch.Generator, tries: int
) -> Rig:
    """Place K candidate cameras [B, K] around points [B, 3], looking at them."""
    count = len(center)
    focal = sample_focal(count, generator)[:, None].expand(-1, tries)
    share = uniform(generator, 0.45, 1.0, count, tries)  # of the image side that the object spans
    distance = (focal * extent[:, None] / share).clamp(min=0.7)
    angle = uniform(generator, -math.pi, math.pi, count, tries)
    height = uniform(generator, 0.6, 1.8, count, tries)
    rise = (height - center[:, None, 2]).clamp(-1.2, 1.2)
    ground = (distance**2 - rise**2).clamp(min=0.25).sqrt()
    offset = torch.stack((ground * angle.cos(), ground * angle.sin(), rise), -1)
    limit = scenes.room.size[:, None] - MARGIN
    position = torch.minimum((center[:, None] + offset).clamp(min=MARGIN), limit)
    jitter = 0.12 * extent[:, None, None] * uniform(generator, -1, 1, count, tries, 3)
    yaw, pitch = head_towards(position, center[:, None] + jitter)
    return Rig(position, yaw, pitch, focal)
