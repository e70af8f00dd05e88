"""Flow, visibility and co-visibility of pairs, recomputed from depth, cameras and the oracle."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from world_oracle import back_project, cast, centers, project_points

from mimlib.world import pairs, stereo
from mimlib.world.sets.pairs import FINE, PairsRecipe

SIZE, COUNT = 64, 24
TRUTH = ("image", "depth", "instances", "camera", "flow", "covisible")
LEVELS = ("easy", "textured", "paper", "hard")


@pytest.fixture(scope="module")
def sets():
    return {level: pairs(COUNT, SIZE, level, seed=2, truth=TRUTH, cache=False) for level in LEVELS}


def sample(images, pixels):
    """Read images [B, C, H, W] at pixels [B, H, W, 2], bilinear, pixel centers at +0.5."""
    grid = 2 * pixels / images.shape[-1] - 1
    return F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")


def targets(found):
    """Where the pixels of view 1 are in view 2, [B, H, W, 2]."""
    base = torch.from_numpy(centers(SIZE)).float().unflatten(0, (SIZE, SIZE))
    return base + found["flow"]


@pytest.mark.parametrize("level", LEVELS)
def test_warping_view_2_by_the_flow_gives_view_1(sets, level):
    found = sets[level]
    first, second = found["image_1"].float() / 255, found["image_2"].float() / 255
    warped = sample(second, targets(found))
    shown = found["visible"][:, None].expand_as(first)
    error, unwarped = (first - warped).abs()[shown].mean(), (first - second).abs()[shown].mean()
    assert error < 0.03  # half-seen pixels at edges and mip levels remain
    assert unwarped > (2 if level == "easy" else 4) * error
    hidden = (first - warped).abs()[~shown].mean()
    assert hidden > 2 * error


@pytest.mark.parametrize("level", LEVELS)
def test_flow_is_the_reprojection_of_depth(sets, level):
    found = sets[level]
    for row in range(COUNT):
        points = back_project(
            found["depth_1"][row], found["intrinsics_1"][row], found["world_from_camera_1"][row]
        )
        pixels, depth = project_points(
            points, found["intrinsics_2"][row], found["world_from_camera_2"][row]
        )
        valid = found["flow_valid"][row].flatten().numpy()
        assert (valid == (depth > 0.05))[np.abs(depth - 0.05) > 1e-3].all()
        flow = found["flow"][row].flatten(0, 1).double().numpy()
        near = valid & (depth > 0.3)  # closer to the plane of the camera flows grow without bound
        assert np.abs(flow + centers(SIZE) - pixels)[near].max() < 1e-2
        assert (flow[~valid] == 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_visible_points_have_the_depth_seen_there(sets, level):
    """Visible means that depth 2 at the target is the point's depth; hidden, that it is nearer."""
    found = sets[level]
    wrong = total = 0
    for row in range(COUNT):
        points = back_project(
            found["depth_1"][row], found["intrinsics_1"][row], found["world_from_camera_1"][row]
        )
        pixels, depth = project_points(
            points, found["intrinsics_2"][row], found["world_from_camera_2"][row]
        )
        inside = (depth > 0) & (pixels > 0).all(1) & (pixels < SIZE).all(1)
        visible = found["visible"][row].flatten().numpy()
        assert not (visible & ~inside).any()
        column, line = pixels[inside].astype(int).T
        # The nearest and farthest surface in the 3 x 3 pixels around bound a fair judgement.
        padded = np.pad(found["depth_2"][row].numpy(), 1, mode="edge")
        patch = np.stack([padded[line + i, column + j] for i in range(3) for j in range(3)], 1)
        certainly_hidden = patch.max(1) < depth[inside] - 0.1
        low, high = patch.min(1), patch.max(1)
        certainly_seen = (high - low < 0.2) & (low <= depth[inside]) & (depth[inside] <= high)
        wrong += (certainly_hidden & visible[inside]).sum()
        wrong += (certainly_seen & ~visible[inside]).sum()
        total += (certainly_hidden | certainly_seen).sum()
    assert total > 0.3 * COUNT * SIZE**2
    assert wrong <= 3e-3 * total  # a thin thing between two others


@pytest.mark.parametrize("level", LEVELS)
def test_visibility_and_covisibility_are_those_of_the_oracle(level):
    size = 16
    recipe = PairsRecipe(seed=4, size=size, level=level)
    drawn = recipe.draw(0)
    kinds = ("depth", "camera", "flow", "covisible")
    parts = recipe.render(drawn, kinds, None)
    found = {name: field for part in parts.values() for name, field in part.items()}
    assert torch.equal(found["visible"], found["covisible_1"])
    wrong = 0
    for row in range(6):
        for here, there in ((1, 2), (2, 1)):
            matrix, pose = found[f"intrinsics_{there}"][row], found[f"world_from_camera_{there}"]
            points = back_project(
                found[f"depth_{here}"][row],
                found[f"intrinsics_{here}"][row],
                found[f"world_from_camera_{here}"][row],
            )
            pixels, depth = project_points(points, matrix, pose[row])
            inside = (depth > 0.05) & (pixels > 0).all(1) & (pixels < size).all(1)
            eye = pose[row, :3, 3].double().numpy()
            free = cast(drawn.scenes, row, eye, points - eye).t > 0.999
            expected = (inside & free).reshape(size, size)
            wrong += (found[f"covisible_{here}"][row].numpy() != expected).sum()
    assert wrong <= 6 * 2 * size**2 * 2e-3  # rays that graze an edge


def test_covisibility_is_the_lesser_share_of_both_ways():
    found = pairs(COUNT, FINE, "paper", seed=2, truth=("covisible",), cache=False)
    shares = [found[f"covisible_{view}"].float().mean((1, 2)) for view in (1, 2)]
    assert torch.allclose(found["covisibility"], torch.minimum(*shares), atol=1e-6)
    assert (shares[0] - shares[1]).abs().max() > 0.02  # so that taking the lesser one matters


def test_covisibility_keeps_to_the_level(sets):
    for level, low, high in (("easy", 0.5, 1.0), ("paper", 0.5, 0.98), ("hard", 0.2, 0.61)):
        found = sets[level]
        shares = [found[f"covisible_{view}"].float().mean((1, 2)) for view in (1, 2)]
        lesser = torch.minimum(*shares)
        assert (lesser >= low).all() and (lesser <= high).all(), level
        assert (found["covisibility"] - lesser).abs().max() < 0.04  # of a grid of FINE
        assert ((found["covisibility"] >= 0) & (found["covisibility"] <= 1)).all()


def test_there_is_no_flow_between_equal_cameras():
    recipe = PairsRecipe(seed=4, size=32, level="paper")
    drawn = recipe.draw(0)
    drawn = drawn._replace(cameras_2=drawn.cameras_1)
    found = recipe.render(drawn, ("flow", "covisible"), None)
    assert found["flow"]["flow"].abs().max() < 2e-3
    assert found["flow"]["visible"].float().mean() > 0.998
    assert found["covisible"]["covisible_2"].float().mean() > 0.998


def test_flow_there_and_back_meets_itself():
    recipe = PairsRecipe(seed=4, size=SIZE, level="paper")
    drawn = recipe.draw(0)
    swapped = drawn._replace(cameras_1=drawn.cameras_2, cameras_2=drawn.cameras_1)
    there = recipe.render(drawn, ("flow", "instances"), None)
    back = recipe.render(swapped, ("flow",), None)["flow"]["flow"]
    target = targets(there["flow"])
    returned = there["flow"]["flow"] + sample(back.movedim(-1, 1), target).movedim(1, -1)
    ids = sample(there["instances"]["instances_2"][:, None], target)[:, 0]
    # Between pixels of one thing; at its edges the flow back is that of two things.
    inside = there["flow"]["visible"] & (ids == there["instances"]["instances_1"])
    assert inside.float().mean() > 0.4
    error = returned.square().sum(-1).sqrt()[inside]
    assert error.median() < 0.02 and error.quantile(0.95) < 0.5


def test_visible_pixels_show_the_same_thing(sets):
    for found in sets.values():
        column, line = targets(found).long().clamp(0, SIZE - 1).unbind(-1)
        rows = torch.arange(COUNT)[:, None, None]
        same = found["instances_2"][rows, line, column] == found["instances_1"]
        assert same[found["visible"]].float().mean() > 0.97
        assert same[~found["visible"]].float().mean() < 0.85


def test_stereo_pairs_are_rectified():
    """Disparity is focal length * baseline / depth, rows stay, most of it is seen by both."""
    found = stereo(COUNT, SIZE, "paper", seed=2, truth=TRUTH, cache=False)
    one, two = (found[f"world_from_camera_{view}"] for view in (1, 2))
    assert torch.equal(one[:, :3, :3], two[:, :3, :3])
    assert torch.equal(found["intrinsics_1"], found["intrinsics_2"])
    step = two[:, :3, 3] - one[:, :3, 3]
    baseline = step.square().sum(1).sqrt()
    assert torch.allclose(step, baseline[:, None] * one[:, :3, 0], atol=1e-5)
    assert (baseline > 0.059).all() and (baseline < 0.201).all() and baseline.std() > 0.02
    disparity = -found["flow"][..., 0]
    focal = found["intrinsics_1"][:, 0, 0]
    expected = (focal * baseline)[:, None, None] / found["depth_1"]
    assert torch.allclose(disparity, expected, atol=2e-3)
    assert found["flow"][..., 1].abs().max() < 2e-3
    assert found["visible"].float().mean() > 0.7
    first, second = found["image_1"].float() / 255, found["image_2"].float() / 255
    shown = found["visible"][:, None].expand_as(first)
    errors = [(first - v).abs()[shown].mean() for v in (sample(second, targets(found)), second)]
    assert errors[0] < 0.03 and errors[1] > 2 * errors[0]
