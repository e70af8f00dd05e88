"""Draw furnished rooms: shell, light, furniture, people."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mimlib.world.rooms.atlas import Atlas, default_atlas
from mimlib.world.rooms.builder import Builder, fill_slots
from mimlib.world.rooms.furniture import furnish
from mimlib.world.rooms.levels import LEVELS, MATERIALS, Level
from mimlib.world.rooms.people import add_people
from mimlib.world.rooms.scenes import Room, Scenes, uniform


def sample_scenes(
    count: int,
    generator: torch.Generator,
    level: Level = LEVELS["paper"],
    wanted: Tensor | None = None,
    atlas: Atlas | None = None,
) -> Scenes:
    """Draw B rooms on the CPU, so that every device sees the same rooms.

    `wanted` [B] int64 is the class id that each room must try to contain; -1 or None for no wish.
    Textures are those of the default atlas if None is given.
    """
    atlas = atlas or default_atlas()
    wanted = torch.full((count,), -1) if wanted is None else wanted
    room = sample_room(count, generator, level, atlas)
    build = Builder(room, atlas, level, generator, wanted)
    furnish(build)
    add_people(build)
    return Scenes(fill_slots(build), build.objects, build.people, room)


def sample_room(count: int, generator: torch.Generator, level: Level, atlas: Atlas) -> Room:
    """Draw the shells of B rooms and their light."""
    draw = partial(uniform, generator)
    size = torch.cat((draw(3.4, 7, count, 2), draw(2.4, 3.1, count, 1)), 1)
    light_height = size[:, 2:] - draw(0.15, 0.6, count, 1)
    warmth = draw(0, 1, count, 1)
    color = torch.cat((torch.ones(count, 1), 0.97 - 0.1 * warmth, 0.93 - 0.26 * warmth), 1)
    paneled = draw(0, 1, count) < 0.3
    return Room(
        size=size,
        texture=sample_surfaces(count, generator, level, atlas),
        frequency=draw(0.45, 0.9, count, 7) / level.texture_zoom,
        wainscot=torch.where(paneled, draw(0.6, 1.1, count), 0.0),
        light=torch.cat((draw(0.25, 0.75, count, 2) * size[:, :2], light_height), 1),
        light_color=color * draw(0.85, 1.1, count, 1),
        ambient=draw(0.34, 0.5, count),
        fill=F.normalize(torch.randn(count, 3, generator=generator), dim=1),
    )


def sample_surfaces(count: int, generator: torch.Generator, level: Level, atlas: Atlas) -> Tensor:
    """Draw a texture for every surface of B rooms, [B, 7]; most rooms have four equal walls."""
    parts = MATERIALS[level.patterns]
    common = atlas.pick(parts["wall"], count, generator, calm=True)
    surfaces = [common]
    for _ in range(3):
        accent = atlas.pick(parts["wall"], count, generator, calm=True)
        different = torch.rand(count, generator=generator) < 0.2
        surfaces.append(torch.where(different, accent, common))
    for part in ("floor", "ceiling", "wainscot"):
        surfaces.append(atlas.pick(parts[part], count, generator, calm=part != "floor"))
    return torch.stack(surfaces, 1)
