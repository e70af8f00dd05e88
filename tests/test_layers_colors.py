"""Colours of a batch, against torchvision image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from mimlib.layers.views import colors

IMAGES = torch.rand(3, 3, 7, 6, generator=torch.Generator().manual_seed(0))
IMAGES[0, :, 0] = 0.5  # grey has no hue
IMAGES[0, :, 1] = 0.0
IMAGES[1, :, 0, 0] = torch.tensor([1.0, 1.0, 0.0])


@pytest.mark.parametrize("ours,theirs,strengths", [
    (colors.change_brightness, reference.adjust_brightness, (0.6, 1.0, 1.4)),
    (colors.change_contrast, reference.adjust_contrast, (0.6, 1.0, 1.4)),
    (colors.change_saturation, reference.adjust_saturation, (0.8, 1.0, 1.2)),
    (colors.shift_hue, reference.adjust_hue, (-0.1, 0.0, 0.37)),
])  # fmt: skip
def test_each_image_changes_by_its_own_strength(ours, theirs, strengths):
    found = ours(IMAGES, torch.tensor(strengths))
    expected = torch.stack([theirs(image, s) for image, s in zip(IMAGES, strengths)])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert not torch.equal(found[0], IMAGES[0])
    torch.testing.assert_close(found[1], IMAGES[1])


def test_grey_and_solarised():
    expected = reference.rgb_to_grayscale(IMAGES)
    torch.testing.assert_close(colors.grayscale(IMAGES), expected, rtol=0, atol=2e-4)
    expected = reference.solarize(IMAGES, 128 / 255)
    torch.testing.assert_close(colors.solarize(IMAGES), expected)


def test_any_axes_may_come_first():
    strength = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)) / 5
    twice = torch.stack([IMAGES, IMAGES.flip(0)])
    found = colors.shift_hue(twice, strength)
    torch.testing.assert_close(found[1], colors.shift_hue(twice[1], strength[1]))
