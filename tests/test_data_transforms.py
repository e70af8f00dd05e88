import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from mimlib.data.order import augmentation_draws
from mimlib.data.transforms.crops import (
    Augmentation,
    Placement,
    cut_image,
    cut_map,
    evaluation_view,
    random_crop_boxes,
)

BICUBIC = InterpolationMode.BICUBIC


def boxes_of(height, width, scale, clip=False, count=3000):
    draws = augmentation_draws(seed=0, first=0, count=count)
    return random_crop_boxes(draws, [[height, width]] * count, scale, clip)


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (48, 100), (7, 5), (1, 1), (1, 30), (90, 2)]
)
@pytest.mark.parametrize("clip", [False, True])
def test_boxes_lie_inside_their_image(height, width, clip):
    top, left, box_height, box_width = boxes_of(height, width, (0.08, 1.0), clip).T
    assert min(top.min(), left.min()) >= 0
    assert min(box_height.min(), box_width.min()) >= 1
    assert (top + box_height).max() <= height
    assert (left + box_width).max() <= width


@pytest.mark.parametrize(("height", "width"), [(100, 100), (100, 180)])
def test_boxes_are_distributed_as_torchvision_draws_them(height, width):
    ours = boxes_of(height, width, (0.2, 1.0)).astype(float)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    transform = v2.RandomResizedCrop(8, scale=(0.2, 1.0))
    theirs = [transform.make_params([image]) for _ in range(1000)]
    theirs = np.array([[p[k] for k in ("top", "left", "height", "width")] for p in theirs])
    deciles = np.linspace(0, 1, 11)
    assert np.abs(np.quantile(ours, deciles, 0) - np.quantile(theirs, deciles, 0)).max() < 7
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 2


def test_areas_and_ratios_stay_in_their_ranges():
    _, _, height, width = boxes_of(200, 200, (0.2, 0.6)).T
    share = height * width / 200**2
    assert 0.19 < share.min() < 0.21
    assert 0.59 < share.max() < 0.61
    assert 0.73 < (width / height).min() < 0.78
    assert 1.28 < (width / height).max() < 1.36


def test_clipping_keeps_the_first_draw():
    draws = augmentation_draws(seed=0, first=0, count=500)
    shapes = [[100, 100]] * 500
    redrawn = random_crop_boxes(draws, shapes, (0.5, 1.0))
    clipped = random_crop_boxes(draws, shapes, (0.5, 1.0), clip=True)
    same = (redrawn[:, 2:] == clipped[:, 2:]).all(axis=1)
    touching = (clipped[:, 2:] == 100).any(axis=1)
    assert 0 < touching.sum() < 500
    assert same[~touching].all()
    assert not same[touching].all()


def test_scale_of_one_takes_the_whole_image():
    assert (boxes_of(30, 50, (1.0, 1.0), count=4) == [0, 0, 30, 50]).all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_crop_is_torchvisions_to_the_bit(channels_last):
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    if channels_last:
        image = image[None].contiguous(memory_format=torch.channels_last)[0]
    for box in ((0, 0, 90, 120), (10, 20, 30, 70), (80, 5, 1, 1)):
        want = v2.functional.resized_crop(image, *box, [32, 32], interpolation=BICUBIC)
        assert torch.equal(cut_image(image, Placement(box, (32, 32))), want)
        assert torch.equal(cut_image(image, Placement(box, (32, 32), flip=True)), want.flip(-1))


def test_crop_of_the_right_size_is_not_resampled():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    placement = Placement((3, 5, 32, 32), (32, 32))
    assert torch.equal(cut_image(image, placement), image[:, 3:35, 5:37])


def test_targets_follow_their_images():
    """A ramp in the image and the same ramp as target still agree after crop and flip."""
    row = torch.arange(64)[:, None].expand(64, 64)
    column = torch.arange(64)[None, :].expand(64, 64)
    image = torch.stack([row, column, row + column]).to(torch.uint8)
    boxes = boxes_of(64, 64, (0.2, 1.0), count=50)
    placements = [Placement(tuple(b), (64, 64), i % 2 == 1) for i, b in enumerate(boxes.tolist())]
    crops = torch.stack([cut_image(image, each) for each in placements]).float()
    for channel, target in ((0, row), (1, column)):
        got = torch.stack([cut_map(target.float(), each) for each in placements])
        assert (got - crops[:, channel]).abs().max() <= 1.6  # nearest, rounding, bicubic edge


def test_targets_are_sampled_at_pixel_centers_and_keep_their_values():
    depth = torch.rand(40, 60) * 5
    got = cut_map(depth, Placement((3, 10, 17, 29), (24, 24)))
    want = torch.nn.functional.interpolate(
        depth[None, None, 3:20, 10:39], (24, 24), mode="nearest-exact"
    )
    assert torch.equal(got, want[0, 0])
    assert torch.isin(got, depth).all()  # a zoom does not change metric depth


@pytest.mark.parametrize(("height", "width"), [(300, 400), (256, 256), (500, 375), (20, 31)])
def test_evaluation_view_is_resize_256_and_center_crop_224(height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    want = v2.Compose([v2.Resize(256, interpolation=BICUBIC), v2.CenterCrop(224)])(image)
    assert torch.equal(evaluation_view(image, 224, 224 / 256), want)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 5000), (3, 5000, 1), (3, 2, 3)])
def test_evaluation_view_of_tiny_images_and_strips(shape):
    image = torch.full(shape, 77, dtype=torch.uint8)
    assert torch.equal(
        evaluation_view(image, 32, 0.875), torch.full((3, 32, 32), 77, dtype=torch.uint8)
    )


def test_half_of_the_images_are_flipped():
    draws = augmentation_draws(seed=0, first=0, count=4000)
    assert 0.47 < Augmentation(size=8).flips(draws).mean() < 0.53
    assert not Augmentation(size=8, flip=False).flips(draws).any()


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5)])
def test_wrong_crop_scales_are_refused(scale):
    with pytest.raises(ValueError, match="crop_scale is .*; expected 0 < low <= high <= 1"):
        Augmentation(size=32, crop_scale=scale)


def test_wrong_size_is_refused():
    with pytest.raises(ValueError, match="size is 0; expected 0 < size; use 64 or 224"):
        Augmentation(size=0)
