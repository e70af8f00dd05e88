"""Heads on four maps: shapes of any size, what reaches what, the numbers of the papers."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mimlib.tasks.heads.segmentation import (
    SemanticFPNHead,
    UPerNetHead,
    auxiliary_head,
    group_norm,
    pool,
)

WIDTHS = (4, 8, 16, 16)
HEADS = [UPerNetHead, SemanticFPNHead]


def maps_of(height=16, width=24, widths=WIDTHS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    sides = [(height >> i, width >> i) for i in range(4)]
    return [torch.randn(2, c, *side, generator=draw) for c, side in zip(widths, sides)]


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("sides", [(16, 24), (32, 32), (20, 12), (8, 8)])
def test_logits_have_the_resolution_of_the_finest_map(kind, sides):
    """(20, 12) has a third map of 5 x 3 cells and a fourth of 2 x 1: nothing divides."""
    head = kind(WIDTHS, 16, 5)
    assert head(maps_of(*sides)).shape == (2, 5, *sides)


@pytest.mark.parametrize("kind", HEADS)
def test_every_map_counts_and_every_weight_learns(kind):
    head = kind(WIDTHS, 16, 5)
    maps = [m.requires_grad_() for m in maps_of()]
    head(maps).square().sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
    silent = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent


def test_upernet_sees_the_whole_image_from_everywhere():
    """One cell of the coarsest map moves every logit, by way of the pooled maps."""
    head = UPerNetHead(WIDTHS, 16, 5).eval()
    maps = maps_of(64, 64)
    before = head(maps)
    maps[-1][:, :, 0, 0] += 10
    assert (before != head(maps)).any(dim=1).all()
    maps = maps_of(64, 64)
    maps[0][:, :, 0, 0] += 10
    assert (before != head(maps)).any(dim=1).float().mean() < 0.05


def test_pooling_is_adaptive_average_pooling():
    draw = torch.Generator().manual_seed(0)
    for height, width in ((4, 4), (16, 16), (7, 11), (5, 3), (1, 2)):
        maps = torch.randn(2, 3, height, width, generator=draw)
        for side in (1, 2, 3, 6):
            expected = functional.adaptive_avg_pool2d(maps, side)
            torch.testing.assert_close(pool(maps, side), expected)


def test_upernet_has_the_published_size():
    """31.5 M parameters at 512 channels on the maps of a ResNet-50, as in mmsegmentation's.

    Counted by hand: pooled 4 x (2048 x 512), context (2048 + 4 x 512) x 512 x 9, lateral
    (256 + 512 + 1024) x 512, smooth 3 x 512 x 512 x 9, fuse 4 x 512 x 512 x 9, two numbers per
    channel of the 12 normalisations, and 512 x 150 + 150.
    """
    with torch.device("meta"):
        head = UPerNetHead((256, 512, 1024, 2048), 512, 150)
        auxiliary = auxiliary_head(1024, 512, 150, 0.1)
    square = 512 * 512 * 9
    expected = 4 * 2048 * 512 + 4096 * 512 * 9 + 1792 * 512 + 3 * square + 4 * square
    assert count(head) == expected + 12 * 2 * 512 + 512 * 150 + 150
    assert count(auxiliary) == 1024 * 256 * 9 + 2 * 256 + 256 * 150 + 150


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_semantic_fpn_is_that_of_the_paper():
    """Table 2 of the paper has 128 channels; section 3.1 three doublings from the coarsest map."""
    head = SemanticFPNHead((256, 512, 1024, 2048), 256, 150)
    assert [len(branch.stages) for branch in head.branches] == [1, 1, 2, 3]
    norms = [m for m in head.modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_groups, m.num_channels) for m in norms} == {(32, 128)}
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in head.modules())
    assert head.classify[-1].weight.shape == (150, 128, 1, 1)


@pytest.mark.parametrize("channels,groups", [(128, 32), (64, 16), (32, 8), (8, 2), (27, 1), (3, 1)])
def test_groups_of_few_channels_are_not_too_small(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_semantic_fpn_does_not_mix_images_and_upernet_does_while_training():
    for kind, mixes in ((SemanticFPNHead, False), (UPerNetHead, True)):
        torch.manual_seed(0)
        head = kind(WIDTHS, 16, 5)
        maps = maps_of()
        before = head(maps)[0]
        after = head([torch.cat([m[:1], m[1:] + 3]) for m in maps])[0]
        assert torch.equal(before, after) != mixes


def test_dropout_is_before_the_classes_only():
    for kind in HEADS:
        head = kind(WIDTHS, 16, 5, dropout=0.5)
        assert [m.p for m in head.modules() if isinstance(m, nn.Dropout2d)] == [0.5]
        assert not torch.equal(head(maps_of()), head(maps_of()))
        head.eval()
        assert torch.equal(head(maps_of()), head(maps_of()))


def test_upernet_wants_more_than_one_image_to_train_on():
    head, maps = UPerNetHead(WIDTHS, 16, 5), [m[:1] for m in maps_of()]
    with pytest.raises(ValueError, match=r"one value per channel .*\(1, 16, 1, 1\); train on two"):
        head(maps)
    assert head.eval()(maps).shape == (1, 5, 16, 24)
    assert SemanticFPNHead(WIDTHS, 16, 5)(maps).shape == (1, 5, 16, 24)
