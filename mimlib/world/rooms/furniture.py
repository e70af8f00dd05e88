"""Every kind of furniture, one short function each, built for all rooms at once.

Frame of an object: origin at its foot, z up, +y its front (the side away from the wall).
Shapes are given as x, y, z of the center, then half sizes; lengths in meters.
"""

import math

import torch
from torch import Tensor

from mimlib.world.rooms.builder import Builder, Thing


def furnish(build: Builder) -> None:
    """Put everything but people into the rooms, large things first."""
    clutter = build.level.clutter
    add_sofa(build)
    add_cabinet(build)
    add_shelf(build)
    add_table(build)
    for probability in (0.8, 0.5):
        add_chair(build, clutter * probability)
    add_lamp(build, 0.55)
    add_small(build, "plant", clutter * 0.6)
    add_small(build, "ball", clutter * 0.6)
    for probability in (0.65, 0.4):
        add_small(build, "crate", clutter * probability)
    for wall, probability in enumerate((0.9, 0.7, 0.5, 0.4)):
        add_picture(build, wall, probability)
    add_rug(build)


def stand_at_wall(
    build: Builder, name: str, probability: float, half_width: Tensor, half_depth: Tensor, height
) -> Thing:
    """Create a piece of furniture with its back to a free wall."""
    place, yaw, free = build.spot_at_wall(half_width, half_depth)
    where = build.wants(name, probability) & free
    return build.new_object(name, where, place, yaw=yaw, radius=half_width, height=height)


def stand_on_floor(build: Builder, name: str, probability: float, radius: Tensor, height) -> Thing:
    """Create an object somewhere on the free floor, turned anyhow."""
    place, free = build.spot_on_floor(radius)
    where = build.wants(name, probability) & free
    yaw = build.uniform(0, 2 * math.pi)
    return build.new_object(name, where, place, yaw=yaw, radius=radius, height=height)


def add_sofa(build: Builder) -> None:
    """Seat, back, two arms and sometimes a cushion."""
    half, deep = build.uniform(0.6, 1.0), build.uniform(0.38, 0.48)
    height = build.uniform(0.7, 0.95)
    sofa = stand_at_wall(build, "sofa", 0.6, half, deep, height)
    cloth = {"texture": build.material("cloth"), "repeat": build.uniform(0.7, 1.4)}
    sofa.box(0, 0, 0.22, half, deep, 0.22, **cloth)
    sofa.box(0, 0.1 - deep, height / 2, half, 0.1, height / 2, **cloth)
    for side in (-1, 1):
        sofa.box(side * (half - 0.08), 0, 0.3, 0.09, deep, 0.3, **cloth)
    at, cushion = half * build.uniform(-0.6, 0.6), build.material("cloth")
    sofa.box(at, 0.02, 0.55, 0.17, 0.07, 0.15, texture=cushion, repeat=2, where=build.chance(0.6))


def add_cabinet(build: Builder) -> None:
    """A case with two doors and two knobs."""
    half, deep = build.uniform(0.35, 0.7), build.uniform(0.2, 0.32)
    height = build.uniform(0.7, 2.0)
    cabinet = stand_at_wall(build, "cabinet", 0.7, half, deep, height)
    case, doors = build.material("wooden"), build.material("wooden")
    cabinet.box(0, 0, height / 2, half, deep, height / 2, texture=case)
    for side in (-1, 1):
        door = (side * half / 2, deep, height / 2, half * 0.44, 0.015, height * 0.44)
        cabinet.box(*door, texture=doors)
        knob = (side * 0.05, deep + 0.03, height * 0.55, 0.02, 0.02, 0.02)
        cabinet.ellipsoid(*knob, texture=case)


def add_shelf(build: Builder) -> None:
    """Two sides, four boards, and books on three of them."""
    half, deep = build.uniform(0.35, 0.6), build.uniform(0.15, 0.22)
    height = build.uniform(1.3, 2.1)
    shelf = stand_at_wall(build, "shelf", 0.6, half, deep, height)
    wood = build.material("wooden")
    for side in (-1, 1):
        shelf.box(side * half, 0, height / 2, 0.02, deep, height / 2, texture=wood)
    for level in (0.1, 0.4, 0.7, 1.0):
        shelf.box(0, 0, height * level - 0.02, half, deep, 0.02, texture=wood)
    for level in (0.1, 0.4, 0.7):
        wide = half * build.uniform(0.35, 0.9)
        tall = height * 0.3 * build.uniform(0.3, 0.8) / 2
        at = (half - wide) * build.uniform(-1, 1)
        books = build.material("books")
        shelf.box(at, -0.02, height * level + tall, wide, deep * 0.8, tall, texture=books, repeat=2)


def add_table(build: Builder) -> None:
    """A board on four legs or a round one on a column, with small things on top."""
    half_x, half_y = build.uniform(0.45, 0.85), build.uniform(0.35, 0.5)
    height = build.uniform(0.45, 0.78)
    table = stand_on_floor(build, "table", 0.85, torch.maximum(half_x, half_y), height)
    wood = {"texture": build.material("wooden"), "repeat": build.uniform(0.7, 1.3)}
    is_round = build.chance(0.35)
    half_x = torch.where(is_round, half_y, half_x)
    table.box(0, 0, height, half_x, half_y, 0.025, **wood, where=~is_round)
    for x in (-1, 1):
        for y in (-1, 1):
            leg = (x * (half_x - 0.06), y * (half_y - 0.06), height / 2, 0.03, 0.03, height / 2)
            table.box(*leg, **wood, where=~is_round)
    table.cylinder(0, 0, height, half_y, half_y, 0.025, **wood, where=is_round)
    table.cylinder(0, 0, height / 2, 0.05, 0.05, height / 2, **wood, where=is_round)
    table.cylinder(0, 0, 0.02, half_y * 0.6, half_y * 0.6, 0.02, **wood, where=is_round)
    lay_table(build, table, half_x, half_y, height + 0.025)


def lay_table(build: Builder, table: Thing, half_x: Tensor, half_y: Tensor, top: Tensor) -> None:
    """Put a ball, a small crate and a potted plant on the table; they are objects of their own."""
    yaw = build.objects.yaw[:, table.slot]
    for name, corner in (("ball", 0), ("crate", 1), ("plant", 2)):
        angle = yaw + 2 * math.pi / 3 * (corner + build.uniform(-0.2, 0.2))
        reach = torch.minimum(half_x, half_y) * build.uniform(0.35, 0.65)
        offset = reach[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
        place = build.objects.position[:, table.slot, :2] + offset
        options = {"radius": 0, "height": 0.4, "above_floor": top, "yaw": build.uniform(0, 6)}
        where = table.where & build.chance(0.4)
        thing = build.new_object(name, where, place, **options)
        SHAPES[name](build, thing, build.uniform(0.07, 0.12))


def add_chair(build: Builder, probability: float) -> None:
    """A seat and a back, on two panels or on a column with a foot."""
    half = build.uniform(0.2, 0.26)
    chair = stand_on_floor(build, "chair", probability, half * 1.2, 0.9)
    wood = {"texture": build.material("seat"), "repeat": build.uniform(0.8, 1.8)}
    seat, back = build.uniform(0.4, 0.48), build.uniform(0.2, 0.32)
    on_column = build.chance(0.4)
    chair.box(0, 0, seat, half, half, 0.03, **wood)
    chair.box(0, -half, seat + back, half, 0.025, back, **wood)
    for side in (-1, 1):
        for end in (-1, 1):
            leg = (side * (half - 0.025), end * (half - 0.025), seat / 2, 0.025, 0.025, seat / 2)
            chair.box(*leg, **wood, where=~on_column)
    chair.cylinder(0, 0, seat / 2, 0.04, 0.04, seat / 2, **wood, where=on_column)
    chair.cylinder(0, 0, 0.03, half * 0.8, half * 0.8, 0.03, **wood, where=on_column)


def add_lamp(build: Builder, probability: float) -> None:
    """A standing lamp: foot, pole, and a round or straight shade."""
    radius, height = build.uniform(0.17, 0.26), build.uniform(1.15, 1.65)
    lamp = stand_on_floor(build, "lamp", probability, radius, height + 0.2)
    metal, shade = build.material("frame"), build.material("shade", calm=True)
    is_round = build.chance(0.5)
    lamp.cylinder(0, 0, height / 2, 0.022, 0.022, height / 2, texture=metal)
    lamp.cylinder(0, 0, 0.02, radius * 0.7, radius * 0.7, 0.02, texture=metal)
    lamp.ellipsoid(0, 0, height, radius, radius, radius * 0.8, texture=shade, where=is_round)
    lamp.cylinder(0, 0, height, radius, radius, radius * 0.75, texture=shade, where=~is_round)


def shape_plant(build: Builder, plant: Thing, radius: Tensor) -> None:
    """A pot with a bush of three clumps; everything scales with the radius."""
    pot, leaf = build.material("pot"), {"texture": build.material("leaf"), "repeat": 0.5 / radius}
    tall = radius * build.uniform(0.9, 1.3)
    plant.cylinder(0, 0, tall / 2, radius * 0.6, radius * 0.6, tall / 2, texture=pot, repeat=2)
    plant.ellipsoid(0, 0, tall + radius, radius, radius, radius * 1.2, **leaf)
    for side in (-1, 1):
        x, y = side * radius * 0.5, radius * build.uniform(-0.5, 0.5)
        z = tall + radius * build.uniform(1.5, 2.1)
        plant.ellipsoid(x, y, z, radius * 0.6, radius * 0.65, radius * 0.85, **leaf)


def shape_ball(build: Builder, ball: Thing, radius: Tensor) -> None:
    """One sphere."""
    texture = build.material("ball")
    ball.ellipsoid(0, 0, radius, radius, radius, radius, texture=texture, repeat=0.3 / radius)


def shape_crate(build: Builder, crate: Thing, radius: Tensor) -> None:
    """A box with a slightly larger lid."""
    half_y, half_z = radius * build.uniform(0.55, 0.85), radius * build.uniform(0.5, 0.9)
    texture = {"texture": build.material("crate"), "repeat": 0.5 / radius}
    crate.box(0, 0, half_z, radius * 0.8, half_y, half_z, **texture)
    lid = (0, 0, half_z * 1.85, radius * 0.84, half_y * 1.05, half_z * 0.15)
    crate.box(*lid, **texture)


SHAPES = {"ball": shape_ball, "crate": shape_crate, "plant": shape_plant}
RADIUS = {"ball": (0.12, 0.28), "crate": (0.18, 0.36), "plant": (0.2, 0.32)}  # m, on the floor


def add_small(build: Builder, name: str, probability: float) -> None:
    """A ball, a crate or a plant on the floor."""
    radius = build.uniform(*RADIUS[name])
    height = {"ball": 2 * radius, "crate": 1.6 * radius, "plant": 1.2}[name]
    thing = stand_on_floor(build, name, probability, radius, height)
    SHAPES[name](build, thing, radius)


def add_picture(build: Builder, wall: int, probability: float) -> None:
    """A framed print on a wall, at most one each so that they never overlap."""
    half = build.uniform(0.28, 0.62)
    tall = half * build.uniform(0.65, 1.2)
    place, yaw, free = build.spot_at_wall(half, 0.01, walls=(wall,), taller_than=1.0)
    where = build.wants("picture", probability) & free
    options = {"radius": 0, "height": tall, "above_floor": build.uniform(1.35, 1.65)}
    picture = build.new_object("picture", where, place, yaw=yaw, **options)
    frame, print_ = build.material("frame"), build.material("picture")
    picture.box(0, 0, 0, half + 0.035, 0.015, tall + 0.035, texture=frame)
    picture.box(0, 0.01, 0, half, 0.015, tall, texture=print_, stretched=True)


def add_rug(build: Builder) -> None:
    """A rug near the middle of the floor; things may stand on it."""
    share = build.uniform(0.35, 0.65, 2)
    where, yaw = build.wants("rug", 0.65), build.uniform(0, math.pi)
    place = build.room.size[:, :2] * share
    rug = build.new_object("rug", where, place, yaw=yaw, radius=0, height=0.02)
    size = (build.uniform(0.6, 1.2), build.uniform(0.5, 0.9), 0.008)
    rug.box(0, 0, 0.006, *size, texture=build.material("rug"), repeat=build.uniform(0.5, 0.9))
