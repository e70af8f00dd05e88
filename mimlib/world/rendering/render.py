"""From scenes and cameras to what every pixel sees: surfaces first, then colors.

Vectors of pixels are planes [B, 3, K]: the processor likes long rows.
Letters: B scenes, K pixels of one image (H * W), S shape slots.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.world.rendering.cameras import Cameras, pixel_rays
from mimlib.world.rendering.cast import first_hit, reaches
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.scenes import (
    FIRST_SLOT,
    WAINSCOT,
    Placed,
    Scenes,
    place_shapes,
    rotate_planes,
    unit_planes,
)

SHADOW_LIFT = 0.01  # m above a surface where shadow rays end, against a surface shading itself
FLOOR, WALL, CEILING = 0, 1, 2  # object slots of the room


class Surfaces(NamedTuple):
    """The point each pixel sees."""

    depth: Tensor  # [B, K] m along the optical axis
    ray: Tensor  # [B, 3, K] direction, 1 long along the optical axis
    point: Tensor  # [B, 3, K] m in the world
    normal: Tensor  # [B, 3, K] unit, in the world, towards the camera
    slot: Tensor  # [B, K] int64 shape slot, -1 for the room
    wall: Tensor  # [B, K] int64 x-, x+, y-, y+, floor, ceiling; meaningful where slot is -1
    local: Tensor  # [B, 3, K] point in the frame of its shape, in half sizes
    half_size: Tensor  # [B, 3, K] m, of that shape
    instance: Tensor  # [B, K] int64 object slot


class Frame(NamedTuple):
    """One view of each of B scenes: who looks, and what is seen."""

    scenes: Scenes
    placed: Placed
    cameras: Cameras
    size: int  # px, H = W
    surfaces: Surfaces


def trace(scenes: Scenes, cameras: Cameras, size: int, placed: Placed | None = None) -> Frame:
    """Find the surface behind each pixel of square images, by one camera in each of B rooms.

    `placed` are the shapes in the world, if they are known already.
    """
    placed = placed or place_shapes(scenes)
    ray = pixel_rays(cameras, size)
    hits = first_hit(scenes, placed, cameras.position, ray)
    point = cameras.position[..., None] + hits.t[:, None] * ray
    rotation, center, half_size = shape_frames(placed, hits.slot)
    local = rotate_planes(rotation.transpose(1, 2), point - center) / half_size
    normal = rotate_planes(rotation, shape_normals(hits.slot, local, half_size))
    normal = torch.where(hits.slot[:, None] < 0, wall_normals(hits.surface, ray), normal)
    normal = unit_planes(torch.where((normal * ray).sum(1, keepdim=True) > 0, -normal, normal))
    part = torch.where(hits.surface < 4, WALL, torch.where(hits.surface == 4, FLOOR, CEILING))
    owner = scenes.shapes.owner.gather(1, hits.slot.clamp(min=0))
    instance = torch.where(hits.slot < 0, part, owner)
    surfaces = Surfaces(
        hits.t, ray, point, normal, hits.slot, hits.surface, local, half_size, instance
    )
    return Frame(scenes, placed, cameras, size, surfaces)


def shape_frames(placed: Placed, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the shapes in slots [B, K]: rotation [B, 3, 3, K], center and half size [B, 3, K].

    Slots of -1 give those of the first shape.
    """
    frames = torch.cat((placed.rotation.flatten(2), placed.center, placed.half_size), 2)
    chosen = slot.clamp(min=0)[:, None].expand(-1, 15, -1)
    frame = rearrange(frames, "b s c -> b c s").gather(2, chosen)  # [B, 15, K]
    return frame[:, :9].unflatten(1, (3, 3)), frame[:, 9:12], frame[:, 12:]


def is_box(slot: Tensor) -> Tensor:
    """Tell which shape slots hold boxes."""
    return slot < FIRST_SLOT[1]


def is_cylinder(slot: Tensor) -> Tensor:
    """Tell which shape slots hold cylinders."""
    return slot >= FIRST_SLOT[2]


def facing_axis(local: Tensor) -> tuple[Tensor, Tensor]:
    """Tell whether a point of a box lies on its faces along x and along z, [B, K] each."""
    x, y, z = local.abs().unbind(1)
    on_z = z > torch.maximum(x, y)
    return (x >= y) & ~on_z, on_z


def on_cap(slot: Tensor, local: Tensor) -> Tensor:
    """Tell which points lie on the flat ends of a cylinder, [B, K]."""
    return is_cylinder(slot) & (local[:, 2].abs() > 0.9995)


def shape_normals(slot: Tensor, local: Tensor, half_size: Tensor) -> Tensor:
    """Return normals of any length in the frames of the shapes, [B, 3, K]."""
    on_x, on_z = facing_axis(local)
    faces = torch.stack((on_x, ~(on_x | on_z), on_z), 1)
    flat = torch.where(faces, local.sign(), 0.0)
    curved = local / half_size
    side = torch.cat((curved[:, :2], torch.zeros_like(curved[:, 2:])), 1)
    curved = torch.where(is_cylinder(slot)[:, None], side, curved)
    cap = torch.zeros_like(local)
    cap[:, 2] = local[:, 2].sign()
    curved = torch.where(on_cap(slot, local)[:, None], cap, curved)
    return torch.where(is_box(slot)[:, None], flat, curved)


def wall_normals(wall: Tensor, ray: Tensor) -> Tensor:
    """Return the normals of the room's surfaces, [B, 3, K], towards the camera."""
    axis = torch.arange(3, device=wall.device)[:, None]
    return torch.where((wall // 2)[:, None] == axis, -ray.sign(), 0.0)


def texture_coordinates(frame: Frame) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return texture [B, K], u and v in textures [B, K], and textures per meter [B, K]."""
    shapes, surfaces = frame.scenes.shapes, frame.surfaces
    slot, local = surfaces.slot, surfaces.local
    chosen = slot.clamp(min=0)
    x, y, z = (local * surfaces.half_size).unbind(1)  # m
    on_x, on_z = facing_axis(local)
    u, v = torch.where(on_x, y, x), torch.where(on_z, y, -z)
    around = torch.atan2(local[:, 1], local[:, 0]) * surfaces.half_size[:, 0]
    up = torch.asin(local[:, 2].clamp(-1, 1)) * surfaces.half_size[:, 2]
    rounded = ~(is_box(slot) | on_cap(slot, local))
    u = torch.where(rounded, around, torch.where(is_box(slot), u, x))
    v = torch.where(
        rounded, torch.where(is_cylinder(slot), -z, -up), torch.where(is_box(slot), v, y)
    )
    frequency = shapes.frequency.gather(1, chosen)
    shift = 0.618 * chosen  # so that two shapes of one texture do not look alike
    u, v = u * frequency + shift, v * frequency + shift
    stretched = shapes.stretched.gather(1, chosen)
    u = torch.where(stretched, 0.5 + 0.5 * local[:, 0], u)
    v = torch.where(stretched, 0.5 - 0.5 * local[:, 2], v)
    frequency = torch.where(stretched, 0.5 / surfaces.half_size[:, 0], frequency)
    texture = shapes.texture.gather(1, chosen)
    return tuple(
        torch.where(slot < 0, shell, shape)
        for shell, shape in zip(shell_coordinates(frame), (texture, u, v, frequency))
    )


def shell_coordinates(frame: Frame) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what texture_coordinates does, for the walls, floor and ceiling."""
    room, surfaces = frame.scenes.room, frame.surfaces
    x, y, z = surfaces.point.unbind(1)
    wall = surfaces.wall
    paneled = (wall < 4) & (z < room.wainscot[:, None])
    wall = torch.where(paneled, WAINSCOT, wall)
    frequency = room.frequency.gather(1, wall)
    u = torch.where(surfaces.wall < 2, y, x) * frequency
    v = torch.where(surfaces.wall < 4, -z, y) * frequency
    return room.texture.gather(1, wall), u, v, frequency


def albedo(frame: Frame, atlas: Atlas) -> Tensor:
    """Look up the color of every surface point, [B, 3, K] in [0, 1]."""
    surfaces, cameras = frame.surfaces, frame.cameras
    texture, u, v, frequency = texture_coordinates(frame)
    length = surfaces.ray.square().sum(1).sqrt()
    slant = ((surfaces.normal * surfaces.ray).sum(1).abs() / length).clamp(min=0.2)
    footprint = surfaces.depth / (cameras.focal[:, None] * frame.size) / slant.sqrt()  # m per pixel
    color = atlas.sample(texture, u, v, footprint * frequency * atlas.side)
    return rearrange(color, "b k c -> b c k")


def corner_shade(frame: Frame) -> Tensor:
    """Return the share of ambient light [B, K] left near the corners of the room."""
    surfaces, size = frame.surfaces, frame.scenes.room.size[..., None]
    point = surfaces.point
    near = (1 + 8 * torch.minimum(point, size - point).clamp(min=0)).reciprocal()
    loss = 0.45 * near * near * (1 - surfaces.normal.square())
    x, y, z = (1 - loss).unbind(1)
    return x * y * z


def shade(frame: Frame, atlas: Atlas) -> Tensor:
    """Color images [B, 3, H, W] uint8: Lambert under one point light with hard shadows.

    Ambient and fill light come from everywhere and are dimmed in the room's corners.
    """
    room, surfaces = frame.scenes.room, frame.surfaces
    normal = surfaces.normal
    to_light = room.light[..., None] - surfaces.point
    distance = to_light.square().sum(1).sqrt()
    facing = (normal * to_light).sum(1).clamp(min=0) / distance
    lit = reaches(frame.scenes, frame.placed, room.light, SHADOW_LIFT * normal - to_light)
    direct = 1.1 * facing * lit / (1 + 0.06 * distance.square())
    fill = 0.18 * (normal * room.fill[..., None]).sum(1).clamp(min=0)
    bounce = 0.15 * normal[:, 2].clamp(min=0) + 0.5 * (-normal[:, 2]).clamp(min=0)
    ambient = room.ambient[:, None] * (1 + bounce) + fill
    ambient = ambient * corner_shade(frame)
    light = ambient[:, None] + direct[:, None] * room.light_color[..., None]
    image = albedo(frame, atlas) * light
    image = rearrange(image, "b c (h w) -> b c h w", h=frame.size)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
