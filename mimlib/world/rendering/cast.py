"""Ray casting: every ray against every shape, in a few large tensor operations.

A shape is an affine image of a unit box, ball or cylinder. Folding the inverse rotation and 1/size
into one 3x3 matrix makes each test a unit test. A ray is origin + t * direction; rays of a camera
have z = 1 in its frame, so that t is metric depth.
Letters: B scenes, S shapes, K rays.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.world.rooms.scenes import CAPACITY, FIRST_SLOT, Placed, Scenes, pick_rows, rotate

NOTHING = 1e9  # t of a ray that hits nothing
NEAREST = 1e-4  # t below which a hit is the ray's own start
TINY = 1e-12  # keeps an exact zero from becoming 0 * inf once divided by
# Elements of one [B, S, K] temporary. On the CPU it should stay in the second-level cache.
CPU_BLOCK, DEVICE_BLOCK = 1 << 17, 1 << 25


class Solids(NamedTuple):
    """Shapes as rays see them: boxes, then ellipsoids, then cylinders."""

    to_unit: Tensor  # [B, S, 3, 3] unit frame from world: diag(1 / half size) times rotation^T
    centre: Tensor  # [B, S, 3] m
    slot: Tensor  # [B, S] int64 where the shape stands among the slots of Scenes.shapes
    counts: tuple[int, int, int]  # boxes, ellipsoids, cylinders; their sum is S
    room: Tensor  # [B, 3] m


class Hits(NamedTuple):
    """Where rays first meet something."""

    t: Tensor  # [B, K] ray parameter
    slot: Tensor  # [B, K] int64 shape slot, -1 where the room itself was hit
    surface: Tensor  # [B, K] int64 wall x-, x+, y-, y+, floor, ceiling; any value where slot >= 0


def solidify(scenes: Scenes, placed: Placed, keep: Tensor | None = None) -> Solids:
    """Prepare scenes for rays, leaving out unused slots and shapes not in keep [B, S].

    The rooms of a batch keep as many slots of a kind as the fullest of them needs.
    """
    index, counts = [], []
    for kind, capacity in enumerate(CAPACITY):
        first = FIRST_SLOT[kind]
        slots = torch.arange(capacity, device=placed.centre.device)
        needed = slots < scenes.shapes.counts[:, kind, None]  # [B, capacity]
        if keep is not None:
            needed = needed & keep[:, first : first + capacity]
        counts.append(int(needed.sum(1).max()))
        order = torch.sort(needed, dim=1, descending=True, stable=True).indices
        index.append(first + order[:, : counts[kind]])
    slot = torch.cat(index, 1)
    rotation = pick_rows(placed.rotation, slot).transpose(2, 3)
    half_size = pick_rows(placed.half_size, slot)
    return Solids(
        rotation / half_size[..., None],
        pick_rows(placed.centre, slot),
        slot,
        tuple(counts),
        scenes.room.size,
    )


def first_hit(solids: Solids, origin: Tensor, direction: Tensor) -> Hits:
    """Find what each ray meets first.

    Args:
        solids: the shapes.
        origin: where the rays of each scene start, inside the room, [B, 3] m.
        direction: [B, 3, K], any length; lengths of t are in units of it.
    """
    nearest = [shape.min(1) for shape in distance_blocks(solids, origin, direction)]
    t = torch.cat([block.values for block in nearest], 1)
    index = torch.cat([block.indices for block in nearest], 1)
    # Where no shape is in sight, t is NOTHING everywhere and the slot does not matter.
    slot = solids.slot.gather(1, index) if sum(solids.counts) else index
    t_room, surface = room_exit(solids.room, origin, direction)
    in_front = t < t_room
    return Hits(torch.minimum(t, t_room), torch.where(in_front, slot, -1), surface)


def reaches(solids: Solids, origin: Tensor, direction: Tensor, limit: float = 0.999) -> Tensor:
    """Tell which rays [B, K] meet no shape before t = limit: shadow and visibility rays."""
    blocks = distance_blocks(solids, origin, direction)
    return torch.cat([shape.amin(1) > limit for shape in blocks], 1)


def distance_blocks(solids: Solids, origin: Tensor, direction: Tensor):
    """Yield t of every shape for blocks of rays, [B, S, K'] each; NOTHING where a ray misses."""
    num_scenes, num_shapes = solids.slot.shape
    offset = rotate(solids.to_unit, origin[:, None] - solids.centre)  # [B, S, 3]
    block = CPU_BLOCK if direction.is_cpu else DEVICE_BLOCK
    length = max(256, block // (num_scenes * max(num_shapes, 1)))
    for rays in direction.split(length, dim=2):
        yield distances(solids, offset, rays)


def distances(solids: Solids, offset: Tensor, direction: Tensor) -> Tensor:
    """Return t of every shape and ray, [B, S, K]; offset [B, S, 3] is the origin in unit frames."""
    found, first = [], 0
    for kind, test in enumerate((enter_box, enter_ball, enter_cylinder)):
        part = slice(first, first + solids.counts[kind])
        first += solids.counts[kind]
        if solids.counts[kind]:
            found.append(test(solids.to_unit[:, part], offset[:, part], direction))
    if not found:
        return direction.new_full((len(direction), 1, direction.shape[2]), NOTHING)
    return torch.cat(found, 1)


def to_unit_axis(matrix: Tensor, direction: Tensor, axis: int) -> Tensor:
    """Return one coordinate of directions [B, 3, K] in unit frames, [B, S, K].

    Sums instead of a matrix product: as fast for three terms, and it stays float32 whatever
    matmul precision the process has set.
    """
    row = rearrange(matrix[:, :, axis], "b s i -> i b s 1")
    x, y, z = rearrange(direction, "b i k -> i b 1 k")
    return (row[0] * x).addcmul_(row[1], y).addcmul_(row[2], z)


def enter_box(to_unit: Tensor, offset: Tensor, direction: Tensor) -> Tensor:
    """Return where rays enter the box [-1, 1]^3: the slab test, all [B, S, K]."""
    enter = leave = None
    for axis in range(3):
        inverse = to_unit_axis(to_unit, direction, axis).add_(TINY).reciprocal_()
        middle = inverse * -offset[:, :, axis, None]
        half = inverse.abs_()
        near, far = middle - half, middle.add_(half)
        enter = near if enter is None else torch.maximum(enter, near, out=enter)
        leave = far if leave is None else torch.minimum(leave, far, out=leave)
    return enter.masked_fill_((enter > leave) | (enter < NEAREST), NOTHING)


def enter_ball(to_unit: Tensor, offset: Tensor, direction: Tensor) -> Tensor:
    """Return where rays enter the unit ball: a t^2 + 2 b t + c = 0, all [B, S, K]."""
    a = b = None
    for axis in range(3):
        d = to_unit_axis(to_unit, direction, axis)
        o = offset[:, :, axis, None]
        a = d * d if a is None else a.addcmul_(d, d)
        b = d * o if b is None else b.addcmul_(d, o)
    c = offset.square().sum(2, keepdim=True) - 1
    root = torch.addcmul(b * b, a, c, value=-1)
    missed = root < 0
    t = b.add_(root.clamp_(min=0).sqrt_()).neg_().div_(a)
    return t.masked_fill_(missed | (t < NEAREST), NOTHING)


def enter_cylinder(to_unit: Tensor, offset: Tensor, direction: Tensor) -> Tensor:
    """Return where rays enter the cylinder x^2 + y^2 <= 1, |z| <= 1, all [B, S, K]."""
    dx, dy, dz = (to_unit_axis(to_unit, direction, axis) for axis in range(3))
    ox, oy, oz = offset[..., None].unbind(2)
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
