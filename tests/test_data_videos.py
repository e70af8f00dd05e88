"""Videos with masks: both codings, what is missing, what appears later, clips of the world."""

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.videos.davis import DavisConfig
from mimlib.data.videos.masks import open_video
from mimlib.data.videos.world import WorldVideosConfig, number_objects

SIDES = (12, 16)
COUNT = 4
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [7] * 747  # DAVIS' first colors


def mask_of(index, *objects):
    """Ids [H, W]: object k is a square of 3 x 3 that moves to the right."""
    ids = np.zeros(SIDES, dtype=np.uint8)
    for number in objects:
        ids[4 * number - 4 : 4 * number - 1, 2 * index : 2 * index + 3] = number
    return ids


def as_palette(ids):
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(PALETTE)
    return picture


CODINGS = {
    "palette": as_palette,
    "numbers": Image.fromarray,
    "black and white": lambda ids: Image.fromarray(ids * np.uint8(255)),
    "palette of 0 and 255": lambda ids: as_palette(ids * np.uint8(255)),
    "bits": lambda ids: Image.fromarray(ids > 0),
}


def write_video(root, masks, coding="palette", name="a", num_frames=COUNT):
    """A sequence as DAVIS has it; masks: frame -> ids."""
    frames, folder = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
    for place in (frames, folder):
        place.mkdir(parents=True)
    for index in range(num_frames):
        pixels = np.full((*SIDES, 3), 50 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(frames / f"{index:05d}.png")
    for index, ids in masks.items():
        CODINGS[coding](ids).save(folder / f"{index:05d}.png")
    return frames, folder


@pytest.mark.parametrize("coding", CODINGS)
def test_codings(coding, tmp_path):
    video = open_video(*write_video(tmp_path, {i: mask_of(i, 1) for i in range(COUNT)}, coding))
    assert video.name == "a" and len(video.masks) == COUNT == len(list(video.frames))
    for index in range(COUNT):
        assert video.masks[index].dtype == torch.uint8
        assert torch.equal(video.masks[index], torch.from_numpy(mask_of(index, 1)))


def test_255_among_numbers_is_background(tmp_path):
    spoiled = mask_of(0, 1, 3)
    spoiled[11, 15] = 255
    video = open_video(*write_video(tmp_path, {0: spoiled, 1: mask_of(1, 1)}))
    assert torch.unique(video.masks[0]).tolist() == [0, 1, 3]
    assert video.masks[0][11, 15] == 0
    assert video.masks[2] is None and video.masks[3] is None


def test_an_object_that_vanishes_stays_in_its_coding(tmp_path):
    """A later mask without the object holds 0 alone, or 0 and 255."""
    numbers = {0: mask_of(0, 1, 2), 1: np.where(mask_of(1, 1) > 0, 255, 0).astype(np.uint8)}
    video = open_video(*write_video(tmp_path / "numbers", numbers))
    assert not video.masks[1].any(), "255 is nothing in this video"
    white = {0: mask_of(0, 1), 1: mask_of(1)}
    video = open_video(*write_video(tmp_path / "white", white, "black and white"))
    assert not video.masks[1].any()


def test_what_is_no_mask_is_refused(tmp_path):
    gray = np.linspace(0, 255, 192).astype(np.uint8).reshape(SIDES)
    with pytest.raises(
        ValueError, match=r"19\d objects; expected 1 to 50.*soft edges|25\d objects"
    ):
        open_video(*write_video(tmp_path / "soft", {0: gray}, "numbers"))
    frames, masks = write_video(tmp_path / "mixed", {0: mask_of(0, 1)}, "black and white")
    Image.fromarray(mask_of(1, 1) * np.uint8(128)).save(masks / "00001.png")
    with pytest.raises(ValueError, match=r"00001\.png holds the numbers \[128\]; expected 0 and"):
        open_video(frames, masks).masks[1]
    Image.fromarray(np.zeros((*SIDES, 3), dtype=np.uint8)).save(masks / "00000.png")
    with pytest.raises(ValueError, match=r"holds colors \(mode RGB\)"):
        open_video(frames, masks)


def test_objects_that_appear_later(tmp_path):
    """One that joins others is in the masks; who follows it asks the first one. Alone: refused."""
    later = {0: mask_of(0, 1), 1: mask_of(1, 1, 2)}
    video = open_video(*write_video(tmp_path / "joins", later))
    assert torch.unique(video.masks[0]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="0 objects.*that appear later are not followed"):
        open_video(*write_video(tmp_path / "alone", {0: mask_of(0), 1: mask_of(1, 1)}))
    with pytest.raises(ValueError, match=r"first frame has no mask \(the first one is .*00001.png"):
        open_video(*write_video(tmp_path / "none", {1: mask_of(1, 1)}))


def test_a_mask_without_its_frame_is_named(tmp_path):
    masks = {i: mask_of(0, 1) for i in (0, 2, 7, 8)}
    with pytest.raises(ValueError, match="2 masks of .* have no frame in .*: 00007.png, 00008.png"):
        open_video(*write_video(tmp_path, masks))


def test_one_picture_is_the_mask_of_the_first_frame(tmp_path):
    frames, masks = write_video(tmp_path, {0: mask_of(0, 1)})
    clip = tmp_path / "clip.gif"
    Image.new("RGB", SIDES[::-1]).save(clip)
    for place in (frames, clip):
        video = open_video(place, masks / "00000.png")
        assert len(video.masks) == 1 and video.masks[0].sum() == 9
    assert video.name == "clip"
    with pytest.raises(ValueError, match="is a folder, but .*clip.gif is no folder of frames"):
        open_video(clip, masks)


def test_davis(tmp_path):
    for name in ("b", "a"):
        write_video(tmp_path, {i: mask_of(i, 1, 2) for i in range(COUNT)}, name=name)
    names = tmp_path / "ImageSets/2017"
    names.mkdir(parents=True)
    (names / "val.txt").write_text("b\n")
    assert [video.name for video in DavisConfig(root=str(tmp_path)).build()] == ["b"]
    every = DavisConfig(root=str(tmp_path), split="").build()
    assert [video.name for video in every] == ["a", "b"]
    (names / "val.txt").write_text("b\nlost\n")
    with pytest.raises(ValueError, match="holds 1 of 2 sequences; missing: lost"):
        DavisConfig(root=str(tmp_path)).build()
    with pytest.raises(ValueError, match="there is no folder .*Full-Resolution"):
        DavisConfig(root=str(tmp_path), resolution="Full-Resolution").build()


def test_things_of_the_first_frame_are_numbered():
    ids = torch.zeros(2, 10, 10, dtype=torch.int64)
    ids[0, :2] = 1  # walls are never objects
    ids[0, 4:7, 4:7], ids[0, 8, 8], ids[0, 9, :5] = 9, 4, 6
    ids[1, 5:8, 5:8], ids[1, :3, 8:], ids[1, 9, :5] = 9, 11, 6  # 11 appears later
    found = number_objects(ids, least_share=0.05)
    assert torch.equal(found == 1, ids == 6) and torch.equal(found == 2, ids == 9)
    assert torch.unique(found).tolist() == [0, 1, 2]
    assert torch.equal(number_objects(ids, least_share=0.5) == 1, ids == 9), "the largest at least"


def test_clips_of_the_world_have_exact_masks():
    videos = WorldVideosConfig(count=2, frames=3, size=16, seed=5).build()
    assert [video.name for video in videos] == ["clip 0", "clip 1"]
    for video in videos:
        assert [frame.shape for frame in video.frames] == [(3, 16, 16)] * 3
        assert video.masks.shape == (3, 16, 16) and video.masks.dtype == torch.uint8
        objects = torch.unique(video.masks[0])
        assert objects.tolist() == list(range(len(objects))) and len(objects) > 1
