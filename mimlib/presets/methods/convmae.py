"""Runs of ConvMAE: the embedded world in three sizes, and the paper's own."""

from mimlib.encoders.convvit import convvit_config
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.presets.methods.mae import on_imagenet, on_the_world
from mimlib.presets.run import Preset
from mimlib.presets.scales import ENCODERS, TINY_CARD

BASE = convvit_config("B", image_size=224)
# Half the rate of `mae_lesson`: of 2.5e-3, 5e-3 and 1e-2 the best features after 240 steps.
WORLD = on_the_world(ConvMAEConfig, ENCODERS["convmae"], lesson_rate=5e-3)
PRESETS = {
    "convmae_tiny": Preset(parameters=72_864, card=TINY_CARD, **WORLD["tiny"]),
    "convmae_lesson": Preset(
        parameters=1_245_120,
        card="Lesson 02: a minute on two cores, 64 x 64 views of the world, 64 cells of 8 x 8.",
        **WORLD["lesson"],
    ),
    "convmae_gpu": Preset(
        parameters=26_350_784,
        card="One GPU and some minutes: ConvMAE-S on 128 x 128 views, 256 cells of 8 x 8.",
        **WORLD["gpu"],
    ),
    "convmae_vitb16_in1k": on_imagenet(
        114_790_528,
        ConvMAEConfig(encoder=BASE),
        """ConvMAE-B on ImageNet-1k, 1600 epochs (section 4.1, PRETRAIN.md).

        As official: 3 nodes of 8 processes of 128, so batch 3072 at the rate of MAE; the authors
        name 2048 and 1024 elsewhere. Here 8 processes of 384. Expected after fine-tuning: 85.0 %
        (table 1). Published cost: 4,000 GPU hours.""",
        epochs=1600,
        batch_size=384,
    ),
    "fastconvmae_vitb16_in1k": on_imagenet(
        114_790_528,
        ConvMAEConfig(encoder=BASE, complementary=True),
        """ConvMAE-B with complementary masks on ImageNet-1k, 50 epochs: every patch is encoded.

        As official (FastConvMAE's README, targets are pixels): 8 processes of 64, rate 6e-4.
        Expected after fine-tuning: 84.4 %, which takes ConvMAE 200 epochs. Published cost: 266 GPU
        hours.""",
        epochs=50,
        warmup=10,
        batch_size=64,
        base_rate=6e-4,
    ),
}
