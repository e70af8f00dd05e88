"""Pairs of images from files: folders of pairs, lists of them, Habitat's metadata."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mimlib.data.batches import PairBatch
from mimlib.data.files.pictures import FORMATS, read_image, walk_files
from mimlib.data.images.folder import FolderSource
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.pairs.views import COLOUR, CROP, PairAugmentation
from mimlib.data.transforms.colours import jitter_colours
from mimlib.data.transforms.crops import centre_boxes, crop_corners, crop_resized, cut

PAIR_LIST, METADATA = "pairs.txt", "metadata.json"


class ReadsPairs(Protocol):
    """Pairs that can be counted and read."""

    root: str

    def __len__(self) -> int: ...

    def path(self, index: int) -> str:
        """Return what to call pair `index` in a message."""

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Return both images, [3, H, W] uint8 each, of any sizes; ValueError if that fails."""


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
        """List the folder.

        Raises:
            ValueError: if it is missing or holds no pairs, or if a second image is missing.
        """
        root = os.path.expanduser(self.root)
        return PairFileSource(PairFiles(root, find_pairs(root)), self, self.workers)


class PairFiles:
    """Pairs of image files, paths relative to a root; kept as bytes, see images.ImageFolder."""

    def __init__(self, root: str, pairs: Sequence[tuple[str, str]]):
        if not pairs:
            raise ValueError(f"{root} holds no pairs: expected NAME_1.jpeg with NAME_2.jpeg")
        self.root = root
        self._paths = np.array([[os.fsencode(path) for path in pair] for pair in pairs])  # [n, 2]

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self, index: int) -> tuple[str, str]:
        """Return the full paths of both images."""
        first, second = (os.fsdecode(bytes(path)) for path in self._paths[index])
        return os.path.join(self.root, first), os.path.join(self.root, second)

    def path(self, index: int) -> str:
        """Return the path of the first image."""
        return self.paths(index)[0]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Read both images."""
        first, second = self.paths(index)
        return read_image(first), read_image(second)


def find_pairs(root: str) -> list[tuple[str, str]]:
    """List the pairs of a folder, paths relative to it, in the order of their names."""
    if not os.path.isdir(root):
        raise ValueError(f"there is no folder {root}; data/README.md says what goes where")
    if os.path.exists(os.path.join(root, PAIR_LIST)):
        return read_pair_list(os.path.join(root, PAIR_LIST))
    names = sorted(walk_files(root))
    described = [name for name in names if os.path.basename(name) == METADATA]
    firsts = [name for name in names if _is_first(name)]
    if described:
        folders = [os.path.dirname(name) for name in described]
        firsts = [
            os.path.join(folder, f"{key}_1.jpeg")
            for folder in folders
            for key in read_metadata(os.path.join(root, folder))
        ]
    pairs = [(first, _second(first)) for first in firsts]
    there = set(names)
    lost = [name for pair in pairs for name in pair if name not in there]
    if lost:
        raise ValueError(
            f"{len(lost)} images of the {len(pairs)} pairs in {root} are missing, for instance "
            f"{', '.join(lost[:5])}; finish making them, or list the whole pairs in {PAIR_LIST}"
        )
    return pairs


def read_pair_list(path: str) -> list[tuple[str, str]]:
    """Read a list of pairs: two paths on each line, blank between them; # starts a comment."""
    pairs = []
    for number, line in spoken_lines(path):
        parts = line.split()
        if len(parts) != 2:
            raise ValueError(
                f"{path}, line {number}: expected the paths of two images, got {line!r}"
            )
        pairs.append((parts[0], parts[1]))
    return pairs


def read_metadata(folder: str) -> list[str]:
    """Return the names of the pairs that a metadata.json of CroCo's generator describes."""
    path = os.path.join(folder, METADATA)
    try:
        views = json.loads(Path(path).read_text(encoding="utf-8"))["multiviews"]
        return sorted(key for key, view in views.items() if len(view["positions"]) >= 2)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no metadata of CroCo's generator, which has `multiviews`: "
            f"{type(error).__name__}: {error}"
        ) from error


def spoken_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that say something, with their numbers."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


class PairFileSource(FolderSource):
    """Pairs decoded as they are needed; unreadable ones are replaced as FolderSource does it.

    Images of other sizes than the stored one, also within a pair, are resized: the largest centred
    square becomes the stored image that crops are cut from.
    """

    def __init__(self, pairs: ReadsPairs, augmentation: PairAugmentation, workers: int):
        super().__init__(pairs, augmentation, None, 1.0, workers)

    def load(self, request: Request) -> tuple[PairBatch, dict[str, str]]:
        """Decode, cut and colour the pairs of a request, and say what could not be read."""
        unreadable: dict[str, str] = {}
        count, size = len(request.indices), self.augmentation.size
        stored, views = self.augmentation.stored_size, ([], [])
        for wanted in request.indices.tolist():
            _, pair = self._read_from(wanted, unreadable)
            for view, image in zip(views, pair):
                (box,) = centre_boxes([image.shape[1]], [image.shape[2]]).tolist()
                view.append(crop_resized(image, box, stored))
        draws = None
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, count)
        batch = []
        for images, crop, colour in zip(views, CROP, COLOUR):
            places = np.full((count, 2), 0.5) if draws is None else draws[:, crop]
            corners = crop_corners(places, stored, stored, (size, size))
            view = torch.stack([cut(i, corner, (size, size)) for i, corner in zip(images, corners)])
            if draws is not None:
                view = jitter_colours(view, draws[:, colour], self.augmentation.jitter)
            batch.append(view)
        return PairBatch(*batch), unreadable


def _is_first(name: str) -> bool:
    stem, ending = os.path.splitext(name)
    return stem.endswith("_1") and ending.lower() in FORMATS


def _second(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem.removesuffix('_1')}_2{ending}"
