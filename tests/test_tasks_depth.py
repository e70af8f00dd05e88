"""Depth: the loss by hand, the head at any size, what may never be read."""

import math

import pytest
import torch

from mimlib.data.batches import DenseBatch
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.tasks.depth import (
    DepthTaskConfig,
    DPTDepthTaskConfig,
    reverse_huber,
)
from mimlib.tasks.heads.linear import UpsamplingHead

ENCODER = ViTConfig(width=16, depth=2, heads=2, patch_size=8, image_size=16)


DEEP = ViTConfig(width=16, depth=4, heads=2, patch_size=8, image_size=16)
SMALL = {"scale_widths": (4, 6, 8, 10), "head_width": 8}


@pytest.fixture
def task():
    torch.manual_seed(0)
    return DepthTaskConfig(encoder=ENCODER, channels=16).build()


@pytest.fixture
def dpt():
    torch.manual_seed(0)
    return DPTDepthTaskConfig(encoder=DEEP, **SMALL).build()


def views(count=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=draw)
    depth = torch.rand(count, 16, 16, generator=draw) * 5 + 0.5
    valid = torch.rand(count, 16, 16, generator=draw) < 0.4
    return DenseBatch(images, depth, valid)


def test_loss_is_the_mean_log_ratio_over_valid_pixels(task):
    given = views()
    output = task(given)
    total, count = 0.0, 0
    for b, row, column in given.valid.nonzero().tolist():
        ratio = float(output.prediction[b, row, column]) / float(given.target[b, row, column])
        total, count = total + abs(math.log(ratio)), count + 1
    assert float(output.loss.detach()) == pytest.approx(total / count, rel=1e-4)
    torch.testing.assert_close(output.prediction, task.predict(given.images).exp().detach())


@pytest.mark.parametrize("name", ["task", "dpt"])
def test_what_is_stored_where_truth_is_missing_is_never_read(name, request):
    given, task = views(), request.getfixturevalue(name)
    results = []
    for filler in (1.0, 0.0, -3.0, math.nan, math.inf):
        depth = torch.where(given.valid, given.target, filler)
        task.zero_grad()
        loss = task(given._replace(target=depth)).loss
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in task.parameters()]))
    for loss, gradients in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert all(torch.equal(a, b) for a, b in zip(gradients, results[0][1]))
        assert all(g.isfinite().all() for g in gradients)


def test_the_reverse_huber_loss_by_hand():
    """Errors 10, 1, 3 and an unknown one: the threshold is 2."""
    target = torch.tensor([[[0.0, 5.0, -1.0, 0.0]]])
    prediction = torch.tensor([[[10.0, 4.0, 2.0, 99.0]]], requires_grad=True)
    valid = torch.tensor([[[True, True, True, False]]])
    loss = reverse_huber(prediction, target, valid)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((104 / 4 + 1 + 13 / 4) / 3)
    assert prediction.grad.flatten().tolist() == pytest.approx([5 / 3, -1 / 3, 1.5 / 3, 0])
    assert float(reverse_huber(target, target, valid)) == pytest.approx(0, abs=1e-5)
    assert float(reverse_huber(prediction.detach(), target, valid & False)) == 0


def test_dpt_predicts_standardised_metres(dpt):
    given = views()
    output = dpt(given)
    raw = dpt.predict(given.images)
    torch.testing.assert_close(output.prediction, 2.0707764 + 0.7775723 * raw.detach())
    target = (given.target - 2.0707764) / 0.7775723
    torch.testing.assert_close(output.loss, reverse_huber(raw, target, given.valid))


def test_dpt_reads_four_blocks_and_the_last_one_after_the_norm(dpt):
    with torch.device("meta"):
        large = DPTDepthTaskConfig(encoder=vit_config("B", 16, 256, class_token=False)).build()
    assert large.hooks == (2, 5, 8, 11)
    assert dpt.hooks == (0, 1, 2, 3)
    images, seen = views().images, []
    dpt.head.register_forward_pre_hook(lambda head, given: seen.extend(given[0]))
    dpt.predict(images)
    features = dpt.encoder(images, levels=(0, 1, 2, 3))
    for ours, level in zip(seen[:3], features.levels):
        torch.testing.assert_close(ours, level)
    last = features.levels[3].flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen[3].flatten(2).transpose(1, 2), dpt.encoder.norm(last))


def test_an_encoder_too_shallow_for_dpt_is_refused():
    with pytest.raises(ValueError, match="too few for a DPT head"):
        DPTDepthTaskConfig(encoder=ENCODER, **SMALL).build()


def test_an_untrained_head_predicts_about_the_typical_depth():
    torch.manual_seed(0)
    config = DepthTaskConfig(encoder=ENCODER, typical_depth=7.0)
    prediction = config.build()(views()).prediction
    assert 3.5 < float(prediction.mean()) < 14


def test_depth_has_one_value_per_pixel_in_its_place(task):
    """A mark at the left of the map shows at the left of the prediction, at any image shape."""
    head = task.head
    feature_map = torch.zeros(1, 16, 3, 5)
    base = head(feature_map, (24, 40))
    assert base.shape == (1, 1, 24, 40)
    feature_map[0, :, 2, 0] = 5.0  # bottom left
    change = (head(feature_map, (24, 40)) - base).abs()[0, 0]
    assert change[16:, :8].mean() > 0
    assert not change[:, 32:].any() and change[16:, :8].mean() > change[:8].mean()


@pytest.mark.parametrize(
    ("stride", "num_stages"), [(1, 0), (2, 0), (4, 1), (8, 2), (14, 3), (16, 3), (32, 4)]
)
def test_the_head_ends_at_two_pixels_a_cell(stride, num_stages):
    head = UpsamplingHead(width=8, stride=stride, channels=16)
    assert len(head.stages) == num_stages
    assert stride / 2**num_stages <= 2
    assert head(torch.zeros(1, 8, 2, 3), (2 * stride, 3 * stride)).shape == (
        *(1, 1, 2 * stride, 3 * stride),
    )


def test_configs_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="channels is 0; expected 0 < channels"):
        DepthTaskConfig(encoder=ENCODER, channels=0)
    with pytest.raises(ValueError, match="typical_depth is -1.0; expected 0 <"):
        DepthTaskConfig(encoder=ENCODER, typical_depth=-1.0)
    with pytest.raises(ValueError, match="deviation is 0.0; expected 0 <"):
        DPTDepthTaskConfig(encoder=DEEP, deviation=0.0)


def test_an_image_side_that_is_no_multiple_of_the_patch_is_refused(task):
    images = torch.zeros(1, 3, 20, 16, dtype=torch.uint8)
    batch = DenseBatch(images, torch.ones(1, 20, 16), torch.ones(1, 20, 16, dtype=torch.bool))
    with pytest.raises(ValueError, match="image side 20 is not a multiple of the patch side 8"):
        task(task.sample_views(batch, torch.Generator()))
