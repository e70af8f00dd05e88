"""Crops as matrices: against torch's own resizing, box by box."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from mimlib.layers.views.crops import ASPECT_RATIO, blur, crop_batch, crop_matrix, random_boxes


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 24, 41])
def test_a_crop_is_what_torch_resizes(size):
    images = noise(2, 3, 40, 32)
    boxes = torch.tensor(
        [[[0, 0, 40, 32], [3, 5, 17, 20]], [[39, 31, 1, 1], [10, 0, 30, 7]]]
    ).float()  # V = 2, B = 2
    mirrored = torch.tensor([[False, True], [False, True]])
    found = crop_batch(images, boxes, mirrored, size)
    assert found.shape == (2, 2, 3, size, size)
    for v in range(2):
        for b in range(2):
            top, left, height, width = boxes[v, b].int().tolist()
            part = images[b : b + 1, :, top : top + height, left : left + width]
            expected = F.interpolate(part, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
            expected = expected.flip(-1) if mirrored[v, b] else expected
            torch.testing.assert_close(found[v, b][None], expected, rtol=0, atol=2e-5)


def test_the_whole_axis_at_its_own_size_is_itself():
    matrix = crop_matrix(torch.zeros(1), torch.full((1,), 9.0), 9, 9)
    torch.testing.assert_close(matrix[0], torch.eye(9))


@pytest.mark.parametrize("scale", [(0.05, 0.25), (0.25, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("shape", [(60, 60), (200, 30), (1, 50)])
def test_boxes_are_inside_and_as_large_as_asked(scale, shape):
    images = torch.empty(300, 3, *shape)
    boxes = random_boxes(3, images, scale, torch.Generator().manual_seed(0))
    assert boxes.shape == (3, 300, 4)
    top, left, height, width = boxes.unbind(-1)
    assert torch.equal(boxes, boxes.round()) and (height >= 1).all() and (width >= 1).all()
    assert (top >= 0).all() and (top + height <= shape[0]).all()
    assert (left >= 0).all() and (left + width <= shape[1]).all()
    if shape == (60, 60):
        share = height * width / 3600
        assert (share > scale[0] * 0.75).all() and (share < scale[1] * 1.05).all()
        if scale == (0.05, 0.25):
            assert share.mean() == pytest.approx(0.15, abs=0.01)
            assert ((width / height).log().mean()).abs() < 0.03
            assert top.min() == 0 and (top + height).max() == 60
        ratio = width / height
        assert ratio.min() > ASPECT_RATIO[0] * 0.85 and ratio.max() < ASPECT_RATIO[1] * 1.2
    elif shape == (200, 30) and scale == (1.0, 1.0):
        assert (boxes == torch.tensor([80.0, 0.0, 40.0, 30.0])).all(), "the largest, centred"


def test_boxes_depend_on_the_generator_alone():
    def draw(seed, count=2):
        generator = torch.Generator().manual_seed(seed)
        return random_boxes(count, torch.empty(5, 3, 32, 32), (0.1, 1.0), generator)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert draw(1, count=0).shape == (0, 5, 4)


def boxes_before(shapes, scale, count=1, side=256, seed=0):
    """Boxes of images stretched to squares, in pixels of the images before, [V, B, 4]."""
    shapes = torch.tensor(shapes)
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(len(shapes), 3, side, side)
    boxes = random_boxes(count, images, scale, generator, shapes)
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., :2] + boxes[..., 2:] <= side * (1 + 1e-6)).all()
    return boxes * shapes.repeat(1, 2) / side


@pytest.mark.parametrize("scale", [(0.05, 0.25), (0.25, 1.0)])
@pytest.mark.parametrize("shape", [(375, 500), (500, 300)])
def test_boxes_of_stretched_images_are_those_of_the_images_before(shape, scale):
    """Each number, and what follows from two of them, is distributed as torchvision's."""
    found = boxes_before([shape] * 1500, scale)[0]
    assert (found - found.round()).abs().max() < 1e-3, "whole pixels"
    torch.manual_seed(0)
    image = torch.empty(3, *shape)
    drawn = [RandomResizedCrop.get_params(image, scale, ASPECT_RATIO) for _ in range(1500)]
    expected = torch.tensor(drawn).double()  # top, left, height, width
    for ours, theirs in (
        *((found[:, i], expected[:, i]) for i in range(4)),
        (found[:, 2] * found[:, 3], expected[:, 2] * expected[:, 3]),
        (found[:, 3] / found[:, 2], expected[:, 3] / expected[:, 2]),
    ):
        assert stats.ks_2samp(ours.round(decimals=2), theirs).pvalue > 1e-3
    unaware = boxes_before([(256, 256)] * 1500, scale)[0] * torch.tensor(shape).repeat(2) / 256
    ratios = unaware[:, 3] / unaware[:, 2], expected[:, 3] / expected[:, 2]
    assert stats.ks_2samp(*ratios).pvalue < 1e-9, "the test would see distorted crops"


def test_images_that_were_square_have_the_boxes_they_have_anyway():
    images, scale = torch.empty(50, 3, 64, 64), (0.05, 1.0)
    known = torch.full((50, 2), 64)
    plain, told = (
        random_boxes(2, images, scale, torch.Generator().manual_seed(0), *more)
        for more in ((), (known,))
    )
    assert torch.equal(plain, told)


@pytest.mark.parametrize("shape", [(10, 5000), (5000, 1), (3, 3), (40_000, 30_000)])
def test_strips_and_specks_have_crops(shape):
    shapes = torch.tensor([shape] * 20)
    images = noise(20, 3, 64, 64)
    boxes = random_boxes(5, images, (0.05, 1.0), torch.Generator().manual_seed(0), shapes)
    assert (boxes[..., 2:] >= 2).all() and (boxes[..., :2] + boxes[..., 2:] <= 64.001).all()
    assert crop_batch(images, boxes, boxes[..., 0] < 0, 24).isfinite().all()


def test_shapes_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"stretched_from has shape \(3, 2\); .* each of 4 images"):
        random_boxes(1, noise(4, 3, 8, 8), (0.5, 1.0), torch.Generator(), torch.ones(3, 2).int())


def test_blur_is_a_gaussian_of_each_images_radius():
    images = torch.zeros(2, 1, 41, 41)
    images[:, :, 20, 20] = 1.0
    radius = torch.tensor([1.0, 2.0])
    spots = blur(images, radius)
    torch.testing.assert_close(spots.sum((1, 2, 3)), torch.ones(2), rtol=0, atol=1e-4)
    place = torch.arange(41.0) - 20
    for spot, sigma in zip(spots[:, 0], radius):
        torch.testing.assert_close((spot.sum(0) * place**2).sum(), sigma**2, rtol=1e-3, atol=0)
        torch.testing.assert_close(spot, spot.T)
    constant = torch.full((2, 3, 9, 9), 0.3)
    torch.testing.assert_close(blur(constant, radius), constant)
