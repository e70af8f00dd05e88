"""Frames of folders, animations and video files come in order, and what is missing is named."""

import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.videos.frames import Frames

SIDES = (12, 16)
COUNT = 4


def picture(index):
    """A frame [H, W, 3] of one color with a square that moves."""
    pixels = np.full((*SIDES, 3), 40 * index, dtype=np.uint8)
    pixels[2:6, 2 * index : 2 * index + 4] = (200, 0, 90)
    return pixels


def write_folder(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / name)
    return folder


def assert_frames(found, indices, tolerance=0):
    found = list(found)
    assert len(found) == len(indices)
    for frame, index in zip(found, indices):
        assert frame.shape == (3, *SIDES) and frame.dtype == torch.uint8
        expected = torch.from_numpy(picture(index)).permute(2, 0, 1).int()
        assert (frame.int() - expected).abs().max() <= tolerance


@pytest.mark.parametrize(
    "names",
    [
        ["00000.png", "00001.png", "00002.png"],
        ["frame_9.png", "frame_10.png", "frame_11.png"],  # by number, not by name
        ["00005.png", "00010.png", "00015.png"],  # every fifth one, as YouTube-VOS has them
        ["3.png"],
    ],
)
def test_a_folder_is_in_the_order_of_its_numbers(names, tmp_path):
    frames = Frames(write_folder(tmp_path / "video", names))
    assert_frames(frames, range(len(names)))
    assert_frames(frames, range(len(names)))  # walked through once more


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.png", "1.png", "3.png", "5.png"], r"misses 2 of the frames 0 to 5: 2, 4"),
        (["img_1.png", "img_2.png", "x_1.png"], "more than one row of frames.*'img_', 'x_'"),
        (["1.png", "cover.png"], "names without a number: '', 'cover'"),
        (["1.png", "01.png"], "have the same number"),
        ([], "holds no frames"),
    ],
)
def test_what_is_no_row_of_frames_is_refused(names, message, tmp_path):
    folder = write_folder(tmp_path / "video", names)
    with pytest.raises(ValueError, match=message):
        Frames(folder)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animations(ending, tmp_path):
    path = tmp_path / f"clip.{ending}"
    first, *rest = [Image.fromarray(picture(index)) for index in range(COUNT)]
    first.save(path, save_all=True, append_images=rest, duration=40, lossless=True)
    assert_frames(Frames(path), range(COUNT))


def test_damage_is_named(tmp_path):
    path = tmp_path / "clip.gif"
    path.write_bytes(b"GIF89a no")
    with pytest.raises(ValueError, match=r"cannot read .*clip\.gif"):
        list(Frames(path))
    with pytest.raises(ValueError, match="there is no video"):
        Frames(tmp_path / "nothing")


def test_video_files(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)  # without loss
        stream.height, stream.width = SIDES
        stream.pix_fmt = "bgr0"
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert_frames(Frames(path), range(COUNT))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="cannot read"):
        list(Frames(path))


def test_video_files_say_that_they_need_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "clip.mp4"
    path.touch()
    with pytest.raises(RuntimeError, match="pip install av, or unpack the video into a folder"):
        Frames(path)
