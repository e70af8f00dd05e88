"""Pairs with flow or disparity from the files of data sets; layouts.py lists which."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mimlib.data.batches import DensePairBatch
from mimlib.data.files.numbers import Dense
from mimlib.data.files.pictures import read_image
from mimlib.data.matching.layouts import LAYOUTS, LayoutName, MatchingFiles
from mimlib.data.matching.views import MatchingAugmentation, change_colours, change_shape
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.source import IndexedSource


@dataclass(frozen=True, kw_only=True)
class MatchingFilesConfig(MatchingAugmentation):
    """Pairs with flow or disparity in the layout of their data set.

    Augmented: crops of `size`, and what else the augmentation says. Un-augmented (`first`, `once`):
    whole images; where they differ in size, only one at a time.
    """

    root: str  # path of the data set, the folder that holds `training` (or the scenes)
    layout: LayoutName
    only: tuple[str, ...] = ()  # folders (scenes, parts) to take pairs from; none named: all
    without: tuple[str, ...] = ()  # folders to leave out
    workers: int = 0  # decoding processes

    def build(self) -> "MatchingSource":
        """List the data set.

        Raises:
            ValueError: if nothing of it is found, or a part of it is missing.
            RuntimeError: if h5py is missing for a data set that needs it.
        """
        root = Path(os.path.expanduser(self.root))
        layout = LAYOUTS[self.layout]
        files = [item for item in layout.find(root) if self._takes(item.image_1.relative_to(root))]
        if not files:
            chosen = (
                f", only {self.only} without {self.without}" if self.only + self.without else ""
            )
            raise ValueError(
                f"{root} holds nothing in the layout {self.layout!r}{chosen}; data/README.md says "
                "what goes where"
            )
        lost = [str(path) for item in files for path in _paths(item) if not path.exists()]
        if lost:
            raise ValueError(
                f"{len(lost)} files beside the ground truth in {root} are missing: "
                f"{', '.join(lost[:5])}; unpack the images, too"
            )
        return MatchingSource(root, files, layout.read, self)

    def _takes(self, image: Path) -> bool:
        folders = set(image.parts[:-1])
        return not folders & set(self.without) and (not self.only or bool(folders & set(self.only)))


class MatchingSource(IndexedSource):
    """Pairs with ground truth, decoded as they are needed.

    Paths are kept relative to the root in one array of bytes, see images.ImageFolder.
    """

    def __init__(
        self,
        root: Path,
        files: Iterable[MatchingFiles],
        read: Callable[..., Dense],
        config: MatchingFilesConfig,
    ):
        self.root, self.read, self.config = root, read, config
        self.workers = config.workers
        relative = [[os.fsencode(p.relative_to(root)) for p in _paths(item)] for item in files]
        self._paths = np.array(relative)

    def __len__(self) -> int:
        return len(self._paths)

    def preview(self, count: int) -> np.ndarray:
        """Spread `first` evenly over the set, so that it shows many scenes."""
        return np.arange(count) * len(self) // count

    def files(self, index: int) -> MatchingFiles:
        """Return the full paths of pair `index`."""
        first, second, *truth = (self.root / os.fsdecode(bytes(p)) for p in self._paths[index])
        return MatchingFiles(first, second, tuple(truth))

    def load(self, request: Request) -> DensePairBatch:
        """Decode, cut and colour the pairs of a request."""
        items = [self.item(index) for index in request.indices.tolist()]
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(items))
            items = [change_shape(item, row, self.config) for item, row in zip(items, draws)]
        sizes = {tuple(item.valid.shape) for item in items}
        if len(sizes) > 1:
            raise ValueError(
                f"whole images of the sizes {sorted(sizes)} make no batch; ask for one at a time"
            )
        batch = DensePairBatch(*map(torch.stack, zip(*items)))
        return batch if request.seed is None else change_colours(batch, draws, self.config)

    def item(self, index: int) -> DensePairBatch:
        """Read one pair, without the axis of the batch.

        Raises:
            ValueError: if a file cannot be read, or the sizes of images and truth differ.
        """
        files = self.files(index)
        images = read_image(files.image_1), read_image(files.image_2)
        dense = self.read(*files.truth)
        sizes = [tuple(part.shape[-2:]) for part in (*images, dense.valid)]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"{files.image_1}, its second image and its ground truth have the sizes {sizes}; "
                "expected one"
            )
        return DensePairBatch(*images, *dense)


def _paths(files: MatchingFiles) -> tuple[Path, ...]:
    return files.image_1, files.image_2, *files.truth
