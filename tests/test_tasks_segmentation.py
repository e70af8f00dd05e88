"""Segmentation: heads and encoders together, images of any size, windows, what is left out."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, pad

from mimlib import world
from mimlib.data.batches import DenseBatch
from mimlib.data.images.configs import WorldImagesConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.pyramid import quarters
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.tasks.tiling import window_offsets
from mimlib.training.config import TrainConfig
from mimlib.training.trainer import Trainer

ENCODER = ViTConfig(width=16, depth=4, heads=2, patch_size=8, image_size=32)
STAGES = ConvViTConfig(
    widths=(8, 8, 16), depths=(1, 1, 1), heads=2, entries=(2, 2, 2), image_size=32
)
HEADS = ("small", "upernet", "semantic_fpn")
NUM_CLASSES = 5


def make(head="upernet", **changes):
    torch.manual_seed(0)
    values = {"encoder": ENCODER, "num_classes": NUM_CLASSES, "head": head, "channels": 16}
    return SegmentationTaskConfig(**values | changes).build()


def images(height=32, width=32, count=2, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def batch(height=32, width=32, count=2):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, height, width), generator=draw).to(torch.uint8)
    target = torch.randint(NUM_CLASSES, (count, height, width), generator=draw)
    return DenseBatch(pixels, target, torch.ones_like(target, dtype=torch.bool))


def views(task, made):
    return task.sample_views(made, torch.Generator())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "network",
    [{}, {"blocks": quarters(4)}, {"encoder": STAGES}],
    ids=["last block", "four blocks", "stages"],
)
def test_logits_for_every_pixel(head, network):
    task = make(head, **network)
    assert task.predict(images(32, 48)).shape == (2, NUM_CLASSES, 32, 48)
    task(views(task, batch())).loss.backward()
    learnt = [n for n, p in task.named_parameters() if p.grad is not None]
    assert learnt == [n for n, p in task.named_parameters() if p.requires_grad]


def test_the_auxiliary_head_trains_along_and_is_not_asked_afterwards():
    task, made = make(), batch()
    with torch.no_grad():
        task.auxiliary[-1].bias += torch.arange(NUM_CLASSES)
    training = task(views(task, made))
    assert set(training.terms) == {"cross_entropy", "auxiliary"}
    expected = training.terms["cross_entropy"] + 0.4 * training.terms["auxiliary"]
    torch.testing.assert_close(training.loss.detach(), expected)
    training.loss.backward()
    assert all(p.grad is not None for p in task.auxiliary.parameters())
    task.eval()
    measured = task(views(task, made))
    assert set(measured.terms) == {"cross_entropy"}
    assert torch.equal(measured.loss, measured.terms["cross_entropy"])
    for without in (make(auxiliary_weight=0.0), make("semantic_fpn"), make("small")):
        assert without.auxiliary is None
        assert set(without(views(without, made)).terms) == {"cross_entropy"}


@pytest.mark.parametrize("head", HEADS)
def test_pixels_without_a_class_do_not_count(head):
    task, (pixels, target, valid) = make(head), batch()
    valid = valid.clone()
    valid[:, :, :10] = False
    whole = task(views(task, DenseBatch(pixels, target, valid)))
    nonsense = torch.where(valid, target, 255)
    same = task(views(task, DenseBatch(pixels, nonsense, valid)))
    assert torch.equal(whole.loss, same.loss) and torch.equal(whole.mask, valid)
    logits = task.predict(views(task, batch()).images)
    right = torch.nn.functional.cross_entropy(logits.movedim(1, -1)[valid], target[valid])
    torch.testing.assert_close(whole.terms["cross_entropy"], right.detach())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(32, 32), (33, 40), (17, 50), (5, 3), (64, 31)])
@pytest.mark.parametrize("changes", [{}, {"short_side": 24}, {"window": 16}])
def test_images_of_any_size_are_measured_at_their_own(head, size, changes):
    task = make(head, **changes).eval()
    output = task(views(task, batch(*size)))
    assert output.prediction.shape == output.target.shape == (2, *size)
    assert output.loss.isfinite()


def test_a_whole_image_is_padded_to_the_cells_of_the_coarsest_map_and_cut_again():
    for head, multiple in (("small", 8), ("upernet", 16)):
        task = make(head).eval()
        image = images(40, 53)
        padded = pad(image, (0, -53 % multiple, 0, -40 % multiple))
        expected = task.predict(padded)[..., :40, :53]
        assert torch.equal(task.predict_any(image), expected)
        assert torch.equal(task.predict_any(images(32, 48)), task.predict(images(32, 48)))


def test_windows_are_averaged():
    """Against loops: logits of every window added up, divided by how many cover a pixel."""
    task = make(window=16, overlap=0.5).eval()
    image = images(40, 30)
    sums, counts = torch.zeros(2, NUM_CLASSES, 40, 30), torch.zeros(40, 30)
    with torch.no_grad():
        for top in window_offsets(40, 16, 0.5):
            for left in window_offsets(30, 16, 0.5):
                place = np.s_[..., top : top + 16, left : left + 16]
                sums[place] += task.predict(image[place])
                counts[place] += 1
        torch.testing.assert_close(task.predict_any(image), sums / counts)
    assert counts.min() == 1 and counts.max() > 2


def test_an_image_smaller_than_the_window_is_padded():
    task = make(window=32).eval()
    image = images(20, 32)
    expected = task.predict(pad(image, (0, 0, 0, 12)))[..., :20, :]
    torch.testing.assert_close(task.predict_any(image), expected)


def test_the_papers_windows_lie_as_many_as_strides_fit():
    """Window 512, stride 341: 1 + ceil((side - 512) / 341) of them, as official."""
    overlap = 1 - 341 / 512
    for side, count in ((512, 1), (513, 2), (683, 2), (853, 2), (854, 3), (2048, 6)):
        assert len(window_offsets(side, 512, overlap)) == count


def test_the_short_side_is_that_of_the_evaluation_and_a_strip_is_not_blown_up():
    task, seen = make("small", short_side=24).eval(), []
    predict = task.predict
    task.predict = lambda image: (seen.append(tuple(image.shape[-2:])), predict(image))[1]
    image = images(48, 64)
    found = task.predict_any(image)
    small = interpolate(image, size=(24, 32), mode="bilinear", antialias=True)
    expected = interpolate(predict(small), size=(48, 64), mode="bilinear")
    torch.testing.assert_close(found, expected)
    assert task.predict_any(images(8, 80)).shape[-2:] == (8, 80)
    assert seen == [(24, 32), (16, 96)]  # 9.6 x 96 pixels, padded to whole patches


def test_training_takes_images_as_they_are():
    task = make(short_side=16, window=16)
    assert task(views(task, batch(32, 48))).prediction.shape == (2, 32, 48)
    with pytest.raises(ValueError, match="multiple"):
        task(views(task, batch(33, 48)))


@pytest.mark.parametrize("encoder", ["vit", "stages"])
def test_rooms_are_learnt_by_heart(encoder):
    """From the world to the metric: four rooms, as they are in training and evaluation."""
    network = {
        "vit": ViTConfig(width=48, depth=2, heads=2, patch_size=4, image_size=32),
        "stages": ConvViTConfig(
            widths=(16, 24, 48), depths=(1, 1, 1), heads=2, entries=(1, 2, 2), image_size=32
        ),
    }
    rooms = {"count": 4, "size": 32, "target": "classes", "crop_scale": (1.0, 1.0), "flip": False}
    data = WorldImagesConfig(**rooms)
    task = make(encoder=network[encoder], num_classes=len(world.CLASSES), channels=32)
    # After 180 steps the last bits of a sum decide whether a class of some 20 pixels is found.
    train = TrainConfig(
        steps=260, batch_size=4, base_rate=1.0, warmup_steps=10, schedule="linear", device="cpu",
        precision="float32", threads=1,
    )  # fmt: skip
    Trainer(task, data.build(), train, progress=False).fit()
    measure = ValidationConfig(source=data, num_images=4).build()
    found = measure.run(task, torch.device("cpu"))
    assert found["accuracy"] > 0.97 and found["miou"] > 0.9, found


@pytest.mark.parametrize("wrong,words", [
    ({"channels": 0}, "channels is 0; expected 0 <"), ({"dropout": 1.0}, "dropout is 1.0"),
    ({"overlap": 1.0}, "overlap is 1.0"), ({"auxiliary_weight": -1.0}, "auxiliary_weight is -1.0"),
    ({"window": 20}, "a multiple of the patch side 8"), ({"short_side": -1}, "short_side is -1"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)
