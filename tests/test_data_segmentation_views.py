"""Augmentation of images with label maps: both stay together, and the official settings."""

import colorsys

import numpy as np
import pytest
import torch

from mimlib.data.dense.label_maps import UNLABELED
from mimlib.data.dense.views import (
    MEAN_COLOR,
    SegmentationAugmentation,
    augment,
    choose_crop,
    is_mixed,
)
from mimlib.data.order import augmentation_draws
from mimlib.data.transforms.colors import distort_colors

PLAIN = {"flip": False, "distort": False, "largest_share": 1.0}


def scene(height=30, width=40):
    """An image whose red is 5 columns and green 5 rows; the class of a pixel is 20 row + column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([5 * columns, 5 * rows, 0 * rows]).to(torch.uint8)
    return image, 100 * rows + columns


def many(config, image, labels, count=200):
    """The same image, augmented many times."""
    draws = augmentation_draws(0, 0, count)
    colors = augmentation_draws(0, 0, count, 2)
    return [augment(image, labels, d, c, config) for d, c in zip(draws, colors)]


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0), (3.0, 3.0), (0.2, 0.3)])
def test_labels_go_with_their_image(scale):
    image, labels = scene()
    config = SegmentationAugmentation(size=24, scale=scale, **PLAIN | {"flip": True})
    for view, classes in many(config, image, labels, 50):
        assert view.shape == (3, 24, 24) and classes.shape == (24, 24)
        known = classes != UNLABELED
        assert known.any()
        inner = torch.nn.functional.max_pool2d((~known)[None].float(), 5, 1, 2)[0] == 0
        for channel, truth in ((0, classes % 100), (1, classes // 100)):
            error = (view[channel] / 5 - truth)[inner].abs()
            assert error.numel() == 0 or error.max() < 3 / min(1, scale[0])
        outside = view[:, ~known]
        assert (outside == torch.tensor(MEAN_COLOR)[:, None]).all()


def test_nothing_is_changed_where_nothing_is_asked_for():
    image, labels = scene(24, 24)
    config = SegmentationAugmentation(size=24, scale=(1.0, 1.0), **PLAIN)
    for view, classes in many(config, image, labels, 5):
        assert torch.equal(view, image) and torch.equal(classes, labels)


def test_scale_is_uniform_and_crops_lie_anywhere():
    """At scale s the crop covers 1 / s of the short side, or the image does not fill it."""
    labels = torch.zeros(100, 150, dtype=torch.int64)
    config = SegmentationAugmentation(size=50, scale=(0.5, 2.0), **PLAIN)
    found = [choose_crop(labels, d, config)[:2] for d in augmentation_draws(0, 0, 2000)]
    boxes, sides = (np.array(part) for part in zip(*found))
    scales = sides[:, 0] / boxes[:, 2] * 100 / 50
    quartiles = np.quantile(scales, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert np.allclose(quartiles, [0.5, 0.875, 1.25, 1.625, 2.0], atol=0.06)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= (100, 150)).all()
    whole = boxes[:, 2] == 100
    assert ((scales <= 1.01) == whole).all() and (sides[~whole] == 50).all()
    assert boxes[:, 0].max() > 40 and boxes[:, 1].max() > 80
    assert np.allclose(sides[:, 1] / boxes[:, 3], sides[:, 0] / boxes[:, 2], rtol=0.03)


def test_a_long_strip_is_not_blown_up():
    """Scale 1 makes the short side `size`, unless the long one grew beyond four times that."""
    config = SegmentationAugmentation(size=32, scale=(1.0, 1.0), **PLAIN)
    draws = augmentation_draws(0, 0, 1)[0]
    for width, side in ((64 * 4, 32), (64 * 8, 16)):
        placement = choose_crop(torch.zeros(64, width, dtype=torch.int64), draws, config)
        assert placement.sides == (side, 32)


def test_crops_of_almost_one_class_are_drawn_again():
    """One column in eight is of class 1, the rest of class 0 or of none."""
    labels = torch.zeros(64, 128, dtype=torch.int64)
    labels[:, 56:72] = 1
    labels[:20] = UNLABELED
    shares = {}
    for largest in (1.0, 0.75):
        config = SegmentationAugmentation(
            size=32, scale=(2.0, 2.0), largest_share=largest, flip=False, distort=False
        )
        boxes = [choose_crop(labels, d, config)[0] for d in augmentation_draws(0, 0, 400)]
        crops = [labels[top : top + h, left : left + w] for top, left, h, w in boxes]
        shares[largest] = np.mean([is_mixed(crop, 0.75) for crop in crops])
    assert 0.2 < shares[1.0] < 0.4 and shares[0.75] > 0.9
    config = SegmentationAugmentation(size=32, distort=False)
    view, classes = many(config, torch.zeros(3, 64, 64, dtype=torch.uint8), labels[:, :64] * 0, 1)[
        0
    ]
    assert view.shape == (3, 32, 32) and (classes <= 0).all()  # ten draws, then any will do


@pytest.mark.parametrize("crop,mixed", [
    ([0, 0, 0, 1], False), ([0, 0, 1, 1], True), ([0, 0, 0, 1, -1, -1], False),
    ([0, -1, -1], False), ([-1, -1], False), ([0, 0, 1, 2], True), ([5, 5, 5, 5], False),
])  # fmt: skip
def test_a_class_may_have_less_than_three_quarters_of_what_is_labeled(crop, mixed):
    assert is_mixed(torch.tensor(crop), 0.75) == mixed
    assert is_mixed(torch.tensor(crop), 1.0)


def draws_for(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.9, amounts=(1, 1, 1, 1), last=0):
    """Numbers below 0.5 switch a change on; amounts run from -1 to 1."""
    return np.array([brightness, contrast, saturation, hue, *((np.array(amounts) + 1) / 2), last])


def colors(count=200):
    values = torch.randint(0, 256, (3, count, 1), generator=torch.Generator().manual_seed(0))
    return values.to(torch.uint8)


def test_brightness_is_added_and_contrast_multiplied():
    image = colors()
    assert torch.equal(distort_colors(image, draws_for()), image)
    for amount in (-1, 0.5, 1):
        brighter = distort_colors(image, draws_for(brightness=0, amounts=(amount, 0, 0, 0)))
        assert torch.equal(brighter, (image.float() + 32 * amount).clamp(0, 255).to(torch.uint8))
        steeper = distort_colors(image, draws_for(contrast=0, amounts=(0, amount, 0, 0)))
        expected = (image.float() * (1 + amount / 2)).clamp(0, 255).round().to(torch.uint8)
        assert torch.equal(steeper, expected)
    both = {"brightness": 0, "contrast": 0, "amounts": (1, -1, 0, 0)}
    first, last = (distort_colors(image, draws_for(**both, last=x)) for x in (0.9, 0.1))
    assert torch.equal(first, last), "nothing lies between them"


@pytest.mark.parametrize("saturation,hue", [(0.9, 0), (0, 0.9), (0, 0)])
@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.6, 1.0])
def test_saturation_and_hue_are_those_of_hsv(saturation, hue, amount):
    image = colors(60)
    draws = draws_for(saturation=saturation, hue=hue, amounts=(0, 0, amount, amount))
    changed = distort_colors(image, draws)
    for before, after in zip(image[..., 0].T.tolist(), changed[..., 0].T.tolist()):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in before))
        s = min(1, s * (1 + amount / 2)) if saturation < 0.5 else s
        h = (h + 0.1 * amount) % 1 if hue < 0.5 else h
        expected = [255 * value for value in colorsys.hsv_to_rgb(h, s, v)]
        assert np.allclose(after, expected, atol=1.01)


def test_each_color_change_happens_in_half_of_the_images():
    draws = augmentation_draws(3, 0, 400, 2)
    gray = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    changed = np.mean([not torch.equal(distort_colors(gray, d), gray) for d in draws])
    assert changed == pytest.approx(0.75, abs=0.06)  # brightness or contrast; grays have no hue


def test_black_and_white_survive():
    image = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1)[:, :, None]
    draws = draws_for(saturation=0, hue=0)
    assert torch.equal(distort_colors(image, draws), image)


@pytest.mark.parametrize("wrong,words", [
    ({"size": 0}, "expected 0 < size"), ({"scale": (2.0, 0.5)}, "expected 0 < low <= high"),
    ({"scale": (0.0, 0.5)}, "expected 0 < low <= high"), ({"largest_share": 0.0}, "expected 0 < "),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        SegmentationAugmentation(**{"size": 32} | wrong)
