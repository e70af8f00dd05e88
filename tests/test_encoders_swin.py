"""Swin in the language of our encoders."""

import pytest
import torch

from mimlib.encoders.swin import SwinConfig
from mimlib.layers.masking import random_mask

SMALL = SwinConfig(
    first_width=8, depths=(1, 2), heads=(1, 2), first_patch=4, window=2, image_size=32
)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SMALL.build().eval()


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 8)])
def test_features_at_every_size(encoder, size):
    images = torch.randn(2, 3, *size)
    features = encoder(images, levels=(0, 1, -1))
    h, w = size[0] // 8, size[1] // 8
    assert features.grid == (h, w) and features.class_token is None
    assert features.tokens.shape == (2, h * w, 16)
    one, two, last = features.levels
    assert one.shape == (2, 8, 2 * h, 2 * w) and torch.equal(two, last)
    tokens = encoder.norm(last.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens, features.tokens)


def test_the_sizes_of_the_paper():
    with torch.device("meta"):
        encoder = SwinConfig().build()
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(27.5e6, rel=0.005)
    assert (encoder.stride, encoder.width, encoder.num_layers) == (32, 768, 12)
    assert SwinConfig().grid == (7, 7) and SwinConfig().num_patches == 49


def test_every_parameter_has_a_depth_and_learns(encoder):
    found = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert found == set(range(encoder.num_layers + 2))
    assert encoder.layer_of("network.layers.1.downsample.norm.weight") == 2
    encoder(torch.randn(1, 3, 32, 32)).tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_masks_and_unknown_stages_are_refused(encoder):
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="encode without a mask"):
        encoder(images, random_mask(1, 16, 4, torch.Generator()))
    with pytest.raises(ValueError, match="expected 0 to 1, or -1 for the last"):
        encoder(images, levels=(2,))
    with pytest.raises(ValueError, match="image side 36 is not a multiple of the patch side 8"):
        encoder(torch.randn(1, 3, 32, 36))


@pytest.mark.parametrize("changes,message", [
    ({"depths": (2, 2)}, "must name each stage once"),
    ({"heads": (5, 6, 12, 24)}, "width 96 of stage 1 does not divide into 5 heads"),
    ({"image_size": 200}, "image_size 200 is not a multiple of the stride 32"),
    ({"drop_path": 1.0}, "drop_path is 1.0"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SwinConfig(**changes)
