"""Clips: moving people and things before a moving camera, with constant ids.

Letters: B clips, T frames, Q tracked points, K pixels, R object slots.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.checks import check_range
from mimlib.world.rendering.correspondence import carry, flow_truth, match
from mimlib.world.rendering.render import Frame, trace
from mimlib.world.rendering.truth import VIEW_KINDS, view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import LEVELS
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.rooms.scenes import Scenes, uniform
from mimlib.world.sets.motion import Motion, rig_at, sample_motion, scenes_at
from mimlib.world.sets.recipes import Recipe, fill_group, seeded
from mimlib.world.sets.viewpoints import (
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
MAX_FRAMES = 256


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
        check_range(self, "frames", least=2, most=MAX_FRAMES)

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

    def truth(
        self, kind: str, items: Clips, frames: list[Frame], atlas: Atlas | None
    ) -> dict[str, Tensor]:
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
