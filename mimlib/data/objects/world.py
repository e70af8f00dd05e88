"""Rooms of the world with the boxes and masks of their objects."""

from dataclasses import dataclass
from typing import Literal

import torch

from mimlib import world
from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.views import DetectionSource, Example, LargeScaleJitter, Objects
from mimlib.data.order import Request
from mimlib.data.source import HeldSource

ROOM_CLASSES = len(world.CLASSES) - len(world.OBJECT_CLASSES)  # floor, wall, ceiling: no objects


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
        check_positive(self, "count")
        check_range(self, "smallest", "workers", least=0)

    def build(self) -> "WorldObjects":
        """Render the views, or read them from the cache."""
        return WorldObjects(self)


class WorldObjects(DetectionSource, HeldSource):
    """The world's views, their instance maps and boxes held in memory."""

    class_names = world.OBJECT_CLASSES

    def __init__(self, config: WorldDetectionConfig):
        self.augmentation, self.smallest = config, config.smallest
        truth = ("image", "instances", "boxes")
        self.views = world.views(config.count, config.size, config.level, config.seed, truth)
        self.views["instances"] = self.views["instances"].to(torch.uint8)  # [n, H, W]
        super().__init__(self.views.values(), config.workers, world.maker())

    def load(self, request: Request) -> DetectionBatch:
        """Cut the views of a request with their objects."""
        return self.batch([self.read(index) for index in request.indices.tolist()], request)

    def read(self, index: int) -> Example:
        """Return a view with what is seen of each object; the room itself is none."""
        slots = self.views["boxes_valid"][index].nonzero()[:, 0]  # [R] instance ids
        masks = self.views["instances"][index] == slots[:, None, None].to(torch.uint8)
        areas = masks.sum(dim=(1, 2))
        objects = Objects(
            boxes=self.views["boxes"][index, slots],
            labels=self.views["boxes_class"][index, slots] - ROOM_CLASSES,
            masks=masks,
            crowd=areas < self.smallest,
            areas=areas.float(),
        )
        return Example(self.views["image"][index], objects, index)
