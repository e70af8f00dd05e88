"""A second, slow world for the tests: one room and one shape at a time, in float64 numpy.

Nothing here uses the package's geometry. Boxes are six rectangles, ellipsoids are solved in
meters, cylinders are a tube and two discs; cameras are their documented 3x3 and 4x4 matrices.
"""

from typing import NamedTuple

import numpy as np
import torch

from mimlib.world.rooms.scenes import (
    FIRST_SLOT,
    Room,
    Scenes,
    empty_objects,
    empty_people,
    empty_shapes,
)

FAR = np.inf
START = 1e-4  # hits nearer than this are the start of the ray


class Shape(NamedTuple):
    """One shape in the world."""

    kind: int  # 0 box, 1 ellipsoid, 2 cylinder
    owner: int  # object slot
    center: np.ndarray  # [3] m
    rotation: np.ndarray  # [3, 3] world from shape
    half: np.ndarray  # [3] m


class Seen(NamedTuple):
    """What each of K rays meets first."""

    t: np.ndarray  # [K]
    instance: np.ndarray  # [K] object slot
    normal: np.ndarray  # [K, 3] unit, outwards
    runner_up: np.ndarray  # [K] t of the next shape: ties cannot be told apart


def shapes_of(scenes, row):
    """List the shapes of one room."""
    shapes, objects = scenes.shapes, scenes.objects
    found = []
    for kind, first in enumerate(FIRST_SLOT):
        for slot in range(first, first + int(shapes.counts[row, kind])):
            owner = int(shapes.owner[row, slot])
            yaw = float(objects.yaw[row, owner])
            turn = np.array(
                [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
            )
            center = turn @ shapes.center[row, slot].double().numpy()
            center = center + objects.position[row, owner].double().numpy()
            rotation = turn @ shapes.rotation[row, slot].double().numpy()
            found.append(
                Shape(kind, owner, center, rotation, shapes.half_size[row, slot].double().numpy())
            )
    return found


def hit_faces(origin, rays, half, axes):
    """Meet the flat faces across some axes; returns t and normal in the frame of the shape."""
    best, normal = np.full(len(rays), FAR), np.zeros_like(rays)
    for axis, limit in axes:
        for sign in (-1.0, 1.0):
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (sign * half[axis] - origin[axis]) / rays[:, axis]
                inside = limit(origin + t[:, None] * rays)
            nearer = inside & (t > START) & (t < best)
            best = np.where(nearer, t, best)
            normal[nearer] = sign * np.eye(3)[axis]
    return best, normal


def hit_quadric(origin, rays, weight):
    """Meet the surface sum(weight * x^2) = 1; returns both t, [K, 2], FAR where missed."""
    a = (weight * rays**2).sum(1)
    b = (weight * rays * origin).sum(1)
    root = b**2 - a * ((weight * origin**2).sum() - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.sqrt(root)
        t = np.stack(((-b - step) / a, (-b + step) / a), 1)
    return np.where((root[:, None] > 0) & (t > START), t, FAR)


def hit_shape(shape, origin, rays):
    """Meet one shape; returns t [K] and normals [K, 3] in the world."""
    o, d = shape.rotation.T @ (origin - shape.center), rays @ shape.rotation
    half = shape.half
    if shape.kind == 0:
        others = [(axis, [i for i in range(3) if i != axis]) for axis in range(3)]
        axes = [
            (axis, lambda p, rest=rest: (np.abs(p[:, rest]) <= half[rest]).all(1))
            for axis, rest in others
        ]
        t, normal = hit_faces(o, d, half, axes)
    elif shape.kind == 1:
        t = hit_quadric(o, d, half**-2).min(1)
        point = o + np.where(np.isfinite(t), t, 0)[:, None] * d
        normal = point / half**2
    else:
        weight = np.array([half[0] ** -2, half[1] ** -2, 0])
        disc = [(2, lambda p: (weight * p**2).sum(1) <= 1)]
        t, normal = hit_faces(o, d, half, disc)
        sides = hit_quadric(o, d, weight)
        for side in sides.T:
            point = o + np.where(np.isfinite(side), side, 0)[:, None] * d
            nearer = (side < t) & (np.abs(point[:, 2]) <= half[2])
            t = np.where(nearer, side, t)
            normal[nearer] = (weight * point)[nearer]
    return t, normal @ shape.rotation.T


def hit_room(size, origin, rays):
    """Meet walls, floor and ceiling from inside; returns t, instance and normals."""
    with np.errstate(divide="ignore"):
        planes = np.concatenate((-origin / rays, (size - origin) / rays), 1)  # [K, 6]
    planes = np.where(planes > 0, planes, FAR)
    plane = planes.argmin(1)
    inwards = np.concatenate((np.eye(3), -np.eye(3)))[plane]
    instance = np.array([1, 1, 0, 1, 1, 2])[plane]
    return planes.min(1), instance, inwards


def cast(scenes, row, origin, rays):
    """Find what rays [K, 3] from one point of one room meet first."""
    t, instance, normal = hit_room(scenes.room.size[row].double().numpy(), origin, rays)
    runner_up = np.full(len(rays), FAR)
    for shape in shapes_of(scenes, row):
        here, facing = hit_shape(shape, origin, rays)
        nearer = here < t
        runner_up = np.minimum(runner_up, np.maximum(here, t))
        t = np.where(nearer, here, t)
        instance = np.where(nearer, shape.owner, instance)
        normal = np.where(nearer[:, None], facing, normal)
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return Seen(t, instance, normal, runner_up)


def centers(size):
    """Return the pixel centers, row by row, [H * W, 2] as (x, y)."""
    y, x = np.mgrid[:size, :size] + 0.5
    return np.stack((x.ravel(), y.ravel()), 1)


def rays_through(pixels, intrinsics, pose):
    """Return world directions [K, 3] of depth 1 through pixels [K, 2], and the camera's place."""
    homogeneous = np.concatenate((pixels, np.ones((len(pixels), 1))), 1)
    local = homogeneous @ np.linalg.inv(intrinsics.double().numpy()).T
    pose = pose.double().numpy()
    return local @ pose[:3, :3].T, pose[:3, 3]


def back_project(depth, intrinsics, pose):
    """Return the world points [H * W, 3] behind the pixels of a depth image [H, W]."""
    rays, place = rays_through(centers(len(depth)), intrinsics, pose)
    return place + depth.double().numpy().reshape(-1, 1) * rays


def project_points(points, intrinsics, pose):
    """Return the pixels [K, 2] and depths [K] of world points [K, 3]."""
    camera = np.linalg.inv(pose.double().numpy())
    local = points @ camera[:3, :3].T + camera[:3, 3]
    image = local @ intrinsics.double().numpy().T
    return image[:, :2] / image[:, 2:], local[:, 2]


def bare_room(shapes=(), size=(6.0, 5.0, 3.0), light=(3.0, 2.5, 2.8)):
    """Return one plain room; each shape is (kind, center, half size) and its own object."""
    table, objects = empty_shapes(1), empty_objects(1)
    for number, (kind, center, half) in enumerate(shapes):
        slot, owner = FIRST_SLOT[kind] + int(table.counts[0, kind]), 3 + number
        table.center[0, slot], table.half_size[0, slot] = torch.tensor(center), torch.tensor(half)
        table.owner[0, slot] = owner
        table.counts[0, kind] += 1
        objects.class_id[0, owner] = 5
    room = Room(
        size=torch.tensor([size]),
        texture=torch.zeros(1, 7, dtype=torch.long),
        frequency=torch.ones(1, 7),
        wainscot=torch.zeros(1),
        light=torch.tensor([light]),
        light_color=torch.ones(1, 3),
        ambient=torch.full((1,), 0.3),
        fill=torch.tensor([[0.0, 0.0, 1.0]]),
    )
    return Scenes(table, objects, empty_people(1), room)
