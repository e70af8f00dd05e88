"""The pyramid: four scales from every encoder, each made from what it should be made from."""

from dataclasses import replace

import pytest
import torch

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.pyramid import Pyramid, build_encoder, quarters
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig

SHAPE = {"width": 16, "depth": 4, "heads": 2, "patch_size": 8, "image_size": 32}
VIT = ViTConfig(**SHAPE)
ALL_BLOCKS = quarters(4)
CONV = ConvViTConfig(widths=(4, 8, 16), depths=(1, 1, 2), heads=2, entries=(2, 2, 2), image_size=32)


def images(height=32, width=48):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, height, width, generator=generator)


@pytest.mark.parametrize("config,blocks,widths", [
    (VIT, (-1,), (4, 8, 16, 16)), (VIT, ALL_BLOCKS, (16,) * 4), (CONV, (-1,), (4, 8, 16, 16)),
])  # fmt: skip
def test_maps_have_four_scales(config, blocks, widths):
    pyramid = Pyramid(config, blocks)
    maps = pyramid(build_encoder(config), images())
    sides = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(m.shape) for m in maps] == [(2, w, *s) for w, s in zip(widths, sides)]
    assert pyramid.widths == widths


@pytest.mark.parametrize("config,blocks", [(VIT, (-1,)), (VIT, ALL_BLOCKS), (CONV, (-1,))])
def test_everything_that_may_learn_gets_a_gradient(config, blocks):
    encoder, pyramid = build_encoder(config), Pyramid(config, blocks)
    sum(m.square().sum() for m in pyramid(encoder, images())).backward()
    for name, parameter in [*encoder.named_parameters(), *pyramid.named_parameters()]:
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert {n for n, p in encoder.named_parameters() if not p.requires_grad} == {
        "norm.weight",
        "norm.bias",
    }


def test_four_blocks_give_a_map_each_and_one_block_gives_all():
    encoder = build_encoder(VIT).eval()
    for blocks, moved in ((ALL_BLOCKS, 1), ((-1,), 4)):
        pyramid = Pyramid(VIT, blocks)
        with torch.no_grad():
            before = pyramid(encoder, images())
            bias = encoder.blocks[-1].mlp.fc2.bias
            bias += 1.0
            after = pyramid(encoder, images())
            bias -= 1.0
        changed = [not torch.equal(a, b) for a, b in zip(before, after)]
        assert changed == [False] * (4 - moved) + [True] * moved


def test_the_encoders_own_stride_is_passed_through_and_the_coarse_one_pooled():
    encoder, pyramid = build_encoder(VIT).eval(), Pyramid(VIT)
    *_, middle, coarse = pyramid(encoder, images())
    assert torch.equal(middle, encoder(images(), levels=(-1,)).levels[0])
    cells = middle.unflatten(2, (2, 2)).unflatten(4, (3, 2))
    assert torch.equal(coarse, cells.amax(dim=(3, 5)))


def test_quarters_are_those_of_the_benchmark():
    assert quarters(12) == (2, 5, 8, 11) and quarters(24) == (5, 11, 17, 23)
    with pytest.raises(ValueError, match="3 blocks have no quarters"):
        quarters(3)


@pytest.mark.parametrize("blocks", [(), (0, 3), (0, 1, 2, 2), (1,), (0, 1, 2)])
def test_other_blocks_are_refused(blocks):
    with pytest.raises(ValueError, match="four blocks up to the last"):
        Pyramid(VIT, blocks)


def test_the_stages_of_a_convvit_are_its_maps():
    encoder, pyramid = build_encoder(CONV).eval(), Pyramid(CONV)
    assert not list(pyramid.parameters())
    maps = pyramid(encoder, images())
    stages = encoder(images(), levels=(0, 1, 2)).levels
    assert all(torch.equal(a, b) for a, b in zip(maps, stages))
    with pytest.raises(ValueError, match=r"entries \(2, 4, 2\) make no pyramid"):
        Pyramid(replace(CONV, entries=(2, 4, 2)))


def test_a_swin_has_no_pyramid_and_says_so():
    with pytest.raises(ValueError, match="a SwinConfig makes no pyramid"):
        Pyramid(SwinConfig())


def test_odd_patches_are_refused():
    with pytest.raises(ValueError, match="patch_size 14 is not a multiple of 4"):
        Pyramid(ViTConfig(**SHAPE | {"patch_size": 14, "image_size": 28}))
