"""Average precision of boxes and masks on held-out images, as COCO defines it.

What is found is laid on the image as it is stored, and compared with what is true of that, so that
masks and the bounds of size are those of the data set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.masks import coco_results
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.evaluation.measurement import Measurement, evaluating
from mimlib.metrics.detection import average_precision
from mimlib.tasks.detection import DetectionTask, postprocess


@dataclass(frozen=True, kw_only=True)
class AveragePrecisionConfig:
    """Average precision of a detector on held-out images."""

    source: WorldDetectionConfig | CocoConfig
    num_images: int = 0  # the first so many; 0: all
    batch_size: int = 16  # images measured at once
    name: str = "held_out"

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        check_range(self, "num_images", least=0, hint="0 means all")

    def build(self) -> "AveragePrecision":
        """Make the measurement with its source."""
        return AveragePrecision(self.source.build(), self)


class AveragePrecision(Measurement):
    """Detect on held-out images and compare with the truth that their batches carry."""

    def run(self, model: DetectionTask, device: torch.device) -> Mapping[str, float]:
        """Return box_ap, mask_ap, and each at overlaps and for sizes: see `average_precision`.

        Raises ValueError if there is no object in any image.
        """
        classes = range(model.num_classes)
        truth, found, count = [], [], 0
        with evaluating(model):
            for batch in self._batches():
                answers = model.detect(batch.images.to(device))
                for answer, sides, known in zip(answers, batch.sizes.tolist(), batch.truth):
                    count += 1
                    truth += [{**each, "image_id": count} for each in known]
                    seen = self.source.augmentation.place(None, *sides).sides
                    found += coco_results(count, *postprocess(answer, sides, seen), classes)
        return average_precision(truth, found, count)

    def _batches(self) -> Iterator[DetectionBatch]:
        left = self.config.num_images or len(self.source)
        for batch in self.source.once(min(self.config.batch_size, left)):
            yield type(batch)(*(field[:left] for field in batch))
            left -= len(batch.images)
            if left <= 0:
                return
