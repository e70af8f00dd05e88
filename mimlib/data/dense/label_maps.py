"""Label maps: a class for every pixel, in the numbering of their data set, and where they lie.

Every data set numbers its classes in its own way and marks pixels without one by a number, too.
Here classes are 0, 1, 2 ... without gaps and pixels without one are UNLABELED. Numbers that a data
set does not have are refused: they are another data set's, or damage.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimlib.data.files.listing import NAMED
from mimlib.data.files.pictures import STORED_VALUES, read_indices, read_segments
from mimlib.data.files.reading import reading

UNLABELED = -1  # in class ids: a pixel that does not count
UNKNOWN = -2  # in tables: a number that must not occur
ADE20K_IDS = range(1, 151)  # of SceneParse150; 0 is everything else
VOC_IDS = range(21)  # 0 is the background, a class of its own
COCO_THINGS = tuple(i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_STUFF = (
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145),
    *(147, 148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181),
    *range(184, 201),
)
COCO_IDS = (*COCO_THINGS, *COCO_STUFF)  # the 133 categories of COCO panoptic


def class_table(ids: Iterable[int], ignored: Iterable[int]) -> np.ndarray:
    """Return which class each stored number stands for, [65536] int16."""
    table = np.full(STORED_VALUES, UNKNOWN, dtype=np.int16)
    ids = list(ids)
    table[ids] = np.arange(len(ids))
    table[list(ignored)] = UNLABELED
    return table


def read_label_map(path: str | Path, table: np.ndarray) -> Tensor:
    """Read a picture of class numbers: 8 or 16 bits of one channel, or a palette's indices.

    Returns class ids [H, W] int64 by a `class_table`, UNLABELED where there is none; ValueError if
    the file cannot be read, holds colors, or a number that the table lacks.
    """
    stored = read_indices(path)
    classes = table[stored]
    strange = np.unique(stored[classes == UNKNOWN])
    if strange.size:
        raise ValueError(
            f"{path} holds the numbers {strange[:NAMED].tolist()}, which are no class of this "
            f"data set and no mark for pixels without one; expected numbers from "
            f"{_ranges(np.flatnonzero(table != UNKNOWN))}. Is it a label map of this layout?"
        )
    return torch.from_numpy(classes.astype(np.int64))


class PanopticReader:
    """Semantic label maps from COCO's panoptic files: a PNG of segments, a JSON of their classes.

    The number of a segment is R + 256 G + 65536 B; 0 is no segment. Segments of crowds count as
    their class.
    """

    def __init__(self, path: Path) -> None:
        """Read the JSON; ValueError if it is not panoptic, or names a category COCO has not."""
        number = {category: index for index, category in enumerate(COCO_IDS)}
        self.segments: dict[str, np.ndarray] = {}  # file -> [K, 2]: segment, class; ascending
        with reading(f"{path} as COCO panoptic annotations"):
            for entry in json.loads(path.read_bytes())["annotations"]:
                pairs = [(s["id"], number[s["category_id"]]) for s in entry["segments_info"]]
                pairs = np.array(sorted([(0, UNLABELED), *pairs]), dtype=np.int64)
                self.segments[entry["file_name"]] = pairs

    def __call__(self, path: str | Path) -> Tensor:
        """Read a label map; ValueError if the JSON lacks the picture or one of its segments."""
        name = Path(path).name
        if name not in self.segments:
            raise ValueError(f"the panoptic JSON of {Path(path).parent} has no entry for {name}")
        ids, classes = self.segments[name].T
        stored = read_segments(path)  # [H, W]
        place = np.searchsorted(ids, stored).clip(max=len(ids) - 1)
        strange = np.unique(stored[ids[place] != stored])
        if strange.size:
            raise ValueError(
                f"{path} holds the segments {strange[:NAMED].tolist()}, which its JSON does not "
                "name; are both from the same release?"
            )
        return torch.from_numpy(classes[place])


def _ranges(values: np.ndarray) -> str:
    """Write ascending numbers shortly: 0 to 20, 255."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    spans = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(spans)
