"""Co-visibility from depth and pose: known cases by hand, the world's exact value, its limits."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from mimlib import world
from mimlib.data.pairs import covisibility as geometry
from mimlib.data.pairs.covisibility import Cloud, back_project, covisibility


def camera(height, width):
    """A pinhole camera that sees 60 degrees from left to right."""
    focal = width / 2 / np.tan(np.deg2rad(30))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


CAMERA = camera(24, 32)


def plane(distance=2.0, shape=(24, 32)):
    return np.full(shape, distance), np.ones(shape, dtype=bool)


def moved(x=0.0, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def test_points_lie_where_the_camera_looks():
    """The corners of a wall 2 m away, seen with 60 degrees: 2 tan(30) to the left and right."""
    cloud = back_project(*plane(), CAMERA, moved(x=5.0))
    half = 2 * np.tan(np.deg2rad(30))
    assert cloud.num_pixels == len(cloud.points) == 24 * 32
    assert np.allclose(cloud.points[:, 2], 2.0)
    assert cloud.points[:, 0].min() == pytest.approx(5 - half * 31 / 32)
    assert cloud.points[:, 0].max() == pytest.approx(5 + half * 31 / 32)
    assert cloud.points[0, 1] < 0 < cloud.points[-1, 1]  # y points down


def test_a_pose_turns_points_into_the_world():
    turn = np.eye(4)
    turn[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # looks along the world's x
    cloud = back_project(*plane(), CAMERA, turn)
    assert np.allclose(cloud.points[:, 0], 2.0)


def test_equal_views_see_the_share_of_valid_pixels():
    depth, valid = plane()
    valid[:, :8] = False
    cloud = back_project(np.where(valid, depth, np.nan), valid, CAMERA, moved())
    assert covisibility(cloud, cloud) == 0.75


def test_views_without_anything_shared_and_empty_ones_give_nothing():
    one = back_project(*plane(), CAMERA, moved())
    far = back_project(*plane(), CAMERA, moved(x=50.0))
    assert covisibility(one, far) == 0
    depth, valid = plane()
    empty = back_project(depth, ~valid, CAMERA, moved())
    assert covisibility(one, empty) == covisibility(empty, one) == covisibility(empty, empty) == 0


def test_the_radius_is_five_centimetres():
    one = back_project(*plane(), CAMERA, moved())
    assert covisibility(one, back_project(*plane(), CAMERA, moved(z=0.04))) == 1
    assert covisibility(one, back_project(*plane(), CAMERA, moved(z=0.06))) == 0
    isolated = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    shifted = isolated + [[0.04, 0, 0], [0.06, 0, 0]]
    assert covisibility(Cloud(isolated, 2), Cloud(shifted, 2)) == 0.5


def test_the_lesser_share_counts_and_the_order_does_not():
    draw = np.random.default_rng(0)
    one, two = (Cloud(draw.uniform(0, 0.5, (count, 3)), 300) for count in (300, 40))
    near = [
        (np.linalg.norm(a.points[:, None] - b.points, axis=-1).min(1) < geometry.RADIUS).sum()
        for a, b in ((one, two), (two, one))
    ]
    assert near[0] != near[1]
    assert covisibility(one, two) == covisibility(two, one) == min(near) / 300


def test_fewer_pixels_give_about_the_same():
    draw = np.random.default_rng(0)
    depth = 1.5 + 0.3 * draw.random((12, 16)).repeat(8, 0).repeat(8, 1)
    valid = np.ones(depth.shape, dtype=bool)
    poses = moved(), moved(x=0.4)
    dense = [back_project(depth, valid, camera(*depth.shape), pose) for pose in poses]
    sparse = [back_project(depth, valid, camera(*depth.shape), pose, step=4) for pose in poses]
    assert sparse[0].num_pixels == len(dense[0].points) / 16
    trees = [KDTree(cloud.points) for cloud in dense]
    assert covisibility(*sparse, trees=trees) == pytest.approx(covisibility(*dense), abs=0.03)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan])
def test_depth_that_is_none_must_be_marked(wrong):
    depth, valid = plane()
    depth[3, 4] = wrong
    with pytest.raises(ValueError, match="mark unknown ones"):
        back_project(depth, valid, CAMERA, moved())
    valid[3, 4] = False
    assert len(back_project(depth, valid, CAMERA, moved()).points) == depth.size - 1


def test_shapes_that_do_not_fit_are_refused():
    depth, valid = plane()
    with pytest.raises(ValueError, match="expected the same"):
        back_project(depth, valid[1:], CAMERA, moved())


@pytest.mark.parametrize("level", ["easy", "paper"])
def test_covisibility_is_about_what_the_world_knows_exactly(level):
    """Rays decide in the world; here it is a distance of 5 cm between points of 192 x 192 pixels.

    The distance forgives 5 cm at the border of the image and behind edges, so the estimate is a
    little too large: for 24 pairs each of `easy`, `paper` and `hard` between 0.006 and 0.067.
    """
    count = 8
    truth = ("depth", "camera", "covisible")
    found = world.pairs(count, 192, level, seed=5, truth=truth, cache=False, workers=1)
    exact, estimate = [], []
    for row in range(count):
        clouds = []
        for view in (1, 2):
            depth = found[f"depth_{view}"][row].numpy()
            pose = found[f"world_from_camera_{view}"][row].numpy()
            matrix = found[f"intrinsics_{view}"][row].numpy()
            clouds.append(back_project(depth, depth > 0, matrix, pose))
        estimate.append(covisibility(*clouds))
        shares = (found[f"covisible_{view}"][row].float().mean() for view in (1, 2))
        exact.append(float(min(shares)))
    error = np.array(estimate) - exact
    assert error.min() > -0.01 and error.max() < 0.08, (exact, estimate)
    if level == "paper":
        assert np.std(exact) > 0.05 and np.corrcoef(exact, estimate)[0, 1] > 0.95
