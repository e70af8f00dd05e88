"""The depthwise convolution of maps with holes."""

import pytest
import torch
import torch.nn.functional as F

from mimlib.layers.cells import Places, find_places
from mimlib.layers.depthwise import DepthwiseConv
from mimlib.layers.masking import random_mask


def dense(conv, tokens, places, weight=None, bias=None):
    """On the whole map, with zeros where nothing is."""
    weight = conv.weight if weight is None else weight
    bias = conv.bias if bias is None else bias
    batch, _, channels = tokens.shape
    flat = tokens.new_zeros(batch * places.size[0] * places.size[1], channels)
    flat = flat.index_put((places.rows,), tokens.flatten(0, 1))
    maps = flat.view(batch, *places.size, channels).movedim(-1, 1)
    maps = F.conv2d(maps, weight, bias, padding="same", groups=channels)
    return maps.movedim(1, -1).flatten(0, 2)[places.rows].view(tokens.shape)


def draw(layout=(2, 2), num_masked=8, channels=6):
    torch.manual_seed(0)
    mask = random_mask(2, 12, num_masked, torch.Generator().manual_seed(1))
    places = find_places(mask.visible, (3, 4), layout)
    tokens = torch.randn(2, len(places.rows) // 2, channels)
    return tokens, places


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("layout", [(2, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("num_masked", [0, 8, 11])
def test_it_is_the_convolution_of_the_map_with_zeros(kernel, layout, num_masked):
    conv = DepthwiseConv(6, kernel)
    tokens, places = draw(layout, num_masked)
    ours, theirs = conv(tokens, places), dense(conv, tokens, places)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_are_those_of_torch(kernel):
    conv = DepthwiseConv(6, kernel)
    tokens, places = draw()
    wanted = torch.randn_like(tokens)
    inputs = [tokens.requires_grad_(), *conv.parameters()]
    found = [
        torch.autograd.grad((f(tokens, places) * wanted).sum(), inputs)
        for f in (conv, lambda *a: dense(conv, *a))
    ]
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    conv = DepthwiseConv(2, 3).double()
    tokens, places = draw(layout=(1, 1), channels=2)
    tokens = tokens.double().requires_grad_()
    run = torch.func.functional_call

    def convolve(tokens, weight, bias):
        return run(conv, {"weight": weight, "bias": bias}, (tokens, places))

    assert torch.autograd.gradcheck(convolve, (tokens, conv.weight, conv.bias))


def test_nothing_is_kept_but_tokens():
    """Neither the map of zeros nor what was computed for its holes."""
    conv = DepthwiseConv(6, 5)
    tokens, places = draw(num_masked=11)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        conv(tokens.requires_grad_(), places)
    assert sum(t.numel() for t in kept if t.is_floating_point()) == tokens.numel() + 6 * 25


def test_hidden_neighbours_count_as_zero_without_scaling():
    conv = DepthwiseConv(1, 3)
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.bias.fill_(10)
    places = Places(torch.tensor([0, 1, 6]), (3, 3))  # two neighbours, and one alone
    tokens = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert conv(tokens, places).flatten().tolist() == [13, 13, 14]


def test_low_precision_follows_the_tokens():
    conv = DepthwiseConv(6, 5)
    tokens, places = draw()
    low = conv(tokens.bfloat16(), places)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), conv(tokens, places), rtol=0.05, atol=0.05)
    low.float().square().sum().backward()
    assert conv.weight.grad.dtype == torch.float32
