"""Measurements on held-out images, by hand and inside the trainer."""

from dataclasses import dataclass, replace

import pytest
import torch

from mimlib.data.batches import DenseBatch
from mimlib.data.source import MemorySource
from mimlib.data.transforms.crops import Augmentation
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.frozen import FrozenProbeConfig, KNNConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.methods.mae import MAEConfig
from mimlib.tasks.classification import ClassifierConfig
from mimlib.tasks.depth import DepthTaskConfig
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.training.config import TrainConfig
from mimlib.training.trainer import Trainer

CPU = torch.device("cpu")
NUM_CLASSES = 3
ENCODER = ViTConfig(width=16, depth=2, heads=2, patch_size=8, image_size=16)
PALETTE = torch.tensor([[220, 40, 40], [40, 200, 60], [50, 70, 230]])


@dataclass(frozen=True)
class Painted:
    """Coloured patches: the class of a patch is its colour, its depth one metre more."""

    count: int
    target: str
    seed: int = 0

    def build(self):
        draw = torch.Generator().manual_seed(self.seed)
        grid = (1, 1) if self.target == "label" else (2, 2)
        cells = torch.randint(NUM_CLASSES, (self.count, *grid), generator=draw)
        side = 16 // grid[0]
        classes = cells.repeat_interleave(side, 1).repeat_interleave(side, 2)
        images = PALETTE[classes].permute(0, 3, 1, 2)
        noise = torch.randint(-20, 21, images.shape, generator=draw)
        images = (images + noise).clamp(0, 255).to(torch.uint8)
        plain = Augmentation(size=16, crop_scale=(1.0, 1.0), flip=True)
        if self.target == "label":
            return MemorySource(images, plain, labels=cells[:, 0, 0])
        known = torch.arange(self.count).view(-1, 1, 1) % 3 != 0  # every third has no truth
        target = torch.where(known, classes, -1)
        if self.target == "depth":
            target = torch.where(known, 1.0 + classes, 0.0)
        return MemorySource(images, plain, targets=target)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def state_of(model):
    modes = [module.training for module in model.modules()]
    return modes, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model, before):
    assert [module.training for module in model.modules()] == before[0]
    assert all(torch.equal(t, before[1][n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "target"),
    [
        (ClassifierConfig(encoder=ENCODER, num_classes=NUM_CLASSES, mixup=0.8), "label"),
        (SegmentationTaskConfig(encoder=ENCODER, num_classes=NUM_CLASSES), "classes"),
        (DepthTaskConfig(encoder=ENCODER), "depth"),
    ],
    ids=["classifier", "segmentation", "depth"],
)
def test_validation_equals_one_pass_over_everything(config, target):
    task = config.build()
    source = Painted(11, target)
    before = state_of(task)
    random_state = torch.get_rng_state()
    validation = ValidationConfig(source=source, num_images=11, batch_size=4).build()
    found = validation.run(task, CPU)
    assert_same_state(task, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert found == validation.run(task, CPU)
    task.eval()
    batch = source.build().first(11)
    output = task(task.sample_views(batch, generator()))
    assert found["loss"] == pytest.approx(float(output.loss.detach()), rel=1e-4)
    prediction, truth = output.prediction, output.target
    if output.mask is not None:
        prediction, truth = prediction[output.mask], truth[output.mask]
    metrics = task.metrics()
    metrics.update(prediction, truth)
    for name, value in metrics.compute().items():
        assert found[name] == pytest.approx(float(value), rel=1e-4), name
    whole = ValidationConfig(source=source, num_images=0, batch_size=4).build().run(task, CPU)
    assert whole == pytest.approx(found)


def test_a_chunk_without_any_truth_is_fine_but_a_set_without_is_not():
    """Images 0 and 3 of four have no truth."""
    task = DepthTaskConfig(encoder=ENCODER).build()
    source = Painted(4, "depth")
    one_by_one = ValidationConfig(source=source, num_images=4, batch_size=1).build().run(task, CPU)
    at_once = ValidationConfig(source=source, num_images=4, batch_size=4).build().run(task, CPU)
    assert one_by_one == pytest.approx(at_once, rel=1e-4)
    for other in (task, SegmentationTaskConfig(encoder=ENCODER, num_classes=NUM_CLASSES).build()):
        empty = Painted(1, "depth" if other is task else "classes")
        with pytest.raises(ValueError, match="none of the held-out images has ground truth"):
            ValidationConfig(source=empty, num_images=1).build().run(other, CPU)
        assert other.training


def test_validation_of_a_pretraining_method_repeats_its_masks():
    method = MAEConfig(
        encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5
    ).build()
    config = ValidationConfig(source=Painted(6, "label"), num_images=6, batch_size=6)
    found = config.build().run(method, CPU)
    assert set(found) == {"loss"}
    assert found == config.build().run(method, CPU)
    assert found != replace(config, seed=1).build().run(method, CPU)


def test_frozen_probe_and_knn_find_colours_in_an_untrained_encoder():
    task = DepthTaskConfig(encoder=ENCODER).build()
    before = state_of(task)
    patches = FrozenProbeConfig(
        train=Painted(40, "classes"), held_out=Painted(20, "classes", seed=1),
        num_classes=NUM_CLASSES, num_train=40, num_images=20,
    )  # fmt: skip
    images = FrozenProbeConfig(
        train=Painted(40, "label"), held_out=Painted(20, "label", seed=1),
        num_classes=NUM_CLASSES, num_train=40, num_images=20,
    )  # fmt: skip
    nearest = KNNConfig(
        train=Painted(40, "label"), held_out=Painted(20, "label", seed=1),
        num_classes=NUM_CLASSES, num_train=40, num_images=20, neighbors=5,
    )  # fmt: skip
    perfect = {"accuracy": 1.0, "mean_accuracy": 1.0, "miou": 1.0}
    assert patches.build().run(task, CPU) == perfect
    for config in (images, nearest):
        for pool in ("mean", "class_token"):
            found = replace(config, pool=pool).build().run(task, CPU)
            assert set(found) == {"accuracy"} and found["accuracy"] > 0.9
    assert_same_state(task, before)


def test_labels_that_say_nothing_give_chance():
    """The held-out images are measured, not those the probe has seen."""

    @dataclass(frozen=True)
    class Shuffled(Painted):
        def build(self):
            source = super().build()
            order = torch.randperm(self.count, generator=generator(self.seed + 7))
            source.labels = source.labels[order]
            return source

    task = DepthTaskConfig(encoder=ENCODER).build()
    config = FrozenProbeConfig(
        train=Shuffled(200, "label"), held_out=Shuffled(200, "label", seed=1),
        num_classes=NUM_CLASSES, num_train=200, num_images=200,
    )  # fmt: skip
    assert config.build().run(task, CPU)["accuracy"] < 0.45


def test_the_trainer_trains_tasks_and_runs_measurements(tmp_path):
    task = DepthTaskConfig(encoder=ENCODER, channels=16).build()
    validation = ValidationConfig(source=Painted(12, "depth", seed=1), num_images=12, batch_size=6)
    probe = FrozenProbeConfig(
        train=Painted(24, "classes"), held_out=Painted(12, "classes", seed=1),
        num_classes=NUM_CLASSES, num_train=24, num_images=12,
    )  # fmt: skip
    config = TrainConfig(
        steps=60, batch_size=16, base_rate=5e-2, warmup_steps=5, evaluate_every=30,
        precision="float32", device="cpu",
    )  # fmt: skip
    evaluations = [validation.build(), probe.build()]
    before = evaluations[0].run(task, CPU)
    summary = Trainer(
        task, Painted(48, "depth").build(), config, evaluations, tmp_path, progress=False
    ).fit()
    measured = [line for line in summary.history if "validation/rmse" in line]
    assert [line["step"] for line in measured] == [30, 60]
    assert {"validation/delta_1", "probe/accuracy", "probe/miou"} <= set(measured[-1])
    assert measured[-1]["validation/rmse"] < before["rmse"] / 2


def test_numbers_outside_their_range_are_refused():
    source = Painted(4, "label")
    with pytest.raises(ValueError, match="batch_size is 0; expected 0 < batch_size"):
        ValidationConfig(source=source, batch_size=0)
    with pytest.raises(ValueError, match="num_images is -1; expected 0 <= num_images"):
        ValidationConfig(source=source, num_images=-1)
    with pytest.raises(ValueError, match="temperature is 0.0; expected 0 < temperature"):
        KNNConfig(train=source, held_out=source, num_classes=3, temperature=0.0)


def test_the_held_out_images_are_kept():
    validation = ValidationConfig(source=Painted(4, "label"), num_images=4).build()
    assert validation.images is validation.images
    assert not isinstance(validation.images, DenseBatch)
