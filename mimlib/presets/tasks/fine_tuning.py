"""Runs that fine-tune a pre-trained encoder: classes, depth and semantic segmentation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from mimlib import world
from mimlib.data.dense.depth import DepthFilesConfig
from mimlib.data.dense.segmentation import NUM_CLASSES, SegmentationFilesConfig
from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.vit import vit_config
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.methods.autoencoder import IMAGENET_TRAIN_IMAGES
from mimlib.presets.run import Preset, with_cards
from mimlib.presets.scales import COSTS, ENCODERS, OBJECTS, TUNING_SEED, held_out, in_epochs
from mimlib.tasks.classification import ClassifierConfig
from mimlib.tasks.depth import DepthTaskConfig, DPTDepthTaskConfig
from mimlib.tasks.segmentation import SegmentationTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

ADAMW = {"betas": (0.9, 0.999), "no_decay": ("pos_embed", "cls_token")}  # MAE, table 9
EPOCH = IMAGENET_TRAIN_IMAGES // 1024  # steps
# Segmentation after 500 steps, one seed: mIoU 0.42; with AdamW 0.24.
MUON = {"optimizer": "muon"}
TRAINING = {"lesson": MUON, "small": MUON | {"threads": 1, "evaluate_every": 250}}  # by size
NYU_TRAIN_IMAGES = 795  # of 1,449 labeled ones
ADE20K_SIZE, ADE20K_STRIDE = 512, 341  # pixels: crops and windows, and windows' distance
ADE20K_BATCH = 16
DEPTH = {  # images, steps, batch | parameters with the encoder of MAE, of ConvMAE
    "tiny": (32, 20, 8, 73_409, 83_073),
    "lesson": (512, 120, 32, 915_201, 805_377),
    "small": (8192, 2_000, 32, 915_073, 805_377),
    "gpu": (8192, 4_000, 128, 21_613_313, 22_107_137),
}
CLASSES = {
    "tiny": (32, 20, 8, 32_239, 41_903),
    "lesson": (1024, 240, 64, 820_367, 710_543),
    "gpu": (16_384, 5_000, 256, 21_375_375, 21_869_199),
}
SEGMENTATION = {  # channels before them
    "tiny": (16, 32, 20, 8, 74_790, 80_030),
    "lesson": (32, 512, 160, 32, 1_092_670, 908_830),
    "small": (32, 4096, 1_000, 32, 1_092_542, 908_830),
    "gpu": (128, 8192, 4_000, 128, 24_829_822, 24_671_518),
}


def cross(
    task: str, what: str, sizes: Mapping[str, tuple], make: Callable[..., tuple], rate: float = 8e-2
) -> dict[str, Preset]:
    """Cross the sizes of a task with the encoders of MAE and ConvMAE.

    Args:
        task: name of the task, and of its presets with the encoder of MAE.
        what: what is trained, for the cards.
        sizes: of each size what `make` wants, then the parameters with either encoder.
        make: from an encoder and those values to the method, data, training and evaluations.
        rate: base rate of Muon, for the sizes that train with it.
    """
    rows = {}
    for index, (pretraining, encoders) in enumerate(ENCODERS.items()):
        name = task if pretraining == "mae" else f"{task}_{pretraining}"
        for size, (*values, mae, convmae) in sizes.items():
            source = f"{pretraining}_{size}"
            card = f"{what} on the encoder of `{source}`: {COSTS[size]}."
            start = f"data/weights/{source}.safetensors" if size == "small" else f"runs/{source}"
            method, data, train, measures = make(encoders[size], *values)
            if size in TRAINING:
                train = replace(train, base_rate=rate, **TRAINING[size])
            parts = (mae, convmae)[index], method, data, train, measures
            rows[f"{name}_{size}"] = Preset(*parts, pretrained=start, card=card)
    return rows


def _on_world_images(
    task: Callable, images: dict, encoder: EncoderConfig, count: int, steps: int, batch_size: int
) -> tuple:
    """Fine-tune on `count` world images, as MAE does, and measure on held-out ones."""
    data = WorldImagesConfig(count=count, size=encoder.image_size, seed=TUNING_SEED, **images)
    train = TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=8e-3, warmup_steps=steps // 10,
        layer_decay=0.75, **ADAMW,
    )  # fmt: skip
    return task(encoder=encoder), data, train, (held_out(data),)


def _segmentation(encoder: EncoderConfig, channels: int, *numbers: int) -> tuple:
    num_classes, images = len(world.CLASSES), {"target": "classes", "crop_scale": (0.5, 1.0)}
    task = partial(
        SegmentationTaskConfig, num_classes=num_classes, head="upernet", channels=channels
    )
    return _on_world_images(task, images, encoder, *numbers)


# Few labeled images, so that what pre-training knows can matter; no crops: meters stay.
_depth = partial(_on_world_images, DepthTaskConfig, {"target": "depth", "crop_scale": (1.0, 1.0)})
_classes = partial(
    _on_world_images, partial(ClassifierConfig, num_classes=len(world.CLASSES)), OBJECTS
)


def _in1k(parameters: int, encoder: EncoderConfig) -> Preset:
    """The recipe both share: only the encoder differs."""
    crop = {"size": 224, "crop_scale": (0.08, 1.0)}
    images, others = (
        ImageFolderConfig(root="data/imagenet", split=split, labels=True, workers=12, **crop)
        for split in ("train", "val")
    )
    train = in_epochs(
        100, EPOCH, warmup=5, evaluate=5, batch_size=128, base_rate=5e-4, min_rate=1e-6,
        layer_decay=0.65, compile=True, **ADAMW,
    )  # fmt: skip
    task = ClassifierConfig(encoder=encoder, num_classes=1000, mixup=0.8, cutmix=1.0)
    measure = ValidationConfig(source=others, num_images=0, name="val")
    return Preset(parameters, task, images, train, (measure,), processes=8, pretrained="WEIGHTS")


def _ade20k(
    parameters: int, encoder: EncoderConfig, blocks: tuple[int, ...], rate: float, decay: float
) -> Preset:
    """As official: two images a process, a rate that falls in a straight line to 0.

    Trained on crops; every held-out image is measured at its own size. `decay` is that of layers.
    """
    images, others = (
        SegmentationFilesConfig(
            root="data/ade20k", layout="ade20k", split=split, size=ADE20K_SIZE, workers=8
        )
        for split in ("training", "validation")
    )
    task = SegmentationTaskConfig(
        encoder=encoder, num_classes=NUM_CLASSES["ade20k"], head="upernet", channels=768,
        blocks=blocks, dropout=0.1, short_side=ADE20K_SIZE, window=ADE20K_SIZE,
        overlap=1 - ADE20K_STRIDE / ADE20K_SIZE,
    )  # fmt: skip
    train = TrainConfig(
        steps=160_000, batch_size=ADE20K_BATCH // 8,
        base_rate=rate * IMAGES_PER_BASE_RATE / ADE20K_BATCH, warmup_steps=1_500,
        schedule="linear", layer_decay=decay,
        log_every=50, save_every=8_000, evaluate_every=16_000, **ADAMW,
    )  # fmt: skip
    measure = ValidationConfig(source=others, num_images=0, batch_size=1, name="validation")
    return Preset(parameters, task, images, train, (measure,), processes=8, pretrained="WEIGHTS")


def _nyuv2(parameters: int, encoder: EncoderConfig) -> Preset:
    """MultiMAE's protocol: 2000 epochs of 128 images."""
    images = DepthFilesConfig(
        root="data/nyuv2/train", layout="nyuv2", size=256, square=True,
        jitter=(0.1255, 0.4, 0.5), hue=0.2, jittered=0.5, gray=0.3, workers=12,
    )  # fmt: skip
    others = DepthFilesConfig(root="data/nyuv2/test", layout="nyuv2", size=256)
    steps = 2000 * NYU_TRAIN_IMAGES // 128
    train = TrainConfig(
        steps=steps, batch_size=64, base_rate=2e-4, warmup_steps=steps // 20,
        weight_decay=1e-4, layer_decay=0.75, precision="float32",
        save_every=steps // 20, evaluate_every=steps // 8, **ADAMW,
    )  # fmt: skip
    measure = ValidationConfig(source=others, num_images=0, name="test")
    task = DPTDepthTaskConfig(encoder=encoder)
    return Preset(parameters, task, images, train, (measure,), processes=2, pretrained="runs/croco")


SHAPE = {"drop_path": 0.1, "learned_positions": True}
DEEPER_DROP = SHAPE | {"drop_path": 0.2}
WORLD = {
    # At 8e-2 only encoders that know something learn depth from few labels: no fair comparison.
    **cross("depth", "Depth, fine-tuned", DEPTH, _depth, rate=2e-2),
    **cross("classify", "The object that the camera looks at, fine-tuned", CLASSES, _classes),
    **cross("segmentation", "UPerNet", SEGMENTATION, _segmentation),
}
ROWS = {
    "depth_vitb16_nyu": _nyuv2(104_532_353, vit_config("B", 16, 256, class_token=False)),
    "finetune_vitb16_in1k": _in1k(86_569_192, vit_config("B", 16, 224, **SHAPE)),
    # As official 85,374,824, and 1,536 of the encoder's own norm, passed by.
    "finetune_convvitb16_in1k": _in1k(85_376_360, convvit_config("B", 224, **SHAPE)),
    "segmentation_vitb16_ade20k": _ade20k(
        163_288_364, vit_config("B", 16, ADE20K_SIZE, **SHAPE), (3, 5, 7, 11), 8e-5, decay=0.8
    ),
    "segmentation_convmaeb_ade20k": _ade20k(
        154_325_676, convvit_config("B", ADE20K_SIZE, **DEEPER_DROP), (-1,), 1e-4, decay=0.75
    ),
}
CARDS = {
    "finetune_vitb16_in1k": """
        MAE's fine-tuning of ViT-B/16 (appendix A.1, table 9), 100 epochs at batch 1024.

        Expected: 83.6 % with the paper's whole recipe. RandAugment and random erasing are not in
        this source yet, so expect less.""",
    "finetune_convvitb16_in1k": """
        ConvMAE's fine-tuning of its encoder (FINETUNE.md): MAE's recipe, 100 epochs, batch 1024.

        As official, both stages of convolutions count as the first of 12 layers and hardly move.
        Expected: 85.0 % (table 1) with the whole recipe; see `finetune_vitb16_in1k` for what
        lacks.""",
    "depth_vitb16_nyu": """
        Depth on NYUv2 with a DPT head on CroCo's encoder: MultiMAE's protocol, batch 128.

        2000 epochs at 256 x 256 with strong changes of colors, 2 processes of 64. CroCo reports
        85.6 % delta_1 (v1, table 3) without publishing its protocol, and its table has 79.6 % for
        an MAE that MultiMAE's own code brings to 85.1 %: compare runs of this preset with each
        other only. For an MAE: --method.encoder.class-token""",
    "segmentation_vitb16_ade20k": """
        MAE's ViT-B/16 with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

        Expected: 48.1 mIoU (MAE, table 5), single scale. MAE's own settings are not published;
        these are those of its authors' next paper (rate 8e-5, layer decay 0.8, drop path 0.1).
        Blocks as in BEiT's code, which MAE followed. Differs: no relative position biases (MAE adds
        them for this transfer).""",
    "segmentation_convmaeb_ade20k": """
        ConvMAE-B with UPerNet on ADE20K: 160,000 steps of 16 crops of 512, on 8 GPUs.

        Expected: 51.7 mIoU (table 3), 63.9 mean accuracy, 84.5 pixel accuracy; windows of 512
        pixels, 341 apart. Differs: no relative position biases and no layer scale, which the
        official backbone adds for this transfer, and the coarsest map is pooled and not
        convolved.""",
}
PRESETS = WORLD | with_cards(ROWS, CARDS)
