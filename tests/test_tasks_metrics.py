"""Metrics against values computed by hand."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from mimlib.metrics.dense import (
    as_floats,
    classification_metrics,
    depth_metrics,
    segmentation_metrics,
    update_metrics,
)
from mimlib.protocol import Output


def output(prediction, target, mask=None):
    return Output(torch.tensor(0.0), {}, prediction, target, mask)


def test_depth_errors_by_hand():
    prediction = torch.tensor([1.0, 2.0, 5.0, 3.0])
    target = torch.tensor([1.0, 4.0, 4.0, 2.5])
    metrics = depth_metrics()
    metrics.update(prediction, target)
    logs = [0.0, math.log(2), math.log(5 / 4), math.log(3 / 2.5)]
    assert as_floats(metrics) == pytest.approx(
        {
            "rmse": math.sqrt((0 + 4 + 1 + 0.25) / 4),
            "rel": (0 + 0.5 + 0.25 + 0.2) / 4,
            "log_rmse": math.sqrt(sum(x * x for x in logs) / 4),
            "delta_1": 2 / 4,  # ratios 1, 2, 1.25 and 1.2: 1.25 itself is not below 1.25
            "delta_2": 3 / 4,  # below 1.5625
            "delta_3": 3 / 4,  # below 1.953125
        }
    )


def test_every_valid_pixel_counts_once_however_they_come():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(5, 4, 4, generator=generator) * 4 + 1
    prediction = target * torch.exp(torch.randn(5, 4, 4, generator=generator) * 0.3)
    valid = torch.rand(5, 4, 4, generator=generator) < torch.linspace(0, 1, 5).view(5, 1, 1)
    assert not valid[0].any() and valid[1:].sum((1, 2)).unique().numel() > 2
    at_once, in_parts = depth_metrics(), depth_metrics()
    update_metrics(at_once, output(prediction, target, valid))
    for part in ([0], [1, 2], [3], [4]):  # the first part has no valid pixel at all
        update_metrics(in_parts, output(prediction[part], target[part], valid[part]))
    assert as_floats(in_parts) == pytest.approx(as_floats(at_once), rel=1e-5)
    error = (prediction - target)[valid]
    assert as_floats(at_once)["rmse"] == pytest.approx(float(error.square().mean().sqrt()))
    mean_of_images = torch.stack([(prediction - target)[i][valid[i]].abs().mean() for i in (1, 4)])
    assert float(mean_of_images.mean()) != pytest.approx(float(error.abs().mean()), rel=1e-3)


def test_reset_forgets_and_nothing_counted_is_an_error():
    metrics = depth_metrics()
    with pytest.raises(ValueError, match="nothing was counted"):
        as_floats(metrics)
    metrics.update(torch.tensor([9.0]), torch.tensor([1.0]))
    assert as_floats(metrics)["rmse"] == 8.0
    metrics.reset()
    metrics.update(torch.tensor([2.0]), torch.tensor([2.0]))
    errors = {"rmse": 0.0, "rel": 0.0, "log_rmse": 0.0}
    assert as_floats(metrics) == {**errors, "delta_1": 1.0, "delta_2": 1.0, "delta_3": 1.0}


def test_a_prediction_of_nothing_is_finite():
    metrics = depth_metrics()
    metrics.update(torch.tensor([0.0, -1.0]), torch.tensor([2.0, 2.0]))
    assert all(math.isfinite(value) for value in as_floats(metrics).values())


def test_accuracy_is_the_share_of_images():
    metrics = classification_metrics(3)
    metrics.update(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]))
    metrics.update(torch.tensor([2]), torch.tensor([1]))
    assert as_floats(metrics) == {"accuracy": pytest.approx(3 / 5)}


def test_miou_by_hand():
    prediction = torch.tensor([[0, 0, 1], [1, 1, 2]])
    target = torch.tensor([[0, 1, 1], [1, 1, 0]])
    metrics = segmentation_metrics(5)
    for row in range(2):
        metrics.update(prediction[row], target[row])
    # class 0: 1 of {3 pixels}; class 1: 3 of 4; class 2: 0 of 1; classes 3 and 4 do not occur
    expected = {"accuracy": 4 / 6, "miou": (1 / 3 + 3 / 4 + 0) / 3}
    expected["mean_accuracy"] = (1 / 2 + 3 / 4) / 2  # class 2 is predicted, but never there
    assert as_floats(metrics) == pytest.approx(expected)


def test_scores_of_classes_equal_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(6, (4, 9, 9), generator=generator) for _ in range(2))
    prediction = torch.where(prediction == 5, target, prediction)
    metrics = segmentation_metrics(7)
    for part in ([0], [1, 2], [3]):
        update_metrics(metrics, output(prediction[part], target[part], target[part] != 4))
    valid = target != 4
    pair = prediction[valid], target[valid]
    found = as_floats(metrics)
    assert found["accuracy"] == pytest.approx(float(MulticlassAccuracy(7, average="micro")(*pair)))
    assert found["miou"] == pytest.approx(float(MulticlassJaccardIndex(7)(*pair)))
    recalls = MulticlassAccuracy(7, average=None)(*pair)[torch.unique(pair[1])]
    assert found["mean_accuracy"] == pytest.approx(float(recalls.mean()))


def test_what_is_masked_counts_nowhere():
    prediction, target = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0, -7], [1, 0]])
    metrics = segmentation_metrics(2)
    update_metrics(metrics, output(prediction, target, target >= 0))
    scores = {"accuracy": 2 / 3, "mean_accuracy": (1 + 1 / 2) / 2, "miou": 1 / 2}
    assert as_floats(metrics) == pytest.approx(scores)
