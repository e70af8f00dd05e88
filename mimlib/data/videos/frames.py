"""The frames of a video: a folder of pictures, an animation, or a video file.

Frames are decoded one after the other, each time they are walked through, so that a long video
takes the memory of one frame.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from einops import rearrange
from PIL import Image, ImageSequence
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from mimlib.data.files.listing import NAMED, is_hidden, is_image
from mimlib.data.files.pictures import read_image
from mimlib.data.files.reading import import_optional, reading

ANIMATIONS = (".gif", ".webp", ".png", ".apng")


class Frames:
    """The frames of a folder, animation or video file: uint8 RGB [3, H, W], in order."""

    def __init__(self, path: str | Path):
        """Look at the path; nothing is decoded yet.

        ValueError if there is nothing, or the folder's pictures are no row of frames; RuntimeError
        if it is a video file and PyAV is not installed.
        """
        self.path = Path(os.path.expanduser(path))
        if not self.path.exists():
            raise ValueError(
                f"there is no video {self.path}; expected a folder of frames or a file"
            )
        self.files = list_frames(self.path) if self.path.is_dir() else None
        self._is_animation = self.path.suffix.lower() in ANIMATIONS
        if self.files is None and not self._is_animation:
            import_av()  # missing, it is better said now than in the middle of a measurement

    def __iter__(self) -> Iterator[Tensor]:
        if self.files is not None:
            return map(read_image, self.files)
        return _play(self.path) if self._is_animation else _decode(self.path)


def list_frames(folder: Path) -> list[Path]:
    """List the numbered pictures of a folder: 00000.jpg, 00001.jpg ... or frame_1.png ...

    Numbers may start anywhere and go up by more than one, always by as much. ValueError if there is
    none, a name has no number, there are several series, two pictures of one number, or a gap.
    """
    found = sorted(
        p for p in folder.iterdir() if is_image(p.name) and not is_hidden(p.name) and p.is_file()
    )
    if not found:
        raise ValueError(f"{folder} holds no frames; expected pictures like 00000.jpg, 00001.jpg")
    splits = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in found]
    series = sorted({split[1] if split else path.stem for split, path in zip(splits, found)})
    if len(series) > 1 or not all(splits):
        raise ValueError(
            f"{folder} holds more than one row of frames, or names without a number: "
            f"{', '.join(repr(name) for name in series[:NAMED])}; keep the frames of one video in "
            "a folder, as PREFIX and number"
        )
    files: dict[int, Path] = {}
    for split, path in zip(splits, found):
        other = files.setdefault(int(split[2]), path)
        if other is not path:
            raise ValueError(f"{other} and {path.name} have the same number; keep one of them")
    numbers = sorted(files)
    step = min((b - a for a, b in zip(numbers, numbers[1:])), default=1)
    missing = sorted(set(range(numbers[0], numbers[-1], step)) - set(numbers))
    if missing:
        shown = ", ".join(str(number) for number in missing[:NAMED])
        raise ValueError(
            f"{folder} misses {len(missing)} of the frames {numbers[0]} to {numbers[-1]}: {shown}; "
            "complete it, or number what is there without gaps"
        )
    return [files[number] for number in numbers]


def import_av() -> ModuleType:
    """Import PyAV, which nothing but video files needs."""
    return import_optional("av", "video files", ", or unpack the video into a folder of frames")


def _play(path: Path) -> Iterator[Tensor]:
    """Yield the frames of an animated GIF, WebP or PNG."""
    with reading(path), Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            yield pil_to_tensor(frame.convert("RGB"))


def _decode(path: Path) -> Iterator[Tensor]:
    """Yield the frames of a video file as they are stored, not turned upright."""
    av = import_av()
    with reading(path), av.open(os.fspath(path)) as container:
        for frame in container.decode(video=0):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield rearrange(pixels, "h w c -> c h w")
