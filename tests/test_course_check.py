"""Proof cells: equal things pass, the first difference is named."""

import pytest
import torch
from torch import nn

from mimlib.course.lesson import check


def test_equal_tensors_print_one_stable_line(capsys):
    items = torch.arange(24).reshape(2, 3, 4)
    check.same("patches", items, items.clone(), proves="mimlib.layers.patches.patchify")
    assert (
        capsys.readouterr().out == "same: patches = layers.patches.patchify, 2x3x4 int64, exact\n"
    )


@pytest.mark.parametrize(
    ("mine", "ours", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "got shape [2, 3], expected [3, 2]"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), "got float32, expected float64"),
        (torch.tensor([1, 2, 9]), torch.tensor([1, 2, 3]), "1 of 3 values differ, first at [2]"),
        (torch.tensor([float("nan")]), torch.tensor([0.0]), "first at [0]"),
        ([1.0], torch.tensor([1.0]), "expected a tensor, got list"),
        ({"a": 1}, {"b": 1}, "missing ['b'], not expected ['a']"),
        ((1, 2), (1, 2, 3), "missing [2], not expected nothing"),
        ((1, 5), (1, 2), "x[1]: got 5, expected 2"),
        (0.5, 0.25, "got 0.5, expected 0.25"),
        (torch.zeros(2, 3), 0.0, "got shape [2, 3], expected float"),
        (torch.zeros(2), 0, "got shape [2], expected int"),
        (nn.Linear(2, 3), nn.Linear(3, 2), "weight[0]: got 3, expected 2"),
        (nn.Linear(2, 3, bias=False), nn.Linear(2, 3), "missing ['bias']"),
        (3, nn.Linear(2, 3), "expected 2 parameters and buffers in name and shape, got int"),
    ],
)
def test_first_difference_is_named(mine, ours, words):
    with pytest.raises(check.Different) as caught:
        check.same("x", mine, ours)
    assert words in str(caught.value)


def test_nan_is_never_within_a_tolerance():
    with pytest.raises(check.Different):
        check.same("x", torch.tensor([float("nan")]), torch.tensor([0.0]), tolerance=1.0)


def test_tolerance_is_relative_to_the_largest_value():
    ours = torch.tensor([1000.0, 0.0])
    check.same("x", ours + 5e-4, ours, tolerance=1e-6)
    with pytest.raises(check.Different):
        check.same("x", ours + 5e-3, ours, tolerance=1e-6)


def test_modules_of_the_same_names_and_shapes_are_the_same():
    check.same("module", nn.Linear(2, 3), nn.Linear(2, 3))


def test_gradients_by_name():
    mine, ours = nn.Linear(3, 2), nn.Linear(3, 2)
    ours.load_state_dict(mine.state_dict())
    items = torch.rand(4, 3)
    left = check.gradients(mine(items).square().sum(), mine)
    right = check.gradients(ours(items).square().sum(), ours)
    check.same("gradients", left, right)
    assert set(left) == {"weight", "bias"}
    wrong = check.gradients(ours(items).sum(), ours)
    with pytest.raises(check.Different):
        check.same("gradients", wrong, right)


def test_gradient_of_an_unused_parameter_is_zero():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = check.gradients(used.sum(), {"used": used, "unused": unused})
    assert found["unused"].tolist() == [0.0, 0.0, 0.0]


def test_not_a_number_equals_nothing():
    with pytest.raises(check.Different, match="got nan, expected 1"):
        check.same("x", float("nan"), 1.0)
