"""End-point error, bad pixels, KITTI's outliers: known cases."""

import pytest
import torch

from mimlib.metrics.dense import as_floats
from mimlib.metrics.matching import flow_metrics, stereo_metrics


def measure(metrics, prediction, target, parts=1):
    for p, t in zip(prediction.chunk(parts), target.chunk(parts)):
        metrics.update(p, t)
    return as_floats(metrics)


def test_flow_by_hand():
    """Errors of 5 (3-4-5), 0, 2 and 4 pixels; the last is within 5 % of a flow of 100."""
    target = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 0.0], [0.0, 100.0]])
    prediction = target + torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [0.0, -4.0]])
    found = measure(flow_metrics(), prediction, target)
    assert found == pytest.approx(
        {"epe": 11 / 4, "bad_1": 3 / 4, "bad_3": 2 / 4, "bad_5": 0.0, "f1_all": 1 / 4}
    )


def test_disparity_by_hand():
    """Errors of 0.6, 1.5, 4 and 4 pixels; the last is within 5 % of a disparity of 100."""
    target = torch.tensor([[10.0], [20.0], [30.0], [100.0]])
    prediction = target + torch.tensor([[0.6], [-1.5], [4.0], [4.0]])
    found = measure(stereo_metrics(), prediction, target)
    squares = (0.36 + 2.25 + 16 + 16) / 4
    assert found == pytest.approx({
        "epe": 10.1 / 4, "rmse": squares**0.5, "bad_0.5": 1.0, "bad_1": 0.75, "bad_2": 0.5,
        "bad_3": 0.5, "d1": 0.25,
    })  # fmt: skip


@pytest.mark.parametrize(("make", "channels"), [(flow_metrics, 2), (stereo_metrics, 1)])
def test_every_pixel_counts_once_however_they_come(make, channels):
    draw = torch.Generator().manual_seed(0)
    target = torch.randn(60, channels, generator=draw) * 30
    prediction = target + torch.randn(60, channels, generator=draw) * 3
    whole = measure(make(), prediction, target)
    assert measure(make(), prediction, target, parts=7) == pytest.approx(whole, rel=1e-5)
    perfect = measure(make(), target, target)
    assert set(perfect.values()) == {0.0}
    assert set(perfect) == set(whole) and min(whole.values()) > 0
