"""Average precision of boxes and masks on held-out images, as COCO defines it.

torchmetrics and pycocotools compute it. What is found is laid on the image as it is stored, and
compared with what is true of that, so that masks and the bounds of size are those of the data set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.source import DetectionSource
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.evaluation.measurement import check_positive, evaluating
from mimlib.tasks.detection import Detections, DetectionTask, locate

KINDS = {"bbox": "box", "segm": "mask"}  # torchmetrics' names -> ours
MEASURES = {"map": "ap", "map_50": "ap_50", "map_75": "ap_75"}


@dataclass(frozen=True, kw_only=True)
class AveragePrecisionConfig:
    """Average precision of a detector on held-out images."""

    source: WorldDetectionConfig | CocoConfig
    num_images: int = 0  # the first so many; 0: all
    batch_size: int = 16  # images measured at once
    name: str = "held_out"

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        if self.num_images < 0:
            raise ValueError(f"num_images must be 0 (all) or more, got {self.num_images}")

    def build(self) -> "AveragePrecision":
        """Make the measurement with its source."""
        return AveragePrecision(self.source.build(), self)


class AveragePrecision:
    """Detect on held-out images and compare.

    Crowds are handed to the metric as such: what is found in them counts neither way.
    """

    def __init__(self, source: DetectionSource, config: AveragePrecisionConfig) -> None:
        self.name, self.source, self.config = config.name, source, config

    def run(self, model: DetectionTask, device: torch.device) -> Mapping[str, float]:
        """Return box_ap and mask_ap (mean over overlaps of 0.5 to 0.95), and both at 0.5 and 0.75.

        Raises:
            ValueError: if there is no object in any image.
        """
        metric = MeanAveragePrecision(iou_type=tuple(KINDS), sync_on_compute=False)
        metric.warn_on_many_detections = False
        with evaluating(model):
            for batch in self._batches():
                found = model.detect(batch.images.to(device))
                rows = zip(found, batch.sizes.tolist(), batch.image_ids.tolist())
                for each, sides, image_id in rows:
                    metric.update([self.answer(each, sides)], [self.expectation(image_id)])
        measured = metric.compute()
        named = {
            f"{kind}_{ours}": float(measured[f"{prefix}_{theirs}"])
            for prefix, kind in KINDS.items()
            for theirs, ours in MEASURES.items()
        }
        if min(named.values()) < 0:
            raise ValueError("nothing was counted: none of the held-out images has an object")
        return named

    def answer(self, found: Detections, sides: list[int]) -> dict[str, Tensor]:
        """Lay what was found on the image as it is stored, for the metric."""
        height, width = sides
        seen = self.source.augmentation.place(None, height, width).sides
        located = locate(found, (height, width), seen)
        return {name: field.cpu() for name, field in located._asdict().items()}

    def expectation(self, image_id: int) -> dict[str, Tensor]:
        """Return what is true of an image, for the metric."""
        truth = self.source.truth(image_id)
        return {
            "boxes": truth.boxes,
            "masks": truth.masks,
            "labels": truth.labels,
            "iscrowd": truth.crowd.long(),
            "area": truth.areas,
        }

    def _batches(self) -> Iterator[DetectionBatch]:
        left = self.config.num_images or len(self.source)
        for batch in self.source.once(min(self.config.batch_size, left)):
            yield type(batch)(*(field[:left] for field in batch))
            left -= len(batch.images)
            if left <= 0:
                return
