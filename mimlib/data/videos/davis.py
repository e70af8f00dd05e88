"""DAVIS 2016 and 2017: folders of frames and of masks."""

import os
from dataclasses import dataclass
from pathlib import Path

from mimlib.data.files.listing import NAMED, WHAT_GOES_WHERE, is_hidden, read_names
from mimlib.data.videos.masks import Video, open_video


@dataclass(frozen=True, kw_only=True)
class DavisConfig:
    """Sequences of DAVIS: JPEGImages/480p/NAME/00000.jpg, Annotations/480p/NAME/00000.png."""

    root: str  # path of the data set
    split: str = "val"  # names in ImageSets/2017/SPLIT.txt; empty: every annotated sequence
    resolution: str = "480p"  # or Full-Resolution

    def build(self) -> list[Video]:
        """List the sequences; ValueError if there is none, or a sequence is not complete."""
        root = Path(os.path.expanduser(self.root))
        frames, masks = (root / part / self.resolution for part in ("JPEGImages", "Annotations"))
        if not masks.is_dir():
            raise ValueError(f"there is no folder {masks}; {WHAT_GOES_WHERE}")
        if self.split:
            names = read_names(root / "ImageSets" / "2017" / f"{self.split}.txt")
        else:
            names = sorted(
                path.name for path in masks.iterdir() if path.is_dir() and not is_hidden(path.name)
            )
        lost = [name for name in names if not (masks / name).is_dir()]
        if lost or not names:
            raise ValueError(
                f"{masks} holds {len(names) - len(lost)} of {len(names)} sequences; missing: "
                f"{', '.join(lost[:NAMED])}"
            )
        return [open_video(frames / name, masks / name) for name in names]
