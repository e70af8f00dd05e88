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
from mimlib.data.order import Request, augmentation_draws
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
    def example(self, index: int) -> Example:
        """Read an image with all that is known of it."""

    def load(self, request: Request) -> DetectionBatch:
        """Read the images of a request; cut, resize and pad them with their objects.

        What is not augmented carries the truth for the metric, too.
        """
        augmentation, indices = self.augmentation, request.indices.tolist()
        draws, truth = [None] * len(indices), []
        if request.seed is not None:
            draws = augmentation_draws(request.seed, request.first, len(indices))
        images, objects, sizes, image_ids = [], [], [], []
        for index, numbers in zip(indices, draws):
            image, known, image_id = self.example(index)
            placement = augmentation.place(numbers, *image.shape[1:])
            images.append(place_image(image, placement, augmentation.size))
            objects.append(place_objects(known, placement, augmentation.size))
            sizes.append(tuple(image.shape[1:]))
            image_ids.append(image_id)
            if request.seed is None:
                truth.append(coco_truth(known))
        return collate(images, objects, sizes, image_ids, truth)
