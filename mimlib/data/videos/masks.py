"""Videos in which objects are followed: DAVIS, one's own, clips of the embedded world.

An object is a number that its pixels have in every mask; 0 is none of them. Objects of the first
mask are followed; one that appears later is background (as official: the DAVIS evaluation).
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.files.listing import NAMED, find_files
from mimlib.data.files.pictures import read_indices
from mimlib.data.videos.frames import Frames

WHITE = 255  # the object where masks are black and white, nothing where objects have numbers
MOST_OBJECTS = 50  # DAVIS 2017 has up to 10; hundreds are the grays of a soft edge


class Video(NamedTuple):
    """Frames, and which object is where in some of them."""

    name: str
    frames: Iterable[Tensor]  # [3, H, W] uint8 each, walked through more than once
    masks: Sequence[Tensor | None]  # [H, W] uint8 each, None: not annotated; the first one is


class MaskFiles(Sequence[Tensor | None]):
    """Masks read when they are asked for: object ids [H, W] uint8, None for frames without one.

    Two codings are understood, and the first mask tells which it is: numbers 1, 2 ... of objects
    (a palette's indices or gray values; 255 counts as background, as official), or black and white
    (0 and 255, one object, which becomes 1).
    """

    def __init__(self, files: list[Path | None]):
        """Read the first mask; ValueError if there is none, no object in it, or too many."""
        self.files = files
        if files[0] is None:
            found = next((path for path in files if path is not None), "none at all")
            raise ValueError(
                f"the first frame has no mask (the first one is {found}); it says what to follow: "
                "start the video at a frame with a mask"
            )
        numbers = set(np.unique(read_indices(files[0])).tolist())
        self.black_and_white = numbers <= {0, WHITE}
        objects = numbers - {0} if self.black_and_white else numbers - {0, WHITE}
        if not 1 <= len(objects) <= MOST_OBJECTS:
            raise ValueError(
                f"{files[0]} holds {len(objects)} objects; expected 1 to {MOST_OBJECTS}. Objects "
                "that appear later are not followed: start the video at a frame that shows one. "
                "Hundreds of objects are the grays of soft edges: make the mask black and white"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | None:
        path = self.files[index]
        if path is None:
            return None
        numbers = read_indices(path)
        known = np.isin(numbers, (0, WHITE)) if self.black_and_white else numbers <= WHITE
        if not known.all():
            kind = "0 and 255" if self.black_and_white else "0 to 255"
            raise ValueError(
                f"{path} holds the numbers {np.unique(numbers[~known])[:NAMED].tolist()}; expected "
                f"{kind}, as in {self.files[0]}"
            )
        objects = numbers == WHITE if self.black_and_white else numbers * (numbers != WHITE)
        return torch.from_numpy(objects.astype(np.uint8))


def open_video(frames: str | Path, masks: str | Path) -> Video:
    """Open a video, a folder of frames, an animation or a video file, with its masks.

    That is the mask of the first frame, a picture; or, beside a folder of frames, a folder of masks
    that are called as their frames. Frames without a mask are followed, not scored. ValueError if
    something is missing: a frame in between, the first mask, a mask's frame.
    """
    opened, masks = Frames(frames), Path(os.path.expanduser(masks))
    if not masks.is_dir():
        return Video(opened.path.stem, opened, MaskFiles([masks]))
    if opened.files is None:
        raise ValueError(
            f"{masks} is a folder, but {frames} is no folder of frames that its masks could be "
            "called after; name a picture, the mask of the first frame"
        )
    found = {path.stem: path for path in find_files(masks, "*.[pP][nN][gG]")}
    files = [found.pop(frame.stem, None) for frame in opened.files]
    if found:
        names = ", ".join(path.name for path in list(found.values())[:NAMED])
        raise ValueError(f"{len(found)} masks of {masks} have no frame in {frames}: {names}")
    return Video(opened.path.name, opened, MaskFiles(files))
