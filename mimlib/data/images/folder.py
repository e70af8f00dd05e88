"""Folders of images, as a list in a fixed order and as a source that decodes them when needed."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.batches import ImageBatch, LabelBatch, StretchedBatch
from mimlib.data.files.listing import FORMATS, Listing, is_hidden, is_image, walk_files
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource
from mimlib.data.order import Request
from mimlib.data.transforms.crops import Augmentation, cut_image, evaluation_view


class ImageFolder(Listing):
    """The images of a folder and its sub-folders, in the order of their paths.

    Hidden files and files of other formats are not counted. The first sub-folder on the way to an
    image is its class; classes are numbered in the order of their names, which for ImageNet is the
    standard numbering.
    """

    def __init__(self, root: str | Path):
        if not os.path.exists(root):
            raise ValueError(f"there is no folder {root}; data/README.md says what goes where")
        if not os.path.isdir(root):
            raise ValueError(f"{root} is a file; name the folder that holds the images")
        found = list(walk_files(root))
        paths = sorted(os.fsencode(path) for path in found if is_image(path))
        if not paths:
            endings = sorted({os.path.splitext(path)[1] or "no ending" for path in found})
            raise ValueError(
                f"{root} holds no images: expected files ending in {', '.join(FORMATS)}, "
                f"found {len(found)} others ({', '.join(endings[:5]) or 'the folder is empty'})"
            )
        super().__init__(root, ([os.fsdecode(path)] for path in paths))

    def labels(self, class_names: tuple[str, ...]) -> np.ndarray:
        """Return each image's index into `class_names`, [len] int64; ValueError if it has none."""
        number = {os.fsencode(name): index for index, name in enumerate(class_names)}
        heads = [bytes(path).rpartition(b"/")[0].partition(b"/")[0] for (path,) in self._paths]
        lost = sorted({os.fsdecode(head) for head in heads if head not in number})
        if lost:
            names = ", ".join(name or "images outside any sub-folder" for name in lost[:5])
            raise ValueError(
                f"{self.root} has images of no known class: {names}. With labels every image lies "
                f"in a sub-folder named after its class, one of the {len(class_names)} training "
                "classes (ImageNet's validation images come unsorted, see data/README.md)"
            )
        return np.array([number[head] for head in heads], dtype=np.int64)


def class_names(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the class sub-folders of `folder`, sorted."""
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name)))


class FolderSource(FileSource):
    """The images of a folder, in the order of their paths."""

    def __init__(self, folder: ImageFolder, config: Augmentation, labels: np.ndarray | None):
        super().__init__(folder, config)
        self.labels = self.known = labels

    def read(self, index: int) -> tuple[Tensor, int]:
        """Read an image [3, H, W] uint8 and say what class it is of; 0 without classes."""
        image = read_image(self.path(index))
        return image, 0 if self.labels is None else int(self.labels[index])

    def batch(self, items: list[tuple[Tensor, int]], request: Request) -> NamedTuple:
        """Cut the images; un-augmented, as evaluation on ImageNet does it."""
        (images, labels), config, draws = zip(*items), self.augmentation, request.draws()
        shapes = np.array([image.shape[1:] for image in images])  # [B, 2]
        if draws is None:
            views = [evaluation_view(i, config.size, config.evaluation_share) for i in images]
        else:
            views = map(cut_image, images, config.placements(draws, shapes))
        views = torch.stack(list(views))
        if self.labels is not None:
            return LabelBatch(views, torch.tensor(labels))
        if draws is not None and config.whole:
            return StretchedBatch(views, torch.from_numpy(shapes))
        return ImageBatch(views)
