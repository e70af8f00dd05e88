"""Projection against matrices and rays; poses, units and what counts as inside an image."""

import math

import numpy as np
import pytest
import torch
from world_oracle import centers, project_points, rays_through

from mimlib.world import Cameras, look, views
from mimlib.world.rendering.cameras import (
    inside,
    intrinsics,
    pixel_centers,
    pixel_rays,
    project,
    world_from_camera,
)

SIZE = 24


@pytest.fixture(scope="module")
def cameras():
    generator = torch.Generator().manual_seed(3)
    yaw, pitch = 6 * torch.rand(2, 8, generator=generator) - 3
    position = 5 * torch.rand(8, 3, generator=generator)
    return Cameras(position, look(yaw, pitch / 2), 0.6 + torch.rand(8, generator=generator))


def test_the_frame_of_a_camera():
    level = look(torch.tensor(0.0), torch.tensor(0.0))
    right, down, forward = level.unbind(1)
    assert torch.allclose(forward, torch.tensor([1.0, 0, 0]), atol=1e-6)
    assert torch.allclose(right, torch.tensor([0.0, -1, 0]), atol=1e-6)
    assert torch.allclose(down, torch.tensor([0.0, 0, -1]), atol=1e-6)
    upwards = look(torch.tensor(math.pi / 2), torch.tensor(0.3))[:, 2]
    expected = torch.tensor([0, math.cos(0.3), math.sin(0.3)])
    assert torch.allclose(upwards, expected, atol=1e-6)


def test_rotations_are_rotations(cameras):
    product = cameras.rotation @ cameras.rotation.transpose(1, 2)
    assert torch.allclose(product, torch.eye(3).expand(8, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(cameras.rotation), torch.ones(8), atol=1e-5)


def test_projection_undoes_unprojection(cameras):
    depth = 0.5 + 4 * torch.rand(8, SIZE**2, generator=torch.Generator().manual_seed(0))
    points = cameras.position[..., None] + depth[:, None] * pixel_rays(cameras, SIZE)
    pixels, again = project(cameras, points, SIZE)
    assert (pixels - pixel_centers(SIZE, pixels)).abs().max() < 1e-3
    assert (again - depth).abs().max() < 1e-4


def test_rays_and_projection_are_those_of_the_matrices(cameras):
    matrix, pose = intrinsics(cameras, SIZE), world_from_camera(cameras)
    rays = pixel_rays(cameras, SIZE).double().numpy()
    generator = np.random.default_rng(0)
    for row in range(8):
        expected, place = rays_through(centers(SIZE), matrix[row], pose[row])
        assert np.abs(rays[row].T - expected).max() < 1e-5
        points = place + expected * generator.uniform(0.3, 5, (len(expected), 1))
        points = points + generator.normal(0, 0.1, points.shape)
        planes = torch.from_numpy(points.T).float()[None]
        camera = Cameras(*(part[row : row + 1] for part in cameras))
        pixels, depth = project(camera, planes, SIZE)
        wanted, distance = project_points(points, matrix[row], pose[row])
        ahead = distance > 0.2
        assert np.abs(depth[0].double().numpy() - distance).max() < 1e-4
        assert np.abs(pixels[0].double().numpy().T - wanted)[ahead].max() < 1e-2


def test_the_opening_angle_is_that_of_the_intrinsics():
    seen = views(16, 16, truth=("camera",), cache=False)
    matrix, pose = seen["intrinsics"], seen["world_from_camera"]
    opening = 2 * torch.atan(8 / matrix[:, 0, 0])
    assert ((opening > 1.0 - 1e-5) & (opening < 1.3 + 1e-5)).all()
    assert (matrix[:, 0, 0] == matrix[:, 1, 1]).all()
    assert (matrix[:, :2, 2] == 8).all() and (matrix[:, 2] == torch.tensor([0.0, 0, 1])).all()
    assert (pose[:, 3] == torch.tensor([0.0, 0, 0, 1])).all()
    doubled = views(16, 32, truth=("camera",), cache=False)
    assert torch.allclose(doubled["intrinsics"][:, :2], 2 * matrix[:, :2])
    assert torch.equal(doubled["world_from_camera"], pose)


def test_inside_is_the_image_in_front_of_the_camera():
    pixels = torch.tensor([[[0.5, -0.1, 3.9, 4.1, 2.0], [0.5, 2.0, 3.9, 2.0, 2.0]]])
    depth = torch.tensor([[1.0, 1.0, 1.0, 1.0, -1.0]])
    assert inside(pixels, depth, 4).tolist() == [[True, False, True, False, False]]
