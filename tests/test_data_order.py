import numpy as np
import pytest

from mimlib.data.matching.views import PAIR as MATCHING
from mimlib.data.objects.views import VIEW as LARGE_SCALE
from mimlib.data.order import AUGMENT, COLORS, EndlessOrder, augmentation_draws, registers
from mimlib.data.pairs.views import PAIR
from mimlib.data.transforms.crops import CROP


def test_every_epoch_is_a_permutation_of_its_own():
    order = EndlessOrder(size=10, seed=0)
    epochs = [order.indices(first, 10) for first in (0, 10, 20)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_positions_do_not_depend_on_how_they_are_asked_for():
    whole = EndlessOrder(size=7, seed=3).indices(0, 50)
    order = EndlessOrder(size=7, seed=3)
    for first in (45, 0, 20, 6):
        assert np.array_equal(order.indices(first, 5), whole[first : first + 5])


def test_a_batch_larger_than_the_set_holds_every_image_equally_often():
    indices = EndlessOrder(size=3, seed=0).indices(0, 12)
    assert np.bincount(indices).tolist() == [4, 4, 4]


def test_seeds_give_different_orders():
    orders = {tuple(EndlessOrder(size=20, seed=seed).indices(0, 20)) for seed in range(5)}
    assert len(orders) == 5


def test_ranks_split_one_global_order():
    order = EndlessOrder(size=11, seed=0)
    one = order.request(step=4, batch_size=6)
    parts = [order.request(step=4, batch_size=2, rank=rank, num_ranks=3) for rank in range(3)]
    assert np.array_equal(np.concatenate([part.indices for part in parts]), one.indices)
    assert [part.first for part in parts] == [24, 26, 28]


def test_draws_belong_to_positions():
    draws = augmentation_draws(seed=5, first=0, count=40)
    assert np.array_equal(augmentation_draws(seed=5, first=13, count=9), draws[13:22])
    assert not np.array_equal(augmentation_draws(seed=6, first=0, count=40), draws)
    assert len(np.unique(draws)) == draws.size


def test_streams_are_independent():
    one, two = (augmentation_draws(5, 0, 2000, stream) for stream in (AUGMENT, COLORS))
    assert np.array_equal(one, augmentation_draws(5, 0, 2000))
    assert np.abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.02


def test_draws_are_uniform():
    draws = augmentation_draws(seed=0, first=10**9, count=4000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(draws.T) - np.eye(draws.shape[1])).max() < 0.08


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": -1, "batch_size": 4},
        {"step": 0, "batch_size": 0},
        {"step": 0, "batch_size": 4, "rank": 2, "num_ranks": 2},
        {"step": 0, "batch_size": 4, "rank": -1, "num_ranks": 2},
    ],
)
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match="expected step >= 0, batch size >= 1"):
        EndlessOrder(size=4, seed=0).request(**wrong)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed -1 is negative"):
        EndlessOrder(size=4, seed=-1)


def test_no_random_number_decides_two_things():
    """Names follow each other, and where two kinds of augmentation share numbers they agree."""
    found = registers(corner=2, flip=1, color=4)
    assert (found.corner, found.flip, found.color) == (slice(0, 2), 2, slice(3, 7))
    assert (CROP.corner, CROP.flip) == (LARGE_SCALE.corner, LARGE_SCALE.flip)
    for name in ("color_1", "color_2"):
        assert getattr(PAIR, name) == getattr(MATCHING, name)
    with pytest.raises(ValueError, match="more random numbers than the 24"):
        registers(tries=20, corner=5)
