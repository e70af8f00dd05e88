"""Furnish B rooms at once: find free places, create objects, give them shapes.

Everything is drawn for all B rooms and then used where a mask says so, so that no code below
loops over rooms. Letters as in scenes.py; K candidate places.
"""

import math
from dataclasses import dataclass
from functools import partialmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import CLASSES, MATERIALS, Level
from mimlib.world.rooms.scenes import (
    BOX,
    CAPACITY,
    CYLINDER,
    ELLIPSOID,
    FIRST_SLOT,
    Room,
    Shapes,
    clearance,
    empty_objects,
    empty_people,
    empty_shapes,
    uniform,
)

Coordinate = float | Tensor  # one number for all rooms or one per room [B]


class Builder:
    """Rooms under construction."""

    def __init__(
        self, room: Room, atlas: Atlas, level: Level, generator: torch.Generator, wanted: Tensor
    ):
        """Start with empty rooms; `wanted` [B] is a class id every room must try to have, or -1."""
        self.room, self.atlas, self.level, self.generator = room, atlas, level, generator
        self.wanted = wanted
        self.count = len(room.size)
        self.pieces: list[Piece] = []
        self.objects = empty_objects(self.count)
        self.people = empty_people(self.count)
        self.num_objects = 3

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw numbers [B, ...] in [low, high)."""
        return uniform(self.generator, low, high, self.count, *shape)

    def chance(self, probability: float) -> Tensor:
        """Draw a mask [B] that is True with the given probability."""
        return torch.rand(self.count, generator=self.generator) < probability

    def wants(self, name: str, probability: float) -> Tensor:
        """Decide in which rooms [B] an object of a class should stand."""
        return self.chance(probability) | (self.wanted == CLASSES.index(name))

    def material(self, part: str, calm: bool = False) -> Tensor:
        """Draw a texture [B] for a part named in MATERIALS."""
        families = MATERIALS[self.level.patterns][part]
        return self.atlas.pick(families, self.count, self.generator, calm)

    def choose(self, room_left: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return per room the place [B, ...] of K with most room left [B, K], and that room."""
        noise = 0.03 * torch.rand(room_left.shape, generator=self.generator)
        best = (room_left.clamp(max=0.15) + noise).argmax(1)
        rows = torch.arange(self.count)
        return places[rows, best], room_left[rows, best]

    def spot_on_floor(self, radius: Tensor, tries: int = 24) -> tuple[Tensor, Tensor]:
        """Find free floor: returns places [B, 2] and whether they are free [B]."""
        margin = (0.2 + radius)[:, None, None]
        extent = (self.room.size[:, None, :2] - 2 * margin).clamp(min=0.05)
        places = margin + self.uniform(0, 1, tries, 2) * extent
        place, room_left = self.choose(clearance(self.objects, places) - radius[:, None], places)
        return place, room_left > -0.04

    def spot_at_wall(
        self,
        half_width: Tensor,
        depth: Coordinate,
        *,
        walls: tuple[int, ...] = (0, 1, 2, 3),
        taller_than: float = 0.0,
        tries: int = 10,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find free wall: places [B, 2], yaw [B] that turns +y into the room, free [B]."""
        length_x, length_y = self.room.size[:, :1], self.room.size[:, 1:2]
        half, inward = half_width[:, None], torch.as_tensor(depth).reshape(-1, 1) + 0.01
        drawn = torch.randint(0, len(walls), (self.count, tries), generator=self.generator)
        wall = torch.tensor(walls)[drawn]
        length = torch.where(wall < 2, length_y, length_x)
        along = half + 0.1
        along = along + self.uniform(0, 1, tries) * (length - 2 * along).clamp(min=0.01)
        low, high_x, high_y = inward + 0 * along, length_x - inward, length_y - inward
        x = torch.where(wall == 0, low, torch.where(wall == 1, high_x, along))
        y = torch.where(wall == 2, low, torch.where(wall == 3, high_y, along))
        turns = torch.tensor([-0.5, 0.5, 0.0, 1.0])[wall] * math.pi
        places = torch.stack((x, y, turns), -1)
        room_left = clearance(self.objects, places[..., :2], taller_than) - half
        place, room_left = self.choose(room_left, places)
        return place[:, :2], place[:, 2], room_left > -0.08

    def new_object(
        self,
        name: str,
        where: Tensor,
        place: Tensor,
        *,
        yaw: Tensor,
        radius: Coordinate,
        height: Coordinate,
        above_floor: Coordinate = 0.0,
    ) -> "Thing":
        """Create an object of a class in the rooms `where` [B]; radius 0 leaves the floor free."""
        slot, objects = self.num_objects, self.objects
        self.num_objects += 1
        position = torch.cat((place, self.full(above_floor)[:, None]), 1)
        objects.class_id[:, slot] = torch.where(where, CLASSES.index(name), -1)
        objects.position[:, slot] = torch.where(where[:, None], position, 0.0)
        for name, value in (("yaw", yaw), ("radius", radius), ("height", height)):
            getattr(objects, name)[:, slot] = torch.where(where, self.full(value), 0.0)
        return Thing(self, slot, where)

    def full(self, value: Coordinate) -> Tensor:
        """Return a number as one per room, [B]."""
        if isinstance(value, Tensor):
            return value.expand(self.count)
        return torch.full((self.count,), value, dtype=torch.float32)


@dataclass(frozen=True)
class Thing:
    """One object in some of the rooms, to which shapes are added in its own frame."""

    builder: Builder
    slot: int
    where: Tensor  # [B] bool

    def add(
        self,
        kind: int,
        *center_and_half_size: Coordinate,
        texture: Tensor,
        where: Tensor | None = None,
        repeat: Coordinate = 1.0,
        rotation: Tensor | None = None,
        stretched: bool = False,
    ) -> None:
        """Add one shape: x, y, z of its center, then half its size along x, y, z.

        `repeat` is in textures per meter, `where` [B] narrows the rooms down.
        """
        where = self.where if where is None else self.where & where
        numbers = (*center_and_half_size, repeat)
        rotation = torch.eye(3) if rotation is None else rotation
        piece = Piece(kind, self.slot, where, numbers, rotation, texture, stretched)
        self.builder.pieces.append(piece)

    box = partialmethod(add, BOX)
    ellipsoid = partialmethod(add, ELLIPSOID)
    cylinder = partialmethod(add, CYLINDER)  # upright


class Piece(NamedTuple):
    """A shape that some of the rooms will have."""

    kind: int
    owner: int  # object slot
    where: Tensor  # [B] bool
    numbers: tuple[Coordinate, ...]  # center, half size, textures per meter before the zoom
    rotation: Tensor  # [3, 3] or [B, 3, 3]
    texture: Tensor  # [B]
    stretched: bool


def fill_slots(build: Builder) -> Shapes:
    """Write all pieces into the slots of their kinds; a room drops those beyond its capacity."""
    shapes = empty_shapes(build.count)
    for kind, first in enumerate(FIRST_SLOT):
        pieces = [piece for piece in build.pieces if piece.kind == kind]
        where = torch.stack([piece.where for piece in pieces], 1)  # [B, N]
        rank = where.cumsum(1) - 1
        where = where & (rank < CAPACITY[kind])
        rows, index = where.nonzero().unbind(1)
        slots = rows, first + rank[rows, index]
        numbers = [build.full(number) for piece in pieces for number in piece.numbers]
        numbers = torch.stack(numbers, 1).unflatten(1, (-1, 7))[rows, index]
        shapes.center[slots], shapes.half_size[slots] = numbers[:, :3], numbers[:, 3:6]
        shapes.frequency[slots] = numbers[:, 6] / build.level.texture_zoom
        rotation = [piece.rotation.expand(build.count, 3, 3) for piece in pieces]
        shapes.rotation[slots] = torch.stack(rotation, 1)[rows, index]
        shapes.texture[slots] = torch.stack([piece.texture for piece in pieces], 1)[rows, index]
        shapes.owner[slots] = torch.tensor([piece.owner for piece in pieces])[index]
        shapes.stretched[slots] = torch.tensor([piece.stretched for piece in pieces])[index]
        shapes.counts[:, kind] = where.sum(1)
    return shapes
