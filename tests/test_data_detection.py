"""Objects move as their image does; the world's boxes and masks are what the world knows."""

import numpy as np
import pytest
import torch

from mimlib import world
from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.masks import pack_masks, unpack_masks
from mimlib.data.objects.views import (
    GRAY,
    LargeScaleJitter,
    Objects,
    collate,
    place_image,
    place_objects,
    tight_boxes,
)
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.data.order import DRAWS_PER_IMAGE

HEIGHT, WIDTH = 24, 40


def draws(scale=0.5, row=0.5, column=0.5, flip=0.9):
    numbers = np.zeros(DRAWS_PER_IMAGE)
    numbers[[0, 20, 21, 22]] = scale, row, column, flip
    return numbers


def picture(*rectangles, height=HEIGHT, width=WIDTH):
    """A black image with white rectangles (left, top, right, bottom), and these as objects."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(len(rectangles), height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, rectangles):
        mask[top:bottom, left:right] = True
        image[:, top:bottom, left:right] = 255
    count = len(rectangles)
    return image, Objects(
        boxes=torch.tensor(rectangles, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(count),
        masks=masks,
        crowd=torch.zeros(count, dtype=torch.bool),
        areas=masks.sum(dim=(1, 2)).float(),
    )


def moved(numbers, *rectangles, size=32, scale=(0.1, 2.0), **shape):
    image, objects = picture(*rectangles, **shape)
    jitter = LargeScaleJitter(size=size, scale=scale)
    placement = jitter.place(numbers, *image.shape[1:])
    return place_image(image, placement, size), place_objects(objects, placement, size)


def test_without_draws_the_whole_image_is_shown_at_the_top_left():
    image, objects = moved(None, (0, 0, 10, 12), (20, 12, 40, 24))
    assert image.shape == (3, 32, 32)
    assert (image[:, 19:] == GRAY).all(), "24 of 40 is 19.2 of 32"
    assert image[0, 0, 0] == 255 and image[0, 18, 31] == 255 and image[0, 0, 31] == 0
    torch.testing.assert_close(
        objects.boxes, torch.tensor([[0, 0, 8, 9.5], [16, 9.5, 32, 19]]), rtol=0, atol=1e-5
    )
    assert objects.masks.shape == (2, 32, 32) and not objects.masks[:, 19:].any()


@pytest.mark.parametrize("flip", [0.1, 0.9])
@pytest.mark.parametrize("scale", [0.0, 0.2, 0.4, 0.7, 1.0])
def test_masks_stay_on_their_pixels_and_boxes_around_their_masks(scale, flip):
    for row, column in ((0.0, 0.99), (0.5, 0.5), (0.99, 0.0)):
        numbers = draws(scale, row, column, flip)
        image, objects = moved(numbers, (3, 4, 20, 18), size=48, scale=(0.5, 3.0))
        if not len(objects.labels):
            continue
        (mask,) = objects.masks
        white = image[0] > 128
        assert (white != mask).float().mean() < 0.03 and (white & mask).any()
        assert (tight_boxes(objects.masks) - objects.boxes).abs().max() <= 1.01


def test_flipping_mirrors_the_part_that_is_seen():
    image, objects = moved(draws(flip=0.9), (0, 0, 10, 12), scale=(0.5, 0.5))
    mirrored, others = moved(draws(flip=0.1), (0, 0, 10, 12), scale=(0.5, 0.5))
    assert torch.equal(mirrored[..., :16], image[..., :16].flip(-1))
    assert objects.boxes[0, 0] == 0 and others.boxes[0, 2] == 16, "not at the border of the square"
    assert torch.equal(others.masks[..., :16], objects.masks[..., :16].flip(-1))


def test_the_scale_is_that_of_the_longer_side():
    for factor, side in ((0.1, 3), (0.5, 16), (1.0, 32)):
        jitter = LargeScaleJitter(size=32, scale=(factor, factor))
        assert jitter.place(draws(), HEIGHT, WIDTH).sides[1] == side
    placement = LargeScaleJitter(size=32, scale=(2.0, 2.0)).place(draws(), HEIGHT, WIDTH)
    assert placement.sides == (32, 32) and placement.box[2:] == (20, 20)
    assert LargeScaleJitter(size=32).place(draws(), 1, 5000).sides[0] == 1


def test_objects_that_are_cut_get_the_box_of_what_is_left():
    """An L whose foot is cut off: its box becomes that of the upright part."""
    image, objects = picture((0, 0, 40, 24))
    objects.masks[0, :20, 4:] = False
    jitter = LargeScaleJitter(size=10, scale=(4.0, 4.0))
    placement = jitter.place(draws(row=0.0, column=0.0), HEIGHT, WIDTH)
    assert placement.box == (0, 0, 10, 10)
    assert place_objects(objects, placement, 10).boxes.tolist() == [[0, 0, 4, 10]]


def test_objects_out_of_sight_or_too_small_are_left_out():
    numbers = draws(scale=1.0, row=0.0, column=0.0)
    _, objects = moved(numbers, (0, 0, 10, 10), (30, 15, 40, 24), scale=(1.0, 2.0))
    assert objects.labels.tolist() == [0]
    _, objects = moved(None, (0, 0, 10, 10), (20, 4, 21, 14), size=20)
    assert objects.labels.tolist() == [0], "half a pixel wide"
    _, objects = moved(None)
    assert objects.masks.shape == (0, 32, 32) and objects.boxes.shape == (0, 4)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)}])
def test_impossible_jitter_is_refused(wrong):
    with pytest.raises(ValueError, match="expected 0 < low <= high|expected 0 < size"):
        LargeScaleJitter(**{"size": 32, **wrong})


def test_rows_of_a_batch_are_padded():
    (one, few), (other, none) = picture((0, 0, 9, 9), (5, 5, 9, 9)), picture()
    few.masks[1, 0, 39] = True
    batch = collate([one, other], [few, none], [(HEIGHT, WIDTH)] * 2, [3, 4])
    assert isinstance(batch, DetectionBatch) and batch.image_ids.tolist() == [3, 4]
    assert batch.labels.tolist() == [[0, 1], [-1, -1]] and batch.sizes.tolist() == [[24, 40]] * 2
    assert batch.masks.shape == (2, 2, 24, 5) and not batch.masks[1].any()
    assert torch.equal(unpack_masks(batch.masks[0], WIDTH), few.masks)
    assert collate([other], [none], [(24, 40)], [0]).boxes.shape == (1, 0, 4)


def test_the_worlds_objects_are_what_the_world_knows():
    source = WorldDetectionConfig(count=6, size=48, seed=3, smallest=20).build()
    views = world.views(6, 48, seed=3, truth=("image", "instances", "classes", "boxes"))
    assert source.class_names == world.OBJECT_CLASSES
    for index in range(6):
        objects = source.read(index).objects
        assert len(objects.labels) == int(views["boxes_valid"][index].sum()) > 0
        assert torch.equal(tight_boxes(objects.masks), objects.boxes)
        for label, mask, crowd, area in zip(
            objects.labels, objects.masks, objects.crowd, objects.areas
        ):
            (seen,) = views["classes"][index][mask].unique()
            assert world.CLASSES[seen] == world.OBJECT_CLASSES[label]
            assert crowd == (mask.sum() < 20) and area == mask.sum()
    batch = source.first(4)
    assert torch.equal(batch.images, views["image"][:4])
    known = source.read(1).objects
    assert torch.equal(batch.boxes[1, : len(known.labels)], known.boxes)


def test_batches_depend_on_the_step_alone_and_ranks_share_them():
    source = WorldDetectionConfig(count=6, size=48, seed=3, scale=(0.5, 1.5)).build()
    batches = source.batches(0, 4, seed=5)
    first, second = next(batches), next(batches)
    again = next(source.batches(1, 4, seed=5))
    assert all(torch.equal(a, b) for a, b in zip(second[:-1], again[:-1]))
    assert second.truth == again.truth == (), "of use to the metric alone"
    rank = next(source.batches(0, 2, seed=5, rank=1, num_ranks=2))
    assert torch.equal(rank.images, first.images[2:])
    seen = rank.labels >= 0
    assert torch.equal(rank.boxes[seen], first.boxes[2:][first.labels[2:] >= 0])
    assert sum(len(b.images) for b in source.once(4)) == 6


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64])
def test_masks_are_packed_into_bits_and_come_back(width):
    masks = torch.rand(3, 5, width, generator=torch.Generator().manual_seed(width)) < 0.5
    packed = pack_masks(masks)
    assert packed.shape == (3, 5, -(-width // 8)) and packed.dtype == torch.uint8
    assert torch.equal(unpack_masks(packed, width), masks)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"smallest": -1}, {"workers": -1}])
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(ValueError, match="expected 0 <"):
        WorldDetectionConfig(**{"count": 2, "size": 32, **wrong})
