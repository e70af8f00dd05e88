"""Runs that fine-tune an encoder for boxes and masks: the embedded world, COCO."""

from mimlib import world
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.pyramid import quarters
from mimlib.encoders.vit import vit_config
from mimlib.evaluation.average_precision import AveragePrecisionConfig
from mimlib.presets.run import Run
from mimlib.presets.scales import (
    CONV_GPU,
    CONV_LESSON,
    CONV_TINY,
    GPU,
    HELD_OUT_SEED,
    LESSON,
    TINY,
)
from mimlib.tasks.detection import DetectionTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

COCO_SIZE, COCO_CLASSES = 1024, 80
COCO_BATCH, COCO_TRAIN_IMAGES = 32, 118_000  # as official: what their 25 epochs are reckoned with
COCO_EPOCH = COCO_TRAIN_IMAGES / COCO_BATCH  # steps
COCO_RATE = 8e-5
WINDOW = 16  # patches
NO_DECAY = ("pos_embed", "cls_token", "table")  # the tables of the relative positions

TINY_HEAD = {
    "anchor_sizes": (4, 8, 12, 16, 24), "width": 16, "box_convs": 1, "box_width": 32,
    "sampled_anchors": 32, "sampled_boxes": 16, "candidates": 40, "proposals": 20,
}  # fmt: skip
# Half of the world's objects have sides of 10 to 21 of 64 pixels.
LESSON_HEAD = {
    "anchor_sizes": (6, 10, 16, 26, 44), "width": 48, "box_convs": 1, "box_width": 128,
    "sampled_anchors": 64, "sampled_boxes": 32, "candidates": 128, "proposals": 64,
}  # fmt: skip
GPU_HEAD = {
    "anchor_sizes": (8, 16, 32, 56, 96), "width": 128, "box_width": 512,
    "sampled_boxes": 256, "candidates": 1000, "proposals": 300,
}  # fmt: skip


def detection_tiny() -> Run:
    """Fine-tuned detection in seconds: for tests."""
    return _world("detection_tiny", TINY, TINY_HEAD, count=16, steps=4, batch_size=4)


def detection_lesson() -> Run:
    """Mask R-CNN on the encoder of lesson 01, in minutes on two cores.

    python -m mimlib train detection_lesson --pretrained runs/mae_lesson --out runs/detection
    """
    return _world("detection_lesson", LESSON, LESSON_HEAD, count=512, steps=300, batch_size=16)


def detection_gpu() -> Run:
    """The same at 128 x 128 from an encoder of `mae_gpu`."""
    return _world("detection_gpu", GPU, GPU_HEAD, count=16_384, steps=8_000, batch_size=64)


def detection_convmae_tiny() -> Run:
    """The same on the stages of a ConvMAE, in seconds: for tests."""
    return _world("detection_convmae_tiny", CONV_TINY, TINY_HEAD, count=16, steps=4, batch_size=4)


def detection_convmae_lesson() -> Run:
    """Mask R-CNN on the stages of lesson 02's encoder.

    python -m mimlib train detection_convmae_lesson --pretrained runs/convmae_lesson
    """
    name = "detection_convmae_lesson"
    return _world(name, CONV_LESSON, LESSON_HEAD, count=512, steps=300, batch_size=16)


def detection_convmae_gpu() -> Run:
    """The same at 128 x 128 from an encoder of `convmae_gpu`."""
    name = "detection_convmae_gpu"
    return _world(name, CONV_GPU, GPU_HEAD, count=16_384, steps=8_000, batch_size=64)


def detection_convmaeb_coco() -> Run:
    """ConvMAE-B with Mask R-CNN on COCO 2017, as its MIMDet-based code: 25 epochs of 32, 8 GPUs.

    1024 x 1024 pixels, large-scale jitter, windows of 16 but in four blocks, relative positions.
    Expected: 53.2 box AP, 47.1 mask AP (ConvMAE, table 4). Differs: layer in place of synchronised
    batch normalisation in the pyramid and the heads.

    torchrun --nproc-per-node 8 -m mimlib train detection_convmaeb_coco --pretrained WEIGHTS
    """
    task = DetectionTaskConfig(
        encoder=convvit_config("B", COCO_SIZE, drop_path=0.1),
        num_classes=COCO_CLASSES,
        window=WINDOW,
        global_blocks=(0, 3, 6, 10),
    )
    return _coco("detection_convmaeb_coco", task, epochs=25)


def detection_vitb16_coco() -> Run:
    """MAE's ViT-B/16 with Mask R-CNN on COCO 2017: 100 epochs of 32, 8 GPUs.

    The last block of each quarter attends everywhere and makes a map (Li et al. 2021, arXiv
    2111.11429, whose 100 epochs give 50.4 box AP and 44.9 mask AP with batches of 64); the rest as
    `detection_convmaeb_coco`, to compare with. The class token of the weights is left out.

    torchrun --nproc-per-node 8 -m mimlib train detection_vitb16_coco --pretrained WEIGHTS
    """
    encoder = vit_config("B", 16, COCO_SIZE, class_token=False, drop_path=0.1)
    blocks = quarters(encoder.depth)
    task = DetectionTaskConfig(
        encoder=encoder,
        num_classes=COCO_CLASSES,
        blocks=blocks,
        window=WINDOW,
        global_blocks=blocks,
    )
    return _coco("detection_vitb16_coco", task, epochs=100)


def _world(
    name: str, encoder: EncoderConfig, head: dict, count: int, steps: int, batch_size: int
) -> Run:
    """Detect on `count` world images, and measure on a quarter as many held-out ones."""
    held_out = WorldDetectionConfig(
        count=max(8, min(count // 4, 1024)), size=encoder.image_size, seed=HELD_OUT_SEED
    )
    return Run(
        name=name,
        method=DetectionTaskConfig(encoder=encoder, num_classes=len(world.OBJECT_CLASSES), **head),
        data=WorldDetectionConfig(
            count=count, size=encoder.image_size, seed=HELD_OUT_SEED + 2, scale=(1.0, 1.0)
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=batch_size,
            base_rate=1.6e-2,
            warmup_steps=steps // 10,
            betas=(0.9, 0.999),
            clip_norm=1.0,
            no_decay=NO_DECAY,
        ),
        evaluations=(AveragePrecisionConfig(source=held_out),),
    )


def _coco(name: str, task: DetectionTaskConfig, epochs: int) -> Run:
    train, held_out = (
        CocoConfig(
            root="data/coco",
            images=f"{part}2017",
            annotations=f"annotations/instances_{part}2017.json",
            size=COCO_SIZE,
            skip_empty=part == "train",
            workers=8,
        )
        for part in ("train", "val")
    )
    return Run(
        name=name,
        method=task,
        data=train,
        train=TrainConfig(
            steps=int(epochs * COCO_EPOCH),
            batch_size=COCO_BATCH // 8,
            base_rate=COCO_RATE * IMAGES_PER_BASE_RATE / COCO_BATCH,
            warmup_steps=round(COCO_EPOCH / 8),
            weight_decay=0.1,
            no_decay=NO_DECAY,
            betas=(0.9, 0.999),
            save_every=round(COCO_EPOCH),
            evaluate_every=round(5 * COCO_EPOCH),
        ),
        evaluations=(AveragePrecisionConfig(source=held_out, batch_size=4, name="val"),),
    )
