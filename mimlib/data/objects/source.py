"""Sources of images with boxes and masks: what they share.

Letters: n images, R objects, H and W pixels.
"""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.views import (
    LargeScaleJitter,
    Objects,
    coco_truth,
    collate,
    place_image,
    place_objects,
)
from mimlib.data.order import Request
from mimlib.data.source import IndexedSource


class Example(NamedTuple):
    """An image as it is stored, and what its data set says of it."""

    image: Tensor  # [3, H, W] uint8
    objects: Objects  # boxes may reach beyond the image or be empty
    image_id: int  # name of the image in the data set, a number


class DetectionSource(IndexedSource):
    """Images of any size with the objects in them."""

    augmentation: LargeScaleJitter
    class_names: tuple[str, ...]  # of labels 0, 1, ...

    @abstractmethod
    def read(self, index: int) -> Example:
        """Read an image with all that is known of it."""

    def batch(self, items: list[Example], request: Request) -> DetectionBatch:
        """Cut, resize and pad images with their objects.

        What is not augmented carries the truth for the metric, too.
        """
        draws = request.draws()
        rows = [None] * len(items) if draws is None else draws
        size, images, objects = self.augmentation.size, [], []
        for (image, known, _), numbers in zip(items, rows):
            placement = self.augmentation.place(numbers, *image.shape[1:])
            images.append(place_image(image, placement, size))
            objects.append(place_objects(known, placement, size))
        sizes = [tuple(each.image.shape[1:]) for each in items]
        truth = [coco_truth(each.objects) for each in items] if draws is None else []
        return collate(images, objects, sizes, [each.image_id for each in items], truth)
