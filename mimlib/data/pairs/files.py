"""Pairs of images from files: folders of pairs, lists of them, Habitat's metadata."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mimlib.data.batches import PairBatch
from mimlib.data.files.listing import WHAT_GOES_WHERE, Listing, is_image, spoken_lines, walk_files
from mimlib.data.files.pictures import read_image
from mimlib.data.files.reading import reading
from mimlib.data.files.source import FileSource
from mimlib.data.order import Request
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.transforms.crops import center_square, cut_image

PAIR_LIST, METADATA = "pairs.txt", "metadata.json"
COMPLETE = f"finish making the pairs, or list those that are whole in {PAIR_LIST}"


@dataclass(frozen=True, kw_only=True)
class PairFolderConfig(PairAugmentation):
    """A folder of pairs, in one of three layouts; the first one that is there is read.

    pairs.txt: a line for each pair, with the paths of both images. metadata.json in sub-folders:
    the output of CroCo's generator for Habitat, pairs named by the keys of `multiviews`. Neither:
    every NAME_1.jpeg (or other format) with its NAME_2.jpeg, sub-folders included.
    """

    root: str  # path of the folder
    workers: int = 0  # decoding processes

    def build(self) -> "PairFileSource":
        """List the folder; ValueError if it holds no pairs, or if a second image is missing."""
        root = os.path.expanduser(self.root)
        files = Listing(root, find_pairs(root), "to pair: expected NAME_1.jpeg with NAME_2.jpeg")
        return PairFileSource(files.check(COMPLETE), self)


def find_pairs(root: str) -> list[tuple[str, str]]:
    """List the pairs of a folder, paths relative to it, in the order of their names."""
    if not os.path.isdir(root):
        raise ValueError(f"there is no folder {root}; {WHAT_GOES_WHERE}")
    if os.path.exists(os.path.join(root, PAIR_LIST)):
        return read_pair_list(os.path.join(root, PAIR_LIST))
    names = sorted(walk_files(root))
    described = [os.path.dirname(name) for name in names if os.path.basename(name) == METADATA]
    firsts = [n for n in names if is_image(n) and os.path.splitext(n)[0].endswith("_1")]
    if described:
        firsts = [
            os.path.join(folder, f"{key}_1.jpeg")
            for folder in described
            for key in read_metadata(os.path.join(root, folder))
        ]
    stems = map(os.path.splitext, firsts)
    return [(first, f"{stem[:-1]}2{end}") for first, (stem, end) in zip(firsts, stems)]


def read_pair_list(path: str) -> list[tuple[str, str]]:
    """Read a list of pairs: two paths on each line, a blank between them, or a tab."""
    pairs = []
    for number, line in spoken_lines(path):
        parts = line.split("\t" if "\t" in line else None)
        if len(parts) != 2:
            raise ValueError(
                f"{path}, line {number}: expected the paths of two images, got {line!r}"
            )
        pairs.append((parts[0], parts[1]))
    return pairs


def read_metadata(folder: str) -> list[str]:
    """Return the names of the pairs that a metadata.json of CroCo's generator describes."""
    path = Path(folder, METADATA)
    with reading(f"{path} as metadata of CroCo's generator, which has `multiviews`"):
        views = json.loads(path.read_bytes())["multiviews"]
        return sorted(key for key, view in views.items() if len(view["positions"]) >= 2)


class PairFileSource(FileSource):
    """Pairs decoded as they are needed.

    Images of other sizes than the stored one, also within a pair, are resized: the largest centered
    square becomes the stored image that crops are cut from.
    """

    augmentation: PairAugmentation

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Read both images, [3, H, W] uint8 each, of any sizes."""
        first, second = self.files.paths(index)
        return read_image(first), read_image(second)

    def batch(self, items: list[tuple[Tensor, Tensor]], request: Request) -> PairBatch:
        """Make stored images of them, cut and color those."""
        config, draws, views = self.augmentation, request.draws(), []
        stored = config.stored_size
        for view, images in enumerate(zip(*items)):
            squares = [cut_image(i, center_square(*i.shape[1:], stored)) for i in images]
            corners = config.corners(draws, view, len(items), (stored, stored))
            views.append(config.color(config.cut(squares, corners), draws, view))
        return PairBatch(*views)
