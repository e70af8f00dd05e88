"""Pairs of views of one room whose overlap is measured. Letters: B pairs, K candidates."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.world.rendering.cameras import Cameras, inside, pixel_centers, project
from mimlib.world.rendering.render import Frame, trace
from mimlib.world.rendering.truth import VIEW_KINDS, as_image, flow_truth, match, view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import LEVELS, PAIR_LEVELS, Level
from mimlib.world.rooms.scenes import Placed, Scenes, place_shapes, take, uniform
from mimlib.world.sets.cache import Fields
from mimlib.world.sets.recipes import Recipe, fill_group, seeded
from mimlib.world.sets.views import (
    MARGIN,
    NEAR,
    Rig,
    find_stuck,
    first_good,
    head_towards,
    sample_candidates,
)

STEREO_BASELINE = (0.06, 0.2)  # m between the cameras; eyes are 0.065 apart
CANDIDATES = 3  # second cameras tried per room and round
COARSE, FINE = 12, 32  # probe rays along a side: to choose a candidate, to measure it
EXACT = 64  # rays along a side where a level limits the flow, which a single pixel can exceed
# Kept above the least co-visibility, as the FINE grid is not all pixels: for 99 % of the pairs of
# `paper` at 64 px it is within 0.017, at worst 0.026 off; none of 3,008 fell below 0.5.
SLACK = 0.01


class Pairs(NamedTuple):
    """Rooms with two cameras each."""

    scenes: Scenes
    cameras_1: Cameras
    cameras_2: Cameras
    covisibility: Tensor  # [B] share of pixels seen by the other camera, the lesser of both ways


class Overlap(NamedTuple):
    """How much two cameras see of the same."""

    covisibility: Tensor  # [B] the lesser of both ways
    flow: Tensor  # [B] longest displacement of a pixel that stays in the image, in image sides
    near: Tensor  # [B] m, a tenth of view 2 is nearer


@dataclass(frozen=True, kw_only=True)
class PairsRecipe(Recipe):
    """Pairs of views."""

    kinds = (*VIEW_KINDS, "flow", "covisible")
    extras = ("covisibility",)
    group_size = 32
    levels = PAIR_LEVELS

    def draw(self, group: int) -> Pairs:
        """Draw pairs."""
        generator, rules = seeded("pairs", self.seed, self.level, group), LEVELS[self.level]

        def attempt(count: int) -> tuple[Pairs, Tensor]:
            scenes, first, _, view, keep = sample_candidates(count, generator, rules)
            scenes, first, depth = take(scenes, keep), take(first, keep), view.depth[keep]
            second, found = choose_second(scenes, first, depth.median(1).values, rules, generator)
            scenes, first, second = (take(part, found) for part in (scenes, first, second))
            overlap = measure(scenes, first.cameras(), second.cameras(), FINE)
            good = acceptable(overlap, rules, SLACK)
            if math.isfinite(rules.max_flow):
                points = trace(scenes, first.cameras(), EXACT).surfaces.point
                pixels, depth = project(second.cameras(), points, EXACT)
                exact = flow_length(pixels, inside(pixels, depth, EXACT), EXACT)
                good = good & (exact <= rules.max_flow)
            return Pairs(scenes, first.cameras(), second.cameras(), overlap.covisibility), good

        return fill_group(self.group_size, attempt, f"pairs at level {self.level!r}")

    def trace(self, items: Pairs) -> list[Frame]:
        """Trace both images of each pair."""
        placed = place_shapes(items.scenes)
        cameras = (items.cameras_1, items.cameras_2)
        return [trace(items.scenes, camera, self.size, placed) for camera in cameras]

    def truth(self, kind: str, items: Pairs, frames: list[Frame], atlas: Atlas) -> Fields:
        """Return the fields of one kind; those of one view end in _1 or _2."""
        first, second = frames
        if kind == "flow":
            return flow_truth(match(first.surfaces.point, second), self.size)
        if kind == "covisible":  # [B, H, W] bool: which pixels the other camera sees
            there, back = match(first.surfaces.point, second), match(second.surfaces.point, first)
            return {
                "covisible_1": as_image(there.visible, first),
                "covisible_2": as_image(back.visible, second),
            }
        return {
            f"{name}_{number}": field
            for number, frame in enumerate(frames, start=1)
            for name, field in view_fields(kind, frame, atlas).items()
        }


@dataclass(frozen=True, kw_only=True)
class StereoRecipe(PairsRecipe):
    """Rectified pairs: two parallel cameras side by side, camera 1 on the left.

    A point at depth z is focal length * baseline / z pixels further left in view 2, in its row.
    """

    def draw(self, group: int) -> Pairs:
        """Draw rigs of two parallel cameras."""
        generator, rules = seeded("stereo", self.seed, self.level, group), LEVELS[self.level]

        def attempt(count: int) -> tuple[Pairs, Tensor]:
            scenes, left, placed, _, good = sample_candidates(count, generator, rules)
            right = left.cameras().rotation[:, :, 0]
            baseline = uniform(generator, *STEREO_BASELINE, count)
            second = left._replace(position=left.position + baseline[:, None] * right)
            keep = good & fits(scenes, placed, second.position)
            scenes, left, second = (take(part, keep) for part in (scenes, left, second))
            overlap = measure(scenes, left.cameras(), second.cameras(), FINE)
            pairs = Pairs(scenes, left.cameras(), second.cameras(), overlap.covisibility)
            return pairs, overlap.near > NEAR

        return fill_group(self.group_size, attempt, f"stereo pairs at level {self.level!r}")


def choose_second(
    scenes: Scenes, first: Rig, distance: Tensor, rules: Level, generator: torch.Generator
) -> tuple[Rig, Tensor]:
    """Return the first acceptable one of a few second cameras, and whether there is one [B]."""

    def judge(rows: Tensor, second: Rig) -> Tensor:
        rooms, cameras = take(scenes, rows), take(first, rows).cameras()
        overlap = measure(rooms, cameras, second.cameras(), COARSE)
        return acceptable(overlap, rules) & fits(rooms, place_shapes(rooms), second.position)

    return first_good(sample_second(first, distance, rules, generator), judge)


def fits(scenes: Scenes, placed: Placed, position: Tensor) -> Tensor:
    """Tell which positions [B, 3] lie in the room, and in no shape, [B]."""
    outside = (position < MARGIN) | (position > scenes.room.size - MARGIN)
    return ~(outside.any(1) | find_stuck(placed, position))


def sample_second(first: Rig, distance: Tensor, rules: Level, generator: torch.Generator) -> Rig:
    """Draw second cameras [B, K] beside the first.

    Each turns by a random share towards the point `distance` [B] meters in front of the first:
    without that, overlaps cluster between 50 and 60 %.
    """
    shape = (len(distance), CANDIDATES)
    angle = uniform(generator, -math.pi, math.pi, *shape)
    slope = uniform(generator, -0.25, 0.25, *shape)
    length = uniform(generator, *rules.baseline, *shape)
    step = torch.stack((angle.cos(), angle.sin(), slope), -1)
    step = step * (length / (1 + slope**2).sqrt())[..., None]
    forward = first.cameras().rotation[:, :, 2]
    target = first.position + distance[:, None] * forward
    position = first.position[:, None] + step
    yaw, pitch = head_towards(position, target[:, None])
    share = uniform(generator, 0, 1, *shape)
    turn = torch.remainder(yaw - first.yaw[:, None] + math.pi, 2 * math.pi) - math.pi
    turn = share * turn + rules.yaw_noise * uniform(generator, -1, 1, *shape)
    tilt = share * (pitch - first.pitch[:, None])
    tilt = tilt + rules.pitch_noise * uniform(generator, -1, 1, *shape)
    return Rig(
        position,
        first.yaw[:, None] + turn.clamp(-rules.max_turn, rules.max_turn),
        (first.pitch[:, None] + tilt).clamp(-0.8, 0.4),
        first.focal[:, None].expand(shape),
    )


def measure(scenes: Scenes, cameras_1: Cameras, cameras_2: Cameras, grid: int) -> Overlap:
    """Cast grid x grid rays from both cameras and look for what they hit from the other one."""
    placed = place_shapes(scenes)
    view_1 = trace(scenes, cameras_1, grid, placed)
    view_2 = trace(scenes, cameras_2, grid, placed)
    there, back = match(view_1.surfaces.point, view_2), match(view_2.surfaces.point, view_1)
    shares = there.visible.float().mean(1), back.visible.float().mean(1)
    return Overlap(
        torch.minimum(*shares),
        flow_length(there.pixels, there.visible, grid),
        view_2.surfaces.depth.quantile(0.1, dim=1),
    )


def flow_length(pixels: Tensor, counted: Tensor, grid: int) -> Tensor:
    """Return the longest displacement [B] from the centers of a grid to pixels [B, 2, K]."""
    step = (pixels - pixel_centers(grid, pixels)).square().sum(1).sqrt() / grid
    return torch.where(counted, step, 0.0).amax(1)


def acceptable(overlap: Overlap, rules: Level, slack: float = 0.0) -> Tensor:
    """Tell which pairs [B] keep to the rules of a level."""
    low, high = rules.covisibility
    enough = (overlap.covisibility >= low + slack) & (overlap.covisibility <= high)
    return enough & (overlap.flow <= rules.max_flow) & (overlap.near > NEAR)
