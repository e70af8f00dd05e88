"""The laws of masks, and picking and putting back."""

import pytest
import torch

from mimlib.layers.masking import (
    as_bool,
    gather_tokens,
    mask_from_bool,
    random_mask,
    scatter_tokens,
)


def draw(batch, num_patches, num_masked, seed=0):
    return random_mask(batch, num_patches, num_masked, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_patches,num_masked", [(196, 147), (49, 36), (16, 1), (9, 0), (9, 9)])
def test_masks_are_complete_disjoint_ascending_and_of_exact_count(num_patches, num_masked):
    mask = draw(5, num_patches, num_masked)
    assert mask.masked.shape == (5, num_masked)
    assert mask.visible.shape == (5, num_patches - num_masked)
    everything = torch.cat(mask, dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(num_patches).expand(5, -1))
    for index in mask:
        assert index.dtype == torch.int64
        assert (index.diff(dim=1) > 0).all()


def test_every_patch_is_hidden_equally_often():
    rate = as_bool(draw(8192, 16, 12)).float().mean(dim=0)
    sigma = (0.75 * 0.25 / 8192) ** 0.5
    assert (rate - 0.75).abs().max() < 5 * sigma


def test_patches_are_hidden_independently_of_each_other():
    hidden = as_bool(draw(8192, 16, 8)).float()
    together = (hidden[:, :1] * hidden[:, 1:]).mean(dim=0)
    expected = 8 / 16 * 7 / 15
    assert (together - expected).abs().max() < 5 * (expected * (1 - expected) / 8192) ** 0.5


def test_a_seed_gives_one_mask_and_another_seed_another():
    assert torch.equal(draw(4, 64, 48).masked, draw(4, 64, 48).masked)
    assert not torch.equal(draw(4, 64, 48).masked, draw(4, 64, 48, seed=1).masked)


def test_the_official_mask_of_seed_0():
    """The official code keeps 83, 94, 155, ... first; we keep the same patches in order."""
    torch.manual_seed(0)
    official = torch.rand(1, 196).argsort(dim=1)
    assert official[0, :10].tolist() == [83, 94, 155, 124, 12, 104, 35, 150, 43, 80]
    assert official.argsort(dim=1)[0, :5].tolist() == [104, 152, 20, 30, 70]
    mask = draw(1, 196, 147)
    assert torch.equal(mask.visible, official[:, :49].sort(dim=1).values)
    assert torch.equal(as_bool(mask), official.argsort(dim=1) >= 49)


@pytest.mark.parametrize("num_masked", [-1, 10])
def test_an_impossible_count_is_refused(num_masked):
    with pytest.raises(ValueError, match=f"cannot hide {num_masked} of 9"):
        draw(1, 9, num_masked)


def test_painted_masks_go_there_and_back():
    mask = draw(3, 25, 10)
    again = mask_from_bool(as_bool(mask))
    assert torch.equal(again.visible, mask.visible) and torch.equal(again.masked, mask.masked)
    uneven = torch.zeros(2, 9, dtype=torch.bool)
    uneven[0, :3] = True
    with pytest.raises(ValueError, match=r"hide \[3, 0\] patches; hide equally many"):
        mask_from_bool(uneven)


def test_gather_picks_and_scatter_puts_back():
    tokens = torch.randn(3, 10, 5)
    mask = draw(3, 10, 6)
    picked = gather_tokens(tokens, mask.masked)
    for b in range(3):
        for k in range(6):
            assert torch.equal(picked[b, k], tokens[b, mask.masked[b, k]])
    empty = torch.zeros_like(tokens)
    both = scatter_tokens(scatter_tokens(empty, mask.masked, picked), mask.visible,
                          gather_tokens(tokens, mask.visible))  # fmt: skip
    assert torch.equal(both, tokens)
    assert empty.abs().max() == 0


def test_gather_passes_gradients_to_the_picked_rows_only():
    tokens = torch.randn(2, 6, 4, requires_grad=True)
    mask = draw(2, 6, 2)
    gather_tokens(tokens, mask.visible).sum().backward()
    assert torch.equal(tokens.grad.amax(dim=2) == 0, as_bool(mask))
