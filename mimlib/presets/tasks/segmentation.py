"""Runs that fine-tune an encoder for semantic segmentation."""

from mimlib import world
from mimlib.data.dense.segmentation import NUM_CLASSES, SegmentationFilesConfig
from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.vit import vit_config
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.run import Run
from mimlib.presets.scales import (
    CONV_GPU,
    CONV_LESSON,
    CONV_TINY,
    GPU,
    LESSON,
    TINY,
)
from mimlib.presets.tasks.depth_and_classes import (
    FINE_TUNING_NO_DECAY,
    fine_tuning,
    on_world_images,
)
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

ADE20K_SIZE, ADE20K_STRIDE = 512, 341  # pixels: crops and windows, and windows' distance
ADE20K_BATCH = 16
LESSON_TRAINING = fine_tuning(160, 32)
GPU_TRAINING = fine_tuning(4_000, 128)


def segmentation_tiny() -> Run:
    """Fine-tuned segmentation in seconds: for tests."""
    return _world("segmentation_tiny", TINY, channels=16, count=32, train=fine_tuning(20, 8))


def segmentation_lesson() -> Run:
    """UPerNet on the encoder of lesson 01, under a minute on two cores.

    python -m mimlib train segmentation_lesson --pretrained runs/mae_lesson --out runs/segmentation
    """
    return _world("segmentation_lesson", LESSON, channels=32, count=512, train=LESSON_TRAINING)


def segmentation_gpu() -> Run:
    """The same at 128 x 128 from an encoder of `mae_gpu`."""
    return _world("segmentation_gpu", GPU, channels=128, count=8192, train=GPU_TRAINING)


def segmentation_convmae_tiny() -> Run:
    """The same on the stages of a ConvMAE, in seconds: for tests."""
    name = "segmentation_convmae_tiny"
    return _world(name, CONV_TINY, channels=16, count=32, train=fine_tuning(20, 8))


def segmentation_convmae_lesson() -> Run:
    """UPerNet on the stages of lesson 02's encoder.

    python -m mimlib train segmentation_convmae_lesson --pretrained runs/convmae_lesson
    """
    name = "segmentation_convmae_lesson"
    return _world(name, CONV_LESSON, channels=32, count=512, train=LESSON_TRAINING)


def segmentation_convmae_gpu() -> Run:
    """The same at 128 x 128 from an encoder of `convmae_gpu`."""
    name = "segmentation_convmae_gpu"
    return _world(name, CONV_GPU, channels=128, count=8192, train=GPU_TRAINING)


def segmentation_vitb16_ade20k() -> Run:
    """MAE's ViT-B/16 with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

    Expected: 48.1 mIoU (MAE, table 5), single scale. MAE's own settings are not published; these
    are those of its authors' next paper (rate 8e-5, layer decay 0.8, drop path 0.1). Blocks as in
    BEiT's code, which MAE followed. Differs: no relative position biases (MAE adds them for this
    transfer).

    torchrun --nproc-per-node 8 -m mimlib train segmentation_vitb16_ade20k --pretrained WEIGHTS
    """
    size = ADE20K_SIZE
    encoder = vit_config("B", 16, size, drop_path=0.1, learned_positions=True)
    train = _ade20k_training(rate=8e-5, layer_decay=0.8)
    return _ade20k("segmentation_vitb16_ade20k", encoder, (3, 5, 7, 11), train)


def segmentation_convmaeb_ade20k() -> Run:
    """ConvMAE-B with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

    Expected: 51.7 mIoU (table 3), 63.9 mean accuracy, 84.5 pixel accuracy; windows of 512 pixels,
    341 apart. Differs: no relative position biases and no layer scale, which the official backbone
    adds for this transfer, and the coarsest map is pooled and not convolved.

    torchrun --nproc-per-node 8 -m mimlib train segmentation_convmaeb_ade20k --pretrained WEIGHTS
    """
    encoder = convvit_config("B", ADE20K_SIZE, drop_path=0.2, learned_positions=True)
    train = _ade20k_training(rate=1e-4, layer_decay=0.75)
    return _ade20k("segmentation_convmaeb_ade20k", encoder, (-1,), train)


def _world(name: str, encoder: EncoderConfig, channels: int, count: int, train: TrainConfig) -> Run:
    images = {"size": encoder.image_size, "target": "classes", "crop_scale": (0.5, 1.0)}
    task = SegmentationTaskConfig(
        encoder=encoder, num_classes=len(world.CLASSES), head="upernet", channels=channels
    )
    return on_world_images(name, task, images, count, train)


def _ade20k(name: str, encoder: EncoderConfig, blocks: tuple[int, ...], train: TrainConfig) -> Run:
    """Train on crops, measure every held-out image at its own size."""
    task = SegmentationTaskConfig(
        encoder=encoder,
        num_classes=NUM_CLASSES["ade20k"],
        head="upernet",
        channels=768,
        blocks=blocks,
        dropout=0.1,
        short_side=ADE20K_SIZE,
        window=ADE20K_SIZE,
        overlap=1 - ADE20K_STRIDE / ADE20K_SIZE,
    )
    training, validation = (
        SegmentationFilesConfig(
            root="data/ade20k", layout="ade20k", split=split, size=ADE20K_SIZE, workers=8
        )
        for split in ("training", "validation")
    )
    every_image = ValidationConfig(source=validation, num_images=0, batch_size=1, name="validation")
    return Run(name=name, method=task, data=training, train=train, evaluations=(every_image,))


def _ade20k_training(rate: float, layer_decay: float) -> TrainConfig:
    """As official: two images a process, a rate that falls in a straight line to 0."""
    return TrainConfig(
        steps=160_000,
        batch_size=ADE20K_BATCH // 8,
        base_rate=rate * IMAGES_PER_BASE_RATE / ADE20K_BATCH,
        warmup_steps=1_500,
        schedule="linear",
        betas=(0.9, 0.999),
        layer_decay=layer_decay,
        no_decay=FINE_TUNING_NO_DECAY,
        log_every=50,
        save_every=8_000,
        evaluate_every=16_000,
    )
