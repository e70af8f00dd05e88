"""A source that decodes image files as they are needed."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimlib.data.batches import ImageBatch, LabelBatch, StretchedBatch
from mimlib.data.images import ImageFolder
from mimlib.data.indexed import IndexedSource
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.transforms import Augmentation, crop_resized, evaluation_view

REPLACEMENTS = 32  # unreadable images in a row before a folder is given up
BAD_SHARE = 0.1  # of the images seen that may be unreadable before a folder is given up


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
