"""Folders of images, as a list in a fixed order and as a source that decodes them when needed."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.batches import ImageBatch, LabelBatch, StretchedBatch
from mimlib.data.files.pictures import FORMATS, is_hidden, is_image, read_image, walk_files
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.source import IndexedSource
from mimlib.data.transforms.crops import Augmentation, crop_resized, evaluation_view

REPLACEMENTS = 32  # unreadable images in a row before a folder is given up
BAD_SHARE = 0.1  # of the images seen that may be unreadable before a folder is given up


class ImageFolder:
    """The images of a folder and its sub-folders, in the order of their paths.

    Hidden files and files of other formats are not counted. The first sub-folder on the way to an
    image is its class; classes are numbered in the order of their names, which for ImageNet is the
    standard numbering.

    Paths are kept in one array of bytes: a list of a million strings would be copied into every
    worker process.
    """

    def __init__(self, root: str | Path):
        self.root = os.fspath(root)
        if not os.path.exists(self.root):
            raise ValueError(f"there is no folder {self.root}; data/README.md says what goes where")
        if not os.path.isdir(self.root):
            raise ValueError(f"{self.root} is a file; name the folder that holds the images")
        found = list(walk_files(self.root))
        paths = sorted(os.fsencode(path) for path in found if is_image(path))
        if not paths:
            endings = sorted({os.path.splitext(path)[1] or "no ending" for path in found})
            raise ValueError(
                f"{self.root} holds no images: expected files ending in {', '.join(FORMATS)}, "
                f"found {len(found)} others ({', '.join(endings[:5]) or 'the folder is empty'})"
            )
        self._paths = np.array(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Return the full path of image `index`."""
        return os.path.join(self.root, os.fsdecode(bytes(self._paths[index])))

    def read(self, index: int) -> Tensor:
        """Read image `index`, [3, H, W] uint8; ValueError if it cannot be read."""
        return read_image(self.path(index))

    def labels(self, class_names: tuple[str, ...]) -> np.ndarray:
        """Return the class of every image as an index into `class_names`, [len] int64.

        Raises:
            ValueError: if an image lies in no class folder, or in one that is not among the names.
        """
        number = {os.fsencode(name): index for index, name in enumerate(class_names)}
        heads = [bytes(path).rpartition(b"/")[0].partition(b"/")[0] for path in self._paths]
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


class FolderSource(IndexedSource):
    """The images of a folder, in the order of their paths.

    An image that cannot be read is replaced by the next readable one of the folder, so a batch
    still depends on its step alone. `unreadable` holds what was met so far: path -> reason.
    """

    def __init__(
        self,
        folder: ImageFolder,
        augmentation: Augmentation,
        labels: np.ndarray | None,
        evaluation_share: float,
        workers: int,
    ):
        self.folder = folder
        self.augmentation = augmentation
        self.labels = labels
        self.evaluation_share = evaluation_share
        self.workers = workers
        self.unreadable: dict[str, str] = {}
        self._asked = 0

    def __len__(self) -> int:
        return len(self.folder)

    def preview(self, count: int) -> np.ndarray:
        """Spread `first` evenly over the folder, so that it shows many classes."""
        return np.arange(count) * len(self) // count

    def load(self, request: Request) -> tuple[NamedTuple, dict[str, str]]:
        """Decode and cut the images of a request, and say what could not be read: path -> why."""
        unreadable: dict[str, str] = {}
        images, indices, shapes = [], [], []
        draws = None
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(request.indices))
        for row, wanted in enumerate(request.indices.tolist()):
            index, image = self._read_from(wanted, unreadable)
            indices.append(index)
            shapes.append(image.shape[1:])
            images.append(self._cut(image, None if draws is None else draws[row : row + 1]))
        batch = torch.stack(images)  # [B, 3, size, size]
        if self.labels is not None:
            return LabelBatch(batch, torch.from_numpy(self.labels[indices])), unreadable
        if draws is not None and self.augmentation.whole:
            return StretchedBatch(batch, torch.tensor(shapes)), unreadable
        return ImageBatch(batch), unreadable

    def accept(self, answer: tuple[NamedTuple, dict[str, str]]) -> NamedTuple:
        """Return the batch of an answer, and warn once of every unreadable image.

        Raises:
            ValueError: if more than a tenth of the folder's images cannot be read.
        """
        batch, unreadable = answer
        self._asked += len(batch[0])
        new = {path: why for path, why in unreadable.items() if path not in self.unreadable}
        if not new:
            return batch
        self.unreadable |= new
        seen = min(len(self), max(self._asked, 100))
        if len(self.unreadable) > BAD_SHARE * seen:
            raise ValueError(_too_many(self.folder.root, self.unreadable))
        warnings.warn(
            f"{len(new)} unreadable images skipped, {len(self.unreadable)} so far of {len(self)} "
            f"in {self.folder.root}; the next one stands in for each:\n{_listed(new)}",
            stacklevel=2,
        )
        return batch

    def _read_from(self, index: int, unreadable: dict[str, str]) -> tuple[int, Tensor]:
        """Return the first readable image at `index` or after it, and note those before it."""
        failed = {}
        for step in range(min(REPLACEMENTS, len(self))):
            candidate = (index + step) % len(self)
            try:
                image = self.folder.read(candidate)
            except ValueError as error:
                failed[self.folder.path(candidate)] = str(error)
                continue
            unreadable |= failed
            return candidate, image
        raise ValueError(_too_many(self.folder.root, failed))

    def _cut(self, image: Tensor, draws: np.ndarray | None) -> Tensor:
        size = self.augmentation.size
        if draws is None:
            return evaluation_view(image, size, self.evaluation_share)
        box = self.augmentation.boxes(draws, *([side] for side in image.shape[1:]))
        return crop_resized(image, box[0].tolist(), size, bool(self.augmentation.flips(draws)[0]))


def _too_many(root: str, unreadable: dict[str, str]) -> str:
    return (
        f"{len(unreadable)} images in {root} cannot be read, too many to go on without them; "
        f"remove or repair them:\n{_listed(unreadable)}"
    )


def _listed(unreadable: dict[str, str], most: int = 20) -> str:
    lines = [f"  {why}" for why in unreadable.values()]
    rest = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(lines[:most] + rest)
