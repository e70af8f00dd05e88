"""Flow and stereo data sets, in their own layouts, written here in small."""

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data import formats
from mimlib.data.formats import Dense
from mimlib.data.matching import MatchingFilesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
SHAPE = (20, 28)


def picture(path, value, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*shape, 3), value, dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(shape[1]), np.arange(shape[0])[:, None]
    Image.fromarray(pixels).save(path)


def truth(channels, shape=SHAPE):
    """Displacements that say where they are: 1 + column and 1 + row; the corner is unknown."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 1.0 for side in shape), indexing="ij")
    values = torch.stack([columns, rows], dim=-1)[..., :channels]
    valid = torch.ones(shape, dtype=torch.bool)
    valid[0, 0] = False
    return Dense(values, valid)


def write_sintel(root, shape=SHAPE):
    for number in (1, 2, 3):
        for rendering in ("clean", "final"):
            name = f"training/{rendering}/alley/frame_{number:04d}.png"
            picture(root / name, 10 * number + (rendering == "final"), shape)
    for number in (1, 2):
        flow = root / f"training/flow/alley/frame_{number:04d}.flo"
        invalid = root / f"training/invalid/alley/frame_{number:04d}.png"
        for path in (flow, invalid):
            path.parent.mkdir(parents=True, exist_ok=True)
        formats.write_flo(flow, Dense(truth(2, shape).values, torch.ones(shape).bool()))
        Image.fromarray((~truth(2, shape).valid.numpy() * 255).astype(np.uint8)).save(invalid)


def write_chairs(root):
    for number in (1, 2):
        for view in (1, 2):
            picture(root / f"data/{number:05d}_img{view}.ppm", 10 * number + view - 1)
        formats.write_flo(root / f"data/{number:05d}_flow.flo", truth(2))


def write_kitti(root):
    for number in (1, 2):
        for folder, step in (("image_2", 10), ("image_2", 11), ("image_3", 10)):
            name = f"training/{folder}/{number:06d}_{step}.png"
            picture(root / name, 10 * number + (step == 11 or folder == "image_3"))
        for folder in ("flow_occ", "disp_occ_0"):
            (root / "training" / folder).mkdir(parents=True, exist_ok=True)
        name = f"{number:06d}_10.png"
        formats.write_kitti_flow(root / "training/flow_occ" / name, truth(2))
        formats.write_kitti_disparity(root / "training/disp_occ_0" / name, truth(1))


def write_middlebury(root):
    for number, name in ((1, "disp0.pfm"), (2, "disp0GT.pfm")):
        for view in (0, 1):
            picture(root / f"scene{number}/im{view}.png", 10 * number + view)
        values = torch.where(truth(1).valid, truth(1).values[..., 0], torch.inf)
        formats.write_pfm(root / f"scene{number}" / name, values)


WRITERS = {
    "sintel_clean": write_sintel,
    "sintel_final": write_sintel,
    "flying_chairs": write_chairs,
    "kitti_flow": write_kitti,
    "kitti_stereo": write_kitti,
    "middlebury": write_middlebury,
}


@pytest.fixture(params=WRITERS)
def config(request, tmp_path):
    WRITERS[request.param](tmp_path)
    return MatchingFilesConfig(root=str(tmp_path), layout=request.param, size=(12, 16), jitter=0.0)


def test_whole_images_come_with_their_truth(config):
    source = config.build()
    batch = source.first(2)
    channels = 1 if config.layout in ("kitti_stereo", "middlebury") else 2
    assert batch.image_1.shape == (2, 3, *SHAPE)
    final = config.layout == "sintel_final"
    step = 10 if "sintel" in config.layout else 1
    assert batch.image_1[:, 2, 0, 0].tolist() == [10 + final, 20 + final]
    assert batch.image_2[:, 2, 0, 0].tolist() == [10 + step + final, 20 + step + final]
    expected = truth(channels)
    assert torch.equal(batch.valid, expected.valid.expand(2, -1, -1))
    known = expected.values * expected.valid[..., None]
    assert torch.equal(batch.target, known.expand(2, -1, -1, -1))


def test_crops_are_the_same_in_images_and_truth(config):
    batch = next(config.build().batches(0, 120, seed=0))
    assert batch.image_1.shape == (120, 3, 12, 16)
    assert torch.equal(batch.image_1[:, :2], batch.image_2[:, :2])
    expected = batch.image_1[:, 0].float() + 1
    assert torch.equal(batch.target[..., 0], expected * batch.valid)
    corners = batch.image_1[:, :2, 0, 0].amax(0).tolist()
    assert corners == [12, 8]


def test_images_smaller_than_the_crop_are_refused(config):
    from dataclasses import replace

    source = replace(config, size=(32, 16)).build()
    with pytest.raises(ValueError, match="20 x 28 pixels is smaller than the crop of 32 x 16"):
        next(source.batches(0, 1, seed=0))


def test_missing_images_and_empty_folders_are_named(tmp_path):
    config = MatchingFilesConfig(root=str(tmp_path), layout="flying_chairs", size=(8, 8))
    with pytest.raises(ValueError, match="nothing in the layout 'flying_chairs'"):
        config.build()
    write_chairs(tmp_path)
    (tmp_path / "data/00002_img2.ppm").unlink()
    with pytest.raises(ValueError, match="1 files beside the ground truth.*00002_img2.ppm"):
        config.build()


def test_sizes_that_differ_are_told(tmp_path):
    write_sintel(tmp_path)
    picture(tmp_path / "training/clean/alley/frame_0003.png", 1, (20, 27))
    config = MatchingFilesConfig(root=str(tmp_path), layout="sintel_clean", size=(8, 8))
    with pytest.raises(ValueError, match=r"\(20, 28\), \(20, 27\), \(20, 28\)"):
        config.build().first(2)


def test_whole_images_of_two_sizes_come_one_at_a_time(tmp_path):
    write_middlebury(tmp_path)
    for view in (0, 1):
        picture(tmp_path / f"scene2/im{view}.png", 3, (16, 16))
    formats.write_pfm(tmp_path / "scene2/disp0GT.pfm", torch.ones(16, 16))
    source = MatchingFilesConfig(
        root=str(tmp_path), layout="middlebury", size=(8, 8), jitter=0.0
    ).build()
    with pytest.raises(ValueError, match="ask for one at a time"):
        source.first(2)
    assert [tuple(batch.valid.shape[1:]) for batch in source.once(1)] == [(20, 28), (16, 16)]
    assert next(source.batches(0, 6, seed=0)).valid.shape == (6, 8, 8)
