"""Holes: the filling that knows nothing, and the measurement beside it."""

from dataclasses import replace

import pytest
import torch

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.holes import HolesConfig, hole_pixels, smooth
from mimlib.layers.masking import as_bool
from mimlib.layers.patches import denormalize, normalize
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.methods.mae import MAE, MAEConfig

ENCODER = ViTConfig(width=16, depth=1, heads=2, patch_size=8, image_size=32)
CONFIG = MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2)
HELD_OUT = WorldImagesConfig(count=6, size=32, level="easy", seed=3)
CPU = torch.device("cpu")


class Painter(MAE):
    """Paints what it is told to, where the mask has holes."""

    def reconstruct(self, views, borrow_statistics=True):
        assert not borrow_statistics, "nothing of the truth may be borrowed"
        holes = hole_pixels(as_bool(views.mask), (4, 4), 8)
        truth = self.images[: len(views.images)]
        assert torch.allclose(normalize(truth), views.images)
        return torch.where(holes, self.answer(truth / 255, holes), truth / 255)


def painter(answer):
    method = Painter(CONFIG)
    method.images, method.answer = HELD_OUT.build().first(6).images, answer
    return method


def test_a_ramp_goes_on_through_a_hole_and_what_is_visible_stays():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    holes = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    holes[..., 8:24, 8:24] = True
    filled = smooth(ramp, holes, rounds=2_000)
    assert torch.allclose(filled, ramp, atol=1e-3)
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        smooth(noise, holes)[~holes.expand_as(noise)], noise[~holes.expand_as(noise)]
    )
    mean = smooth(noise, holes, rounds=0)[..., 12, 12]
    visible = noise.flatten(2)[..., ~holes.flatten()].mean(-1)
    assert torch.allclose(mean, visible, atol=1e-6)


def test_pixels_of_hidden_patches_lie_where_the_patches_are():
    hidden = torch.tensor([[False, True, False, False, False, True]])
    pixels = hole_pixels(hidden, (2, 3), 4)
    assert pixels.shape == (1, 1, 8, 12) and pixels.sum() == 32
    assert pixels[0, 0, :4, 4:8].all() and pixels[0, 0, 4:, 8:].all()


@pytest.mark.parametrize("num_images", (6, 4))
def test_painting_the_truth_smoothing_and_a_constant_error(num_images):
    measure = HolesConfig(source=HELD_OUT, num_images=num_images, batch_size=6).build()
    found = measure.run(painter(lambda truth, holes: truth), CPU)
    assert found["painted"] == found["ratio"] == 0 and found["smoothed"] > 0
    assert measure.run(painter(smooth), CPU)["ratio"] == pytest.approx(1)
    off = measure.run(painter(lambda truth, holes: truth + 0.1), CPU)
    assert off["painted"] == pytest.approx(0.01, rel=1e-4), "a mean over holes alone"
    assert off["smoothed"] == found["smoothed"], "the same masks every time"


def test_a_network_keeps_its_mode_and_is_measured_with_masks_of_its_own_ratio():
    method = MAE(CONFIG).train()
    found = HolesConfig(source=HELD_OUT, num_images=6, batch_size=4).build().run(method, CPU)
    assert found["ratio"] == pytest.approx(found["painted"] / found["smoothed"])
    assert found["ratio"] > 1 and method.training, "an untrained network is no match"


def test_images_that_are_seen_in_several_parts_are_measured_in_all_of_them():
    shape = ConvViTConfig(
        widths=(8, 16, 32), depths=(1, 1, 1), heads=2, entries=(2, 2, 2), image_size=32
    )
    small = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    method = ConvMAEConfig(encoder=shape, complementary=True, **small).build()
    found = HolesConfig(source=HELD_OUT, num_images=6).build().run(method, CPU)
    assert found["ratio"] > 1 and found["smoothed"] < 0.2


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="Linear paints no holes"):
        HolesConfig(source=HELD_OUT, num_images=6).build().run(torch.nn.Linear(1, 1), CPU)
    hidden = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert (smooth(torch.rand(1, 3, 4, 4), hidden) == 0).all(), "all hidden: black, not NaN"


def test_sizes_that_measure_nothing_are_refused():
    with pytest.raises(ValueError, match="num_images"):
        HolesConfig(source=HELD_OUT, num_images=0)


def test_of_pairs_the_second_view_is_exchanged(monkeypatch):
    """A method that paints its second view: right with the true one, wrong with another's."""
    pairs = WorldPairsConfig(count=4, size=32, level="easy", seed=3, margin=0.0, jitter=0.0)
    method = CroCoConfig(
        encoder=replace(ENCODER, class_token=False),
        decoder=PairDecoderConfig(width=16, depth=1, heads=2),
    ).build()

    def paint(views, borrow_statistics):
        assert not borrow_statistics
        return denormalize(views.image_2)

    monkeypatch.setattr(method, "reconstruct", paint)
    found = HolesConfig(source=pairs, num_images=4, batch_size=4).build().run(method, CPU)
    batch = pairs.build().first(4)
    views = method.sample_views(batch, torch.Generator().manual_seed(0))
    holes = hole_pixels(as_bool(views.mask), (4, 4), 8).expand(-1, 3, -1, -1)
    truth, second = batch.image_1 / 255, batch.image_2 / 255
    for name, answer in (("painted", second), ("painted_wrong", second.roll(1, 0))):
        expected = (answer - truth)[holes].square().mean()
        assert found[name] == pytest.approx(float(expected), rel=1e-4)
    assert found["ratio_wrong"] == found["painted_wrong"] / found["smoothed"]
    assert found["painted"] < found["painted_wrong"]
