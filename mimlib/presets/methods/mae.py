"""Runs of MAE: the embedded world in three sizes, and the paper's own."""

from collections.abc import Mapping

from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.vit import vit_config
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
    probe = semantic_probe(32, num_train=32, num_images=16)
    data = {
        "tiny": WorldImagesConfig(count=64, size=32),
        "lesson": WorldImagesConfig(count=4096, size=64),
        "gpu": WorldImagesConfig(count=50_000, size=128, workers=8),
    }
    train = {"tiny": TINY_TRAINING, "lesson": lesson, "gpu": gpu}
    evaluations = {"tiny": (probe,), "gpu": (semantic_probe(128), object_neighbours(128))}
    return {
        size: {
            "method": methods[size],
            "data": data[size],
            "train": train[size],
            "evaluations": evaluations.get(size, ()),
        }
        for size in DECODERS
    }


def on_imagenet(
    parameters: int,
    method: object,
    card: str,
    epochs: int = 800,
    warmup: int = 40,
    batch_size: int = 512,
    base_rate: float = 1.5e-4,
) -> Preset:
    """The recipe of all sizes (appendix A.1): 8 processes of a batch; epochs, also of warm-up."""
    epoch = IMAGENET_TRAIN_IMAGES // (8 * batch_size)  # steps
    train = TrainConfig(
        steps=epochs * epoch, batch_size=batch_size, base_rate=base_rate,
        warmup_steps=warmup * epoch, compile=True, log_every=50, save_every=5 * epoch,
    )  # fmt: skip
    data = ImageFolderConfig(root="data/imagenet", size=224, split="train", workers=12)
    return Preset(
        parameters=parameters, card=card, processes=8, method=method, data=data, train=train
    )


WORLD = on_the_world(MAEConfig, ENCODERS["mae"], lesson_rate=1e-2)
PRESETS = {
    "mae_tiny": Preset(parameters=51_872, card=TINY_CARD, **WORLD["tiny"]),
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
    "mae_vitb16_in1k": on_imagenet(
        111_655_680,
        MAEConfig(encoder=vit_config("B", patch_size=16, image_size=224)),
        """MAE ViT-B/16 on ImageNet-1k, 800 epochs (appendix A.1, table 8).

        Batch 4096 as 8 processes of 512. Expected after fine-tuning: 83.6 % for the released 1600
        epochs (table 3). Published cost: 2,069 GPU hours for 1600 epochs.""",
    ),
    "mae_vitl16_in1k": on_imagenet(
        329_239_296,
        MAEConfig(encoder=vit_config("L", patch_size=16, image_size=224)),
        """MAE ViT-L/16 on ImageNet-1k, 800 epochs; 85.9 % after 1600 and fine-tuning (table 3).

        Published cost: 42 h on 64 V100.""",
    ),
    "mae_vith14_in1k": on_imagenet(
        656_613_964,
        MAEConfig(encoder=vit_config("H", patch_size=14, image_size=224)),
        "MAE ViT-H/14 on ImageNet-1k, 800 epochs; 86.9 % after 1600 and fine-tuning (table 3).",
    ),
}
