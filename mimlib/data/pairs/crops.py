"""CroCo v2's real pairs: rectangles cut out of the photographs of other data sets."""

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from mimlib.data.files.listing import Listing, spoken_lines
from mimlib.data.files.reading import reading
from mimlib.data.pairs.files import PairFileSource
from mimlib.data.pairs.views import PairAugmentation

UPRIGHT = 60  # degrees; as official: a smaller rotation is "most likely not a true rotation"
NUMBERS = 10  # of a crop: which images, rotation, four sides of each box
LANCZOS_FROM = 4  # as official: shrinking the area more than this is done by Lanczos


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

    def build(self) -> "CropSource":
        """Read the list; ValueError if it is not in CroCo's format, or a photograph is missing."""
        crops = read_crop_list(os.path.expanduser(self.crops))
        return CropSource(os.path.expanduser(self.root), crops, self)


class CropPair(NamedTuple):
    """A rectangle in each of two images."""

    image_1: str  # path
    image_2: str
    rotation: int  # degrees, of image 2 against image 1
    box_1: tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom outside
    box_2: tuple[int, int, int, int]


def read_crop_list(path: str) -> Iterator[CropPair]:
    """Read CroCo's list: "image_1, image_2, rotation", below it lines of eight numbers a crop.

    The numbers are left, right, top, bottom in image 1 and then in image 2.
    """
    images = None
    for number, line in spoken_lines(path):
        parts = line.split(", ")
        try:
            if len(parts) == 3:
                images = (parts[0], parts[1], int(parts[2]))
                continue
            left_1, right_1, top_1, bottom_1, left_2, right_2, top_2, bottom_2 = map(int, parts)
            boxes = (left_1, top_1, right_1, bottom_1), (left_2, top_2, right_2, bottom_2)
            crop = CropPair(*images, *boxes)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: expected 'image_1, image_2, rotation' or eight numbers "
                f"after such a line, got {line!r}"
            ) from error
        yield crop


class CropSource(PairFileSource):
    """Pairs of rectangles out of photographs.

    There are millions: they are kept as an array, and pairs of images as a `Listing`.
    """

    def __init__(self, root: str, crops: Iterable[CropPair], config: CropListConfig):
        images: dict[tuple[str, str], int] = {}  # a pair of images has many crops
        numbers = array("i")
        for crop in crops:
            number = images.setdefault((crop.image_1, crop.image_2), len(images))
            numbers.extend((number, crop.rotation, *crop.box_1, *crop.box_2))
        files = Listing(root, list(images), f"that {config.crops} lists")
        super().__init__(files.check("the photographs come from their own data sets"), config)
        self.known = np.array(numbers).reshape(-1, NUMBERS)  # [crops, NUMBERS] int32

    def __len__(self) -> int:
        return len(self.known)

    def crop(self, index: int) -> CropPair:
        """Return which rectangles make pair `index`; the images by their full paths."""
        pair, rotation, *sides = self.known[index].tolist()
        return CropPair(*self.files.paths(pair), rotation, tuple(sides[:4]), tuple(sides[4:]))

    def path(self, index: int) -> str:
        """Return the path of the first image and which crop it is."""
        return f"{self.crop(index).image_1} (crop {index})"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Cut and resize both rectangles, and turn the second one upright."""
        crop, size = self.crop(index), self.augmentation.stored_size
        first = cut_box(crop.image_1, crop.box_1, size)
        second = cut_box(crop.image_2, crop.box_2, size)
        turned = 0 if abs(crop.rotation) <= UPRIGHT else round(crop.rotation / 90) % 4
        return first, torch.rot90(second, turned, (1, 2))


def cut_box(path: str, box: tuple[int, int, int, int], size: int) -> Tensor:
    """Cut (left, top, right, bottom) out of an image file and resize it to [3, size, size]."""
    left, top, right, bottom = box
    shrinks = (right - left) * (bottom - top) > LANCZOS_FROM * size**2
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    with reading(f"{box} of {path}"), Image.open(path) as image:
        return pil_to_tensor(image.convert("RGB").resize((size, size), method, box=box))
