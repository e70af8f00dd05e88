"""What holds for every downstream task."""

from dataclasses import dataclass

import pytest
import torch
from micro_batches import frozen_statistics, gradient_of, parts_of

from mimlib.data.batches import DenseBatch, LabelBatch
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.metrics.dense import as_floats, update_metrics
from mimlib.protocol import Output
from mimlib.tasks.classification import ClassifierConfig
from mimlib.tasks.depth import DepthTaskConfig, DPTDepthTaskConfig
from mimlib.tasks.segmentation import SegmentationTask, SegmentationTaskConfig

NUM_CLASSES = 4
ENCODER = ViTConfig(width=16, depth=2, heads=2, patch_size=8, image_size=16)
DEEP = ViTConfig(width=16, depth=4, heads=2, patch_size=8, image_size=16, class_token=False)
HYBRID = ConvViTConfig(
    widths=(8, 12, 16), depths=(1, 1, 1), heads=2, entries=(2, 2, 2), image_size=16
)
PALETTE = torch.tensor([[220, 40, 40], [40, 200, 60], [50, 70, 230], [240, 240, 230]])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def paint(cells, patch_size=8, seed=0):
    """Images whose patches have the colours of the given classes [B, h, w], with some noise."""
    cells = cells.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)
    images = PALETTE[cells].permute(0, 3, 1, 2)
    noise = torch.randint(-12, 13, images.shape, generator=generator(seed))
    return (images + noise).clamp(0, 255).to(torch.uint8), cells


def label_batch(count=8, seed=0):
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator(seed))
    images, _ = paint(labels.view(-1, 1, 1).expand(-1, 2, 2), seed=seed)
    return LabelBatch(images, labels)


def dense_batch(count=8, seed=0, grid=(2, 2)):
    """Class per pixel; one corner is not valid, and holds nonsense."""
    cells = torch.randint(NUM_CLASSES, (count, *grid), generator=generator(seed))
    images, classes = paint(cells, seed=seed)
    valid = torch.ones_like(classes, dtype=torch.bool)
    valid[0, :8, :8] = False
    return DenseBatch(images, torch.where(valid, classes, -1), valid)


def depth_batch(count=8, seed=0, grid=(2, 2)):
    """Depth is 1 + class metres; the invalid corner holds what must not be read."""
    images, classes, valid = dense_batch(count, seed, grid)
    return DenseBatch(images, torch.where(valid, 1.0 + classes, torch.nan), valid)


@dataclass
class Case:
    """A task, its data, and what is known about it."""

    config: object
    make_batch: object
    perfect: dict
    steps: int = 60
    is_dense: bool = False


PERFECT_DEPTH = {"rmse": 0.0, "rel": 0.0, "log_rmse": 0.0}
PERFECT_DEPTH |= {f"delta_{n}": 1.0 for n in (1, 2, 3)}
PERFECT_CLASSES = {"accuracy": 1.0, "mean_accuracy": 1.0, "miou": 1.0}
CASES = {
    "classifier, mean": Case(
        ClassifierConfig(encoder=ENCODER, num_classes=NUM_CLASSES),
        label_batch, {"accuracy": 1.0},
    ),
    "classifier, class token": Case(
        ClassifierConfig(encoder=ENCODER, num_classes=NUM_CLASSES, pool="class_token"),
        label_batch, {"accuracy": 1.0},
    ),
    "segmentation": Case(
        SegmentationTaskConfig(encoder=ENCODER, num_classes=NUM_CLASSES, channels=32),
        dense_batch, PERFECT_CLASSES, steps=150, is_dense=True,
    ),
    "segmentation, UPerNet": Case(
        SegmentationTaskConfig(
            encoder=ENCODER, num_classes=NUM_CLASSES, head="upernet", channels=16
        ),
        dense_batch, PERFECT_CLASSES, is_dense=True,
    ),
    "segmentation, Semantic FPN": Case(
        SegmentationTaskConfig(
            encoder=ENCODER, num_classes=NUM_CLASSES, head="semantic_fpn", channels=32
        ),
        dense_batch, PERFECT_CLASSES, is_dense=True,
    ),
    "depth": Case(
        DepthTaskConfig(encoder=ENCODER, channels=32),
        depth_batch, PERFECT_DEPTH, steps=250, is_dense=True,
    ),
    "classifier, hybrid": Case(
        ClassifierConfig(encoder=HYBRID, num_classes=NUM_CLASSES),
        label_batch, {"accuracy": 1.0},
    ),
    "depth, hybrid": Case(
        DepthTaskConfig(encoder=HYBRID, channels=32),
        depth_batch, PERFECT_DEPTH, steps=250, is_dense=True,
    ),
    "depth, DPT": Case(
        DPTDepthTaskConfig(encoder=DEEP, scale_widths=(8, 8, 16, 16), head_width=16),
        depth_batch, PERFECT_DEPTH, steps=100, is_dense=True,
    ),
}  # fmt: skip
DENSE = [name for name, case in CASES.items() if case.is_dense]


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request):
    torch.manual_seed(0)
    return CASES[request.param]


@pytest.fixture
def task(case):
    return case.config.build()


def train(task, batch, steps, rate=3e-3):
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=rate)
    task.train()
    for step in range(steps):
        optimizer.zero_grad()
        task(task.sample_views(batch, generator(step))).loss.backward()
        optimizer.step()


def measure(task, batch):
    task.eval()
    metrics = task.metrics()
    with torch.no_grad():
        update_metrics(metrics, task(task.sample_views(batch, generator())))
    return as_floats(metrics)


def test_output_has_the_promised_parts(case, task):
    output = task(task.sample_views(case.make_batch(), generator()))
    assert isinstance(output, Output)
    assert output.loss.shape == () and output.loss.isfinite() and output.loss.requires_grad
    assert output.terms and all(not term.requires_grad for term in output.terms.values())
    assert output.prediction.shape == output.target.shape
    assert output.prediction.dtype == output.target.dtype
    assert not output.prediction.requires_grad
    if output.mask is not None:
        assert output.mask.shape == output.target.shape and output.mask.dtype == torch.bool


def test_forward_is_pure(case, task):
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    views = task.sample_views(case.make_batch(), generator())
    first, second = task(views), task(views)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.prediction, second.prediction)
    for name, tensor in task.state_dict().items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue  # statistics of batch normalisation
        assert torch.equal(tensor, before[name]), name


def test_views_depend_on_the_generator_alone(case, task):
    batch = case.make_batch()
    first, second = (task.sample_views(batch, generator(7)) for _ in range(2))
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_gradient_goes_where_it_should(case, task):
    output = task(task.sample_views(case.make_batch(), generator()))
    output.loss.backward()
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    assert sum(p.grad.abs().sum() for p in task.head.parameters()) > 0
    with torch.no_grad():  # classifier heads start so near zero that little passes them
        for parameter in task.head.parameters():
            parameter.normal_(std=0.5)
    task.zero_grad()
    task(task.sample_views(case.make_batch(), generator())).loss.backward()
    trained = [(n, p) for n, p in task.encoder.named_parameters() if p.requires_grad]
    silent = {n for n, p in trained if p.grad.abs().sum() == 0}
    assert not silent, f"no gradient for {silent}"


def test_a_handful_of_images_can_be_learnt_by_heart(case, task):
    batch = case.make_batch()
    before = measure(task, batch)
    train(task, batch, case.steps)
    after = measure(task, batch)
    assert set(after) == set(case.perfect)
    for name, perfect in case.perfect.items():
        error = abs(after[name] - perfect)
        assert error < (0.35 if name == "rmse" else 0.12), (before, after)  # less than one image
        assert error < abs(before[name] - perfect), (before, after)


def test_a_perfect_prediction_has_perfect_metrics(case, task):
    output = task(task.sample_views(case.make_batch(), generator()))
    metrics = task.metrics()
    update_metrics(metrics, output._replace(prediction=output.target))
    assert as_floats(metrics) == pytest.approx(case.perfect, abs=1e-6)


def test_one_image_and_other_shapes_work(case, task):
    task.eval()
    output = task(task.sample_views(case.make_batch(count=1, seed=3), generator()))
    assert output.loss.isfinite() or not output.mask.any()
    if case.is_dense:
        batch = case.make_batch(count=2, grid=(2, 3))
        output = task(task.sample_views(batch, generator()))
        assert output.loss.isfinite() and output.prediction.shape == output.target.shape


def test_bfloat16_autocast_gives_a_float32_loss_nearby(case, task):
    views = task.eval().sample_views(case.make_batch(), generator())
    exact = task(views).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = task(views).loss
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_labels_outside_the_classes_are_refused(case, task):
    if "delta_1" in case.perfect:
        batch = depth_batch()
        batch.target[0, 10, 10] = 0.0
        with pytest.raises(ValueError, match="above 0 metres, got 0.0"):
            task.sample_views(batch, generator())
        return
    for wrong in (-1, NUM_CLASSES):
        batch = case.make_batch()
        values = batch.labels if isinstance(batch, LabelBatch) else batch.target
        values.view(-1)[-1] = wrong
        with pytest.raises(ValueError, match=f"{wrong}.*{NUM_CLASSES} classes"):
            task.sample_views(batch, generator())


@pytest.mark.parametrize("case", DENSE, indirect=True)
def test_dense_tasks_refuse_what_they_cannot_use(case, task):
    images, target, valid = case.make_batch()
    with pytest.raises(ValueError, match=r"target has shape \(8, 16, 15\).*\(8, 16, 16\)"):
        task.sample_views(DenseBatch(images, target[:, :, 1:], valid), generator())
    with pytest.raises(ValueError, match="valid has shape"):
        task.sample_views(DenseBatch(images, target, valid[:4]), generator())
    nothing = DenseBatch(images, target, valid & False)
    if isinstance(task, SegmentationTask):  # a crop may show nothing that has a class
        loss = task(task.sample_views(nothing, generator())).loss
        loss.backward()
        assert loss == 0 and not any(p.grad.any() for p in task.parameters() if p.grad is not None)
        return
    with pytest.raises(ValueError, match="none of the 2048 pixels of these 8 images is valid"):
        task.sample_views(nothing, generator())


@pytest.mark.parametrize(
    "config_class",
    [ClassifierConfig, SegmentationTaskConfig],
)
def test_one_class_is_refused(config_class):
    with pytest.raises(ValueError, match="num_classes.* 1"):
        config_class(encoder=ENCODER, num_classes=1)


def test_a_missing_class_token_is_refused():
    encoder = ViTConfig(
        width=16, depth=1, heads=2, patch_size=8, image_size=16, class_token=False
    )  # fmt: skip
    with pytest.raises(ValueError, match="use pool='mean'"):
        ClassifierConfig(encoder=encoder, num_classes=3, pool="class_token")
    ClassifierConfig(encoder=encoder, num_classes=3, pool="mean").build()


def test_two_uneven_micro_batches_weigh_as_much_as_the_whole(case, task, monkeypatch):
    """3 images with few valid pixels and 5 with all of them: the same gradient as all 8."""
    # as official: the threshold of the reverse Huber loss is the batch's, so it is fixed here
    monkeypatch.setattr("mimlib.tasks.depth.BERHU_SHARE", 0.0)
    batch = case.make_batch()
    if case.is_dense:
        batch.valid[:3] &= torch.rand(batch.valid[:3].shape, generator=generator(5)) < 0.1
    task = frozen_statistics(task)
    views = task.sample_views(batch, generator())
    whole, parts = (gradient_of(task, parts_of(views, *at)) for at in ((0, 8), (0, 3, 8)))
    assert (parts - whole).norm() <= 1e-6 * whole.norm()
