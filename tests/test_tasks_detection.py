"""Detection: pure, learns what it should and not what it should not, masks lie where they are."""

import pytest
import torch
from micro_batches import gradient_of, parts_of

from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.masks import pack_masks
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.protocol import Output
from mimlib.tasks.detection import Detections, DetectionTaskConfig, postprocess
from mimlib.tasks.heads.instance_masks import crop_masks, mask_loss, paste_masks
from mimlib.tasks.heads.mask_rcnn import choose
from mimlib.training.optimizer import parameter_groups

NUM_CLASSES, SIZE = 3, 32
VIT = ViTConfig(width=16, depth=2, heads=2, patch_size=8, image_size=SIZE, class_token=False)
CONV = ConvViTConfig(
    widths=(8, 8, 16), depths=(1, 1, 1), heads=2, entries=(2, 2, 2), image_size=SIZE
)
SMALL = {
    "num_classes": NUM_CLASSES, "anchor_sizes": (4, 8, 16, 32, 64), "width": 16, "box_convs": 1,
    "box_width": 32, "sampled_anchors": 32, "sampled_boxes": 16, "candidates": 50, "proposals": 20,
}  # fmt: skip
CONFIGS = {
    "ViT": DetectionTaskConfig(encoder=VIT, **SMALL),
    "ViT, windows": DetectionTaskConfig(encoder=VIT, window=2, global_blocks=(1,), **SMALL),
    "ConvViT": DetectionTaskConfig(encoder=CONV, **SMALL),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(*images, crowd=()):
    """Images with rectangles (label, left, top, right, bottom) in the colours of their classes."""
    count, most = len(images), max(len(rectangles) for rectangles in images)
    batch = DetectionBatch(
        images=torch.full((count, 3, SIZE, SIZE), 40, dtype=torch.uint8),
        boxes=torch.zeros(count, most, 4),
        labels=torch.full((count, most), -1),
        masks=torch.zeros(count, most, SIZE, SIZE // 8, dtype=torch.uint8),
        crowd=torch.zeros(count, most, dtype=torch.bool),
        sizes=torch.full((count, 2), SIZE),
        image_ids=torch.arange(count),
    )
    for i, rectangles in enumerate(images):
        for row, (label, left, top, right, bottom) in enumerate(rectangles):
            batch.images[i, label, top:bottom, left:right] = 220
            batch.boxes[i, row] = torch.tensor([left, top, right, bottom])
            batch.labels[i, row] = label
            mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
            mask[top:bottom, left:right] = True
            batch.masks[i, row] = pack_masks(mask)
            batch.crowd[i, row] = (i, row) in crowd
    return batch


FIRST = [(0, 2, 3, 14, 13), (1, 18, 20, 28, 30)]
SECOND = [(2, 10, 8, 26, 22)]


@pytest.fixture(params=CONFIGS, ids=list(CONFIGS))
def task(request):
    torch.manual_seed(0)
    return CONFIGS[request.param].build()


@pytest.fixture
def vit_task():
    torch.manual_seed(0)
    return CONFIGS["ViT"].build()


def views_of(task, batch, seed=0):
    return task.sample_views(batch, generator(seed))


def test_output_has_the_five_losses(task):
    output = task(views_of(task, batch_of(FIRST, SECOND)))
    assert isinstance(output, Output) and output.loss.shape == () and output.loss.requires_grad
    assert list(output.terms) == ["objectness", "proposal", "class", "box", "mask"]
    assert not any(term.requires_grad for term in output.terms.values())
    assert sum(output.terms.values()) == pytest.approx(float(output.loss.detach()))


@pytest.mark.parametrize("training", [True, False])
def test_forward_is_pure_and_the_same_in_both_modes(task, training):
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    views = views_of(task.train(training), batch_of(FIRST, SECOND))
    torch.manual_seed(1)
    first = task(views).loss
    torch.manual_seed(2)
    task.detect(torch.zeros(1, 3, SIZE, SIZE))
    second = task(views).loss
    assert torch.equal(first, second), "no draw of the global generator, no state"
    assert torch.equal(first, task.train(not training)(views).loss)
    assert all(torch.equal(t, before[n]) for n, t in task.state_dict().items())


def test_views_depend_on_the_generator_alone_and_decide_what_is_sampled(vit_task):
    batch = batch_of(FIRST, SECOND)
    one, again, other = (views_of(vit_task, batch, seed) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert torch.equal(one.images, normalize(batch.images))
    assert not torch.equal(vit_task(one).loss, vit_task(other).loss)


def test_two_uneven_micro_batches_weigh_as_much_as_the_whole(task):
    """Every image counts the same; here all are alike, for what is sampled of one has a mean."""
    views = views_of(task, batch_of(FIRST, FIRST, FIRST, FIRST))
    keys = {n: getattr(views, n)[:1].expand(4, -1) for n in ("anchor_keys", "proposal_keys")}
    views = views._replace(**keys)
    whole, parts = (gradient_of(task, parts_of(views, *at)) for at in ((0, 4), (0, 1, 4)))
    assert (parts - whole).norm() <= 1e-6 * whole.norm()


def test_every_parameter_learns(task):
    task(views_of(task, batch_of(FIRST, SECOND))).loss.backward()
    fixed = {n for n, p in task.named_parameters() if not p.requires_grad}
    assert fixed == {"encoder.norm.weight", "encoder.norm.bias"}
    lazy = [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None]
    assert not lazy
    assert parameter_groups(task, layer_decay=0.8)


def test_images_without_objects_teach_that_there_is_nothing(vit_task):
    views = views_of(vit_task, batch_of([], []))
    assert views.boxes.shape == (2, 0, 4)
    output = vit_task(views)
    output.loss.backward()
    assert output.loss.isfinite() and output.terms["objectness"] > 0
    assert all(output.terms[name] == 0 for name in ("proposal", "box", "mask"))
    assert not [n for n, p in vit_task.named_parameters() if p.requires_grad and p.grad is None]
    mixed = vit_task(views_of(vit_task, batch_of(FIRST, [])))
    assert mixed.loss.isfinite() and mixed.terms["mask"] > 0


def test_crowds_and_flat_boxes_are_not_learned(vit_task):
    plain = views_of(vit_task, batch_of(FIRST, SECOND))
    crowded = views_of(vit_task, batch_of([*FIRST, (2, 4, 22, 12, 30)], SECOND, crowd={(0, 2)}))
    assert crowded.labels.tolist() == [[0, 1, -1], [2, -1, -1]]
    crowded = crowded._replace(images=plain.images)
    keys = plain.proposal_keys.shape[1]
    crowded = crowded._replace(proposal_keys=torch.rand(2, keys + 1, generator=generator(1)))
    crowded.proposal_keys[:, :keys] = plain.proposal_keys
    crowded = crowded._replace(anchor_keys=plain.anchor_keys)
    assert torch.equal(vit_task(plain).loss, vit_task(crowded).loss)
    flat = batch_of(FIRST, SECOND)
    flat.boxes[0, 1, 2] = flat.boxes[0, 1, 0]
    assert views_of(vit_task, flat).labels[0].tolist() == [0, -1]


@pytest.mark.parametrize("name,cut,message", [
    ("masks", (..., slice(3)), r"masks has shape \(2, 2, 32, 3\).*\(2, 2, 32, 4\)"),
    ("boxes", (slice(1),), r"boxes has shape \(1, 2, 4\)"),
    ("crowd", (..., slice(1)), "crowd has shape"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(vit_task, name, cut, message):
    batch = batch_of(FIRST, SECOND)
    with pytest.raises(ValueError, match=message):
        views_of(vit_task, batch._replace(**{name: getattr(batch, name)[cut]}))


def test_unknown_labels_are_refused(vit_task):
    batch = batch_of(FIRST, SECOND)
    batch.labels[0, 0] = NUM_CLASSES
    with pytest.raises(ValueError, match="class ids run from 1 to 3, but this task has 3 classes"):
        views_of(vit_task, batch)


def test_bfloat16_autocast_gives_a_float32_loss_nearby(task):
    views = views_of(task, batch_of(FIRST, SECOND))
    exact = float(task(views).loss.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = task(views).loss
        found = task.eval().detect(torch.zeros(1, 3, SIZE, SIZE))
    assert rounded.dtype == torch.float32 and float(rounded.detach()) == pytest.approx(exact, 0.05)
    assert all(field.dtype in (torch.float32, torch.int64) for field in found[0])


def test_detections_are_sorted_and_inside_the_image(task):
    found = task.eval().detect(batch_of(FIRST, SECOND).images)
    assert len(found) == 2
    for each in found:
        assert isinstance(each, Detections)
        assert each.boxes.shape == (len(each.labels), 4) and each.masks.shape[1:] == (28, 28)
        assert (each.scores.diff() <= 0).all() and (each.labels < NUM_CLASSES).all()
        assert (each.boxes >= 0).all() and (each.boxes <= SIZE).all()
        assert ((each.masks >= 0) & (each.masks <= 1)).all()


def test_learned_from_are_the_smallest_keys_of_both_kinds():
    labels = torch.tensor([1.0, 0, -1, 2, 0, 0, 1, -1, 0])
    keys = torch.tensor([0.9, 0.1, 0.0, 0.2, 0.3, 0.8, 0.5, 0.1, 0.2])
    assert choose(labels, keys, 5, 0.4).nonzero()[:, 0].tolist() == [1, 3, 4, 6, 8]
    negatives = choose(torch.where(labels > 0, -1, labels), keys, 5, 0.4)
    assert negatives.nonzero()[:, 0].tolist() == [1, 4, 5, 8], "all there are"
    keys = torch.rand(500, generator=generator())
    assert choose(torch.ones(300), keys, 5, 0.4).sum() == 2


def test_a_pass_draws_nothing_and_leaves_nothing_behind(task):
    views = task.sample_views(batch_of(FIRST, SECOND), generator())
    kept = [{**vars(part)} for part in task.head.modules()]
    before = torch.get_rng_state()
    task(views)
    assert torch.equal(torch.get_rng_state(), before)
    assert [{**vars(part)}.keys() for part in task.head.modules()] == [k.keys() for k in kept]


def disc(height=40, width=50, centre=(17.3, 24.6), radius=9.0):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (rows + 0.5 - centre[0]) ** 2 + (columns + 0.5 - centre[1]) ** 2 < radius**2


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.9])
def test_masks_come_back_where_they_were_cut(shift):
    mask = disc()
    boxes = torch.tensor([[14.0, 6, 36, 29], [10, 3, 40, 34]]) + shift
    cut = crop_masks(mask[None], boxes, torch.zeros(2, dtype=torch.int64), 28)
    pasted = paste_masks(cut, boxes, (40, 50))
    for each in pasted:
        assert (each & mask).sum() / (each | mask).sum() > 0.97


def test_masks_are_pasted_by_the_formula():
    """A mask whose left half is certain covers the left half of its box, to a pixel's centre."""
    mask = torch.zeros(1, 28, 28)
    mask[..., :14] = 1.0
    for left, right, expected in ((10, 20, range(10, 15)), (10.6, 20.6, range(11, 16))):
        pasted = paste_masks(mask, torch.tensor([[left, 4, right, 9]]), (12, 30))
        assert pasted[0].any(0).nonzero()[:, 0].tolist() == list(expected)
        assert pasted[0].any(1).nonzero()[:, 0].tolist() == list(range(4, 9))
    outside = torch.tensor(
        [[-10.0, -4, 10, 6], [25, 8, 45, 20], [50, 50, 60, 60], [5, 5, 5, 9], [-9, -9, -3, -3]]
    )
    pasted = paste_masks(torch.ones(5, 28, 28), outside, (12, 30))
    assert pasted.sum(dim=(1, 2)).tolist() == [60, 20, 0, 0, 0]


def test_the_mask_loss_is_that_of_the_true_class():
    logits, targets = torch.randn(2, 3, 4, 4, generator=generator()), torch.rand(2, 4, 4)
    labels = torch.tensor([2, 0])
    p = logits[[0, 1], labels].sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(mask_loss(logits, labels, targets), expected)
    assert mask_loss(logits[:0], labels[:0], targets[:0]) == 0


def test_detections_are_laid_out_on_an_image_of_another_shape():
    found = Detections(
        boxes=torch.tensor([[8.0, 4, 24, 12], [0, 0, 40, 30]]),
        labels=torch.tensor([0, 1]),
        scores=torch.tensor([0.9, 0.8]),
        masks=torch.ones(2, 28, 28),
    )
    boxes, _, _, masks = postprocess(found, (60, 128), (15, 32))
    assert boxes.tolist() == [[32, 16, 96, 48], [0, 0, 128, 60]], "clipped to the image"
    assert masks.shape == (2, 60, 128) and masks[0, 16:48, 32:96].all()
    assert masks[0].sum() == 64 * 32


def test_a_mask_fills_its_box_also_beyond_the_image():
    """Of a box of 20 rows the upper half is the object; the image ends after 10 or 4 of them."""
    upper = torch.zeros(28, 28)
    upper[:14] = 1.0
    found = Detections(
        boxes=torch.tensor([[8.0, 40, 24, 60], [8.0, 46, 24, 66], [0.0, 52, 9, 60]]),
        labels=torch.arange(3),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        masks=upper.repeat(3, 1, 1),
    )
    located = postprocess(found, (50, 32))
    assert located.labels.tolist() == [0, 1], "what lies in the padding alone is left out"
    assert located.boxes.tolist() == [[8, 40, 24, 50], [8, 46, 24, 50]]
    rows = [mask.any(dim=1).nonzero().flatten().tolist() for mask in located.masks]
    assert rows == [list(range(40, 50)), list(range(46, 50))]


@pytest.mark.parametrize("wrong", [
    {"num_classes": 0}, {"global_blocks": (0,)}, {"width": 0}, {"proposals": 0},
    {"anchor_sizes": (8, 4, 16, 32, 64)},
    {"encoder": ViTConfig(width=16, depth=1, heads=2, patch_size=12, image_size=48)},
    {"encoder": ViTConfig(width=16, depth=1, heads=2, patch_size=8, image_size=24)},
])  # fmt: skip
def test_impossible_detectors_are_refused(wrong):
    with pytest.raises(ValueError, match="must be|expected 0 <|make no pyramid"):
        DetectionTaskConfig(**{"encoder": VIT, **SMALL, **wrong})


def test_rectangles_can_be_learnt_by_heart():
    """Every loss falls to a fraction, and what is found is what is there."""
    torch.manual_seed(0)
    task = CONFIGS["ConvViT"].build()
    batch = batch_of(FIRST, SECOND)
    optimizer, steps = torch.optim.AdamW(task.parameters(), lr=3e-3, weight_decay=0.0), 150
    # Boxes come to rest (within a pixel, for six starts) only if the rate falls.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    first = None
    for step in range(steps):
        output = task(views_of(task, batch, step))
        first = first or {name: float(term) for name, term in output.terms.items()}
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        schedule.step()
    last = {name: float(term) for name, term in output.terms.items()}
    assert sum(last.values()) < 0.25 * sum(first.values()), (first, last)
    found = task.eval().detect(batch.images)
    for each, boxes, labels in zip(found, batch.boxes, batch.labels):
        count = int((labels >= 0).sum())
        assert sorted(each.labels[:count].tolist()) == labels[:count].tolist()
        for box, label in zip(boxes[:count], labels):
            (nearest,) = (each.boxes[:count][each.labels[:count] == label] - box).abs().amax(1)
            assert nearest < 2, "pixels"
