"""Runs that fine-tune an encoder for boxes and masks: the embedded world, COCO."""

from mimlib import world
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.encoders import EncoderConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.pyramid import quarters
from mimlib.encoders.vit import vit_config
from mimlib.evaluation.average_precision import AveragePrecisionConfig
from mimlib.presets.run import Preset, with_cards
from mimlib.presets.scales import HELD_OUT_SEED, TUNING_SEED, in_epochs
from mimlib.presets.tasks.fine_tuning import cross
from mimlib.tasks.detection import DetectionTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

COCO_SIZE, COCO_CLASSES = 1024, 80
COCO_BATCH, COCO_TRAIN_IMAGES = 32, 118_000  # as official: what their 25 epochs are reckoned with
COCO_EPOCH = COCO_TRAIN_IMAGES / COCO_BATCH  # steps
COCO_RATE = 8e-5
WINDOW = 16  # patches
ADAMW = {  # as in every fine-tuning, but for the tables of the relative positions
    "betas": (0.9, 0.999),
    "no_decay": ("pos_embed", "cls_token", "table"),
}

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
WORLD = {  # head, images, steps, batch | parameters with the encoder of MAE, of ConvMAE
    "tiny": (TINY_HEAD, 16, 4, 4, 92_324, 97_564),
    "lesson": (LESSON_HEAD, 512, 300, 16, 1_458_684, 1_274_844),
    "small": (LESSON_HEAD, 4096, 1_200, 16, 1_458_556, 1_274_844),
    "gpu": (GPU_HEAD, 16_384, 8_000, 64, 27_551_420, 27_393_116),
}


def _world(encoder: EncoderConfig, head: dict, count: int, steps: int, batch_size: int) -> tuple:
    """Detect on `count` world images, and measure on a quarter as many held-out ones."""
    size, num_held_out = encoder.image_size, max(8, min(count // 4, 1024))
    held_out = WorldDetectionConfig(count=num_held_out, size=size, seed=HELD_OUT_SEED)
    train = TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=1.6e-2, warmup_steps=steps // 10,
        clip_norm=1.0, **ADAMW,
    )  # fmt: skip
    return (
        DetectionTaskConfig(encoder=encoder, num_classes=len(world.OBJECT_CLASSES), **head),
        WorldDetectionConfig(count=count, size=size, seed=TUNING_SEED, scale=(1.0, 1.0)),
        train,
        (AveragePrecisionConfig(source=held_out),),
    )


def _coco(parameters: int, encoder: EncoderConfig, epochs: int, **task: object) -> Preset:
    """As MIMDet trains: 25 or 100 epochs of 32 images on 8 GPUs."""
    images, held_out = (
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
    rate = COCO_RATE * IMAGES_PER_BASE_RATE / COCO_BATCH
    recipe = {"batch_size": COCO_BATCH // 8, "base_rate": rate, "weight_decay": 0.1, **ADAMW}
    return Preset(
        parameters,
        DetectionTaskConfig(encoder=encoder, num_classes=COCO_CLASSES, window=WINDOW, **task),
        images,
        in_epochs(epochs, COCO_EPOCH, warmup=1 / 8, evaluate=5, **recipe),
        (AveragePrecisionConfig(source=held_out, batch_size=4, name="val"),),
        processes=8,
        pretrained="WEIGHTS",
    )


CONVMAE = convvit_config("B", COCO_SIZE, drop_path=0.1)
VIT = vit_config("B", 16, COCO_SIZE, class_token=False, drop_path=0.1)
LAST = quarters(VIT.depth)  # the last block of each quarter
ROWS = {  # published: 104 M and 118 M; the cards say what differs
    "detection_convmaeb_coco": _coco(107_031_692, CONVMAE, 25, global_blocks=(0, 3, 6, 10)),
    "detection_vitb16_coco": _coco(115_534_092, VIT, 100, blocks=LAST, global_blocks=LAST),
}
CARDS = {
    "detection_convmaeb_coco": """
        ConvMAE-B with Mask R-CNN on COCO 2017, as its MIMDet-based code: 25 epochs of 32.

        1024 x 1024 pixels, large-scale jitter, windows of 16 but in four blocks, relative
        positions. Expected: 53.2 box AP, 47.1 mask AP (ConvMAE, table 4). Differs: layer in place
        of synchronized batch normalization in the pyramid and the heads.""",
    "detection_vitb16_coco": """
        MAE's ViT-B/16 with Mask R-CNN on COCO 2017: 100 epochs of 32.

        The last block of each quarter attends everywhere and makes a map (Li et al. 2021, arXiv
        2111.11429, whose 100 epochs give 50.4 box AP and 44.9 mask AP with batches of 64); the rest
        as `detection_convmaeb_coco`, to compare with. The class token of the weights is left
        out.""",
}
PRESETS = cross("detection", "Mask R-CNN", WORLD, _world) | with_cards(ROWS, CARDS)
