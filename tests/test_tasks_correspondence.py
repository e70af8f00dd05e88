"""Stereo and flow on an encoder and its pair decoder: hooks, tiles, learning, what is refused."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from micro_batches import gradient_of, parts_of

from mimlib.data.batches import DensePairBatch
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.pairs.world import MemoryPairs
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.evaluation.validation import Validation, ValidationConfig
from mimlib.metrics.dense import as_floats, update_metrics
from mimlib.tasks.correspondence import MAX_FLOW, FlowTaskConfig, StereoTaskConfig
from mimlib.tasks.heads.linear import patch_map

SIZE = 32
ENCODER = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=SIZE, class_token=False)
SMALL = {
    "encoder": ENCODER,
    "decoder": PairDecoderConfig(width=32, depth=3, heads=2),
    "window": (SIZE, SIZE),
    "scale_widths": (8, 8, 16, 16),
    "head_width": 16,
}
CONFIGS = {
    "flow": FlowTaskConfig(**SMALL),
    "flow, rotary": FlowTaskConfig(**{**SMALL, "encoder": replace(ENCODER, rotary=True)}),
    "flow, CatBlock": FlowTaskConfig(
        **{**SMALL, "decoder": PairDecoderConfig(width=32, depth=3, heads=2, kind="cat")}
    ),
    "stereo": StereoTaskConfig(**SMALL),
    "stereo, unbounded": StereoTaskConfig(**SMALL, scale="unbounded"),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(channels, count=4, height=SIZE, width=SIZE, seed=0):
    """Image 1 is image 2 moved by a shift of its own; a corner is unknown."""
    draw = generator(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=draw)
    wide = (255 * F.interpolate(coarse, (height, width + 8), mode="bilinear")).to(torch.uint8)
    shift = torch.randint(0, 8, (count,), generator=draw)
    views = torch.stack([w[:, :, s : s + width] for w, s in zip(wide, shift)])
    target = shift.float().view(-1, 1, 1, 1).expand(-1, height, width, 1)
    if channels == 2:
        target = torch.cat([target, torch.zeros_like(target)], dim=-1)
    valid = torch.ones(count, height, width, dtype=torch.bool)
    valid[0, :8, :8] = False
    target = torch.where(valid[..., None], target, torch.inf)
    return DensePairBatch(views, wide[:, :, :, :width].clone(), target, valid)


@pytest.fixture(params=CONFIGS)
def task(request):
    torch.manual_seed(0)
    return CONFIGS[request.param].build()


def test_output_has_the_promised_parts(task):
    given = batch(task.channels)
    output = task(task.sample_views(given, generator()))
    assert output.loss.shape == () and output.loss.isfinite() and output.loss.requires_grad
    assert output.prediction.shape == output.target.shape == (4, SIZE, SIZE, task.channels)
    assert output.mask.shape == (4, SIZE, SIZE)
    assert set(output.terms) == {"laplacian", "epe"}
    measured = task.metrics()
    update_metrics(measured, output)
    assert as_floats(measured)["epe"] == pytest.approx(float(output.terms["epe"]), rel=1e-4)
    again = task(task.sample_views(given, generator(1)))
    assert torch.equal(again.loss, output.loss)


def test_two_uneven_micro_batches_weigh_as_much_as_the_whole(task):
    given = batch(task.channels)
    given.valid[:1] &= torch.rand(1, SIZE, SIZE, generator=generator(5)) < 0.1
    views = task.sample_views(given, generator())
    whole, parts = (gradient_of(task, parts_of(views, *at)) for at in ((0, 4), (0, 1, 4)))
    assert (parts - whole).norm() <= 1e-6 * whole.norm()


def test_every_parameter_learns(task):
    """All but what a released model has for reasons of its own: a memory norm per block is used."""
    with torch.no_grad():
        for parameter in task.head.parameters():
            parameter.mul_(3)
    task(task.sample_views(batch(task.channels), generator())).loss.backward()
    silent = [n for n, p in task.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent


def test_unknown_truth_is_never_read(task):
    given, results = batch(task.channels), []
    for filler in (0.0, 1e8, math.inf, math.nan):
        target = torch.where(given.valid[..., None], given.target, filler)
        task.zero_grad()
        loss = task(task.sample_views(given._replace(target=target), generator())).loss
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in task.head.parameters()])
        assert gradient.isfinite().all()
        results.append((loss.detach(), gradient))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0]) and torch.equal(gradient, results[0][1])


def test_hooked_maps_are_the_blocks_outputs_the_last_ones_normed():
    torch.manual_seed(0)
    encoder, decoder = replace(ENCODER, depth=5), PairDecoderConfig(width=16, depth=3, heads=2)
    task = FlowTaskConfig(**{**SMALL, "encoder": encoder, "decoder": decoder}).build().eval()
    assert task.hooks == (4, 5, 6, 7)  # the encoder's last block, and all of the decoder
    views = task.sample_views(batch(2), generator())
    maps = task.hooked_maps(views.image_1, views.image_2)
    one, two = (task.encoder(image) for image in views[:2])
    torch.testing.assert_close(maps[0], patch_map(one), atol=1e-5, rtol=1e-4)
    memories = task.decoder.embed(one.tokens), task.decoder.embed(two.tokens)
    decoded = task.decoder(*memories, one.grid, levels=(0, 1, 2))
    for found, expected in zip(maps[1:3], decoded.levels):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps[3], patch_map(decoded), atol=1e-5, rtol=1e-4)
    deeper = {
        "encoder": replace(encoder, depth=6),
        "decoder": PairDecoderConfig(width=16, depth=2, heads=2),
    }
    task = FlowTaskConfig(**{**SMALL, **deeper}).build().eval()
    assert task.hooks == (4, 5, 6, 7)
    maps = task.hooked_maps(views.image_1, views.image_2)
    features = task.encoder(views.image_1, levels=(4,))
    torch.testing.assert_close(maps[0], features.levels[0], atol=1e-5, rtol=1e-4)  # not normed
    torch.testing.assert_close(maps[1], patch_map(features), atol=1e-5, rtol=1e-4)


def test_the_second_image_matters_and_only_through_the_decoder(task):
    views = task.eval().sample_views(batch(task.channels), generator())
    before = task.hooked_maps(views.image_1, views.image_2)
    after = task.hooked_maps(views.image_1, views.image_2.flip(0))
    depth = ENCODER.depth
    for hook, one, two in zip(task.hooks, before, after):
        if hook < depth:
            torch.testing.assert_close(one, two)
        else:
            assert (one - two).abs().max() > 1e-3


def train(task, given, steps, rate=2e-3):
    optimizer = torch.optim.Adam(task.parameters(), lr=rate)
    task.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task(task.sample_views(given, generator())).loss
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["flow", "stereo"])
def test_a_handful_of_pairs_can_be_learnt_by_heart(name):
    torch.manual_seed(0)
    task = CONFIGS[name].build()
    given = batch(task.channels)
    views = task.sample_views(given, generator())
    before = float(task.eval()(views).terms["epe"])
    train(task, given, steps=80)
    after = task.eval()(views)
    assert float(after.terms["epe"]) < 0.25 * before
    raw = task.predict(views.image_1, views.image_2)[1]
    assert raw.mean() < 0  # it knows that it is right: the scale went down


def test_in_evaluation_other_sizes_are_tiled(task):
    given = task.eval().sample_views(batch(task.channels, height=40, width=72), generator())
    seen = []
    task.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-2:]))
    output = task(given)
    assert output.prediction.shape == (4, 40, 72, task.channels)
    assert set(seen) == {(SIZE, SIZE)}
    tiled, raw = task.predict_tiled(given.image_1, given.image_2)
    torch.testing.assert_close(tiled.movedim(1, -1), output.prediction)
    assert raw.shape == (4, 40, 72)
    finer, _ = task.predict_tiled(given.image_1, given.image_2, overlap=0.9)
    assert not torch.allclose(finer, tiled)
    task.train()
    seen.clear()
    task(given)
    assert set(seen) == {(40, 72)}  # in training as they are: positions follow the grid


def test_images_of_any_size_and_smaller_than_a_tile(task):
    task.eval()
    for size in ((20, 90), (33, 35), (7, 9)):
        views = task.sample_views(batch(task.channels, 1, *size), generator())
        output = task(views)
        assert output.prediction.shape == (1, *size, task.channels)
        assert output.prediction.isfinite().all()


def test_flow_longer_than_ten_thousand_pixels_is_not_learnt_but_counts():
    torch.manual_seed(0)
    task = CONFIGS["flow"].build()
    given = batch(2)
    long = given.target.clone()
    long[1, 5, 6] = torch.tensor([MAX_FLOW, 1.0])
    with_it = task(task.sample_views(given._replace(target=long), generator()))
    valid = given.valid.clone()
    valid[1, 5, 6] = False
    without = task(task.sample_views(given._replace(valid=valid), generator()))
    assert torch.equal(with_it.loss, without.loss)
    assert with_it.mask[1, 5, 6]


def test_bfloat16_autocast_gives_a_float32_loss_nearby(task):
    for size in ((SIZE, SIZE), (40, 40)):
        views = task.eval().sample_views(batch(task.channels, 2, *size), generator())
        exact = task(views)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = task(views)
        assert rounded.loss.dtype == rounded.prediction.dtype == torch.float32
        assert float(rounded.loss.detach()) == pytest.approx(float(exact.loss.detach()), rel=0.05)


def test_bad_pairs_are_refused(task):
    given = batch(task.channels)

    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            task.sample_views(given._replace(**changes), generator())

    refused(r"image_2 \(4, 3, 32, 24\); both views", image_2=given.image_2[..., :24])
    refused(r"target has shape \(4, 32, 31", target=given.target[:, :, 1:])
    refused("target has shape", target=given.target[..., [0, 0, 0]])
    refused("valid has shape", valid=given.valid[:2])
    refused("none of the 4096 pixels of these 4 pairs is valid", valid=given.valid & False)
    for wrong in (math.nan, math.inf):
        target = given.target.clone()
        target[2, 3, 4, 0] = wrong
        refused("valid displacements must be finite", target=target)
    task.eval().sample_views(given._replace(valid=given.valid & False), generator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"window": (0, 8)}, r"window is \(0, 8\)"), ({"overlap": 1.0}, "overlap is 1.0")],
)
def test_wrong_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FlowTaskConfig(**{**SMALL, **changes})


def test_networks_too_shallow_for_the_head_are_refused():
    shallow = {
        "encoder": replace(ENCODER, depth=1),
        "decoder": PairDecoderConfig(width=32, depth=1, heads=2),
    }
    with pytest.raises(ValueError, match="too few for a DPT head"):
        FlowTaskConfig(**{**SMALL, **shallow}).build()


@pytest.mark.parametrize(
    ("size", "encoder", "decoder", "millions"),
    [("L", {"rotary": True}, {"width": 768, "depth": 12, "heads": 12}, 437.4)],
)
def test_the_released_flow_model_is_as_large(size, encoder, decoder, millions):
    """Two units of the official head are never used and not made here: 1.18 million."""
    config = FlowTaskConfig(
        encoder=vit_config(size, 16, 224, class_token=False, **encoder),
        decoder=PairDecoderConfig(**decoder),
    )
    with torch.device("meta"):
        task = config.build()
    count = sum(parameter.numel() for parameter in task.parameters()) / 1e6
    assert task.hooks == (23, 27, 31, 35)
    assert count + 1.18 == pytest.approx(millions, abs=0.1)


def test_validation_measures_pairs():
    torch.manual_seed(0)
    task = CONFIGS["flow"].build()
    given = batch(2)
    target = torch.where(given.valid[..., None], given.target, 0.0)
    source = MemoryPairs(
        given.image_1, given.image_2, PairAugmentation(size=SIZE), target, given.valid
    )
    config = ValidationConfig(source=None, num_images=4, batch_size=2)
    found = Validation(source, config).run(task, torch.device("cpu"))
    output = task.eval()(task.sample_views(given, generator()))
    assert found["epe"] == pytest.approx(float(output.terms["epe"]), rel=1e-3)
    assert found["loss"] == pytest.approx(float(output.loss.detach()), rel=1e-3)
    assert {"bad_1", "bad_3", "bad_5", "f1_all"} <= set(found)
