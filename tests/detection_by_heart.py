"""Learn a handful of images by heart: from their files to average precision near 1.

    MIMLIB_REALDATA=... PYTHONPATH=. python tests/detection_by_heart.py coco
    PYTHONPATH=. python tests/detection_by_heart.py world --images 8 --steps 600

A wrong coordinate, class, mask or order anywhere between file and metric keeps it from 1.
"""

import argparse
import os
from pathlib import Path

from by_heart import encoder_of, learn

from mimlib.data.objects.coco import CocoConfig, CocoObjects
from mimlib.data.objects.views import DetectionSource
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.average_precision import AveragePrecision, AveragePrecisionConfig
from mimlib.tasks.detection import DetectionTaskConfig
from mimlib.training.config import TrainConfig

LEAST_AREA, MOST_OBJECTS = 40**2, 8  # pixels of every object, objects of an image
WIDTH = 128  # of the encoder
RATE = 1.5e-3  # highest learning rate of AdamW
HEAD = {
    "width": 64, "box_convs": 1, "box_width": 256, "sampled_anchors": 128, "sampled_boxes": 32,
    "candidates": 256, "proposals": 128,
}  # fmt: skip


class Chosen(DetectionSource):
    """Some images of another source."""

    def __init__(self, source, indices):
        self.source, self.indices = source, indices
        self.augmentation = source.augmentation

    def __len__(self):
        return len(self.indices)

    def identity(self):
        return f"{self.source.identity()} {self.indices}"

    def read(self, index):
        return self.source.read(self.indices[index])

    def load(self, request):
        return self.batch([self.read(index) for index in request.indices.tolist()], request)


def real_images(folder: Path, size: int, count: int) -> Chosen:
    """The first COCO images with objects that can be seen at this size, and not too many."""
    source: CocoObjects = CocoConfig(
        root=str(folder / "coco_subset"),
        images="images/train2017",
        annotations="annotations/panoptic_train2017.json",
        size=size,
        scale=(1.0, 1.0),
        flip=False,
    ).build()
    indices = []
    for index in range(len(source)):
        objects = source.read(index).objects
        areas = objects.areas[~objects.crowd]
        if 0 < len(areas) <= MOST_OBJECTS and areas.min() >= LEAST_AREA:
            indices.append(index)
    return Chosen(source, indices[:count])


def world_images(size: int, count: int) -> DetectionSource:
    """The world's first images."""
    return WorldDetectionConfig(count=count, size=size, scale=(1.0, 1.0), flip=False).build()


def by_heart(
    source: DetectionSource,
    encoder: ConvViTConfig | ViTConfig,
    num_classes: int,
    anchor_sizes: tuple[int, ...],
    steps: int,
    measure_every: int = 0,
) -> dict[str, float]:
    """Train on all images in every step and measure on the same, also every so many steps."""
    config = DetectionTaskConfig(
        encoder=encoder, num_classes=num_classes, anchor_sizes=anchor_sizes, **HEAD
    )
    measured = AveragePrecision(source, AveragePrecisionConfig(source=source.augmentation))
    train = TrainConfig(
        steps=steps,
        batch_size=len(source),
        base_rate=RATE * 256 / len(source),
        warmup_steps=steps // 15,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        clip_norm=1.0,
        log_every=50,
        evaluate_every=measure_every,
    )
    return learn(config, source, train, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("coco", "world"))
    parser.add_argument("--encoder", choices=("convvit", "vit"), default="convvit")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--size", type=int, default=0)
    args = parser.parse_args()
    real = args.data == "coco"
    size = args.size or (256 if real else 64)
    stride = 16 if real else 8
    if real:
        source = real_images(Path(os.environ["MIMLIB_REALDATA"]), size, args.images)
        anchors = tuple(side * size // 256 for side in (24, 40, 72, 128, 200))
    else:
        source, anchors = world_images(size, args.images), (6, 10, 16, 26, 44)
    encoder = encoder_of(args.encoder, size, stride, WIDTH)
    print(by_heart(source, encoder, 80 if real else 12, anchors, args.steps))


if __name__ == "__main__":
    main()
