"""Rates and weight-decay groups against the official MAE's, and the optimiser that uses them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from training_toys import Toy, config

from mimlib.training.optimizer import (
    build_optimizer,
    check_groups,
    clip_gradients,
    parameter_groups,
    set_rate,
)
from mimlib.training.schedules import is_due, scheduled

GOLDEN = Path(__file__).parent / "golden"


def test_rates_have_no_holes():
    """No warm-up, all warm-up and one step are runs too."""
    assert scheduled(0, 1, 2.0) == 2.0
    assert scheduled(3, 4, 2.0, warmup_steps=4) == 1.5
    assert scheduled(4, 4, 2.0, warmup_steps=4) == 2.0
    assert [is_due(0, 3, False), is_due(0, 3, True), is_due(3, 3, False)] == [False, True, True]


def test_a_linear_fall_is_the_poly_schedule_of_power_one():
    """Segmentation: 160,000 steps, of them 1,500 of warm-up; half the rate half the way down."""
    rates = [
        scheduled(step, 160_000, 1e-4, 1_500, schedule="linear")
        for step in (0, 750, 1_500, 80_750, 160_000)
    ]
    assert rates == pytest.approx([0, 5e-5, 1e-4, 5e-5, 0], abs=1e-12)
    assert scheduled(3, 4, 2.0, minimum=1.0, schedule="linear") == pytest.approx(1.25)
    run = config(steps=10, warmup_steps=0, base_rate=256 / 8, schedule="linear")
    assert [run.rate(step, 1) for step in (0, 5, 10)] == [1.0, 0.5, 0.0]
    assert run.rate(3, 1) < config(steps=10, warmup_steps=0, base_rate=256 / 8).rate(3, 1)


def test_pre_training_groups():
    """1-D tensors and biases do not decay, three-dimensional tokens do, frozen ones are absent."""
    method = Toy()
    method.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    method.encoder.embed.weight.requires_grad_(False)
    decay, none = sorted(parameter_groups(method, 0.05), key=lambda g: -g["weight_decay"])
    assert decay["weight_decay"] == 0.05 and none["weight_decay"] == 0.0
    assert {"mask_token", "decoder.weight", "encoder.blocks.0.weight"} <= set(decay["names"])
    assert {"encoder.norm.weight", "decoder.bias", "encoder.embed.bias"} <= set(none["names"])
    assert "encoder.embed.weight" not in decay["names"] + none["names"]
    assert decay["rate_scale"] == none["rate_scale"] == 1.0


def test_nothing_to_train():
    with pytest.raises(ValueError, match="Toy has no trainable parameter"):
        build_optimizer(Toy().requires_grad_(False), config())


def test_one_step_is_adamw_with_decoupled_decay():
    """Against the update written out from Loshchilov and Hutter 2019, algorithm 2."""
    method = Toy()
    optimizer = build_optimizer(method, config(weight_decay=0.1, layer_decay=0.5))
    set_rate(optimizer, 0.01, 0.1)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    gradient = {name: torch.randn_like(p) for name, p in method.named_parameters()}
    for name, parameter in method.named_parameters():
        parameter.grad = gradient[name].clone()
    optimizer.step()
    scales = {"embed": 0.5**3, "blocks.0": 0.5**2, "blocks.1": 0.5, "norm": 1.0}
    for name, parameter in method.named_parameters():
        inner = name.removeprefix("encoder.")
        rate = 0.01 * next((s for k, s in scales.items() if inner.startswith(k)), 1.0)
        decay = 0.1 if parameter.ndim > 1 else 0.0
        # after one step both bias-corrected moments are the gradient and its square
        step = gradient[name] / (gradient[name].abs() + 1e-8)
        expected = before[name] * (1 - rate * decay) - rate * step
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7)


def test_a_state_of_other_parameters_is_refused():
    optimizer = build_optimizer(Toy(), config())
    stored = build_optimizer(Toy(), config()).state_dict()
    check_groups(optimizer, stored)
    stored["param_groups"][0]["names"][0] = "other.weight"
    with pytest.raises(ValueError, match="first difference: 'other.weight' stored, 'encoder.embed"):
        check_groups(optimizer, stored)


def test_each_gradient_is_shortened_by_itself():
    """As official (DINO): not the norm of all of them, which would be 5 times the limit."""
    method = Toy()
    for number, parameter in enumerate(method.parameters()):
        parameter.grad = torch.full_like(parameter, 10.0 if number % 2 else 1e-4)
    before = [p.grad.clone() for p in method.parameters()]
    norm = clip_gradients(method, config(clip_norm=3.0, clip_each=True))
    torch.testing.assert_close(norm, torch.stack([g.norm() for g in before]).norm())
    for number, (parameter, gradient) in enumerate(zip(method.parameters(), before)):
        if number % 2:
            assert float(parameter.grad.norm()) == pytest.approx(3.0, rel=1e-5)
            torch.testing.assert_close(parameter.grad / 3, gradient / gradient.norm())
        else:
            assert torch.equal(parameter.grad, gradient)


def test_weight_decay_rises_along_half_a_cosine():
    """As the official schedule of SelfPatch: 0.04 at the first step, nearly 0.4 at the last."""
    facts = json.loads((GOLDEN / "selfpatch_schedules.json").read_text())
    (case,) = (case for case in facts["cases"] if case["what"] == "weight decay")
    length = case["length"]
    run = config(steps=length, weight_decay=case["base"], final_weight_decay=case["final"])
    for step, value in case["values"]:
        assert run.decay(step) == pytest.approx(value, rel=1e-9)
    optimizer = build_optimizer(Toy(), run)
    set_rate(optimizer, 0.01, run.decay(1000))
    assert {g["weight_decay"] for g in optimizer.param_groups} == {run.decay(1000), 0.0}
    assert config(weight_decay=0.05).decay(7) == 0.05


def test_weight_decay_that_starts_from_zero_reaches_the_optimizer():
    run = config(steps=10, weight_decay=0.0, final_weight_decay=0.4)
    optimizer = build_optimizer(Toy(), run)
    for step in range(10):
        set_rate(optimizer, 0.01, run.decay(step))
    assert {g["weight_decay"] for g in optimizer.param_groups} == {run.decay(9), 0.0}
    assert run.decay(9) > 0.38


def test_rate_and_weight_decay_run_by_one_clock():
    run = config(steps=10, schedule_steps=40, weight_decay=0.1, final_weight_decay=0.5)
    full = config(steps=40, weight_decay=0.1, final_weight_decay=0.5)
    assert [run.decay(step) for step in range(10)] == [full.decay(step) for step in range(10)]


def test_a_stored_state_without_the_mark_of_decay_is_taken_up():
    optimizer = build_optimizer(Toy(), config())
    stored = optimizer.state_dict()
    expected = [group.pop("decays") for group in stored["param_groups"]]
    check_groups(optimizer, stored)
    optimizer.load_state_dict(stored)
    assert [group["decays"] for group in optimizer.param_groups] == expected
