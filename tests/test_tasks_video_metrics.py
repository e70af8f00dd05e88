"""J and F on masks whose numbers can be counted by hand."""

import numpy as np
import pytest
import torch

from mimlib.metrics.videos import VideoScores, boundary_accuracy, boundary_pixels, region_similarity


def square(top, left, side, sides=(100, 100)):
    mask = np.zeros(sides, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = square(0, 0, 0)


def test_region_similarity():
    here, there = square(10, 10, 10), square(10, 15, 10)
    assert region_similarity(here, here) == 1
    assert region_similarity(here, there) == 50 / 150
    assert region_similarity(here, EMPTY) == region_similarity(EMPTY, here) == 0
    assert region_similarity(EMPTY, EMPTY) == 1, "nothing there and nothing found"


def test_the_boundary_lies_half_a_pixel_towards_the_origin():
    found = {tuple(place) for place in boundary_pixels(square(10, 20, 3))}
    ring = {(row, column) for row in range(9, 13) for column in range(19, 23)}
    assert found == ring - {(row, column) for row in (10, 11) for column in (20, 21)}
    assert boundary_pixels(square(0, 0, 100)).size == 0, "the border of the image is none"
    corner = {tuple(place) for place in boundary_pixels(square(98, 98, 2))}
    assert corner == {(97, 97), (97, 98), (98, 97), (97, 99), (99, 97)}


def test_boundaries_may_be_apart_by_the_tolerance():
    """100 x 100: ceil(0.008 * 141.4) = 2 pixels."""
    here = square(40, 40, 20)
    for shift, near in ((0, True), (1, True), (2, True), (3, False)):
        score = boundary_accuracy(square(40, 40 + shift, 20), here)
        assert (score == 1) == near, shift
    assert boundary_accuracy(square(40, 43, 20), here) > 0.4, "two of four sides are still near"
    large = square(40, 40, 20, (1000, 1000))  # here 12 pixels
    assert boundary_accuracy(square(40, 52, 20, (1000, 1000)), large) == 1
    assert boundary_accuracy(square(40, 53, 20, (1000, 1000)), large) < 1


def test_precision_and_recall():
    """A true square is found, and another one far away beside it: half of the boundary is wrong."""
    true = square(10, 10, 10)
    both = true | square(60, 60, 10)
    assert boundary_accuracy(both, true) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert boundary_accuracy(true, both) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert boundary_accuracy(square(60, 60, 10), true) == 0
    assert boundary_accuracy(EMPTY, true) == boundary_accuracy(true, EMPTY) == 0
    assert boundary_accuracy(EMPTY, EMPTY) == boundary_accuracy(~EMPTY, EMPTY) == 1


def test_objects_count_alike_whatever_their_video():
    """A video with one object, always found, and one with two, of which one is never found."""
    one = torch.from_numpy(square(10, 10, 10).astype(np.uint8))
    two = one + 3 * torch.from_numpy(square(60, 60, 10).astype(np.uint8))
    scores = VideoScores()
    scores.update([one] * 5, [one] * 5, [1])
    scores.update([one, one], [two, two], [1, 3])
    found = scores.compute()
    for name in ("j_mean", "j_recall", "f_mean", "f_recall", "j_and_f"):
        assert found[name] == pytest.approx(2 / 3), name
    assert len(scores.objects) == 3


def test_recall_is_the_share_of_frames_above_a_half():
    true = torch.from_numpy(square(10, 10, 10).astype(np.uint8))
    shifted = [torch.from_numpy(square(10, 10 + s, 10).astype(np.uint8)) for s in (0, 2, 4, 9)]
    scores = VideoScores()
    scores.update(shifted, [true] * 4, [1])
    found = scores.compute()
    assert found["j_recall"] == 0.5  # 1, 80 / 120, 60 / 140, 10 / 190
    assert found["j_mean"] == pytest.approx((1 + 80 / 120 + 60 / 140 + 10 / 190) / 4)
    assert found["j_and_f"] == pytest.approx((found["j_mean"] + found["f_mean"]) / 2)


def test_nothing_counted_is_no_number():
    with pytest.raises(ValueError, match="nothing was counted"):
        VideoScores().compute()
