"""Flow and stereo from files: whole, cropped, of several sizes, incomplete."""

import number_files
import pytest
import torch
from matching_files import (
    SHAPE,
    WRITERS,
    picture,
    write_chairs,
    write_middlebury,
    write_sintel,
)

from mimlib.data.matching.source import MatchingFilesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
LAYOUTS = ("sintel_clean", "flying_chairs", "kitti_flow", "kitti_stereo", "middlebury", "booster")


@pytest.fixture(params=LAYOUTS)
def config(request, tmp_path):
    WRITERS[request.param][0](tmp_path)
    return MatchingFilesConfig(root=str(tmp_path), layout=request.param, size=(12, 16), jitter=0.0)


def test_whole_images_are_not_augmented(config):
    batch = config.build().first(2)
    assert batch.image_1.shape == batch.image_2.shape == (2, 3, *SHAPE)
    assert batch.image_1[0, 0, 0].tolist() == list(range(SHAPE[1]))


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
    with pytest.raises(ValueError, match="1 of 9 files in .* are missing: data/00002_img2.ppm"):
        config.build()


def test_sizes_that_differ_are_told(tmp_path):
    write_sintel(tmp_path)
    picture(tmp_path / "training/clean/alley/frame_0003.png", 1, (20, 27))
    config = MatchingFilesConfig(root=str(tmp_path), layout="sintel_clean", size=(8, 8))
    with pytest.raises(
        ValueError, match=r"0002.png \(20, 28\), frame_0003.png \(20, 27\), frame_0002.flo \(20, 28"
    ):
        config.build().first(2)


def test_whole_images_of_two_sizes_come_one_at_a_time(tmp_path):
    write_middlebury(tmp_path)
    for view in (0, 1):
        picture(tmp_path / f"scene2/im{view}.png", 3, (16, 16))
    number_files.write_pfm(tmp_path / "scene2/disp0GT.pfm", torch.ones(16, 16))
    source = MatchingFilesConfig(
        root=str(tmp_path), layout="middlebury", size=(8, 8), jitter=0.0
    ).build()
    with pytest.raises(ValueError, match="ask for one at a time"):
        source.first(2)
    assert [tuple(batch.valid.shape[1:]) for batch in source.once(1)] == [(20, 28), (16, 16)]
    assert next(source.batches(0, 6, seed=0)).valid.shape == (6, 8, 8)
