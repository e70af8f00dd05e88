"""Single views: of a whole room, or aimed at one object of a given class. Letters: B views."""

from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.world.rendering.cameras import Cameras
from mimlib.world.rendering.render import trace
from mimlib.world.rendering.truth import view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import CLASSES, NUM_ROOM_CLASSES, find_level
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.rooms.scenes import Scenes, concatenate, take
from mimlib.world.sets.groups import MAX_ROUNDS, fill_group, seeded
from mimlib.world.sets.viewpoints import sample_aimed_view, sample_candidates

AIMS = ("room", "object")
VIEWS_PER_GROUP = 64


class Views(NamedTuple):
    """Rooms with one camera each."""

    scenes: Scenes
    cameras: Cameras
    label: Tensor  # [B] int64 class of the object aimed at, -1 for views of the room


def draw_views(seed: int, level: str, aim: str, group: int) -> Views:
    """Draw the views of one group, VIEWS_PER_GROUP of them."""
    generator = seeded("views", seed, level, aim, group)
    if aim == "object":
        return draw_aimed_views(level, generator)

    def attempt(count: int) -> tuple[Views, Tensor]:
        drawn = sample_candidates(count, generator, find_level(level))
        return Views(drawn.scenes, drawn.rig.cameras(), torch.full((count,), -1)), drawn.good

    return fill_group(VIEWS_PER_GROUP, attempt, f"views of rooms at level {level!r}")


def draw_aimed_views(level: str, generator: torch.Generator) -> Views:
    """Draw views aimed at one object each; all classes are equally likely."""
    num_classes = len(CLASSES)
    wanted = torch.randint(NUM_ROOM_CLASSES, num_classes, (VIEWS_PER_GROUP,), generator=generator)
    missing, kept, rows = torch.arange(VIEWS_PER_GROUP), [], []
    for _ in range(MAX_ROUNDS):
        scenes = sample_scenes(len(missing), generator, find_level(level), wanted[missing])
        aimed = sample_aimed_view(scenes, wanted[missing], generator)
        views = Views(scenes, aimed.rig.cameras(), wanted[missing])
        kept.append(take(views, aimed.good))
        rows.append(missing[aimed.good])
        missing = missing[~aimed.good]
        if not len(missing):
            return take(concatenate(kept), torch.cat(rows).argsort())
    raise RuntimeError(f"no good view of a {CLASSES[int(wanted[missing[0]])]} at level {level!r}")


def render_views(
    views: Views, size: int, kinds: tuple[str, ...], atlas: Atlas
) -> dict[str, dict[str, Tensor]]:
    """Render what is asked for: {kind: {field: [B, ...]}}; the image's field is called image."""
    frame = trace(views.scenes, views.cameras, size) if kinds != ("label",) else None
    result = {}
    for kind in kinds:
        is_label = kind == "label"
        result[kind] = {"label": views.label} if is_label else view_fields(kind, frame, atlas)
    return result
