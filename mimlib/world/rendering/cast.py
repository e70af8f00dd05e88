"""Ray casting: bundles of neighboring rays, each against the few shapes that it may meet.

A shape is an affine image of a unit box, ball or cylinder. Folding the inverse rotation and 1/size
into one matrix makes each test a unit test. A ray is origin + t * direction; rays of a camera have
z = 1 in its frame, so that t is metric depth.
Letters: B scenes, S shapes, K rays, T bundles of 64 rays, P pairs of a bundle and a shape.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mimlib.world.rooms.scenes import FIRST_SLOT, NUM_SLOTS, Placed, Scenes, rotate

NOTHING = 1e9  # t of a ray that hits nothing
NEAREST = 1e-4  # t below which a hit is the ray's own start
TINY = 1e-12  # keeps an exact zero from becoming 0 * inf once divided by
SIDE = 8  # of the square of pixels whose rays make a bundle
SLACK = 1e-3, 1e-5  # m and rad by which a bundle may miss a shape and is tested all the same


class Hits(NamedTuple):
    """Where rays first meet something."""

    t: Tensor  # [B, K] ray parameter
    slot: Tensor  # [B, K] int64 shape slot, -1 where the room itself was hit
    surface: Tensor  # [B, K] int64 wall x-, x+, y-, y+, floor, ceiling; any value where slot >= 0


class Solids(NamedTuple):
    """The shapes that any of the rooms uses, as seen from one point of each room."""

    slot: Tensor  # [S] int64 where a shape stands among the slots: boxes, ellipsoids, cylinders
    counts: tuple[int, ...]  # how many of each kind; their sum is S
    center: Tensor  # [B, S, 3] m from the point
    axes: Tensor  # [B, S, 3, 3] unit axes as columns
    half_size: Tensor  # [B, S, 3] m along the axes
    unit: Tensor  # [B, S, 3, 4] unit frame from world: diag(1 / half size) rotation^T | the point


class Meetings(NamedTuple):
    """Where the rays of bundles enter shapes."""

    bundle: Tensor  # [P] int64 of B * T
    slot: Tensor  # [P] int64 shape slot
    t: Tensor  # [P, 64]; NOTHING where a ray misses
    nearest: Tensor  # [B * T, 64] least t of each ray


def first_hit(scenes: Scenes, placed: Placed, origin: Tensor, direction: Tensor) -> Hits:
    """Find what each ray meets first.

    The rays of a scene start at one point inside the room, [B, 3] m. Directions [B, 3, K] are of
    any length; t is in units of it.
    """
    met = meet(scenes, placed, origin, direction, math.inf)
    # Of shapes at the same t the one in the first slot counts.
    slot = torch.where(met.t == met.nearest[met.bundle], met.slot[:, None], NUM_SLOTS)
    slot = least(torch.full_like(met.nearest, NUM_SLOTS, dtype=torch.long), met.bundle, slot)
    t, slot = (separate(part, direction.shape) for part in (met.nearest, slot))
    t_room, surface = room_exit(scenes.room.size, origin, direction)
    return Hits(torch.minimum(t, t_room), torch.where(t < t_room, slot, -1), surface)


def reaches(scenes: Scenes, placed: Placed, origin: Tensor, direction: Tensor) -> Tensor:
    """Tell which rays [B, K] meet no shape before t = 0.999: shadow and visibility rays."""
    met = meet(scenes, placed, origin, direction, 1.0)
    return separate(met.nearest, direction.shape) > 0.999


def meet(
    scenes: Scenes, placed: Placed, origin: Tensor, direction: Tensor, longest: float
) -> Meetings:
    """Test each bundle against the shapes that it may meet before t = longest."""
    rays, solids = bundle(direction), solidify(scenes, placed, origin)
    near = may_meet(rays, solids, longest)
    shape, scene, number = near.permute(2, 0, 1).nonzero().unbind(1)
    pairs = [int(part.sum()) for part in near.sum((0, 1)).split(solids.counts)]
    number = scene * rays.shape[1] + number
    directions = rays.flatten(0, 1).index_select(0, number).split(pairs)
    units = solids.unit.flatten(0, 1).index_select(0, scene * near.shape[2] + shape).split(pairs)
    kinds = zip((enter_box, enter_ball, enter_cylinder), units, directions)
    t = torch.cat([enter(*pair) for enter, *pair in kinds])
    nothing = t.new_full((rays[..., 0, 0].numel(), SIDE**2), NOTHING)
    return Meetings(number, solids.slot[shape], t, least(nothing, number, t))


def least(start: Tensor, row: Tensor, values: Tensor) -> Tensor:
    """Return the least of each row of start [R, 64] and of the values [P, 64] that belong to it."""
    return start.scatter_reduce(0, row[:, None].expand_as(values), values, "amin")


def layout(count: int) -> tuple[int, int, int, int]:
    """Return rows and columns of rays, and rows and columns of a bundle.

    The rays of a square image are bundled square by square, others as they come.
    """
    side = math.isqrt(count)
    return (side, side, SIDE, SIDE) if side**2 == count else (1, count, 1, SIDE**2)


def bundle(direction: Tensor) -> Tensor:
    """Put rays [B, 3, K] into bundles [B, T, 3, 64]; the last ones are repeated to fill them."""
    height, width, rows, columns = layout(direction.shape[2])
    image = direction.unflatten(2, (height, width))
    if height % rows or width % columns:
        image = F.pad(image, (0, -width % columns, 0, -height % rows), "replicate")
    return rearrange(image, "b i (y p) (x q) -> b (y x) i (p q)", p=rows, q=columns)


def separate(values: Tensor, shape: torch.Size) -> Tensor:
    """Return values [B * T, 64] of bundles as those of rays [B, K], whose shape was [B, 3, K]."""
    height, width, rows, columns = layout(shape[2])
    sizes = {"b": shape[0], "y": -(-height // rows), "p": rows}
    image = rearrange(values, "(b y x) (p q) -> b (y p) (x q)", **sizes)
    return image[:, :height, :width].flatten(1)


def solidify(scenes: Scenes, placed: Placed, origin: Tensor) -> Solids:
    """Prepare shapes for rays from one point [B, 3] in each scene."""
    counts = tuple(scenes.shapes.counts.amax(0).tolist())
    slots = [torch.arange(count, device=origin.device) for count in counts]
    slot = torch.cat([first + part for first, part in zip(FIRST_SLOT, slots)])
    center, axes, half_size = (part.index_select(1, slot) for part in placed)
    to_unit = axes.transpose(2, 3) / half_size[..., None]
    point = rotate(to_unit, origin[:, None] - center)
    unit = torch.cat((to_unit, point[..., None]), 3)
    return Solids(slot, counts, center - origin[:, None], axes, half_size, unit)


def may_meet(rays: Tensor, solids: Solids, longest: float) -> Tensor:
    """Tell which bundles [B, T, 3, 64] may meet which shapes before t = longest, [B, T, S].

    A point in direction u, |u| = 1, at distance w is in the box around a shape if along each of
    its axes |w u - c| <= h, that is, v (c - h) <= u <= v (c + h) for v = 1 / w. The axes are turned
    so that c >= 0; within a bundle u is between ahead - aside and ahead + aside.
    """
    length = rays.square().sum(2).sqrt()
    unit = rays / length[:, :, None]
    low, high = unit.amin(3)[..., None, None], unit.amax(3)[..., None, None]
    c = (solids.axes * solids.center[..., None]).sum(2)  # [B, S, 3]
    axes = torch.where(c[:, :, None] < 0, -solids.axes, solids.axes)
    c = rearrange(c.abs(), "b s n -> b 1 n s")
    h = rearrange(solids.half_size + SLACK[0], "b s n -> b 1 n s")
    axes = rearrange(axes, "b s i n -> i b 1 n s")
    ahead = dot(axes, ((high + low) / 2).unbind(2))  # [B, T, 3, S]
    aside = dot(axes.abs(), ((high - low) / 2).unbind(2)).add_(SLACK[1])
    v_low = (ahead - aside).div_(c + h)
    bound, outside = ahead.add_(aside).div_(c - h), c >= h
    v_low = torch.maximum(v_low, torch.where(outside, -math.inf, bound))
    v_high = torch.where(outside, bound, math.inf)
    x, y, z = v_low.unbind(2)
    v_low = torch.maximum(torch.maximum(x, y), z)
    x, y, z = v_high.unbind(2)
    v_high = torch.minimum(torch.minimum(x, y), z)
    nearest = 1 / (longest * length.amax(2)[..., None])
    return ~(torch.maximum(v_low, nearest) > v_high)  # what is not a number is not certain


def dot(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    """Return x1 x2 + y1 y2 + z1 z2 of two triples.

    Sums instead of a matrix product: as fast for three terms, and it stays float32 whatever
    matmul precision the process has set.
    """
    (x, y, z), (u, v, w) = first, second
    return (x * u).addcmul_(y, v).addcmul_(z, w)


def in_unit_frame(unit: Tensor, rays: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return per axis of frames [P, 3, 4] where rays [P, 3, 64] start [P, 1] and head [P, 64]."""
    directions = rays.unbind(1)
    rows = (row[..., None].unbind(1) for row in unit.unbind(1))
    return [(row[3], dot(row[:3], directions)) for row in rows]


def enter_box(unit: Tensor, rays: Tensor) -> Tensor:
    """Return where rays enter the box [-1, 1]^3, [P, 64]: the slab test."""
    enter = leave = None
    for start, heading in in_unit_frame(unit, rays):
        inverse = heading.add_(TINY).reciprocal_()
        middle = inverse * -start
        half = inverse.abs_()
        near, far = middle - half, middle.add_(half)
        enter = near if enter is None else torch.maximum(enter, near, out=enter)
        leave = far if leave is None else torch.minimum(leave, far, out=leave)
    return enter.masked_fill_((enter > leave) | (enter < NEAREST), NOTHING)


def enter_ball(unit: Tensor, rays: Tensor) -> Tensor:
    """Return where rays enter the unit ball, [P, 64]: a t^2 + 2 b t + c = 0."""
    (ox, dx), (oy, dy), (oz, dz) = in_unit_frame(unit, rays)
    a = (dx * dx).addcmul_(dy, dy).addcmul_(dz, dz)
    b = (dx * ox).addcmul_(dy, oy).addcmul_(dz, oz)
    c = unit[:, :, 3].square().sum(1, keepdim=True) - 1
    root = torch.addcmul(b * b, a, c, value=-1)
    missed = root < 0
    t = b.add_(root.clamp_(min=0).sqrt_()).neg_().div_(a)
    return t.masked_fill_(missed | (t < NEAREST), NOTHING)


def enter_cylinder(unit: Tensor, rays: Tensor) -> Tensor:
    """Return where rays enter the cylinder x^2 + y^2 <= 1, |z| <= 1, [P, 64]."""
    (ox, dx), (oy, dy), (oz, dz) = in_unit_frame(unit, rays)
    a = (dx * dx).addcmul_(dy, dy)
    b = (dx * ox).addcmul_(dy, oy)
    root = torch.addcmul(b * b, a, ox * ox + oy * oy - 1, value=-1)
    missed = root < 0
    root = root.clamp_(min=0).sqrt_()
    inverse = dz.add_(TINY).reciprocal_()
    middle = inverse * -oz
    half = inverse.abs_()
    enter = torch.maximum((-b - root) / a, middle - half)
    leave = torch.minimum((root - b) / a, middle + half)
    return enter.masked_fill_(missed | (enter > leave) | (enter < NEAREST), NOTHING)


def room_exit(room: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays from inside leave the room: t and surface, [B, K] each."""
    inverse = torch.where(direction.abs() < 1e-9, 1e9, direction.reciprocal())
    half = room / 2
    t_x, t_y, t_z = (
        ((half - origin + half)[..., None] * inverse).maximum(-origin[..., None] * inverse)
    ).unbind(1)
    t = torch.minimum(torch.minimum(t_x, t_y), t_z)
    axis = torch.where(t == t_x, 0, torch.where(t == t_y, 1, 2))
    ahead = direction.gather(1, axis[:, None]).squeeze(1) > 0
    return t, 2 * axis + ahead
