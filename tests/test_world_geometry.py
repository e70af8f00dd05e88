"""Depth, normals, ids and classes against closed forms and against the oracle's ray caster."""

import math

import numpy as np
import pytest
import torch
from world_oracle import back_project, bare_room, cast, centers, rays_through

from mimlib.world import LEVELS, Cameras, clips, look, pairs, trace, views
from mimlib.world.rendering.truth import classes_truth, depth_truth, instances_truth, normals_truth
from mimlib.world.sets.views import ViewsRecipe

SIZE = 20
BOX, BALL, CYLINDER = 0, 1, 2


def camera_at(position, yaw=0.0, pitch=0.0, focal=1.0):
    turn = look(torch.tensor([yaw]), torch.tensor([pitch]))
    return Cameras(torch.tensor([position]), turn, torch.tensor([focal]))


def see(scenes, cameras, size=SIZE):
    frame = trace(scenes, cameras, size)
    found = depth_truth(frame) | normals_truth(frame) | instances_truth(frame)
    return {name: tensor[0].double().numpy() for name, tensor in found.items()}


def image_grid(size=SIZE):
    """x and y of the pixel centers in image sides from the middle, [H, W] each."""
    line = (np.arange(size) + 0.5) / size - 0.5
    return np.meshgrid(line, line)


def test_an_empty_room_is_a_box_seen_from_inside():
    seen = see(bare_room(), camera_at((2.1, 2.5, 1.5)))
    x, y = image_grid()
    # Forward is +x: the far wall at 3.9 m, side walls at 2.5 m, floor and ceiling at 1.5 m.
    depth = np.minimum(3.9, np.minimum(2.5 / np.abs(x), 1.5 / np.abs(y)))
    assert np.abs(seen["depth"] - depth).max() < 1e-5
    upright = (1.5 / np.abs(y)) > np.minimum(3.9, 2.5 / np.abs(x))
    assert (seen["instances"] == np.where(upright, 1, np.where(y > 0, 0, 2))).all()


def test_a_ball_ahead():
    radius, distance = 0.5, 2.0
    scenes = bare_room([(BALL, (4.0, 2.5, 1.5), (radius,) * 3)])
    seen = see(scenes, camera_at((2.0, 2.5, 1.5)))
    x, y = image_grid()
    # |t (x, y, 1) - (0, 0, distance)| = radius
    a = x**2 + y**2 + 1
    root = distance**2 - a * (distance**2 - radius**2)
    hit = root > 0
    assert (seen["instances"] == 3)[hit].all() and not (seen["instances"] == 3)[~hit].any()
    t = (distance - np.sqrt(np.where(hit, root, 0))) / a
    assert np.abs(seen["depth"] - t)[hit].max() < 1e-5
    normal = np.stack((t * x, t * y, t - distance)) / radius  # in the camera's frame
    assert np.abs(seen["normals"] - normal)[:, hit].max() < 1e-4


def test_a_box_ahead_and_a_cylinder_from_above():
    scenes = bare_room([(BOX, (4.0, 2.5, 1.5), (0.5, 0.3, 0.2))])
    seen = see(scenes, camera_at((2.0, 2.5, 1.5)))
    x, y = image_grid()
    front = (np.abs(x) < 0.3 / 1.5) & (np.abs(y) < 0.2 / 1.5)
    assert np.abs(seen["depth"][front] - 1.5).max() < 1e-5
    assert np.abs(seen["normals"][:, front] - np.array([[0], [0], [-1]])).max() < 1e-6
    assert ((seen["instances"] == 3) == front).all()

    scenes = bare_room([(CYLINDER, (3.0, 2.5, 0.4), (0.6, 0.6, 0.4))])
    seen = see(scenes, camera_at((3.0, 2.5, 2.8), pitch=-math.pi / 2))
    top = x**2 + y**2 < (0.6 / 2.0) ** 2
    assert np.abs(seen["depth"] - np.where(top, 2.0, 2.8)).max() < 1e-4
    assert ((seen["instances"] == 3) == top).all()


def test_nothing_is_seen_of_shapes_behind_or_beside_the_camera():
    around = [(BALL, (1.0, 2.5, 1.5), (0.4,) * 3), (BALL, (2.0, 4.5, 1.5), (0.4,) * 3)]
    seen = see(bare_room(around), camera_at((2.0, 2.5, 1.5)))
    empty = see(bare_room(), camera_at((2.0, 2.5, 1.5)))
    assert all((seen[name] == empty[name]).all() for name in seen)


@pytest.mark.parametrize("level", LEVELS)
def test_every_pixel_agrees_with_the_oracle(level):
    drawn = ViewsRecipe(seed=5, size=SIZE, level=level).draw(0)
    frame = trace(drawn.scenes, drawn.cameras, SIZE)
    depth, normals = depth_truth(frame)["depth"], normals_truth(frame)["normals"]
    instances, classes = instances_truth(frame)["instances"], classes_truth(frame)["classes"]
    wrong = compared = 0
    for row in range(10):
        focal, turn = float(drawn.cameras.focal[row]), drawn.cameras.rotation[row]
        pixels = (centers(SIZE) / SIZE - 0.5) / focal
        local = np.concatenate((pixels, np.ones((len(pixels), 1))), 1)
        place = drawn.cameras.position[row].double().numpy()
        seen = cast(drawn.scenes, row, place, local @ turn.double().numpy().T)
        clear = np.abs(seen.runner_up - seen.t) > 1e-3  # no two shapes at one place
        compared += clear.sum()
        same = instances[row].flatten().numpy() == seen.instance
        same &= np.abs(depth[row].flatten().numpy() - seen.t) < 2e-3
        normal = seen.normal @ turn.double().numpy()
        normal *= -np.sign((normal * local).sum(1, keepdims=True))
        same &= (normals[row].flatten(1).numpy().T * normal).sum(1) > 0.999
        class_id = drawn.scenes.objects.class_id[row].numpy()[seen.instance]
        same &= classes[row].flatten().numpy() == class_id
        wrong += (clear & ~same).sum()
    assert compared > 0.9 * 10 * SIZE**2
    assert wrong <= 4  # rays that graze an edge may go either way


@pytest.fixture(scope="module")
def seen():
    truth = ("depth", "normals", "instances", "classes", "camera")
    return views(48, 32, seed=7, truth=truth, cache=False)


def test_normals_are_unit_and_face_the_camera(seen):
    normals = seen["normals"].double()
    assert (normals.square().sum(1) - 1).abs().max() < 1e-5
    rays, _ = rays_through(centers(32), seen["intrinsics"][0], torch.eye(4))
    towards = torch.from_numpy(rays.T).unflatten(1, (32, 32))
    focal = seen["intrinsics"][:, 0, 0] / seen["intrinsics"][0, 0, 0]
    scale = torch.stack((1 / focal, 1 / focal, torch.ones(48)), 1)[..., None, None]
    assert ((normals * towards * scale).sum(1) < 1e-5).all()


def test_normals_are_those_of_the_depth(seen):
    """On flat things the cross product of neighboring points is the normal."""
    checked = 0
    for row in range(48):
        points = back_project(seen["depth"][row], seen["intrinsics"][row], torch.eye(4))
        points = points.reshape(32, 32, 3)
        cross = np.cross(points[1:, :-1] - points[:-1, :-1], points[:-1, 1:] - points[:-1, :-1])
        cross /= np.linalg.norm(cross, axis=2, keepdims=True)
        normal = seen["normals"][row].double().numpy().transpose(1, 2, 0)
        slot = seen["instances"][row].numpy()
        flat = np.ones((31, 31), dtype=bool)
        for other in (np.s_[1:, :-1], np.s_[:-1, 1:]):
            flat &= (slot[other] == slot[:-1, :-1]) & (
                np.abs(normal[other] - normal[:-1, :-1]).max(2) < 1e-6
            )
        flat &= slot[:-1, :-1] < 3  # one plane per normal: walls, floor, ceiling
        assert ((cross * normal[:-1, :-1]).sum(2)[flat] > 0.9999).all()
        checked += flat.sum()
    assert checked > 48 * 200


def test_points_of_the_floor_are_on_the_floor(seen):
    for row in range(48):
        points = back_project(
            seen["depth"][row], seen["intrinsics"][row], seen["world_from_camera"][row]
        )
        slot = seen["instances"][row].flatten().numpy()
        assert np.abs(points[slot == 0, 2]).max(initial=0) < 1e-4
        assert (points[slot == 2, 2] > 2.39).all() and (points[:, 2] < 3.11).all()
        assert (points > -1e-4).all() and (points[:, :2] < 7.001).all()


def test_ids_and_classes_fit_together(seen):
    assert seen["instances"].dtype == seen["classes"].dtype == torch.int64
    assert (seen["instances"] <= 25).all() and (seen["classes"] <= 14).all()
    shell = seen["instances"] < 3
    assert (seen["classes"][shell] == seen["instances"][shell]).all()
    assert (seen["classes"][~shell] >= 3).all()
    for row in range(48):
        instance, class_id = seen["instances"][row].flatten(), seen["classes"][row].flatten()
        both = torch.stack((instance, class_id), 1).unique(dim=0)
        assert len(both) == len(instance.unique())  # one class per thing


def test_every_set_hands_out_the_same_types():
    kinds = ("image", "depth", "normals", "instances", "classes", "boxes", "keypoints", "camera")
    single = views(1, 16, truth=kinds, cache=False)
    double = pairs(1, 16, truth=kinds, cache=False)
    clip = clips(1, 2, 16, truth=kinds, cache=False)
    for name, field in single.items():
        assert clip[name].dtype == field.dtype and clip[name].shape[2:] == field.shape[1:], name
        for number in (1, 2):
            other = double[f"{name}_{number}"]
            assert other.dtype == field.dtype and other.shape[1:] == field.shape[1:], name
