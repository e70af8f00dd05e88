"""Changes of pairs with displacements: whatever happens to the images, the truth stays true."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mimlib.data.batches import DensePairBatch
from mimlib.data.matching import views as matching_views
from mimlib.data.matching.views import (
    PAIR,
    MatchingAugmentation,
    change_colors,
    change_shape,
    draw_sides,
)
from mimlib.data.order import augmentation_draws
from mimlib.presets import preset

SHAPE, SIZE = (60, 90), (32, 48)
PLAIN = MatchingAugmentation(size=SIZE)
FLOW = replace(
    PLAIN, scale=(-0.2, 0.5), scaled=0.8, stretch=0.2, stretched=0.8, mirrored=0.5, upside_down=0.5
)
STEREO = replace(PLAIN, scale=(0.0, 1.0), scaled=0.5, widths_only=True, upside_down=0.5)


def shifted_pair(shift, shape=SHAPE, channels=2):
    """Smooth images, the second of which is the first moved by (dx, dy) pixels."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in shape), indexing="ij")

    def at(x, y):
        waves = torch.stack([torch.sin(x / 9), torch.sin(y / 7), torch.cos((x + y) / 11)])
        return (127 + 120 * waves).round().to(torch.uint8)

    images = at(columns, rows), at(columns - shift[0], rows - shift[1])
    target = torch.tensor(shift, dtype=torch.float32)[:channels].expand(*shape, -1)
    if channels == 1:  # the right image shows what lies d columns further right in the left one
        target = -target
    return DensePairBatch(*images, target.clone(), torch.ones(shape, dtype=torch.bool))


def warp_error(item):
    """Largest difference between image 1 and image 2 brought back by the displacements."""
    height, width = item.valid.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = item.target
    if flow.shape[-1] == 1:
        flow = torch.cat([-flow, torch.zeros_like(flow)], dim=-1)
    places = torch.stack([columns, rows], dim=-1) + 0.5 + flow
    size = torch.tensor([width, height])
    inside = item.valid & ((places > 1) & (places < size - 1)).all(-1)
    grid = (2 * places / size - 1)[None]
    warped = F.grid_sample(item.image_2[None].float(), grid, align_corners=False)[0]
    return float((warped - item.image_1.float()).abs()[:, inside].max()), inside.float().mean()


@pytest.mark.parametrize("config,shift", [
    (PLAIN, (3.0, -2.0)), (FLOW, (3.0, -2.0)), (FLOW, (-4.0, 1.5)), (STEREO, (-5.0, 0.0)),
])  # fmt: skip
def test_image_2_is_where_the_displacements_say(config, shift):
    item = shifted_pair(shift, channels=1 if config is STEREO else 2)
    unwarped = warp_error(item._replace(target=torch.zeros_like(item.target)))[0]
    seen = set()
    for draws in augmentation_draws(0, 0, 40):
        changed = change_shape(item, draws, config)
        assert changed.image_1.shape == changed.image_2.shape == (3, *SIZE)
        assert changed.target.shape == (*SIZE, item.target.shape[-1])
        error, share = warp_error(changed)
        assert error < 8 < 0.2 * unwarped and share > 0.6
        seen.add(tuple(changed.target[0, 0].tolist()))
    assert len(seen) == 1 if config is PLAIN else len(seen) > 15


def test_what_is_unknown_moves_with_the_image():
    item = shifted_pair((3.0, -2.0))
    dark = item.image_1.float().mean(0) < 90
    item = item._replace(valid=~dark)
    for draws in augmentation_draws(1, 0, 20):
        changed = change_shape(item, draws, FLOW)
        known = changed.image_1.float().mean(0)
        assert known[changed.valid].min() > 80 and known[~changed.valid].max() < 100


def test_sides_are_scaled_as_often_and_as_much_as_asked():
    shape = (100_000, 150_000)
    draws = augmentation_draws(0, 0, 4000)
    sides = np.array([draw_sides(shape, row, FLOW) for row in draws]) / shape
    scaled = (sides != 1).any(1)
    assert scaled.mean() == pytest.approx(0.8, abs=0.03)
    logs = np.log2(sides[scaled])
    stretched = np.abs(logs[:, 0] - logs[:, 1]) > 1e-4
    assert stretched.mean() == pytest.approx(0.8, abs=0.04)
    assert logs[~stretched].min() > -0.21 and logs[~stretched].max() < 0.51
    assert logs[~stretched].mean() == pytest.approx(0.15, abs=0.03)
    assert -0.42 < logs.min() < -0.3 and 0.6 < logs.max() < 0.72


def test_widths_alone_are_scaled_for_stereo():
    draws = augmentation_draws(0, 0, 400)
    sides = np.array([draw_sides((500, 900), row, STEREO) for row in draws])
    assert (sides[:, 0] == 500).all()
    assert sides[:, 1].min() == 900 and 1700 < sides[:, 1].max() <= 1800
    assert (sides[:, 1] == 900).mean() == pytest.approx(0.5, abs=0.06)


def test_images_are_never_smaller_than_the_crop():
    for row in augmentation_draws(0, 0, 50):
        height, width = draw_sides((30, 60), row, FLOW)
        assert height >= SIZE[0] + 8 and width >= SIZE[1] + 8
        height, width = draw_sides((60, 40), row, STEREO)
        assert height == 60 and width >= SIZE[1] + 8
        assert draw_sides((30, 60), row, PLAIN) == (30, 60)
    with pytest.raises(ValueError, match="30 x 60 pixels is smaller than the crop of 32 x 48"):
        change_shape(shifted_pair((1.0, 0.0), (30, 60)), augmentation_draws(0, 0, 1)[0], PLAIN)


def test_disparities_are_not_mirrored():
    item, config = shifted_pair((-5.0, 0.0), channels=1), replace(PLAIN, mirrored=1.0)
    with pytest.raises(ValueError, match="mirrored stereo pair has its images swapped"):
        change_shape(item, augmentation_draws(0, 0, 1)[0], config)


def test_a_camera_out_of_line_moves_image_2_alone_and_little(monkeypatch):
    item, draws = shifted_pair((-5.0, 0.0), channels=1), augmentation_draws(0, 0, 1)[0]
    draws[PAIR.misalignment] = 0.5, 1.0  # no turn, two pixels down
    plain, moved = (
        change_shape(item, draws, replace(PLAIN, misaligned=share)) for share in (0.0, 1.0)
    )
    assert torch.equal(plain.image_1, moved.image_1) and torch.equal(plain.target, moved.target)
    assert torch.equal(plain.image_2[:, :-2], moved.image_2[:, 2:])
    assert (moved.image_2[:, :2] == 0).all()
    monkeypatch.setattr(matching_views, "TURN", 5.0)  # a tenth of a degree shows in large images
    draws[PAIR.misalignment] = 1.0, 0.5
    turned = change_shape(item, draws, replace(PLAIN, misaligned=1.0))
    change = (turned.image_2.float() - plain.image_2.float()).abs().amax(0)
    assert change[15:17, 23:25].max() <= 3 < 20 < change[2:-2, :4].max()


@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_colors_change_alike_or_not(alike):
    image = torch.randint(0, 256, (8, 3, 12, 16), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    batch = DensePairBatch(image, image, torch.zeros(8, 12, 16, 2), torch.ones(8, 12, 16).bool())
    config = MatchingAugmentation(size=(12, 16), hue=0.2, alike=alike)
    changed = change_colors(batch, augmentation_draws(0, 0, 8), config)
    assert not torch.equal(changed.image_1, image)
    assert torch.equal(changed.image_1, changed.image_2) == bool(alike)
    assert changed.target is batch.target and changed.valid is batch.valid
    same = change_colors(batch, augmentation_draws(0, 0, 8), replace(config, jitter=0.0, hue=0.0))
    assert torch.equal(same.image_1, image) and torch.equal(same.image_2, image)


@pytest.mark.parametrize(("change", "message"), [
    ({"size": (0, 8)}, r"size is \(0, 8\); expected 0 < size"),
    ({"hue": 1.5}, "hue is 1.5; expected 0 <= hue <= 1"),
    ({"mirrored": -0.1}, "mirrored is -0.1"),
    ({"scale": (1.0, 0.0)}, r"scale is \(1.0, 0.0\); expected low <= high"),
    ({"stretch": -1.0}, "stretch is -1.0; expected 0"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)


def test_the_papers_stereo_never_shrinks_small_images_and_never_mirrors():
    for name, mirrored in (("crocoflow_vitl_base", 0.5), ("crocostereo_vitl_base", 0.0)):
        for part in preset(name).data.parts:
            assert part.pairs.mirrored == mirrored
            if "sceneflow" in part.pairs.root and not mirrored:
                assert part.pairs.scale[0] == 0
