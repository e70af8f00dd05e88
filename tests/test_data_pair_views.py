"""Crops and colors of pairs, against torchvision and by their statistics."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from mimlib.data.order import augmentation_draws
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.transforms.colors import ORDERS, jitter_colors, shift_hues
from mimlib.data.transforms.crops import crop_corners, take_window


def images(count=4, size=24, seed=0):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw)
    fine = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return (255 * fine).to(torch.uint8)


def test_the_stored_image_is_larger_than_the_crop_by_the_margin():
    assert PairAugmentation(size=224).stored_size == 256
    assert PairAugmentation(size=64).stored_size == 73
    assert PairAugmentation(size=64, margin=0.5).stored_size == 96
    assert PairAugmentation(size=64, margin=0.0).stored_size == 64
    with pytest.raises(ValueError, match="margin is -0.1; expected 0 <= margin"):
        PairAugmentation(size=64, margin=-0.1)


def test_every_corner_of_a_crop_is_equally_likely():
    draws = augmentation_draws(0, 0, 4000)[:, :2]
    corners = crop_corners(draws, (12, 10), (8, 8))
    assert corners.min() == 0
    assert corners.max(0).tolist() == [4, 2]
    counts = np.bincount(corners[:, 0] * 3 + corners[:, 1])
    assert len(counts) == 15
    assert counts.min() > 0.75 * 4000 / 15


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="20 x 30 pixels is smaller than the crop of 24 x 24"):
        crop_corners(np.zeros((2, 2)), np.array([[40, 30], [20, 30]]), (24, 24))


def test_cutting_takes_what_lies_there():
    image = torch.arange(3 * 6 * 5).reshape(3, 6, 5)
    assert torch.equal(take_window(image, np.array([2, 1]), (3, 4)), image[:, 2:5, 1:5])


@pytest.mark.parametrize("order", range(6))
def test_colors_change_as_torchvision_changes_them(order):
    given = images()
    draws = np.random.default_rng(order).random((4, 4))
    draws[:, 3] = (order + 0.5) / 6
    changed = jitter_colors(given, draws, 0.4)
    for image, result, row in zip(given, changed, draws):
        expected = image.float() / 255
        factors = 1 + 0.4 * (2 * row[:3] - 1)
        steps = (v2.adjust_brightness, v2.adjust_contrast, v2.adjust_saturation)
        for kind in ORDERS[order]:
            expected = steps[kind](expected, factors[kind])
        assert (result.float() - 255 * expected).abs().max() <= 0.51


def test_each_order_of_the_changes_is_equally_likely_and_matters():
    assert len(set(ORDERS)) == 6
    assert all(sorted(order) == [0, 1, 2] for order in ORDERS)
    draws = np.tile([0.95, 0.9, 0.1, 0.0], (2, 1))
    draws[1, 3] = 0.99
    bright = (images(1).float() * 0.5 + 127).to(torch.uint8).expand(2, -1, -1, -1)
    first, second = jitter_colors(bright, draws, 0.4)
    assert not torch.equal(first, second)


def test_no_jitter_changes_nothing():
    given = images()
    assert torch.equal(jitter_colors(given, np.random.default_rng(0).random((4, 4)), 0.0), given)
    middle = np.full((4, 4), 0.5)  # factors of exactly 1
    assert torch.equal(jitter_colors(given, middle, 0.4), given)


def test_an_image_depends_on_its_own_numbers_only():
    given, draws = images(), np.random.default_rng(0).random((4, 4))
    whole = jitter_colors(given, draws, 0.4)
    for row in range(4):
        alone = jitter_colors(given[row : row + 1], draws[row : row + 1], 0.4)
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size is 0; expected 0 < size"),
        ({"size": 8, "jitter": 1.5}, "jitter is 1.5; expected 0 <= jitter <= 1"),
    ],
)
def test_wrong_augmentations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PairAugmentation(**wrong)


def test_brightness_contrast_and_saturation_have_strengths_of_their_own():
    given, draws = images(), np.random.default_rng(0).random((4, 4))
    draws[:, 3] = 0  # brightness, contrast, saturation
    changed = jitter_colors(given, draws, (0.4, 0.0, 0.0))
    factors = torch.from_numpy(1 + 0.4 * (2 * draws[:, :1, None, None] - 1)).float()
    expected = (given.float() * factors).clamp(0, 255)
    assert (changed.float() - expected).abs().max() <= 1


def test_hues_are_turned_as_torchvision_turns_them():
    given, turns = images(), np.array([0.0, 0.1, -0.25, 0.5])
    changed = shift_hues(given, turns)
    for row, turn in enumerate(turns):
        assert torch.equal(changed[row], v2.adjust_hue(given[row], float(turn)))
    assert shift_hues(given, 0 * turns) is given
