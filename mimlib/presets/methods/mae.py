"""Runs of MAE: the embedded world in three sizes, and the paper's own."""

from collections.abc import Mapping

from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.mae import MAEConfig
from mimlib.presets.run import Preset
from mimlib.presets.scales import (
    ENCODERS,
    TINY_CARD,
    TINY_TRAINING,
    object_neighbours,
    semantic_probe,
)
from mimlib.training.config import TrainConfig

IMAGENET_TRAIN_IMAGES = 1_281_167
IMAGENET = ImageFolderConfig(root="data/imagenet", size=224, split="train", workers=12)
EPOCH = IMAGENET_TRAIN_IMAGES // 4096  # steps
DECODERS = {"tiny": (32, 1, 2), "lesson": (128, 2, 4), "gpu": (256, 4, 8)}  # width, depth, heads


def on_the_world(
    kind: type, encoders: Mapping[str, object], lesson_rate: float
) -> dict[str, dict[str, object]]:
    """Three sizes of a masked autoencoder, of MAE and ConvMAE alike: all that a row needs."""
    names = ("decoder_width", "decoder_depth", "decoder_heads")
    methods = {
        size: kind(encoder=encoders[size], **dict(zip(names, DECODERS[size]))) for size in DECODERS
    }
    lesson = TrainConfig(
        steps=800, batch_size=64, base_rate=lesson_rate, warmup_steps=80, log_every=20,
        save_every=200,
    )  # fmt: skip
    gpu = TrainConfig(
        steps=20_000, batch_size=512, base_rate=1.5e-4, warmup_steps=1_000, compile=True,
        save_every=2_000, evaluate_every=5_000,
    )  # fmt: skip
    return {
        "tiny": {
            "method": methods["tiny"],
            "data": WorldImagesConfig(count=64, size=32),
            "train": TINY_TRAINING,
            "evaluations": (semantic_probe(32, num_train=32, num_images=16),),
            "card": TINY_CARD,
        },
        "lesson": {
            "method": methods["lesson"],
            "data": WorldImagesConfig(count=4096, size=64),
            "train": lesson,
        },
        "gpu": {
            "method": methods["gpu"],
            "data": WorldImagesConfig(count=50_000, size=128, workers=8),
            "train": gpu,
            "evaluations": (semantic_probe(128), object_neighbours(128)),
        },
    }


def _in1k(parameters: int, encoder: ViTConfig, card: str) -> Preset:
    """The recipe all sizes share: only the encoder differs (appendix A.1)."""
    return Preset(
        parameters=parameters,
        card=card,
        processes=8,
        method=MAEConfig(encoder=encoder),
        data=IMAGENET,
        train=TrainConfig(
            steps=800 * EPOCH,
            batch_size=512,
            base_rate=1.5e-4,
            warmup_steps=40 * EPOCH,
            compile=True,
            log_every=50,
            save_every=5 * EPOCH,
        ),
    )


WORLD = on_the_world(MAEConfig, ENCODERS["mae"], lesson_rate=1e-2)
PRESETS = {
    "mae_tiny": Preset(parameters=51_872, **WORLD["tiny"]),
    "mae_lesson": Preset(
        parameters=1_256_384,
        card="Lesson 01: a minute on two cores, 64 x 64 views of the world, 64 patches of 8 x 8.",
        **WORLD["lesson"],
    ),
    "mae_gpu": Preset(
        parameters=24_676_544,
        card="One GPU and some minutes: ViT-S on 128 x 128 views, 256 patches of 8 x 8.",
        **WORLD["gpu"],
    ),
    "mae_vitb16_in1k": _in1k(
        111_655_680,
        vit_config("B", patch_size=16, image_size=224),
        """MAE ViT-B/16 on ImageNet-1k, 800 epochs (appendix A.1, table 8).

        Batch 4096 as 8 processes of 512. Expected after fine-tuning: 83.6 % for the released 1600
        epochs (table 3). Published cost: 2,069 GPU hours for 1600 epochs.""",
    ),
    "mae_vitl16_in1k": _in1k(
        329_239_296,
        vit_config("L", patch_size=16, image_size=224),
        """MAE ViT-L/16 on ImageNet-1k, 800 epochs; 85.9 % after 1600 and fine-tuning (table 3).

        Published cost: 42 h on 64 V100.""",
    ),
    "mae_vith14_in1k": _in1k(
        656_613_964,
        vit_config("H", patch_size=14, image_size=224),
        "MAE ViT-H/14 on ImageNet-1k, 800 epochs; 86.9 % after 1600 and fine-tuning (table 3).",
    ),
}
