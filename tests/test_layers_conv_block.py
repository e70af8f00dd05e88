"""The block of convolutions: its order, its mask, what it keeps."""

import convmae_dense
import pytest
import torch
from torch import nn

from mimlib.layers.cells import as_map, as_tokens, find_places, pick_cells
from mimlib.layers.conv_block import ConvBlock, Entry
from mimlib.layers.masking import as_bool, random_mask

LAYOUT, GRID = (2, 2), (3, 4)


def draw(width=8):
    torch.manual_seed(0)
    mask = random_mask(2, 12, 8, torch.Generator().manual_seed(1))
    maps = torch.randn(2, width, 12, 16)
    keep = (~as_bool(mask)).float().view(2, 1, *GRID)
    keep = keep.repeat_interleave(4, 2).repeat_interleave(4, 3)
    tokens = pick_cells(as_tokens(maps, LAYOUT), mask.visible, LAYOUT)
    return maps, keep, tokens, mask, find_places(mask.visible, GRID, LAYOUT)


def test_a_block_on_tokens_is_the_block_of_the_paper():
    block = ConvBlock(8, kernel=5)
    maps, keep, tokens, mask, places = draw()
    expected = convmae_dense.visible_tokens(
        convmae_dense.conv_block(block, maps, keep), mask, LAYOUT
    )
    torch.testing.assert_close(block(tokens, places), expected, rtol=1e-5, atol=1e-5)


def test_the_mask_comes_after_conv1():
    """Before it, the bias of conv1 would leak into the sums of visible positions."""
    block = ConvBlock(8, kernel=5)
    maps, keep, tokens, mask, places = draw()
    early = as_map(as_tokens(maps, LAYOUT), GRID, LAYOUT) * keep
    wrong = convmae_dense.visible_tokens(convmae_dense.conv_block(block, early), mask, LAYOUT)
    assert (block(tokens, places) - wrong).abs().max() > 1e-3


def test_nothing_is_between_the_convolutions():
    """The branch of three is linear in what the norm gives, up to biases."""
    block = ConvBlock(8, kernel=5)
    _, _, tokens, _, places = draw()
    for layer in (block.conv1, block.attn, block.conv2):
        nn.init.zeros_(layer.bias)

    def branch(values):
        return block.conv2(block.attn(block.conv1(values), places))

    torch.testing.assert_close(branch(-3 * tokens), -3 * branch(tokens), rtol=1e-4, atol=1e-5)


def test_names_and_initialisation_are_the_official_ones():
    block = ConvBlock(256, kernel=5)
    assert list(block.state_dict()) == [
        f"{part}.{kind}"
        for part in ("norm1", "attn", "norm2", "mlp.fc1", "mlp.fc2", "conv1", "conv2")
        for kind in ("weight", "bias")
    ]
    assert block.norm1.eps == block.norm2.eps == 1e-5
    for layer, bound in ((block.attn, 0.2), (block.conv1, 0.0625), (block.mlp.fc1, 0.0625)):
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert 0.8 * bound < layer.bias.abs().max() <= bound


@pytest.mark.parametrize("channels,width,side,bound", [(3, 256, 4, 0.1443), (256, 384, 2, 0.03125)])
def test_an_entry_keeps_the_default_of_convolutions(channels, width, side, bound):
    entry = Entry(channels, width, side)
    assert entry.proj.weight.detach().abs().max() == pytest.approx(bound, rel=1e-2)
    assert 0.9 * bound < entry.proj.bias.abs().max() <= bound
    assert entry.norm.eps == 1e-5
    maps = torch.randn(2, channels, 2 * side, 3 * side)
    ours = entry(as_tokens(maps, (1, side)))
    expected = as_tokens(convmae_dense.enter(entry, maps), (1, 1))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_what_a_wide_block_recomputes_changes_no_gradient():
    block = ConvBlock(128, kernel=5)
    assert block.recomputes and not ConvBlock(64, kernel=5).recomputes
    *_, places = draw()
    tokens = torch.randn(2, 64, 128, requires_grad=True)

    def run(recomputes):
        block.recomputes, kept = recomputes, []
        tokens.grad = None
        block.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            out = block(tokens, places)
        out.square().sum().backward()
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
        return sum(sizes.values()), [tokens.grad, *(p.grad for p in block.parameters())]

    (more, expected), (less, gradients) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients))
    assert less < 0.7 * more
