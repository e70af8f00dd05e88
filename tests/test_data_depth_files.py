"""Depth from files: layouts, crops that go together, what is unknown, what is missing."""

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.batches import DenseBatch
from mimlib.data.dense.depth import DepthFilesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
NAMES = {
    "seven_scenes": ("seq/frame-{:06d}.color.png", "seq/frame-{:06d}.depth.png"),
    "nyuv2": ("rgb/{:05d}.jpg", "depth/{:05d}.png"),
}


def write(root, layout, count=4, shape=(24, 32), unknown=0):
    """Red grows with the column; depth is 1 m + 0.1 m a column, unknown on the left."""
    for index in range(count):
        image, depth = (root / name.format(index) for name in NAMES[layout])
        for path in (image, depth):
            path.parent.mkdir(parents=True, exist_ok=True)
        ramp = np.zeros((*shape, 3), dtype=np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(shape[1]) * 7, 10 * index
        Image.fromarray(ramp).save(image, quality=100, subsampling=0)
        stored = np.tile(1000 + 100 * np.arange(shape[1]), (shape[0], 1)).astype(np.uint16)
        stored[:, :6] = unknown
        Image.fromarray(stored).save(depth)


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("unknown", [0, 65535])
def test_depth_is_cut_with_its_image(tmp_path, layout, unknown):
    write(tmp_path, layout, unknown=unknown)
    source = DepthFilesConfig(root=str(tmp_path), layout=layout, size=16).build()
    assert len(source) == 4
    for batch in (next(source.batches(0, 20, seed=0)), source.first(4)):
        assert isinstance(batch, DenseBatch)
        assert batch.images.shape[1:] == (3, 16, 16)
        assert batch.target.shape == batch.valid.shape == batch.images[:, 0].shape
        column = batch.images[:, 0].float() / 7
        error = (batch.target - (1 + 0.1 * column)).abs()[batch.valid]
        assert error.max() < 0.2  # two columns, of which one is antialiasing
        assert (batch.target[~batch.valid] == 0).all()
        assert 0 < (~batch.valid).float().mean() < 0.4
    assert torch.equal(source.first(2).images, source.first(2).images)


def test_the_largest_square_is_cut_anywhere(tmp_path):
    write(tmp_path, "nyuv2", count=1)
    config = {"root": str(tmp_path), "layout": "nyuv2", "size": 24}
    source = DepthFilesConfig(**config, square=True, flip=False).build()
    batch = next(source.batches(0, 200, seed=0))
    lefts = (batch.images[:, 0, 0, 0].float() / 7).round()
    assert lefts.unique().tolist() == list(range(32 - 24 + 1))
    widths = (batch.images[:, 0, 0, -1].float() / 7).round() - lefts
    assert (widths == 23).all()  # at their own size, all rows
    known = batch.target[:, 0, -1]
    assert torch.allclose(known, 1 + 0.1 * (lefts + 23), atol=1e-4)


def test_colors_change_and_depth_does_not(tmp_path):
    write(tmp_path, "nyuv2")
    config = {"root": str(tmp_path), "layout": "nyuv2", "size": 24, "square": True}
    plain, gray, some = (
        next(DepthFilesConfig(**config, **changes).build().batches(0, 400, seed=0))
        for changes in (
            {},
            {"gray": 0.3},
            {"jitter": (0.1, 0.4, 0.5), "hue": 0.2, "jittered": 0.5},
        )
    )
    for changed, share in ((gray, 0.3), (some, 0.5)):
        assert torch.equal(plain.target, changed.target)
        assert torch.equal(plain.valid, changed.valid)
        moved = (plain.images != changed.images).flatten(1).any(1)
        assert moved.float().mean() == pytest.approx(share, abs=0.07)
    colorless = (gray.images[:, :1] == gray.images).flatten(1).all(1)
    assert torch.equal(colorless, (plain.images != gray.images).flatten(1).any(1))
    source = DepthFilesConfig(**config, gray=1.0, jitter=(1.0, 1.0, 1.0)).build()
    assert (source.first(1).images[:, 0] != source.first(1).images[:, 1]).any()


@pytest.mark.parametrize("wrong", [{"jitter": (0.5, 0.5)}, {"jitter": (2.0, 0.0, 0.0)},
                                   {"hue": 0.6}, {"gray": -0.1}])  # fmt: skip
def test_changes_of_colors_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="jitter is|hue is|gray is"):
        DepthFilesConfig(root=".", layout="nyuv2", size=16, **wrong)


def test_the_unit_is_that_of_the_files(tmp_path):
    write(tmp_path, "nyuv2")
    config = {"root": str(tmp_path), "layout": "nyuv2", "size": 24}
    first, second = (DepthFilesConfig(**config, unit=u).build().first(1) for u in (1e-3, 1e-4))
    assert torch.allclose(first.target, 10 * second.target)
    with pytest.raises(ValueError, match="unit is 0; expected 0 < unit; 0.001"):
        DepthFilesConfig(**config, unit=0)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    config = DepthFilesConfig(root=str(tmp_path), layout="nyuv2", size=16)
    with pytest.raises(ValueError, match="nothing in the layout 'nyuv2'"):
        config.build()
    write(tmp_path, "nyuv2")
    Image.new("RGB", (10, 10)).save(tmp_path / "rgb/00001.jpg")
    with pytest.raises(ValueError, match=r"sizes .00001.jpg \(10, 10\), 00001.png \(24, 32\)"):
        config.build().first(4)
    (tmp_path / "depth/00000.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read .*00000.png"):
        config.build().first(1)
    (tmp_path / "rgb/00002.jpg").unlink()
    with pytest.raises(ValueError, match="missing: rgb/00002.jpg; unpack the images"):
        config.build()
