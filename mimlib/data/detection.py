"""Sources of images with boxes and masks: what they share, and the world's own; COCO's in coco.py.

Letters: n images, R objects, H and W pixels.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mimlib import world
from mimlib.data.batches import DetectionBatch
from mimlib.data.indexed import IndexedSource
from mimlib.data.objects import LargeScaleJitter, Objects, collate, place_image, place_objects
from mimlib.data.order import Request, augmentation_draws

ROOM_CLASSES = len(world.CLASSES) - len(world.OBJECT_CLASSES)  # floor, wall, ceiling: no objects


class DetectionSource(IndexedSource):
    """Images of any size with the objects in them."""

    augmentation: LargeScaleJitter
    class_names: tuple[str, ...]  # of labels 0, 1, ...

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Return an image as it is stored, [3, H, W] uint8."""

    @abstractmethod
    def objects(self, index: int) -> Objects:
        """Return what is true of that image."""

    @abstractmethod
    def image_id(self, index: int) -> int:
        """Return the name of that image in the data set, a number."""

    @abstractmethod
    def truth(self, image_id: int) -> Objects:
        """Return what is true of the image of that name, at its stored size: for the metric."""

    def load(self, request: Request) -> DetectionBatch:
        """Read the images of a request; cut, resize and pad them with their objects."""
        augmentation, indices = self.augmentation, request.indices.tolist()
        draws = [None] * len(indices)
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(indices))
        images, objects, sizes = [], [], []
        for index, numbers in zip(indices, draws):
            image = self.image(index)
            sizes.append((image.shape[1], image.shape[2]))
            placement = augmentation.place(numbers, *sizes[-1])
            images.append(place_image(image, placement, augmentation.size))
            objects.append(place_objects(self.objects(index), placement, augmentation.size))
        return collate(images, objects, sizes, [self.image_id(index) for index in indices])


@dataclass(frozen=True, kw_only=True)
class WorldDetectionConfig(LargeScaleJitter):
    """Views of the embedded world with the box and the mask of every object in them."""

    count: int  # images in the set
    level: Literal["easy", "textured", "paper", "hard", "clip"] = "paper"  # of the world
    seed: int = 0  # of the scenes; sets of other seeds share no scene
    smallest: int = 16  # pixels that must be seen of an object, else it counts as crowd
    workers: int = 0  # processes that cut images ahead of time

    def __post_init__(self):
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count {self.count} is not positive; ask for at least one image")
        if self.smallest < 0 or self.workers < 0:
            raise ValueError(
                f"smallest is {self.smallest} and workers {self.workers}; expected 0 or more"
            )

    def build(self) -> "WorldObjects":
        """Render the views, or read them from the cache."""
        return WorldObjects(self)


class WorldObjects(DetectionSource):
    """The world's views, their instance maps and boxes held in memory."""

    class_names = world.OBJECT_CLASSES

    def __init__(self, config: WorldDetectionConfig):
        self.augmentation, self.workers, self.smallest = config, config.workers, config.smallest
        kinds = ("image", "instances", "boxes")
        self.views = world.views(
            config.count, config.size, level=config.level, seed=config.seed, truth=kinds
        )
        self.views["instances"] = self.views["instances"].to(torch.uint8)  # [n, H, W]

    def __len__(self) -> int:
        return len(self.views["image"])

    def image(self, index: int) -> Tensor:
        """Return a view, [3, H, W] uint8."""
        return self.views["image"][index]

    def objects(self, index: int) -> Objects:
        """Return what is seen of each object; the room itself is none."""
        slots = self.views["boxes_valid"][index].nonzero()[:, 0]  # [R] instance ids
        masks = self.views["instances"][index] == slots[:, None, None].to(torch.uint8)
        areas = masks.sum(dim=(1, 2))
        return Objects(
            boxes=self.views["boxes"][index, slots],
            labels=self.views["boxes_class"][index, slots] - ROOM_CLASSES,
            masks=masks,
            crowd=areas < self.smallest,
            areas=areas.float(),
        )

    def image_id(self, index: int) -> int:
        """Return the index."""
        return index

    def truth(self, image_id: int) -> Objects:
        """Return what is seen of each object."""
        return self.objects(image_id)
