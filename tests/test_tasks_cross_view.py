"""Where attention looks, measured on hand-made attention, and the loss under five second views."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mimlib.data.batches import DensePairBatch
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.pairs.world import MemoryPairs
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation import cross_view as measured
from mimlib.evaluation.cross_view import CrossView, CrossViewConfig, ShiftedPairs
from mimlib.methods.croco import CroCoConfig
from mimlib.methods.mae import MAEConfig
from mimlib.presets import cross_view

CPU = torch.device("cpu")
SIZE, WIDE, PATCH, SHIFT = 32, 48, 8, 6
GRID, NUM_PATCHES, HEADS = (4, 4), 16, 3
COUNT = 24


def wide_pairs(count=COUNT, motion=(3, -2)):
    """Random texture that moves by `motion` (dx, dy) from view 1 to view 2."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 16, 16, generator=draw)
    side = WIDE + 8
    texture = (255 * F.interpolate(coarse, (side, side), mode="bilinear")).to(torch.uint8)
    dx, dy = motion
    image_1 = texture[..., 4 : 4 + WIDE, 4 : 4 + WIDE]
    image_2 = texture[..., 4 - dy : 4 - dy + WIDE, 4 - dx : 4 - dx + WIDE]
    flow = torch.tensor([dx, dy]).float().expand(count, WIDE, WIDE, 2).clone()
    valid = torch.ones(count, WIDE, WIDE, dtype=torch.bool)
    valid[0] = False
    return image_1, image_2, flow, valid


def evaluation(motion=(3, -2), **changes):
    image_1, image_2, flow, valid = wide_pairs(motion=motion)
    source = MemoryPairs(image_1, image_2, PairAugmentation(size=WIDE), flow, valid)
    values = {"size": SIZE, "largest_shift": SHIFT, "radius": 6.0, "num_images": COUNT}
    values |= {"batch_size": 7} | changes
    return CrossView(source, CrossViewConfig(source=None, **values))


def croco():
    torch.manual_seed(0)
    encoder = ViTConfig(
        width=16, depth=1, heads=2, patch_size=PATCH, image_size=SIZE, class_token=False
    )
    decoder = PairDecoderConfig(width=16, depth=2, heads=2)
    return CroCoConfig(encoder=encoder, decoder=decoder, mask_ratio=0.5).build()


def attending(monkeypatch, attend):
    """A CroCo that looks where `attend(views) -> [B, A, N] patches` says."""
    model = croco()

    def maps(views, block):
        return F.one_hot(attend(views), NUM_PATCHES).float()

    monkeypatch.setattr(model, "cross_attention_maps", maps)
    return model


def straight_ahead(views):
    return torch.arange(NUM_PATCHES).expand(len(views.image_1), HEADS, -1)


def test_the_crops_are_what_the_flow_says():
    pairs = evaluation(motion=(3, -2)).pairs
    assert pairs.image_1.shape == pairs.wrong.shape == (COUNT, 3, SIZE, SIZE)
    steps = pairs.flow[:, 0, 0].int()
    shifts = (steps - torch.tensor([3, -2]))[1:]  # the first pair has no flow
    assert (shifts.abs() <= SHIFT).all() and len(shifts.unique(dim=0)) > COUNT / 2
    assert shifts.amin() < -SHIFT / 2 and shifts.amax() > SHIFT / 2
    for i, (dx, dy) in list(enumerate(steps.tolist()))[1:]:
        for image, right, down in (
            (pairs.image_2[i], dx, dy),
            (pairs.shifted[i], dx - 3, dy + 2),
        ):
            columns, rows = overlap(SIZE, right), overlap(SIZE, down)
            here = pairs.image_1[i][:, rows[0], columns[0]]
            assert torch.equal(here, image[:, rows[1], columns[1]])
    assert torch.equal(pairs.wrong[1:], pairs.image_2[:-1])
    assert not pairs.valid[0].any() and pairs.valid[1:].all()


def overlap(size, step):
    """Slices of a line and of the line moved by `step` that hold the same."""
    return slice(max(0, -step), size - max(0, step)), slice(max(0, step), size + min(0, step))


def test_true_places_are_where_a_patch_moves_to():
    flow = torch.zeros(1, 16, 24, 2)
    flow[..., 0], flow[0, 4, 20] = 3.0, torch.tensor([0.0, 9.0])
    valid = torch.ones(1, 16, 24, dtype=torch.bool)
    valid[0, 12, 4] = False
    places, known = measured.true_places(flow, valid, PATCH)
    assert places[0, 0].tolist() == [7.5, 4.5] and places[0, 1].tolist() == [15.5, 4.5]
    assert places[0, 2].tolist() == [20.5, 13.5]
    assert known.tolist() == [[True, True, True, False, True, True]]
    flow[0, 4, 4, 0] = -5.0  # out of the image
    assert not measured.true_places(flow, valid, PATCH)[1][0, 0]


def test_perfect_attention_is_always_right(monkeypatch):
    """The patch that holds the true place has its middle at most P / sqrt(2) away."""
    found = evaluation()
    places, _ = measured.true_places(found.pairs.flow, found.pairs.valid, PATCH)
    index = (places.clamp(0, SIZE - 1) // PATCH).long()
    index = index[..., 1] * GRID[1] + index[..., 0]  # [B, N]
    parts = iter(
        [chunk for chunk in index.split(found.config.batch_size) for _ in range(2 * 2)]
    )  # two kinds of mask, two blocks
    model = attending(monkeypatch, lambda views: next(parts)[:, None].expand(-1, HEADS, -1))
    shares = found.run(model, CPU)
    names = [n for n in shares if n.startswith("pck") and "same_place" not in n]
    assert len(names) == 2 * (2 * 2 + 1)
    assert all(shares[name] == 1.0 for name in names)
    assert shares["pck_hidden_same_place"] < 1


def test_looking_straight_ahead_scores_the_baseline(monkeypatch):
    shares = evaluation().run(attending(monkeypatch, straight_ahead), CPU)
    for kind in ("hidden", "complete"):
        ahead = shares[f"pck_{kind}_same_place"]
        assert 0.1 < ahead < 0.9
        assert shares[f"pck_{kind}"] == shares[f"pck_{kind}_block1_mean"] == ahead


def test_without_motion_or_shift_straight_ahead_is_right(monkeypatch):
    shares = evaluation(motion=(0, 0), largest_shift=0).run(
        attending(monkeypatch, straight_ahead), CPU
    )
    assert shares["pck_complete_same_place"] == shares["pck_complete"] == 1.0


def test_the_best_head_and_the_mean_of_heads_differ(monkeypatch):
    """One head of three looks ahead, two always at the last patch: the mean follows the two."""

    def mixed(views):
        looked = straight_ahead(views).clone()
        looked[:, 1:] = NUM_PATCHES - 1
        return looked

    shares = evaluation().run(attending(monkeypatch, mixed), CPU)
    assert shares["pck_complete_block0_best"] == shares["pck_complete_same_place"]
    assert shares["pck_complete_block0_mean"] < shares["pck_complete_block0_best"] / 2


def test_batches_do_not_matter_and_nothing_changes():
    model = croco().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    found = evaluation().run(model, CPU)
    assert found == evaluation().run(model, CPU)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    whole = evaluation(batch_size=COUNT).run(model, CPU)
    complete = [name for name in found if "complete" in name]
    assert complete and all(found[name] == whole[name] for name in complete)


def test_losses_are_those_of_five_second_views(monkeypatch):
    """A loss that is the mean distance of the two images knows which view it was given."""
    model = croco()

    def forward(views):
        return SimpleNamespace(loss=(views.image_1 - views.image_2).abs().mean())

    monkeypatch.setattr(model, "forward", forward)
    found = evaluation(motion=(0, 0)).run(model, CPU)
    assert found["loss_same"] == 0
    assert found["loss_shifted"] == found["loss_true"] > 0, "nothing moves here but the crop"
    assert found["loss_wrong"] > found["loss_true"]
    blank = evaluation(motion=(0, 0)).pairs.image_1
    expected = measured.normalize(blank).abs().mean()
    assert found["loss_blank"] == pytest.approx(float(expected), rel=1e-5)
    assert found["reliance"] == pytest.approx(found["loss_blank"] - found["loss_true"])
    moving = evaluation(motion=(3, -2)).run(model, CPU)
    assert moving["loss_shifted"] != moving["loss_true"]


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="MAE has no cross_attention_maps"):
        config = MAEConfig(
            encoder=ViTConfig(width=16, depth=1, heads=2, patch_size=PATCH, image_size=SIZE),
            decoder_width=16,
            decoder_depth=1,
            decoder_heads=2,
        )
        evaluation().run(config.build(), CPU)
    with pytest.raises(ValueError, match="crops of 32 up to 17 apart"):
        evaluation(largest_shift=17).run(croco(), CPU)
    with pytest.raises(ValueError, match="target with 1 channels"):
        image_1, image_2, flow, valid = wide_pairs(2)
        batch = DensePairBatch(image_1, image_2, flow[..., :1], valid)
        measured.shifted_pairs(batch, SIZE, SHIFT, torch.Generator())
    with pytest.raises(ValueError, match="num_images is 1; expected 2 <= .*; a wrong second"):
        evaluation(num_images=1)
    with pytest.raises(ValueError, match="radius is .*expected 0 < radius"):
        evaluation(radius=0.0)


def test_on_the_world_straight_ahead_is_right_for_a_third():
    """Without different crops it would be right for all of an easy pair."""
    config = cross_view(64, num_pairs=32)
    pairs = config.build().pairs
    assert isinstance(pairs, ShiftedPairs)
    places, seen = measured.true_places(pairs.flow, pairs.valid, PATCH)
    ahead = measured.centers((8, 8), PATCH, CPU).expand(32, 1, -1, -1)
    share = measured.count_right(ahead, places, seen, config.radius) / seen.sum()
    assert 0.2 < share < 0.45
    assert seen.float().mean() > 0.6
