"""The Laplacian losses against their formulas, pixel by pixel."""

import math

import pytest
import torch

from mimlib.tasks.losses.laplacian import laplacian_loss, log_scale

KINDS = ("unbounded", "bounded", "bounded_2")


def given(channels=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (2, 4, 5)
    prediction = torch.randn(*shape, channels, generator=draw) * 3
    target = torch.randn(*shape, channels, generator=draw) * 3
    raw = torch.randn(*shape, generator=draw) * 3
    return prediction, raw, target, torch.rand(shape, generator=draw) < 0.6


def scale(raw, kind):
    """The scale s of one pixel, as written in the papers' code."""
    sigmoid = 1 / (1 + math.exp(-raw if kind == "bounded" else -raw / 3))
    return {
        "unbounded": math.exp(raw),
        "bounded": (4 - 0.25) * sigmoid + 0.25,
        "bounded_2": math.exp(2 * 3 * (sigmoid - 0.5)),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_loss_is_the_mean_over_valid_pixels(kind, channels):
    prediction, raw, target, valid = given(channels)
    total = 0.0
    for place in map(tuple, valid.nonzero().tolist()):
        error = float((prediction[place] - target[place]).abs().sum())
        s = scale(float(raw[place]), kind)
        total += error / s + math.log(s)
    loss = laplacian_loss(prediction, raw, target, valid, kind)
    assert float(loss) == pytest.approx(total / int(valid.sum()), rel=1e-5)


def test_at_raw_scale_zero_two_of_them_are_the_plain_error():
    prediction, raw, target, valid = given()
    plain = (prediction - target).abs().sum(-1)[valid].mean()
    zero = torch.zeros_like(raw)
    for kind in ("unbounded", "bounded_2"):
        assert torch.isclose(laplacian_loss(prediction, zero, target, valid, kind), plain)
    expected = plain / 2.125 + math.log(2.125)
    assert torch.isclose(laplacian_loss(prediction, zero, target, valid, "bounded"), expected)


def test_bounds_hold():
    raw = torch.tensor([-1e4, 1e4])
    assert log_scale(raw, "bounded").exp().tolist() == pytest.approx([0.25, 4.0])
    assert log_scale(raw, "bounded_2").tolist() == pytest.approx([-3.0, 3.0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_scale_is_the_error(kind):
    """e / s + log s is least at s = e: a network learns how far off it is."""
    raw = torch.linspace(-6, 6, 4001)
    error = 1.7
    log_s = log_scale(raw, kind)
    best = (error * (-log_s).exp() + log_s).argmin()
    assert float(log_s[best].exp()) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("filler", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_where_truth_is_missing_is_never_read(kind, filler):
    prediction, raw, target, valid = given()
    prediction.requires_grad_()
    raw.requires_grad_()
    target = torch.where(valid[..., None], target, filler)
    loss = laplacian_loss(prediction, raw, target, valid, kind)
    loss.backward()
    assert loss.isfinite()
    for gradient in (prediction.grad.abs().sum(-1), raw.grad):
        assert gradient.isfinite().all() and (gradient[~valid] == 0).all()
        assert gradient[valid].abs().sum() > 0


def test_no_valid_pixel_is_no_loss():
    prediction, raw, target, valid = given()
    assert laplacian_loss(prediction, raw, target, valid & False, "bounded") == 0
