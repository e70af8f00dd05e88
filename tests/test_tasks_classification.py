"""Fine-tuned classification: parity with the official network, mixing, what is trained."""

import pytest
import torch
from torch.nn import functional

from mimlib.data.batches import LabelBatch
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.tasks.classification import (
    ClassifierConfig,
    ClassifierViews,
    mixup_cutmix,
    random_box,
    sample_beta,
)

ENCODER = ViTConfig(
    width=16, depth=2, heads=2, patch_size=8, image_size=16, learned_positions=True
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("pool", ["mean", "class_token"])
def test_the_loss_is_the_cross_entropy_of_the_logits(pool):
    task = ClassifierConfig(encoder=ENCODER, num_classes=3, pool=pool).build().eval()
    images, labels = torch.randn(2, 3, 16, 16, generator=generator()), torch.tensor([1, 2])
    shares = functional.one_hot(labels, 3).float()
    expected = functional.cross_entropy(task.head(task.features(images)), labels)
    torch.testing.assert_close(task(ClassifierViews(images, shares)).loss, expected)


def test_mean_pooling_knows_neither_class_token_nor_final_norm():
    task = ClassifierConfig(encoder=ENCODER, num_classes=3).build()
    images = torch.randn(2, 3, 16, 16, generator=generator())
    before = task.features(images)
    with torch.no_grad():
        task.encoder.norm.weight.normal_()
        task.encoder.norm.bias.normal_()
    assert torch.equal(task.features(images), before)
    trained = {n for n, p in task.named_parameters() if p.requires_grad}
    assert not any(name.startswith("encoder.norm") for name in trained)
    assert {"encoder.pos_embed", "fc_norm.weight", "head.weight"} <= trained


def test_every_trained_parameter_gets_a_gradient():
    """Distributed training waits for all of them."""
    for pool in ("mean", "class_token"):
        task = ClassifierConfig(encoder=ENCODER, num_classes=3, pool=pool).build()
        images = torch.randint(256, (2, 3, 16, 16), generator=generator(), dtype=torch.uint8)
        batch = LabelBatch(images, torch.tensor([0, 2]))
        task(task.sample_views(batch, generator())).loss.backward()
        assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


def test_the_head_starts_near_zero():
    task = ClassifierConfig(encoder=ENCODER, num_classes=50).build()
    assert 1e-5 < float(task.head.weight.detach().std()) < 3e-5
    assert not task.head.bias.any()


def test_label_smoothing_in_training_only():
    torch.manual_seed(0)
    config = ClassifierConfig(encoder=ENCODER, num_classes=3, label_smoothing=0.3)
    task = config.build()
    torch.nn.init.normal_(task.head.weight)
    images = torch.randint(256, (2, 3, 16, 16), generator=generator(), dtype=torch.uint8)
    views = task.sample_views(LabelBatch(images, torch.tensor([0, 2])), generator())
    logs = functional.log_softmax(task.head(task.features(views.images)), dim=1)
    smooth = 0.7 * views.shares + 0.3 / 3
    torch.testing.assert_close(task(views).loss, -(smooth * logs).sum(1).mean())
    task.eval()
    torch.testing.assert_close(task(views).loss, -(views.shares * logs).sum(1).mean())


def flat_images(count=4, side=32):
    """Image i is i everywhere, so a mixed pixel says what went into it."""
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def test_mixup_blends_pixels_and_labels_alike():
    images, shares = flat_images(), torch.eye(4)
    kept = []
    for seed in range(20):
        mixed, parts = mixup_cutmix(images, shares, 0.8, 0.0, generator(seed))
        keep = float(parts[0, 0])
        kept.append(keep)
        torch.testing.assert_close(mixed, keep * images + (1 - keep) * images.flip(0))
        torch.testing.assert_close(parts, keep * torch.eye(4) + (1 - keep) * torch.eye(4).flip(0))
    assert min(kept) < 0.2 and max(kept) > 0.8


def test_cutmix_swaps_one_box_and_its_share():
    images, shares = flat_images(), torch.eye(4)
    for seed in range(20):
        mixed, parts = mixup_cutmix(images, shares, 0.0, 1.0, generator(seed))
        own = mixed == images
        assert ((mixed == images.flip(0)) | own).all(), "pixels are taken, not blended"
        assert torch.equal(own[0], own[3])
        torch.testing.assert_close(parts[0, 0], own[0].float().mean())
        rows, columns = (~own[0, 0]).any(1), (~own[0, 0]).any(0)
        assert (~own[0, 0]).sum() == rows.sum() * columns.sum(), "not one full box"


def test_both_share_the_batches_and_each_can_be_off():
    images, shares = flat_images(), torch.eye(4)
    blended = 0
    for seed in range(60):
        mixed, parts = mixup_cutmix(images, shares, 0.8, 1.0, generator(seed))
        torch.testing.assert_close(parts.sum(1), torch.ones(4))
        blended += int(not torch.equal(mixed, mixed.round()))
    assert 15 < blended < 45
    batch = LabelBatch(
        torch.randint(256, (4, 3, 16, 16), generator=generator(), dtype=torch.uint8),
        torch.tensor([0, 1, 2, 0]),
    )
    task = ClassifierConfig(encoder=ENCODER, num_classes=3, mixup=0.8, cutmix=1.0).build()
    first, second = (task.sample_views(batch, generator(s)) for s in (1, 1))
    assert torch.equal(first.images, second.images) and torch.equal(first.shares, second.shares)
    assert not torch.equal(task.sample_views(batch, generator(2)).shares, first.shares)
    plain = task.eval().sample_views(batch, generator(1))
    assert torch.equal(plain.images, normalize(batch.images))
    assert torch.equal(plain.shares.argmax(1), batch.labels)


def test_box_area_is_what_was_asked_where_it_fits():
    for kept in (0.5, 0.75, 1.0):
        areas = [
            float(random_box((64, 64), torch.tensor(kept), generator(seed)).float().mean())
            for seed in range(100)
        ]
        assert max(areas) == pytest.approx(1 - kept, abs=0.04)
        assert all(area <= 1 - kept + 0.02 for area in areas)


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0])
def test_beta_has_the_right_mean_and_variance(alpha):
    draw = generator(0)
    values = torch.stack([sample_beta(alpha, draw) for _ in range(4000)])
    assert values.min() >= 0 and values.max() <= 1
    assert float(values.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(values.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_recipe_numbers_outside_their_range_are_refused():
    for name, value in (("mixup", 1.5), ("cutmix", -0.1), ("label_smoothing", 2.0)):
        with pytest.raises(ValueError, match=rf"{name} is {value}; expected 0 <= {name} <= 1"):
            ClassifierConfig(encoder=ENCODER, num_classes=3, **{name: value})
