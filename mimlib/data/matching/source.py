"""Pairs with flow or disparity from the files of data sets; layouts.py lists which."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimlib.data.batches import DensePairBatch
from mimlib.data.files.listing import Listing
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource, check_sizes, stack_alike
from mimlib.data.matching.layouts import LAYOUTS
from mimlib.data.matching.views import MatchingAugmentation, change_colors, change_shape
from mimlib.data.order import Request


@dataclass(frozen=True, kw_only=True)
class MatchingFilesConfig(MatchingAugmentation):
    """Pairs with flow or disparity in the layout of their data set.

    Augmented: crops of `size`, and what else the augmentation says. Un-augmented (`first`, `once`):
    whole images; where they differ in size, only one at a time.
    """

    root: str  # path of the data set, the folder that holds `training` (or the scenes)
    layout: Literal[tuple(LAYOUTS)]
    only: tuple[str, ...] = ()  # folders (scenes, parts) to take pairs from; none named: all
    without: tuple[str, ...] = ()  # folders to leave out
    workers: int = 0  # decoding processes

    def build(self) -> "MatchingSource":
        """List the data set; ValueError if a part of it is missing, RuntimeError if h5py is."""
        root, layout = Path(os.path.expanduser(self.root)), LAYOUTS[self.layout]
        kind = f"in the layout {self.layout!r}"
        if self.only + self.without:
            kind += f", only {self.only} without {self.without}"
        found = (item for item in layout.find(root) if self._takes(item.image_1.relative_to(root)))
        files = Listing(root, ((item.image_1, item.image_2, *item.truth) for item in found), kind)
        return MatchingSource(files.check("unpack the images, too"), self, layout.read)

    def _takes(self, image: Path) -> bool:
        folders = set(image.parts[:-1])
        return not folders & set(self.without) and (not self.only or bool(folders & set(self.only)))


class MatchingSource(FileSource):
    """Pairs with ground truth, decoded as they are needed."""

    def read(self, index: int) -> DensePairBatch:
        """Read one pair, without the axis of the batch."""
        files = self.files.paths(index)
        images = [read_image(path) for path in files[:2]]
        dense = self.reader(*files[2:])
        check_sizes(files, *(part.shape[-2:] for part in (*images, dense.valid)))
        return DensePairBatch(*images, *dense)

    def batch(self, items: list[DensePairBatch], request: Request) -> DensePairBatch:
        """Scale, cut and color pairs, unless they are to be looked at."""
        draws = request.draws()
        if draws is None:
            return DensePairBatch(*stack_alike(items))
        items = [change_shape(item, row, self.augmentation) for item, row in zip(items, draws)]
        return change_colors(DensePairBatch(*stack_alike(items)), draws, self.augmentation)
