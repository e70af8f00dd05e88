"""Crops of a batch: sizes, chances, determinism."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from siamese_cases import images

from mimlib.data.images.configs import ImageFolderConfig
from mimlib.layers.patches import denormalize
from mimlib.layers.views import crops as layers_crops
from mimlib.layers.views import multicrop
from mimlib.layers.views.multicrop import MultiCropConfig, distort, multi_crop

CONFIG = MultiCropConfig(global_size=32, local_size=16, num_local=3, blur=(0.1, 1.0))


def draw(seed=0, config=CONFIG, batch=4):
    return multi_crop(images(batch).images, config, torch.Generator().manual_seed(seed))


def test_sizes_and_determinism():
    views, same, other = draw(), draw(), draw(seed=1)
    assert views.global_crops.shape == (2, 4, 3, 32, 32)
    assert views.local_crops.shape == (3, 4, 3, 16, 16)
    for crops, again, others in zip(views, same, other):
        assert torch.equal(crops, again) and not torch.equal(crops, others)
        pixels = denormalize(crops)
        assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5 and pixels.std() > 0.05
    assert not torch.equal(views.global_crops[0], views.global_crops[1])
    assert len(views.by_size()) == 2 and CONFIG.num_crops == 5 and CONFIG.sizes == (32, 16)


def test_without_local_crops():
    config = MultiCropConfig(global_size=32, num_local=0)
    views = draw(config=config)
    assert views.local_crops.shape[0] == 0 and len(views.by_size()) == 1
    assert config.sizes == (32,)


def test_chances_are_those_of_each_crop(monkeypatch):
    """Every operation marks the crops it is asked for; the first global one is always blurred."""
    seen = []

    def record(crops, config, generator, blurred=0.0, solarized=0.0):
        seen.append((tuple(crops.shape[:-3]), blurred, solarized))
        return crops

    monkeypatch.setattr(multicrop, "distort", record)
    draw()
    assert seen == [((4,), 1.0, 0.0), ((4,), 0.1, 0.2), ((3, 4), 0.5, 0.0)]


def test_some_crops_are_changed_and_others_not():
    crops = torch.rand(2000, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = distort(crops, CONFIG, torch.Generator().manual_seed(1))
    kept = (found == crops).flatten(1).all(1).float().mean()
    assert kept == pytest.approx(0.2 * 0.8, abs=0.03)
    grey = (found.amax(1) - found.amin(1)).flatten(1).amax(1) < 1e-6
    assert grey.float().mean() == pytest.approx(0.2, abs=0.03)


def test_color_zero_leaves_colors_alone():
    crops = torch.rand(2000, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = replace(CONFIG, color=0.0, blur=(0.5, 1.0))

    def changed(**chances):
        found = distort(crops, plain, torch.Generator().manual_seed(1), **chances)
        return ((found - crops).abs() > 1e-4).flatten(1).any(1).float().mean()  # hue rounds

    assert changed() == 0
    assert changed(blurred=0.5) == pytest.approx(0.5, abs=0.04)
    assert changed(solarized=0.25) == pytest.approx(0.25, abs=0.04)


def test_color_is_a_factor():
    """Half the color: half the range of brightness, half the chance of gray."""
    crops = torch.full((2000, 3, 4, 4), 0.5)
    crops[:, 0] = 0.4

    def look(color):
        config = replace(CONFIG, color=color)
        found = distort(crops, config, torch.Generator().manual_seed(1))
        grey = (found.amax(1) - found.amin(1)).flatten(1).amax(1) < 1e-6
        return (found.mean((1, 2, 3)) / crops[0].mean() - 1).abs().max(), grey.float().mean()

    (full, grey), (half, half_grey) = look(1.0), look(0.5)
    assert full == pytest.approx(0.4, abs=0.05) and half == pytest.approx(0.2, abs=0.03)
    assert grey == pytest.approx(0.2, abs=0.03) and half_grey == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("shape", [(240, 320), (320, 200)])
def test_a_circle_stays_round(shape, tmp_path, monkeypatch):
    """A disc in a photograph that is no square, through a folder, in crops that are squares."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < 50**2
    Image.fromarray(inside.astype(np.uint8) * 255).save(tmp_path / "disc.png")
    folder = ImageFolderConfig(root=str(tmp_path), size=128, crop_scale=(1.0, 1.0), flip=False)
    batch = next(folder.build().batches(0, 1, seed=0))
    assert batch.stretched_from.tolist() == [list(shape)] and batch.images.shape[2:] == (128, 128)
    # else crops are stretched on purpose
    monkeypatch.setattr(layers_crops, "ASPECT_RATIO", (1.0, 1.0))
    monkeypatch.setattr(multicrop, "distort", lambda crops, *_, **__: crops)
    config = MultiCropConfig(global_size=64, local_size=64, num_local=300, local_scale=(0.4, 0.6))

    def widths_over_heights(*stretched_from):
        generator = torch.Generator().manual_seed(0)
        views = multi_crop(batch.images, config, generator, *stretched_from)
        discs = denormalize(views.local_crops)[:, 0, 0] > 0.5  # [V, S, S]
        rim = discs[:, [0, -1]].any(2).any(1) | discs[:, :, [0, -1]].any(2).any(1)
        whole = discs[~rim & discs.any(2).any(1)]
        assert len(whole) > 20
        return whole.any(1).sum(1) / whole.any(2).sum(1)

    assert (widths_over_heights(batch.stretched_from) - 1).abs().max() < 0.06
    narrow = widths_over_heights()  # by how much the square is narrower
    assert (narrow * shape[1] / shape[0] - 1).abs().max() < 0.12


@pytest.mark.parametrize("changes,message", [
    ({"num_local": -1}, "num_local is -1"),
    ({"global_scale": (0.5, 0.2)}, "global_scale .*; expected 0 < low <= high <= 1"),
    ({"local_scale": (0.0, 0.2)}, "local_scale .*; expected 0 < low <= high <= 1"),
    ({"blur": (0.0, 1.0)}, "blur .*; expected 0 < low <= high"),
    ({"color": 1.5}, "color is 1.5; expected 0 <= color <= 1"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MultiCropConfig(**changes)
