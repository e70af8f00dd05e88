"""Real and rendered pairs from files: folders of pairs, Habitat's metadata, lists of crops."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from mimlib.data.batches import PairBatch
from mimlib.data.folder import FolderSource
from mimlib.data.images import FORMATS, read_image
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.pair_views import (
    COLOUR,
    CROP,
    PairAugmentation,
    crop_corners,
    cut,
    jitter_colours,
)
from mimlib.data.transforms import centre_boxes, crop_resized

PAIR_LIST, METADATA = "pairs.txt", "metadata.json"
UPRIGHT = 60  # degrees; as official: a smaller rotation is "most likely not a true rotation"
LANCZOS_FROM = 4  # as official: shrinking the area more than this is done by Lanczos


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


@dataclass(frozen=True, kw_only=True)
class CropListConfig(PairAugmentation):
    """CroCo v2's real pairs: a list of rectangles to cut out of the images of other data sets.

    ARKitScenes, MegaDepth, 3DStreetView, IndoorVL: the released crops_release.txt of each, and the
    original images below root. Note that the list of MegaDepth holds the scenes 0015 and 0022,
    which the matching benchmark MegaDepth-1500 tests on.
    """

    root: str  # path of the folder with the original images
    crops: str  # path of the list
    workers: int = 0  # decoding processes; whole photographs are read for every crop

    def build(self) -> "PairFileSource":
        """Read the list.

        Raises:
            ValueError: if it is missing or not in CroCo's format.
        """
        root = os.path.expanduser(self.root)
        crops = read_crop_list(os.path.expanduser(self.crops))
        return PairFileSource(CropFiles(root, crops, self.stored_size), self, self.workers)


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
    folders = sorted((folder, sorted(names)) for folder, _, names in os.walk(root))
    described = [folder for folder, names in folders if METADATA in names]
    firsts, names_of = [], {os.path.relpath(folder, root): names for folder, names in folders}
    if described:
        for folder in described:
            inside = os.path.relpath(folder, root)
            firsts += [(inside, f"{key}_1.jpeg") for key in read_metadata(folder)]
    else:
        stems = ((inside, name) for inside, names in names_of.items() for name in names)
        firsts += [(i, n) for i, n in stems if _is_first(n)]
    pairs = [(inside, name, _second(name)) for inside, name in firsts]
    there = {inside: set(names) for inside, names in names_of.items()}
    lost = [
        os.path.join(inside, name)
        for inside, *both in pairs
        for name in both
        if name not in there[inside]
    ]
    if lost:
        raise ValueError(
            f"{len(lost)} images of the {len(pairs)} pairs in {root} are missing, for instance "
            f"{', '.join(lost[:5])}; finish making them, or list the whole pairs in {PAIR_LIST}"
        )
    return [(os.path.join(i, first), os.path.join(i, second)) for i, first, second in pairs]


def read_pair_list(path: str) -> list[tuple[str, str]]:
    """Read a list of pairs: two paths on each line, blank between them; # starts a comment."""
    pairs = []
    for number, line in _lines(path):
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


class CropPair(NamedTuple):
    """A rectangle in each of two images."""

    image_1: str  # path
    image_2: str
    rotation: int  # degrees, of image 2 against image 1
    box_1: tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom outside
    box_2: tuple[int, int, int, int]


def read_crop_list(path: str) -> list[CropPair]:
    """Read CroCo's list: "image_1, image_2, rotation", below it lines of eight numbers a crop.

    The numbers are left, right, top, bottom in image 1 and then in image 2.
    """
    crops: list[CropPair] = []
    images = None
    for number, line in _lines(path):
        parts = line.split(", ")
        try:
            if len(parts) == 3:
                images = (parts[0], parts[1], int(parts[2]))
                continue
            left_1, right_1, top_1, bottom_1, left_2, right_2, top_2, bottom_2 = map(int, parts)
            boxes = (left_1, top_1, right_1, bottom_1), (left_2, top_2, right_2, bottom_2)
            crops.append(CropPair(*images, *boxes))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: expected 'image_1, image_2, rotation' or eight numbers "
                f"after such a line, got {line!r}"
            ) from error
    return crops


class CropFiles:
    """Pairs of rectangles out of photographs."""

    def __init__(self, root: str, crops: Sequence[CropPair], size: int):
        if not crops:
            raise ValueError(f"the list of crops for {root} is empty")
        self.root, self.crops, self.size = root, crops, size

    def __len__(self) -> int:
        return len(self.crops)

    def path(self, index: int) -> str:
        """Return the path of the first image and which crop it is."""
        return f"{os.path.join(self.root, self.crops[index].image_1)} (crop {index})"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Cut and resize both rectangles, and turn the second one upright."""
        crop = self.crops[index]
        first = cut_box(os.path.join(self.root, crop.image_1), crop.box_1, self.size)
        second = cut_box(os.path.join(self.root, crop.image_2), crop.box_2, self.size)
        turned = 0 if abs(crop.rotation) <= UPRIGHT else round(crop.rotation / 90) % 4
        return first, torch.rot90(second, turned, (1, 2))


def cut_box(path: str, box: tuple[int, int, int, int], size: int) -> Tensor:
    """Cut (left, top, right, bottom) out of an image file and resize it to [3, size, size]."""
    try:
        with Image.open(path) as image:
            left, top, right, bottom = box
            shrinks = (right - left) * (bottom - top) > LANCZOS_FROM * size**2
            method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
            pixels = np.array(image.convert("RGB").resize((size, size), method, box=box))
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError and others
        raise ValueError(f"cannot cut {box} from {path}: {type(error).__name__}: {error}") from error
    return rearrange(torch.from_numpy(pixels), "h w c -> c h w")


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


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that say something, with their numbers."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _is_first(name: str) -> bool:
    stem, ending = os.path.splitext(name)
    return stem.endswith("_1") and ending.lower() in FORMATS and not name.startswith(".")


def _second(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem.removesuffix('_1')}_2{ending}"
