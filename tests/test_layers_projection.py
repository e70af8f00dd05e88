"""Projection heads."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mimlib.layers.projection import FEW_ROWS, ContrastHead, PrototypeHead, PrototypeLogits


def test_prototypes_are_directions():
    torch.manual_seed(0)
    head, inputs = PrototypeHead(6, 16, 8, 10), torch.randn(2, 5, 6)
    logits = head(inputs)
    assert logits.shape == (2, 5, 10) and logits.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(head.embed(inputs).norm(dim=-1), torch.ones(2, 5))
    with torch.no_grad():
        head.last_layer.weight.mul_(torch.rand(10, 1) + 0.5)
    torch.testing.assert_close(head(inputs), logits)


def test_what_is_said_of_a_mean_is_the_mean():
    torch.manual_seed(0)
    head = PrototypeHead(6, 16, 8, 10)
    embedded = head.embed(torch.randn(50, 6))
    mean = head.classify(embedded).mean(dim=0)
    torch.testing.assert_close(head.classify(embedded.mean(dim=0)), mean, rtol=1e-4, atol=1e-6)


def plain_logits(rows, weight):
    return F.linear(rows, weight) / torch.linalg.vector_norm(weight, dim=-1)


def test_the_gradients_of_likeness_are_those_of_its_formula():
    torch.manual_seed(0)
    rows, weight = torch.randn(5, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    inputs = rows.requires_grad_(), weight.requires_grad_()
    torch.testing.assert_close(PrototypeLogits.apply(*inputs), plain_logits(*inputs))
    assert torch.autograd.gradcheck(PrototypeLogits.apply, inputs)


@pytest.mark.parametrize("num_rows", [FEW_ROWS // 2, 2 * FEW_ROWS])
def test_likeness_in_bfloat16(num_rows):
    """What comes out, and the gradients, are float32, whatever was multiplied."""
    torch.manual_seed(0)
    rows = torch.randn(num_rows, 32, requires_grad=True)
    weight = torch.randn(50, 32, requires_grad=True)
    gradient = torch.randn(num_rows, 50)
    exact = plain_logits(rows, weight)
    expected = torch.autograd.grad(exact, (rows, weight), gradient)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = PrototypeLogits.apply(rows, weight)
    found = torch.autograd.grad(narrow, (rows, weight), gradient)
    for ours, theirs in zip((narrow, *found), (exact, *expected)):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 1e-2
    of_rows = (found[0] - expected[0]).norm() / expected[0].norm()
    assert (of_rows < 1e-3) == (num_rows < FEW_ROWS)


@pytest.mark.parametrize("width,count", [(192, 65_536), (384, 65_536), (384, 4_096)])
def test_parameters_are_as_official(width, count):
    with torch.device("meta"):
        head = PrototypeHead(width, 2048, 256, count)
    published = {(192, 65_536): None, (384, 65_536): 22_352_128, (384, 4_096): 6_562_048}
    ours = sum(p.numel() for p in head.parameters()) + count  # and the fixed lengths
    assert ours == (published[width, count] or ours)


def test_linear_layers_begin_narrow_but_the_last():
    torch.manual_seed(0)
    head = PrototypeHead(64, 128, 64, 100)
    linears = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert all(layer.weight.std() < 0.022 and not layer.bias.any() for layer in linears)
    assert head.last_layer.weight.std() > 0.05


def test_batch_norm_is_an_option_before_each_gelu():
    torch.manual_seed(0)
    head, inputs = PrototypeHead(6, 16, 8, 10, batch_norm=True), torch.randn(3, 5, 6)
    plain = nn.Sequential(
        *(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU()),
        *(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 8)),
    )
    plain.load_state_dict(head.mlp.state_dict())
    torch.testing.assert_close(head.mlp(inputs), plain(inputs.flatten(0, 1)).unflatten(0, (3, 5)))
    shifted = inputs + 10 * torch.randn(6)  # what all rows have in common does not count
    torch.testing.assert_close(head(shifted), head(inputs), rtol=1e-3, atol=1e-4)


def test_a_contrast_head_normalises_the_batch():
    torch.manual_seed(0)
    head, inputs = ContrastHead(6, 16, 4), torch.randn(30, 6)
    plain = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    for ours, theirs in ((head.fc1, plain[0]), (head.fc2, plain[3])):
        theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(head(inputs), plain(inputs))
    torch.testing.assert_close(head.eval()(inputs), plain.eval()(inputs))


def test_a_head_is_as_deep_as_asked():
    """Official names count every layer, GELUs too; their weights fit."""
    for depth, names in ((2, {"0", "2"}), (4, {"0", "2", "4", "6"})):
        head = PrototypeHead(6, 16, 8, 10, depth=depth)
        assert {name.split(".")[1] for name in head.state_dict() if name[:3] == "mlp"} == names
        assert head(torch.randn(3, 6)).shape == (3, 10)
