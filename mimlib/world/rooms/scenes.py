"""What a room is made of, for many rooms at once.

Letters: B scenes, S shape slots, R object slots, J joints. The world's axes are x, y on the floor
and z up, with the origin in a corner of the floor; lengths are meters, angles radians.
Shape slots hold boxes, then ellipsoids, then cylinders; an unused slot lies far below the floor.
Object slots 0, 1, 2 are the floor, the walls and the ceiling; empty object slots have class -1.
"""

from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

BOX, ELLIPSOID, CYLINDER = 0, 1, 2
CAPACITY = (50, 40, 14)  # slots of boxes, ellipsoids, cylinders
FIRST_SLOT = (0, CAPACITY[0], CAPACITY[0] + CAPACITY[1])
NUM_SLOTS = sum(CAPACITY)
NUM_OBJECTS = 26
NUM_PEOPLE = 2  # slots per room
NUM_JOINTS = 14
NUM_TRAITS = 8
NUM_SURFACES = 7  # of the room: walls x-, x+, y-, y+, floor, ceiling, wainscot
WAINSCOT = 6


class Shapes(NamedTuple):
    """Boxes, ellipsoids and cylinders in the frames of the objects they belong to."""

    center: Tensor  # [B, S, 3] m
    rotation: Tensor  # [B, S, 3, 3] object from shape
    half_size: Tensor  # [B, S, 3] m; a cylinder stands along its z
    owner: Tensor  # [B, S] int64 object slot
    texture: Tensor  # [B, S] int64
    frequency: Tensor  # [B, S] textures per meter
    stretched: Tensor  # [B, S] bool, the texture covers the front face once
    counts: Tensor  # [B, 3] int64 used slots of each kind


class Objects(NamedTuple):
    """Things that move as one and share an instance id, which is their slot."""

    class_id: Tensor  # [B, R] int64, -1 for an empty slot
    position: Tensor  # [B, R, 3] m, of the foot
    yaw: Tensor  # [B, R] rad about z
    radius: Tensor  # [B, R] m, 0 for what does not stand in the way
    height: Tensor  # [B, R] m


class People(NamedTuple):
    """Up to two people per room."""

    slot: Tensor  # [B, 2] int64 object slot, -1 for nobody
    first_limb: Tensor  # [B, 2] int64 shape slot of the first limb
    traits: Tensor  # [B, 2, 8] in [0, 1], see people.Traits
    joints: Tensor  # [B, 2, J, 3] m in the frame of the object


class Room(NamedTuple):
    """The shell and the light."""

    size: Tensor  # [B, 3] m
    texture: Tensor  # [B, 7] int64 per surface
    frequency: Tensor  # [B, 7] textures per meter
    wainscot: Tensor  # [B] m, height of the paneling, 0 for none
    light: Tensor  # [B, 3] m
    light_color: Tensor  # [B, 3]
    ambient: Tensor  # [B]
    fill: Tensor  # [B, 3] unit, direction the fill light comes from


class Scenes(NamedTuple):
    """B furnished rooms."""

    shapes: Shapes
    objects: Objects
    people: People
    room: Room


class Placed(NamedTuple):
    """Shapes in the world frame."""

    center: Tensor  # [B, S, 3] m
    rotation: Tensor  # [B, S, 3, 3] world from shape
    half_size: Tensor  # [B, S, 3] m


def empty_shapes(count: int) -> Shapes:
    """Return unused shape slots, tiny and far below the floor where no ray gets."""
    center = torch.zeros(count, NUM_SLOTS, 3)
    center[..., 2] = -50
    slots = (count, NUM_SLOTS)
    return Shapes(
        center=center,
        rotation=torch.eye(3).repeat(*slots, 1, 1),
        half_size=torch.full((*slots, 3), 0.01),
        owner=torch.zeros(slots, dtype=torch.long),
        texture=torch.zeros(slots, dtype=torch.long),
        frequency=torch.ones(slots),
        stretched=torch.zeros(slots, dtype=torch.bool),
        counts=torch.zeros(count, 3, dtype=torch.long),
    )


def empty_objects(count: int) -> Objects:
    """Return object slots that hold only floor, walls and ceiling."""
    class_id = torch.full((count, NUM_OBJECTS), -1)
    class_id[:, :3] = torch.arange(3)
    zero = torch.zeros(count, NUM_OBJECTS)
    return Objects(class_id, zero[..., None].repeat(1, 1, 3), zero, zero.clone(), zero.clone())


def empty_people(count: int) -> People:
    """Return slots with nobody in them."""
    nobody = torch.full((count, NUM_PEOPLE), -1)
    traits = torch.zeros(count, NUM_PEOPLE, NUM_TRAITS)
    joints = torch.zeros(count, NUM_PEOPLE, NUM_JOINTS, 3)
    return People(nobody, torch.zeros_like(nobody), traits, joints)


Tree = TypeVar("Tree", bound=tuple)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw numbers in [low, high) on the CPU."""
    return low + (high - low) * torch.rand(*shape, generator=generator)


def take(tree: Tree, index: Tensor | slice | tuple[Tensor, ...]) -> Tree:
    """Keep the batch entries at `index` of nested named tuples."""
    return tree_map(lambda leaf: leaf[index], tree)


def concatenate(trees: list[Tree]) -> Tree:
    """Join batches along the first axis."""
    return tree_map(lambda *leaves: torch.cat(leaves), *trees)


def pick_rows(values: Tensor, index: Tensor) -> Tensor:
    """Gather values[b, index[b, k]] for values [B, S, ...] and index [B, K]."""
    batch = torch.arange(len(index), device=index.device)[:, None]
    return values[batch, index]


def clearance(objects: Objects, places: Tensor, taller_than: float = 0.0) -> Tensor:
    """Return meters from places [B, K, 2] to the nearest standing object, [B, K]; 9 for none."""
    stands = (objects.radius > 0) & (objects.height > taller_than)
    gap = (places[:, :, None] - objects.position[:, None, :, :2]).square().sum(-1).sqrt()
    return torch.where(stands[:, None], gap - objects.radius[:, None], 9.0).amin(2)


def yaw_rotation(yaw: Tensor) -> Tensor:
    """Return rotations about z by yaw [...] as matrices [..., 3, 3]."""
    cosine, sine, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def rotation_to(axis: Tensor) -> Tensor:
    """Return rotations [..., 3, 3] whose third column is along axis [..., 3]."""
    z = F.normalize(axis, dim=-1)
    upright = z[..., 2:].abs() > 0.9
    aside = torch.where(upright, z.new_tensor((1.0, 0, 0)), z.new_tensor((0, 0, 1.0)))
    x = F.normalize(torch.linalg.cross(aside, z), dim=-1)
    return torch.stack((x, torch.linalg.cross(z, x), z), -1)


def rotate(rotation: Tensor, vector: Tensor) -> Tensor:
    """Multiply matrices [..., 3, 3] with vectors [..., 3].

    Sums instead of a matrix product: geometry stays float32 whatever matmul precision is set.
    """
    return (rotation * vector[..., None, :]).sum(-1)


def rotate_planes(rotation: Tensor, vectors: Tensor) -> Tensor:
    """Multiply matrices [B, 3, 3] or [B, 3, 3, K] with vectors given as planes [B, 3, K]."""
    rotation = rotation if rotation.ndim == 4 else rotation[..., None]
    x, y, z = (rotation[:, :, i] * vectors[:, i : i + 1] for i in range(3))
    return x + y + z


def unit_planes(vectors: Tensor) -> Tensor:
    """Scale vectors given as planes [B, 3, K] to unit length.

    Roots of doubles are the same on every processor, those of single numbers are not.
    """
    x, y, z = vectors.square().unbind(1)
    return vectors / (x + y + z).double().sqrt_().float().clamp_(min=1e-12)[:, None]


def place_shapes(scenes: Scenes) -> Placed:
    """Move the shapes from their objects' frames to the world's."""
    shapes, objects = scenes.shapes, scenes.objects
    turn = yaw_rotation(objects.yaw.gather(1, shapes.owner))  # [B, S, 3, 3]
    foot = pick_rows(objects.position, shapes.owner)  # [B, S, 3]
    columns = [rotate(turn, shapes.rotation[..., i]) for i in range(3)]
    return Placed(foot + rotate(turn, shapes.center), torch.stack(columns, -1), shapes.half_size)
