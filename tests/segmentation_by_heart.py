"""Learn a handful of images by heart: from their files to an mIoU near 1.

    MIMLIB_REALDATA=... PYTHONPATH=. python tests/segmentation_by_heart.py ade20k

A wrong class, pixel or order anywhere between file and metric keeps it from 1. Images are measured
in windows and at their own sizes, several times as large as the network sees them.
"""

import argparse
import os
from pathlib import Path

from by_heart import encoder_of, learn

from mimlib.data.dense.segmentation import SegmentationFilesConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.training.config import TrainConfig

FILES = {
    "ade20k": {"root": "ade20k_voc_samples/ade20k", "layout": "ade20k", "split": ""},
    "coco": {"root": "coco_subset", "layout": "coco_semantic", "split": "train2017"},
}
WIDTH = 96  # of the encoder
NUM_CLASSES = {"ade20k": 150, "coco": 133}


def real_images(folder: Path, name: str, size: int) -> SegmentationFilesConfig:
    """The images of a data set, their shorter side in one crop, nothing changed but its place."""
    files = {**FILES[name], "root": str(folder / FILES[name]["root"])}
    return SegmentationFilesConfig(**files, size=size, scale=(1.0, 1.0), distort=False, flip=False)


def by_heart(
    data: SegmentationFilesConfig,
    encoder: ConvViTConfig | ViTConfig,
    num_classes: int,
    steps: int,
    measure_every: int = 0,
) -> dict[str, float]:
    """Train on crops of all images and measure on the same images, also every so many steps."""
    task = SegmentationTaskConfig(
        encoder=encoder, num_classes=num_classes, head="upernet", channels=64,
        short_side=data.size, window=data.size,
    )  # fmt: skip
    measured = ValidationConfig(source=data, num_images=0, batch_size=1).build()
    train = TrainConfig(
        steps=steps, batch_size=4, base_rate=0.64, warmup_steps=20, schedule="linear",
        betas=(0.9, 0.999), weight_decay=0.01, clip_norm=1.0, device="cpu", log_every=50,
        evaluate_every=measure_every,
    )  # fmt: skip
    return learn(task, data.build(), train, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=tuple(FILES))
    parser.add_argument("--encoder", choices=("convvit", "vit"), default="convvit")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--stride", type=int, default=8)
    args = parser.parse_args()
    data = real_images(Path(os.environ["MIMLIB_REALDATA"]), args.data, args.size)
    encoder = encoder_of(args.encoder, args.size, args.stride, WIDTH)
    print(by_heart(data, encoder, NUM_CLASSES[args.data], args.steps, measure_every=200))


if __name__ == "__main__":
    main()
