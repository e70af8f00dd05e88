"""Pairs of the world and of homographies: order, crops, ground truth, what is refused."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mimlib import world
from mimlib.data.batches import DensePairBatch, PairBatch
from mimlib.data.images.configs import PhotosConfig, WorldImagesConfig
from mimlib.data.pairs import homography
from mimlib.data.pairs.homography import HomographyPairsConfig, draw_homographies, warp
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.pairs.world import MemoryPairs, WorldPairsConfig

SIZE, COUNT = 24, 12
PHOTOS = HomographyPairsConfig(images=PhotosConfig(size=28), size=24)
CONFIGS = {
    "pairs": WorldPairsConfig(count=COUNT, size=SIZE),
    "flow": WorldPairsConfig(count=COUNT, size=SIZE, level="easy", target="flow"),
    "disparity": WorldPairsConfig(count=COUNT, size=SIZE, target="disparity"),
    "whole": WorldPairsConfig(count=COUNT, size=SIZE, margin=0.0),
    "workers": WorldPairsConfig(count=COUNT, size=SIZE, workers=1),
    "homographies": PHOTOS,
}


@pytest.fixture(params=CONFIGS, ids=list(CONFIGS))
def source(request):
    return CONFIGS[request.param].build()


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_batches_are_pairs_of_uint8(source):
    for batch in [next(source.batches(0, 8, seed=0)), source.first(5)]:
        assert isinstance(batch, (PairBatch, DensePairBatch))
        for image in batch[:2]:
            assert image.dtype == torch.uint8
            assert image.shape[1:] == (3, SIZE, SIZE)
        assert all(len(part) == len(batch.image_1) for part in batch)
        assert not torch.equal(batch.image_1, batch.image_2)


def test_a_batch_depends_on_its_step_alone(source):
    straight = take(source.batches(0, 4, seed=1), 4)
    resumed = take(source.batches(2, 4, seed=1), 2)
    assert_equal(straight[2], resumed[0])
    assert_equal(straight[3], resumed[1])
    assert not torch.equal(straight[0].image_1, next(source.batches(0, 4, seed=2)).image_1)


def test_two_ranks_of_two_see_what_one_of_four_sees(source):
    whole = next(source.batches(2, 4, seed=0))
    ranks = [next(source.batches(2, 2, seed=0, rank=rank, num_ranks=2)) for rank in (0, 1)]
    assert_equal(whole, (torch.cat(parts) for parts in zip(*ranks)))


def test_first_and_once_are_always_the_same(source):
    assert_equal(source.first(5), source.first(5))
    parts = list(source.once(5))
    assert sum(len(part.image_1) for part in parts) == len(source)
    assert_equal(source.first(5), parts[0])


def coded(count=6, side=12):
    """Pairs whose pixels say where they are: red is the column, green the row, blue the pair."""
    image = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    image[:, 0] = torch.arange(side) * 10
    image[:, 1] = torch.arange(side)[:, None] * 10
    image[:, 2] = torch.arange(count)[:, None, None]
    second = image.clone()
    second[:, 2] += 100
    return image, second


def test_views_are_cropped_each_for_itself_and_stay_together():
    source = MemoryPairs(*coded(), PairAugmentation(size=8, jitter=0.0))
    first, second = next(source.batches(0, 60, seed=0))
    assert torch.equal(first[:, 2] + 100, second[:, 2])  # of one pair
    corners = [view[:, :2, 0, 0] // 10 for view in (first, second)]
    assert not torch.equal(*corners)
    for corner in corners:
        assert corner.amin() == 0 and corner.amax() == 4
    columns = first[:, 0] // 10 - corners[0][:, :1, None]
    assert (columns == torch.arange(8)).all()  # neither scaled nor mirrored


def test_shared_crops_keep_displacements():
    images = coded()
    flow = torch.stack([images[0][:, 0], images[0][:, 1]], dim=-1).float()
    source = MemoryPairs(*images, PairAugmentation(size=8, jitter=0.0), targets=flow)
    batch = next(source.batches(0, 30, seed=0))
    assert torch.equal(batch.image_1[:, :2], batch.image_2[:, :2])
    assert torch.equal(batch.target.movedim(-1, 1), batch.image_1[:, :2].float())
    assert batch.valid.all() and batch.valid.shape == (30, 8, 8)


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_flow_that_is_not_finite_becomes_invalid(unknown):
    flow = torch.zeros(6, 12, 12, 2)
    flow[:, 5, 6, 1] = unknown
    source = MemoryPairs(*coded(), PairAugmentation(size=12, jitter=0.0), targets=flow)
    batch = source.first(2)
    assert batch.target.isfinite().all()
    assert (~batch.valid).nonzero()[:, 1:].tolist() == [[5, 6], [5, 6]]


def test_pairs_of_different_sizes_are_refused():
    one, two = coded()
    with pytest.raises(ValueError, match=r"\(6, 3, 12, 12\), second ones \(6, 3, 12, 11\)"):
        MemoryPairs(one, two[..., :11], PairAugmentation(size=8))
    with pytest.raises(ValueError, match="smaller than the crop of 16 x 16"):
        MemoryPairs(one, two, PairAugmentation(size=16)).first(1)


def test_the_world_is_cropped_from_views_an_eighth_larger_and_colored():
    config = CONFIGS["pairs"]
    source = config.build()
    stored = world.pairs(COUNT, config.stored_size, "paper", seed=0)
    assert torch.equal(source.views[0], stored["image_1"])
    assert config.stored_size == 27
    assert torch.equal(source.first(2).image_2, stored["image_2"][:2, :, 2:26, 2:26])
    whole = CONFIGS["whole"].build()
    assert whole.views[0].shape[-1] == SIZE
    batch = next(whole.batches(0, COUNT, seed=0))
    assert not torch.equal(batch.image_1.sort(0).values, whole.first(COUNT).image_1.sort(0).values)


def test_flow_of_the_world_warps_view_2_onto_view_1():
    config = WorldPairsConfig(count=COUNT, size=SIZE, level="easy", target="flow", jitter=0.0)
    batch = next(config.build().batches(0, 40, seed=0))
    line = torch.arange(SIZE) + 0.5
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1) + batch.target
    second = batch.image_2.float()
    warped = F.grid_sample(
        second, 2 * places / SIZE - 1, padding_mode="border", align_corners=False
    )
    # A crop also cuts off what view 2 shows beyond it.
    inside = batch.valid & ((places > 0.5) & (places < SIZE - 0.5)).all(-1)
    errors = [(view - batch.image_1).abs().mean(1)[inside].mean() for view in (warped, second)]
    assert errors[0] < 0.6 * errors[1]
    assert 0.5 < batch.valid.float().mean() < 1


def test_disparity_of_the_world_is_how_far_things_are_to_the_left():
    config = WorldPairsConfig(count=COUNT, size=SIZE, target="disparity", jitter=0.0)
    batch = next(config.build().batches(0, 40, seed=0))
    assert batch.target.shape == (40, SIZE, SIZE, 1)
    assert (batch.target[batch.valid] > 0).all()
    line = torch.arange(SIZE) + 0.5
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).repeat(40, 1, 1, 1)
    places[..., 0] -= batch.target[..., 0]
    second = batch.image_2.float()
    warped = F.grid_sample(second, 2 * places / SIZE - 1, align_corners=False)
    inside = batch.valid & (places[..., 0] > 0.5)
    errors = [(view - batch.image_1).abs().mean(1)[inside].mean() for view in (warped, second)]
    assert errors[0] < 0.6 * errors[1]


def test_pairs_are_chosen_by_covisibility():
    stored = world.pairs(COUNT, SIZE, "paper", seed=0)
    share = stored["covisibility"]
    middle = float(share.sort().values[COUNT // 2 - 1])
    config = WorldPairsConfig(count=COUNT, size=SIZE, margin=0.0, covisibility=(0.0, middle))
    source = config.build()
    assert len(source) == COUNT // 2
    assert torch.equal(source.views[1], stored["image_2"][share <= middle])
    with pytest.raises(ValueError, match="none of 12 pairs has a co-visibility within .*run from"):
        WorldPairsConfig(count=COUNT, size=SIZE, margin=0.0, covisibility=(0.0, 0.3)).build()
    with pytest.raises(ValueError, match="covisibility is .*; expected 0 <= low <= high <= 1"):
        WorldPairsConfig(count=COUNT, size=SIZE, covisibility=(0.6, 0.5))


def test_the_transforms_of_one_image_are_known_exactly():
    """A point of the view lies in the image where its homography says."""
    config = HomographyPairsConfig(images=PhotosConfig(size=64), size=56)
    draws = np.random.default_rng(0).random((8, 3))
    matrices = draw_homographies(draws, 64, config)
    line = torch.arange(64) + 0.5
    ramps = torch.stack(
        [line.expand(64, 64), line[:, None].expand(64, 64), 0 * line + 0 * line[:, None]]
    )
    images = (3 * ramps).to(torch.uint8).expand(8, -1, -1, -1)
    views = warp(images, matrices, 64)
    for view, matrix in zip(views, matrices):
        for x, y in ((30, 31), (20, 40), (40, 22)):
            u, v, w = matrix @ [x + 0.5, y + 0.5, 1]
            if 2 < u / w < 62 and 2 < v / w < 62:
                assert abs(float(view[0, y, x]) / 3 - u / w) < 0.6
                assert abs(float(view[1, y, x]) / 3 - v / w) < 0.6


def test_a_tilt_lengthens_one_side_and_shows_nothing_blank():
    config = HomographyPairsConfig(images=PhotosConfig(size=64), size=56, rotation=0.0)
    corners = np.array([(0, 0), (64, 0), (64, 64), (0, 64)], dtype=float)
    for direction, kept in enumerate(([1, 2], [0, 3], [2, 3], [0, 1])):
        draws = np.array([[(direction + 0.5) / 4, 0.999, 0.5]])
        (matrix,) = draw_homographies(draws, 64, config)
        mapped = np.c_[corners, np.ones(4)] @ matrix.T
        mapped = mapped[:, :2] / mapped[:, 2:]
        assert np.allclose(mapped[kept], corners[kept])
        changed = [i for i in range(4) if i not in kept]
        assert (mapped[changed] >= -1e-9).all() and (mapped[changed] <= 64 + 1e-9).all()
        side = np.linalg.norm(mapped[changed[0]] - mapped[changed[1]])
        assert side == pytest.approx(32)  # of 64 shown: skewed by 32 on both ends, twice as long


def test_rotations_stay_within_their_range():
    config = HomographyPairsConfig(images=PhotosConfig(size=64), size=56, tilt=0.0)
    matrices = homography.rotations(np.deg2rad([-10.0, 0.0, 10.0]), 32.0)
    assert np.allclose(matrices @ [32, 32, 1], [32, 32, 1])
    draws = np.random.default_rng(0).random((500, 3))
    found = draw_homographies(draws, 64, config)
    angle = np.rad2deg(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    assert np.abs(angle).max() < 10.5 and angle.std() > 4


def test_both_views_of_a_homography_pair_show_one_image():
    source = PHOTOS.build()
    colors = [view.float().mean((2, 3)) for view in source.first(6)]
    same = (colors[0] - colors[1]).abs().mean()
    other = (colors[0] - colors[1].roll(1, 0)).abs().mean()
    assert same < 0.5 * other


def test_homographies_of_the_world():
    images = WorldImagesConfig(count=4, size=27)
    source = HomographyPairsConfig(images=images, size=24).build()
    assert len(source) == 4
    assert next(source.batches(0, 4, seed=0)).image_2.shape == (4, 3, 24, 24)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WorldPairsConfig(count=0, size=8), "count is 0; expected 0 < count"),
        (
            lambda: WorldPairsConfig(count=1, size=8, workers=-1),
            "workers is -1; expected 0 <= workers",
        ),
        (
            lambda: HomographyPairsConfig(images=PhotosConfig(size=200), size=224),
            "set images.size to 256",
        ),
        (
            lambda: HomographyPairsConfig(images=PhotosConfig(size=64), size=56, tilt=2.0),
            "tilt is 2.0; expected 0 <= tilt <= 1",
        ),
    ],
)
def test_wrong_configs_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
