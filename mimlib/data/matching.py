"""Flow and stereo data sets: Sintel, FlyingChairs, KITTI 2015, Middlebury."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from mimlib.data.batches import DensePairBatch
from mimlib.data.formats import (
    Dense,
    read_flo,
    read_kitti_disparity,
    read_kitti_flow,
    read_pfm_disparity,
    read_sintel_flow,
)
from mimlib.data.images import read_image
from mimlib.data.indexed import IndexedSource
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.pair_views import COLOUR, CROP, crop_corners, cut, jitter_colours

Layout = Literal[
    "sintel_clean", "sintel_final", "flying_chairs", "kitti_flow", "kitti_stereo", "middlebury"
]


class MatchingFiles(NamedTuple):
    """Two images and the files of their ground truth."""

    image_1: Path
    image_2: Path
    truth: tuple[Path, ...]  # what the reader of the layout takes


@dataclass(frozen=True, kw_only=True)
class MatchingFilesConfig:
    """Pairs with flow or disparity in the layout of their data set.

    Augmented: a crop of `size`, the same in both images, and colour jitter. Un-augmented (`first`,
    `once`): whole images; where they differ in size, only one at a time.
    """

    root: str  # path of the data set, the folder that holds `training` (or the scenes)
    layout: Layout
    size: tuple[int, int]  # (H, W) of the crop, pixels
    jitter: float = 0.4  # brightness, contrast and saturation are multiplied by 1 - this ... 1 + it
    workers: int = 0  # decoding processes

    def build(self) -> "MatchingSource":
        """List the data set.

        Raises:
            ValueError: if nothing of it is found, or a part of it is missing.
        """
        root = Path(os.path.expanduser(self.root))
        find, read = LAYOUTS[self.layout]
        files = find(root)
        if not files:
            raise ValueError(
                f"{root} holds nothing in the layout {self.layout!r}; data/README.md says what "
                "goes where"
            )
        lost = [str(path) for item in files for path in _paths(item) if not path.exists()]
        if lost:
            raise ValueError(
                f"{len(lost)} files beside the ground truth in {root} are missing: "
                f"{', '.join(lost[:5])}; unpack the images, too"
            )
        return MatchingSource(files, read, self)


class MatchingSource(IndexedSource):
    """Pairs with ground truth, decoded as they are needed."""

    def __init__(
        self,
        files: list[MatchingFiles],
        read: Callable[..., Dense],
        config: MatchingFilesConfig,
    ):
        self.files, self.read, self.config = files, read, config
        self.workers = config.workers

    def __len__(self) -> int:
        return len(self.files)

    def load(self, request: Request) -> DensePairBatch:
        """Decode, cut and colour the pairs of a request."""
        items = [self.item(index) for index in request.indices.tolist()]
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(items))
            items = [self._cut(item, row[CROP[0]]) for item, row in zip(items, draws)]
        sizes = {tuple(item.valid.shape) for item in items}
        if len(sizes) > 1:
            raise ValueError(
                f"whole images of the sizes {sorted(sizes)} make no batch; ask for one at a time"
            )
        batch = DensePairBatch(*map(torch.stack, zip(*items)))
        if request.seed is None:
            return batch
        views = [
            jitter_colours(view, draws[:, colour], self.config.jitter)
            for view, colour in zip(batch[:2], COLOUR)
        ]
        return batch._replace(image_1=views[0], image_2=views[1])

    def item(self, index: int) -> DensePairBatch:
        """Read one pair, without the axis of the batch.

        Raises:
            ValueError: if a file cannot be read, or the sizes of images and truth differ.
        """
        files = self.files[index]
        images = read_image(files.image_1), read_image(files.image_2)
        dense = self.read(*files.truth)
        sizes = [tuple(part.shape[-2:]) for part in (*images, dense.valid)]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"{files.image_1}, its second image and its ground truth have the sizes {sizes}; "
                "expected one"
            )
        return DensePairBatch(*images, *dense)

    def _cut(self, item: DensePairBatch, draws) -> DensePairBatch:
        size = self.config.size
        corner = crop_corners(draws, *item.valid.shape, size)
        target = cut(item.target.movedim(-1, 0), corner, size).movedim(0, -1)
        views = cut(item.image_1, corner, size), cut(item.image_2, corner, size)
        return DensePairBatch(*views, target, cut(item.valid[None], corner, size)[0])


def find_sintel(root: Path, rendering: str) -> list[MatchingFiles]:
    """List the consecutive frames of MPI Sintel's training part; `clean` or `final` rendering."""
    found = []
    for flow in sorted((root / "training" / "flow").glob("*/frame_*.flo")):
        number, scene = int(flow.stem.removeprefix("frame_")), flow.parent.name
        folder = root / "training" / rendering / scene
        images = (folder / f"frame_{number + step:04d}.png" for step in (0, 1))
        invalid = root / "training" / "invalid" / scene / f"{flow.stem}.png"
        found.append(MatchingFiles(*images, (flow, invalid)))
    return found


def find_flying_chairs(root: Path) -> list[MatchingFiles]:
    """List FlyingChairs: data/00001_img1.ppm, _img2.ppm, _flow.flo, all of them."""
    return [
        MatchingFiles(*(_sibling(flow, "flow.flo", f"img{i}.ppm") for i in (1, 2)), (flow,))
        for flow in sorted((root / "data").glob("*_flow.flo"))
    ]


def find_kitti_flow(root: Path) -> list[MatchingFiles]:
    """List KITTI 2015's flow, with the pixels that leave the image (flow_occ)."""
    images = root / "training" / "image_2"
    return [
        MatchingFiles(images / flow.name, images / _next_name(flow), (flow,))
        for flow in sorted((root / "training" / "flow_occ").glob("*_10.png"))
    ]


def find_kitti_stereo(root: Path) -> list[MatchingFiles]:
    """List KITTI 2015's stereo, with the pixels that the right image does not show (disp_occ_0)."""
    training = root / "training"
    return [
        MatchingFiles(training / "image_2" / d.name, training / "image_3" / d.name, (d,))
        for d in sorted((training / "disp_occ_0").glob("*_10.png"))
    ]


def find_middlebury(root: Path) -> list[MatchingFiles]:
    """List Middlebury 2014 (and 2021, Eval3): scenes with im0.png, im1.png and disp0 or disp0GT."""
    truths = sorted([*root.rglob("disp0.pfm"), *root.rglob("disp0GT.pfm")])
    return [MatchingFiles(t.parent / "im0.png", t.parent / "im1.png", (t,)) for t in truths]


LAYOUTS = {
    "sintel_clean": (lambda root: find_sintel(root, "clean"), read_sintel_flow),
    "sintel_final": (lambda root: find_sintel(root, "final"), read_sintel_flow),
    "flying_chairs": (find_flying_chairs, read_flo),
    "kitti_flow": (find_kitti_flow, read_kitti_flow),
    "kitti_stereo": (find_kitti_stereo, read_kitti_disparity),
    "middlebury": (find_middlebury, read_pfm_disparity),
}


def _paths(files: MatchingFiles) -> tuple[Path, ...]:
    return files.image_1, files.image_2, *files.truth


def _sibling(path: Path, ending: str, other: str) -> Path:
    return path.with_name(path.name.removesuffix(ending) + other)


def _next_name(path: Path) -> str:
    return path.name.replace("_10.png", "_11.png")
