"""Sources of images with boxes and masks: what they share, and the world's own; COCO's in coco.py.

Letters: n images, R objects, H and W pixels.
"""

from abc import abstractmethod

from torch import Tensor

from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.views import LargeScaleJitter, Objects, collate, place_image, place_objects
from mimlib.data.order import Request, augmentation_draws
from mimlib.data.source import IndexedSource


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
