"""Runs that fine-tune an encoder for semantic segmentation."""

from mimlib import world
from mimlib.data.dense.segmentation import NUM_CLASSES, SegmentationFilesConfig
from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.vit import vit_config
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.run import Preset
from mimlib.presets.tasks.fine_tuning import NO_DECAY, cross, fine_tuning, on_world_images
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

ADE20K_SIZE, ADE20K_STRIDE = 512, 341  # pixels: crops and windows, and windows' distance
ADE20K_BATCH = 16
WORLD = {  # channels, images, steps, batch | parameters with the encoder of MAE, of ConvMAE
    "tiny": (16, 32, 20, 8, 74_790, 80_030),
    "lesson": (32, 512, 160, 32, 1_092_670, 908_830),
    "gpu": (128, 8192, 4_000, 128, 24_829_822, 24_671_518),
}


def _world(
    encoder: EncoderConfig, channels: int, count: int, steps: int, batch_size: int
) -> dict[str, object]:
    images = {"size": encoder.image_size, "target": "classes", "crop_scale": (0.5, 1.0)}
    task = SegmentationTaskConfig(
        encoder=encoder, num_classes=len(world.CLASSES), head="upernet", channels=channels
    )
    return on_world_images(task, images, count, fine_tuning(steps, batch_size))


def _ade20k(
    parameters: int,
    card: str,
    encoder: EncoderConfig,
    blocks: tuple[int, ...],
    rate: float,
    layer_decay: float,
) -> Preset:
    """As official: two images a process, a rate that falls in a straight line to 0.

    Trained on crops; every held-out image is measured at its own size.
    """
    training, validation = (
        SegmentationFilesConfig(
            root="data/ade20k", layout="ade20k", split=split, size=ADE20K_SIZE, workers=8
        )
        for split in ("training", "validation")
    )
    return Preset(
        parameters=parameters,
        card=card,
        processes=8,
        pretrained="WEIGHTS",
        method=SegmentationTaskConfig(
            encoder=encoder,
            num_classes=NUM_CLASSES["ade20k"],
            head="upernet",
            channels=768,
            blocks=blocks,
            dropout=0.1,
            short_side=ADE20K_SIZE,
            window=ADE20K_SIZE,
            overlap=1 - ADE20K_STRIDE / ADE20K_SIZE,
        ),
        data=training,
        train=TrainConfig(
            steps=160_000,
            batch_size=ADE20K_BATCH // 8,
            base_rate=rate * IMAGES_PER_BASE_RATE / ADE20K_BATCH,
            warmup_steps=1_500,
            schedule="linear",
            betas=(0.9, 0.999),
            layer_decay=layer_decay,
            no_decay=NO_DECAY,
            log_every=50,
            save_every=8_000,
            evaluate_every=16_000,
        ),
        evaluations=(
            ValidationConfig(source=validation, num_images=0, batch_size=1, name="validation"),
        ),
    )


PRESETS = cross("segmentation", "UPerNet", WORLD, _world) | {
    "segmentation_vitb16_ade20k": _ade20k(
        163_288_364,
        """MAE's ViT-B/16 with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

        Expected: 48.1 mIoU (MAE, table 5), single scale. MAE's own settings are not published;
        these are those of its authors' next paper (rate 8e-5, layer decay 0.8, drop path 0.1).
        Blocks as in BEiT's code, which MAE followed. Differs: no relative position biases (MAE adds
        them for this transfer).""",
        vit_config("B", 16, ADE20K_SIZE, drop_path=0.1, learned_positions=True),
        blocks=(3, 5, 7, 11),
        rate=8e-5,
        layer_decay=0.8,
    ),
    "segmentation_convmaeb_ade20k": _ade20k(
        154_325_676,
        """ConvMAE-B with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

        Expected: 51.7 mIoU (table 3), 63.9 mean accuracy, 84.5 pixel accuracy; windows of 512
        pixels, 341 apart. Differs: no relative position biases and no layer scale, which the
        official backbone adds for this transfer, and the coarsest map is pooled and not
        convolved.""",
        convvit_config("B", ADE20K_SIZE, drop_path=0.2, learned_positions=True),
        blocks=(-1,),
        rate=1e-4,
        layer_decay=0.75,
    ),
}
