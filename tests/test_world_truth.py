"""Boxes, keypoints and labels against masks, skeletons and what stands in the middle."""

import numpy as np
import pytest
import torch
from world_oracle import project_points

from mimlib.world import CLASSES, LEVELS, trace, views
from mimlib.world.rendering.truth import (
    boxes_truth,
    camera_truth,
    depth_truth,
    instances_truth,
    keypoints_truth,
)
from mimlib.world.rooms.people import BONES, JOINTS, PARTS, limb_shapes, pose_joints
from mimlib.world.rooms.scenes import CAPACITY, take
from mimlib.world.sets.views import ViewsRecipe

COUNT, SIZE = 64, 48
PERSON = CLASSES.index("person")


@pytest.fixture(scope="module")
def seen():
    truth = ("instances", "classes", "boxes", "keypoints", "camera")
    return views(COUNT, SIZE, "clip", seed=3, truth=truth, cache=False)


@pytest.fixture(scope="module")
def drawn():
    return ViewsRecipe(seed=3, size=SIZE, level="clip").draw(0)  # the rooms of `seen`


def test_boxes_are_the_extent_of_the_masks(seen):
    instances = seen["instances"].numpy()
    for row in range(COUNT):
        for slot, (box, valid) in enumerate(zip(seen["boxes"][row], seen["boxes_valid"][row])):
            y, x = np.nonzero(instances[row] == slot)
            assert bool(valid) == (slot >= 3 and len(x) > 0)
            if valid:
                assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            else:
                assert box.tolist() == [0, 0, 0, 0]
    assert seen["boxes_valid"].sum() > 5 * COUNT


def test_boxes_name_the_class_of_their_pixels(seen):
    rows, slots = seen["boxes_valid"].nonzero().unbind(1)
    for row, slot in zip(rows.tolist(), slots.tolist()):
        here = seen["classes"][row][seen["instances"][row] == slot]
        assert (here == seen["boxes_class"][row, slot]).all()
    empty = seen["boxes_class"] < 0
    assert not (seen["boxes_valid"] & empty).any() and empty.any()


def test_a_box_of_one_pixel_and_of_the_whole_image(drawn):
    frame = trace(drawn.scenes, drawn.cameras, 1)  # one pixel: whatever is there fills its box
    boxes = boxes_truth(frame)
    for row, slot in enumerate(instances_truth(frame)["instances"].flatten().tolist()):
        if slot >= 3:
            assert boxes["boxes"][row, slot].tolist() == [0, 0, 1, 1]


def skeleton(drawn, row, person):
    """The joints [J, 3] of a person in the world, in meters, or None."""
    slot = int(drawn.scenes.people.slot[row, person])
    if slot < 0:
        return None
    yaw = float(drawn.scenes.objects.yaw[row, slot])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    joints = drawn.scenes.people.joints[row, person].double().numpy()
    return joints @ turn.T + drawn.scenes.objects.position[row, slot].double().numpy()


def test_keypoints_are_the_joints_projected(seen, drawn):
    found = 0
    for row in range(COUNT):
        matrix, pose = seen["intrinsics"][row], seen["world_from_camera"][row]
        for person in range(2):
            joints, valid = skeleton(drawn, row, person), seen["keypoints_valid"][row, person]
            slot = int(seen["keypoints_person"][row, person])
            if joints is None:
                assert not valid.any() and slot == -1
                continue
            assert seen["boxes_class"][row, slot] == PERSON
            pixels, depth = project_points(joints, matrix, pose)
            inside = (depth > 0.05) & (pixels > 0).all(1) & (pixels < SIZE).all(1)
            assert (valid.numpy() == inside).all()
            keypoints = seen["keypoints"][row, person].double().numpy()
            assert np.abs(keypoints - pixels)[inside].max(initial=0) < 1e-2
            assert (keypoints[~inside] == 0).all()
            found += inside.sum()
    assert found > 200


def test_visible_keypoints_lie_on_their_person_and_hidden_ones_behind_something(drawn):
    size, rooms = 128, take(drawn, slice(0, 32))
    frame = trace(rooms.scenes, rooms.cameras, size)  # fine enough for wrists
    found = keypoints_truth(frame) | camera_truth(frame) | instances_truth(frame)
    depths = depth_truth(frame)["depth"].double()
    num_visible = num_hidden = covered = 0
    for row, person in (found["keypoints_person"] >= 0).nonzero().tolist():
        matrix, pose = found["intrinsics"][row], found["world_from_camera"][row]
        _, depth = project_points(skeleton(drawn, row, person), matrix, pose)
        column, line = found["keypoints"][row, person].long().unbind(1)
        before = torch.from_numpy(depth) - depths[row][line, column]
        visible = found["keypoints_visible"][row, person]
        hidden = found["keypoints_valid"][row, person] & ~visible
        assert not (visible & ~found["keypoints_valid"][row, person]).any()
        on_person = found["instances"][row][line, column] == found["keypoints_person"][row, person]
        assert on_person[visible].all()
        assert (before[visible].abs() < 0.35).all()  # the size of a limb
        num_visible, num_hidden = num_visible + visible.sum(), num_hidden + hidden.sum()
        covered += (before[hidden] > -0.02).sum()
    assert num_visible > 150
    # What hides a joint is nearer, be it another limb; few limbs are thinner than a pixel.
    assert covered > 0.8 * num_hidden > 30


def test_joints_lie_in_a_limb_around_them():
    joints = pose_joints(torch.rand(64, 8, generator=torch.Generator().manual_seed(0)))
    centers, rotations, radii = limb_shapes(joints, torch.full((64,), 0.5))
    offset = joints[:, :, None] - centers[:, None]  # [Q, J, L, 3]
    local = torch.einsum("qlji,qklj->qkli", rotations, offset) / radii[:, None]
    inside = local.norm(dim=-1) < 1
    around = torch.tensor([[name in names for _, names in PARTS] for name in JOINTS])
    assert (inside & around).any(-1).all()


def test_people_have_the_proportions_of_people():
    traits = torch.rand(200, 8, generator=torch.Generator().manual_seed(1))
    joints = pose_joints(traits)
    assert torch.isfinite(joints).all()
    top = joints[:, JOINTS.index("head"), 2] + 0.13
    assert (top > 1.4).all() and (top < 2.0).all()
    tall = 0.85 + 0.25 * traits[:, 0]
    at = dict(zip(JOINTS, joints.unbind(1)))
    for first, second in BONES:  # bones do not stretch with the step
        length = (at[first] - at[second]).norm(dim=1) / tall
        tolerance = 0.02 if "head" in (first, second) else 1e-4
        assert (length - length[0]).abs().max() < tolerance, (first, second)
    for side in ("left", "right"):
        assert (at[f"{side}_ankle"][:, 2] > -0.01).all()
        assert (at[f"{side}_knee"][:, 2] > at[f"{side}_ankle"][:, 2]).all()


@pytest.fixture(scope="module")
def aimed():
    options = {"truth": ("classes",), "aim": "object", "cache": False}
    parts = [views(COUNT, SIZE, level, seed=1, **options) for level in ("paper", "hard")]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_aimed_views_show_the_object_of_their_label(aimed):
    label, classes = aimed["label"], aimed["classes"]
    assert label.dtype == torch.int64 and (label >= 3).all() and (label < len(CLASSES)).all()
    share = (classes == label[:, None, None]).float()
    assert (share.mean((1, 2)) > 0.04).all()
    middle = share[:, SIZE // 3 : -SIZE // 3, SIZE // 3 : -SIZE // 3].mean((1, 2))
    assert (middle > 0.2).all() and middle.median() > 0.5


def test_labels_are_even(aimed):
    counts = torch.bincount(aimed["label"], minlength=len(CLASSES))[3:]
    assert counts.sum() == 2 * COUNT and counts.min() >= 3 and counts.max() <= 24  # 10.7 expected


def test_views_of_rooms_have_no_label():
    assert "label" not in views(1, 8, cache=False)


def test_empty_slots_hold_nobody(drawn):
    frame = trace(drawn.scenes, drawn.cameras, 8)
    found = keypoints_truth(frame)
    nobody = found["keypoints_person"] < 0
    assert nobody.any()
    for name in ("keypoints_valid", "keypoints_visible"):
        assert not found[name][nobody].any()


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_was_dropped_for_want_of_slots(level):
    """A room that fills a kind of slot may have lost shapes without a word."""
    scenes = ViewsRecipe(seed=9, size=SIZE, level=level).draw(0).scenes
    assert (scenes.shapes.counts < torch.tensor(CAPACITY)).all()
