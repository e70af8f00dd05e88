"""Metrics against what the benchmarks' own tools compute, written down once more in numpy.

On random data of whole numbers, so that many values lie exactly on a threshold, with images without
ground truth, classes that do not occur and masks without a pixel.
"""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mimlib.evaluation.cross_view import count_right
from mimlib.metrics.dense import (
    as_floats,
    classification_metrics,
    depth_metrics,
    segmentation_metrics,
    update_metrics,
)
from mimlib.metrics.matching import flow_metrics, stereo_metrics
from mimlib.metrics.videos import boundary_accuracy, region_similarity
from mimlib.protocol import Output

SEEDS = range(3)


def measured(metrics, prediction, target, valid):
    """Our numbers, image by image."""
    for p, t, v in zip(*(torch.from_numpy(each) for each in (prediction, target, valid))):
        update_metrics(metrics, Output(torch.tensor(0.0), {}, p, t, v))
    return as_floats(metrics)


def validity(draw, shape):
    """Which pixels are known: of the first image none, of the second all."""
    valid = draw.random(shape) < 0.7
    valid[0], valid[1] = False, True
    return valid


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_flow_and_stereo_as_kittis_and_middleburys_tools(seed, channels):
    """KITTI's development kit: wrong if the error is above 3 pixels and above 5 % of the length.

    Lengths of multiples of 20 and errors of whole pixels: 5 % is met exactly.
    """
    draw = np.random.default_rng(seed)
    shape = (4, 30, 40)
    target = np.zeros((*shape, channels), np.float32)
    prediction = np.zeros_like(target)
    axis = draw.integers(channels)
    target[..., axis] = 20 * draw.integers(0, 9, shape)
    prediction[..., axis] = target[..., axis] + draw.integers(-9, 10, shape)
    valid = validity(draw, shape)
    found = measured(
        flow_metrics() if channels == 2 else stereo_metrics(), prediction, target, valid
    )

    error = np.abs(prediction - target).sum(-1)[valid].astype(np.int64)  # on one axis alone
    length = target.sum(-1)[valid].astype(np.int64)
    wrong = (error > 3) & (20 * error > length)
    assert ((20 * error == length) & (error > 3)).any() and (error == 3).any(), "on the thresholds"
    limits = (1, 3, 5) if channels == 2 else (0.5, 1, 2, 3)
    expected = {"epe": error.mean(), **{f"bad_{n:g}": (error > n).mean() for n in limits}}
    expected["f1_all" if channels == 2 else "d1"] = wrong.mean()
    if channels == 1:
        expected["rmse"] = math.sqrt((error**2).mean())
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_as_eigen_defines_it(seed):
    """Depths of quarters of a metre: ratios of exactly 1.25 and 1.25^2, which are not below."""
    draw = np.random.default_rng(seed)
    shape = (4, 20, 30)
    target = (draw.integers(1, 26, shape) / 4).astype(np.float32)
    prediction = (target * draw.choice([0.64, 0.8, 1, 1.1, 1.25, 1.5625], shape)).astype(np.float32)
    valid = validity(draw, shape)
    target[~valid] = np.nan
    found = measured(depth_metrics(), prediction, target, valid)

    ours, true = prediction[valid], target[valid]
    ratio = np.maximum(ours / true, true / ours)
    assert (ratio == 1.25).any() and (ratio == 1.5625).any(), "on the thresholds"
    y, t = ours.astype(np.float64), true.astype(np.float64)
    expected = {
        "rmse": np.sqrt(((y - t) ** 2).mean()),
        "rel": (np.abs(y - t) / t).mean(),
        "log_rmse": np.sqrt(((np.log(y) - np.log(t)) ** 2).mean()),
        **{f"delta_{n}": (ratio < 1.25**n).mean() for n in (1, 2, 3)},
    }
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_segmentation_as_ade20ks_and_mmsegmentations_tools(seed):
    """Intersections and areas of all images are added up, then divided; nan where a class is not.

    Class 6 is nowhere, class 5 is predicted and never there, class 4 is there and never predicted.
    """
    draw = np.random.default_rng(seed)
    shape, num_classes = (5, 12, 14), 7
    target = draw.choice([0, 1, 2, 3, 4], shape, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    prediction = np.where(draw.random(shape) < 0.6, target, draw.choice([0, 1, 2, 3, 5], shape))
    prediction[prediction == 4] = 0
    valid = validity(draw, shape)
    target[~valid] = 255
    found = measured(segmentation_metrics(num_classes), prediction, target, valid)

    bins = np.arange(num_classes + 1)
    areas = np.zeros((3, num_classes))
    for ours, true, known in zip(prediction, target, valid):
        ours, true = ours[known], true[known]
        rows = (ours[ours == true], ours, true)
        areas += [np.histogram(row, bins)[0] for row in rows]
    right, predicted, there = areas
    with np.errstate(invalid="ignore"):
        expected = {
            "accuracy": right.sum() / there.sum(),
            "mean_accuracy": np.nanmean(right / there),
            "miou": np.nanmean(right / (predicted + there - right)),
        }
    assert found == pytest.approx(expected, rel=1e-6)


def official_boundary(mask):
    """Where a mask ends, as `seg2bmap` of the DAVIS tools finds it."""
    right, below, diagonal = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def official_f(found, true):
    """The DAVIS tools' F: boundaries are thickened by a disk, then intersected."""
    radius = math.ceil(0.008 * math.hypot(*true.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    ours, theirs = official_boundary(found), official_boundary(true)
    thick = [ndimage.binary_dilation(edge, disk) for edge in (ours, theirs)]
    matched, recovered = (ours & thick[1]).sum(), (theirs & thick[0]).sum()
    if not ours.sum() or not theirs.sum():
        precision, recall = float(not ours.sum()), float(not theirs.sum())
    else:
        precision, recall = matched / ours.sum(), recovered / theirs.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("sides", [(60, 90), (121, 250)])
def test_j_and_f_as_the_davis_tools(sides):
    """Blobs that touch the border, their noisy copies, and nothing at all; 1 to 3 pixels apart."""
    draw = np.random.default_rng(sides[0])
    scores = []
    for case in range(12):
        smooth = ndimage.gaussian_filter(draw.standard_normal(sides), 6)
        true = smooth > (np.quantile(smooth, 0.8) if case % 4 else np.inf)
        found = np.roll(smooth, case % 5, axis=case % 2) > np.quantile(smooth, 0.75)
        found &= case % 6 != 0
        union = (found | true).sum()
        assert region_similarity(found, true) == ((found & true).sum() / union if union else 1)
        scores.append(boundary_accuracy(found, true))
        assert scores[-1] == pytest.approx(official_f(found, true), abs=1e-12)
    assert 0 in scores and 1 in scores and len(set(scores)) > 6


def test_top_1_and_correct_key_points_are_shares():
    draw = torch.Generator().manual_seed(0)
    predicted, true = (torch.randint(4, (50,), generator=draw) for _ in range(2))
    metrics = classification_metrics(9)
    for part in (slice(0, 3), slice(3, 50)):
        metrics.update(predicted[part], true[part])
    share = np.mean([int(p) == int(t) for p, t in zip(predicted, true)])
    assert as_floats(metrics)["accuracy"] == pytest.approx(share)

    looked_at = torch.randint(9, (2, 3, 40, 2), generator=draw).float()  # [B, A, N, 2]
    places = torch.randint(9, (2, 40, 2), generator=draw).float()
    counted = torch.rand(2, 40, generator=draw) < 0.6
    distances = np.hypot(*np.moveaxis((looked_at - places[:, None]).numpy(), -1, 0))
    assert (distances == 5).any(), "3-4-5 triangles lie on the radius, which is within"
    expected = ((distances <= 5) & counted.numpy()[:, None]).sum(axis=(0, 2))
    assert count_right(looked_at, places, counted, 5.0).tolist() == expected.tolist()
