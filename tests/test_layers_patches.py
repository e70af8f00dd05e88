"""Pixels to patches to tokens."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from mimlib.layers.patches import (
    IMAGE_MEAN,
    IMAGE_STD,
    PatchEmbed,
    denormalize,
    grid_of,
    normalize,
    patchify,
    unpatchify,
)


def test_the_order_inside_a_patch_is_row_column_channel():
    images = torch.randn(1, 3, 224, 224)
    patch = patchify(images, 16)[0, 5 * 14 + 7]
    for channel, y, x in [(0, 0, 0), (1, 3, 9), (2, 15, 15), (2, 0, 1)]:
        assert patch[(y * 16 + x) * 3 + channel] == images[0, channel, 80 + y, 112 + x]


@pytest.mark.parametrize("height,width,patch_size", [(32, 32, 4), (24, 40, 8), (14, 28, 14)])
def test_unpatchify_undoes_patchify_bit_for_bit(height, width, patch_size):
    images = torch.randn(2, 3, height, width)
    patches = patchify(images, patch_size)
    grid = grid_of(images, patch_size)
    assert patches.shape == (2, grid[0] * grid[1], patch_size**2 * 3)
    assert torch.equal(unpatchify(patches, patch_size, grid), images)


def test_patchify_takes_uint8():
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert patchify(images, 4).dtype == torch.uint8


@pytest.mark.parametrize(
    "side,message",
    [(225, "image side 225 .* patch side 16; resize to 224 or 240"), (9, "resize to 16$")],
)
def test_an_image_that_does_not_divide_is_refused(side, message):
    with pytest.raises(ValueError, match=message):
        patchify(torch.zeros(1, 3, 32, side), 16)


def test_normalize_agrees_for_bytes_and_floats_and_is_undone():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(normalize(images), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(normalize(images / 255), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(denormalize(expected), images / 255, rtol=0, atol=1e-6)


def test_embedding_equals_the_convolution():
    embed = PatchEmbed(8, 24)
    images = torch.randn(2, 3, 24, 40)
    tokens = embed(patchify(images, 8))
    expected = F.conv2d(images, embed.proj.weight, embed.proj.bias, stride=8)
    torch.testing.assert_close(tokens, rearrange(expected, "b d h w -> b (h w) d"))


def test_initialisation_of_the_embedding():
    embed = PatchEmbed(16, 768)
    bound = (6 / (768 + 768)) ** 0.5
    assert 0.99 * bound < embed.proj.weight.abs().max() <= bound
    assert 0 < embed.proj.bias.abs().max() <= 1 / 768**0.5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
            r"\(2, 8, 8, 3\) have no axis of three colors",
        ),
        (torch.zeros(8, 8, dtype=torch.uint8), "no axis of three colors"),
        (torch.full((1, 3, 4, 4), 200.0), "run from 200 to 200; expected 0 to 1: divide"),
        (torch.full((1, 3, 4, 4), -0.5), "run from -0.5 to -0.5; expected 0 to 1"),
        (torch.full((1, 3, 4, 4), torch.nan), "run from nan to nan"),
    ],
)
def test_images_in_another_form_are_refused(images, message):
    from mimlib.layers.patches import normalize

    with pytest.raises(ValueError, match=message):
        normalize.__wrapped__(images) if hasattr(normalize, "__wrapped__") else normalize(images)


def test_no_images_and_images_that_just_overshoot_are_normalized():
    from mimlib.layers.patches import normalize

    assert normalize(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert normalize(torch.full((1, 3, 4, 4), 1.001)).isfinite().all()
