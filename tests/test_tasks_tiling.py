"""Tiles: where they lie, what they average, images smaller than a tile."""

import numpy as np
import pytest
import torch

from mimlib.tasks.tiling import (
    FLOW_CONFIDENCE,
    STEREO_CONFIDENCE,
    Confidence,
    predict_tiled,
    window_offsets,
)


def test_sintel_takes_five_rows_of_eighteen_tiles():
    tops, lefts = window_offsets(436, 320, 0.9), window_offsets(1024, 384, 0.9)
    assert (len(tops), len(lefts)) == (5, 18)
    assert (tops[0], tops[-1], lefts[-1]) == (0, 116, 640)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("side", [24, 25, 47, 48, 100])
def test_tiles_cover_everything_and_overlap_as_asked(side, overlap):
    offsets = window_offsets(side, 24, overlap)
    assert offsets[0] == 0 and offsets[-1] == side - 24
    steps = np.diff(offsets)
    assert (steps <= round((1 - overlap) * 24 + 0.5)).all() and (steps >= 0).all()
    covered = np.zeros(side, dtype=bool)
    for offset in offsets:
        covered[offset : offset + 24] = True
    assert covered.all()


def test_wrong_windows_are_refused():
    with pytest.raises(ValueError, match="a window of 25 pixels does not fit into a side of 24"):
        window_offsets(24, 25, 0.5)
    with pytest.raises(ValueError, match="overlap 1.0 is out of range"):
        window_offsets(24, 12, 1.0)


def images(height=20, width=30, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, height, width, generator=draw) for _ in range(2)]


def pointwise(image_1, image_2):
    """A network that looks at one pixel only: tiles cannot change what it says."""
    return image_1[:, :2] + image_2[:, :2], image_1[:, 2]


def test_tiling_a_pointwise_network_changes_nothing():
    first, second = images()
    expected, scale = pointwise(first, second)
    for confidence in (FLOW_CONFIDENCE, STEREO_CONFIDENCE, Confidence(3.0)):
        found, found_scale = predict_tiled(pointwise, first, second, (8, 12), 0.5, confidence)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found_scale, scale)


def test_the_same_window_is_cut_from_both_images():
    seen = []

    def network(image_1, image_2):
        seen.append((image_1.shape, torch.equal(image_1, image_2)))
        return image_1[:, :1], image_1[:, 1]

    image = images()[0]
    predict_tiled(network, image, image, (8, 12), 0.5, FLOW_CONFIDENCE)
    lefts, tops = window_offsets(30, 12, 0.5), window_offsets(20, 8, 0.5)
    assert seen == [((2 * len(lefts), 3, 8, 12), True)] * len(tops)


def mean_of_tile(scale):
    """A network that says the mean of its tile everywhere, and a scale that depends on it."""

    def network(image_1, image_2):
        mean = image_1[:, :1].mean((2, 3), keepdim=True)
        height, width = image_1.shape[-2:]
        flat = mean.expand(-1, 1, height, width)
        return flat, scale(flat[:, 0])

    return network


def tile_by_tile(image, window, overlap, weight, scale):
    """The average, written with loops from its definition."""
    sums = np.zeros(image.shape[-2:])
    weights = np.zeros_like(sums)
    for top in window_offsets(image.shape[-2], window[0], overlap):
        for left in window_offsets(image.shape[-1], window[1], overlap):
            mean = image[top : top + window[0], left : left + window[1]].mean()
            place = np.s_[top : top + window[0], left : left + window[1]]
            sums[place] += weight(scale(mean)) * mean
            weights[place] += weight(scale(mean))
    return sums / weights


def test_uniform_confidence_makes_a_plain_average_and_another_one_a_weighted_one():
    first, second = images()
    pixels = first[0, 0].double().numpy()
    cases = [
        (FLOW_CONFIDENCE, lambda c: 0 * c, lambda c: 1.0),
        (
            FLOW_CONFIDENCE,
            lambda c: 9 * c,
            lambda c: np.exp(-20 * (1 / (1 + np.exp(-c / 5)) - 0.5)),
        ),
        (Confidence(3.0), lambda c: 2 * c, lambda c: np.exp(-3 * c)),
    ]
    results = []
    for confidence, scale, weight in cases:
        network = mean_of_tile(scale)
        found, _ = predict_tiled(network, first, second, (8, 12), 0.5, confidence)
        expected = tile_by_tile(pixels, (8, 12), 0.5, weight, scale)
        assert np.abs(found[0, 0].numpy() - expected).max() < 1e-5
        results.append(found)
    assert not torch.allclose(results[0], results[1])


@pytest.mark.parametrize("size", [(6, 30), (20, 10), (6, 7), (5, 5)])
def test_images_smaller_than_a_tile_are_enlarged_and_flow_is_scaled_back(size):
    """A network that says how wide the tile's content is: in pixels of the image given to it."""
    window, seen = (8, 12), []

    def network(image_1, image_2):
        seen.append(tuple(image_1.shape[-2:]))
        ones = torch.ones_like(image_1[:, :2])
        return ones * 6, ones[:, 0]

    first, second = images(*size)
    found, scale = predict_tiled(network, first, second, window, 0.5, FLOW_CONFIDENCE)
    assert set(seen) == {window}
    assert found.shape == (2, 2, *size) and scale.shape == (2, *size)
    factor = max(window[0] / size[0], window[1] / size[1])
    for channel, side in ((0, size[1]), (1, size[0])):
        exact = 6 * side / max(round(side * factor), window[1 - channel])
        assert found[:, channel].mean() == pytest.approx(exact, rel=1e-4)
        assert exact == pytest.approx(6 / factor, rel=0.1)


def test_pairs_of_different_sizes_are_refused():
    first, second = images()
    with pytest.raises(ValueError, match=r"image 2 \(2, 3, 20, 29\); tiling cuts the same windows"):
        predict_tiled(pointwise, first, second[..., 1:], (8, 12), 0.5, FLOW_CONFIDENCE)
