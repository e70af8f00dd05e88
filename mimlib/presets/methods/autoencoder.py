"""Runs of MAE and ConvMAE: the embedded world in three sizes, and the papers' own."""

from dataclasses import replace

from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.convvit import convvit_config
from mimlib.encoders.vit import vit_config
from mimlib.methods.autoencoder import AutoencoderConfig
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.mae import MAEConfig
from mimlib.presets import scales
from mimlib.presets.run import Preset, with_cards
from mimlib.training.config import TrainConfig

IMAGENET_TRAIN_IMAGES = 1_281_167
DECODERS = {  # width, depth, heads
    "tiny": (32, 1, 2),
    "lesson": (128, 2, 4),
    "gpu": (256, 4, 8),
}
# AdamW, which the papers use, takes twice the steps to features not quite as good: CHANGELOG.md.
LESSON_TRAINING = TrainConfig(
    steps=400, batch_size=64, optimizer="muon", base_rate=2e-2, warmup_steps=40,
    log_every=10, save_every=200,
)  # fmt: skip
MAE_SMALL = replace(
    LESSON_TRAINING, steps=10_000, warmup_steps=500, log_every=100, save_every=500,
    evaluate_every=1_000,
)  # fmt: skip
# As long as that takes. After 1,000 steps 1e-2 had the best features, 2e-2 the best pixels.
CONVMAE_SMALL = replace(MAE_SMALL, steps=8_000, warmup_steps=400, base_rate=1e-2)
WHOLE_ROOMS = WorldImagesConfig(count=24_576, size=64, crop_scale=(1.0, 1.0))
GPU_VIEWS = WorldImagesConfig(count=50_000, size=128, workers=8)
SIZES = {  # images, training, measurements
    "tiny": (WorldImagesConfig(count=64, size=32), scales.TINY_TRAINING, scales.TINY_MEASURES),
    "lesson": (WorldImagesConfig(count=4096, size=64), LESSON_TRAINING, ()),
    "gpu": (GPU_VIEWS, scales.GPU_TRAINING, scales.GPU_MEASURES),
}


def _on_the_world(pretraining: str, size: str, parameters: int, **training: float) -> Preset:
    kind = {"mae": MAEConfig, "convmae": ConvMAEConfig}[pretraining]
    decoder = zip(("decoder_width", "decoder_depth", "decoder_heads"), DECODERS[size])
    method = kind(encoder=scales.ENCODERS[pretraining][size], **dict(decoder))
    images, train, evaluations = SIZES[size]
    return Preset(parameters, method, images, replace(train, **training), evaluations)


def _shipped(parameters: int, lesson: Preset, train: TrainConfig, **method: object) -> Preset:
    """Of the lesson's size, trained for longer: pixels of whole rooms, with Muon."""
    method = replace(lesson.method, normalize_target=False, **method)
    return Preset(parameters, method, WHOLE_ROOMS, train, scales.SMALL_MEASURES)


def _on_imagenet(
    parameters: int,
    method: AutoencoderConfig,
    epochs: int = 800,
    warmup: int = 40,
    batch_size: int = 512,
    base_rate: float = 1.5e-4,
) -> Preset:
    """The recipe of all sizes (appendix A.1): 8 processes of a batch; epochs, also of warm-up."""
    epoch = IMAGENET_TRAIN_IMAGES // (8 * batch_size)  # steps
    rate = {"batch_size": batch_size, "base_rate": base_rate}
    train = scales.in_epochs(epochs, epoch, warmup, save=5, compile=True, log_every=50, **rate)
    data = ImageFolderConfig(root="data/imagenet", size=224, split="train", workers=12)
    return Preset(parameters, method, data, train, processes=8)


CONVMAE = ConvMAEConfig(encoder=convvit_config("B", 224))
FAST = replace(CONVMAE, complementary=True)
MAE_LESSON = _on_the_world("mae", "lesson", 1_256_384)
CONVMAE_LESSON = _on_the_world("convmae", "lesson", 1_245_120, base_rate=1e-2)
ROWS = {
    "mae_tiny": _on_the_world("mae", "tiny", 51_872),
    "mae_lesson": MAE_LESSON,
    "mae_small": _shipped(1_256_256, MAE_LESSON, MAE_SMALL, encoder=scales.SMALL),
    "mae_gpu": _on_the_world("mae", "gpu", 24_676_544),
    "mae_vitb16_in1k": _on_imagenet(111_655_680, MAEConfig(encoder=vit_config("B", 16, 224))),
    "mae_vitl16_in1k": _on_imagenet(329_239_296, MAEConfig(encoder=vit_config("L", 16, 224))),
    "mae_vith14_in1k": _on_imagenet(656_613_964, MAEConfig(encoder=vit_config("H", 14, 224))),
    "convmae_tiny": _on_the_world("convmae", "tiny", 72_864),
    "convmae_lesson": CONVMAE_LESSON,
    "convmae_small": _shipped(1_245_120, CONVMAE_LESSON, CONVMAE_SMALL),
    "convmae_gpu": _on_the_world("convmae", "gpu", 26_350_784),
    "convmae_vitb16_in1k": _on_imagenet(114_790_528, CONVMAE, epochs=1600, batch_size=384),
    "fastconvmae_vitb16_in1k": _on_imagenet(114_790_528, FAST, 50, 10, 64, base_rate=6e-4),
}
CARDS = {
    "mae_tiny": scales.TINY_CARD,
    "mae_lesson": """
        Lesson 01: some minutes on two cores, 64 x 64 views of the world, 64 patches of 8 x 8.""",
    "mae_small": """
        Lesson 01's longer run on pixels of whole rooms, rotary positions, Muon; for three seeds.

        Measured: see data/receipts/mae_small.json, and data/weights for the network.""",
    "mae_gpu": scales.GPU_CARD.format("ViT-S"),
    "mae_vitb16_in1k": """MAE ViT-B/16 on ImageNet-1k, 800 epochs (appendix A.1, table 8).

        Batch 4096 as 8 processes of 512. Expected after fine-tuning: 83.6 % for the released 1600
        epochs (table 3). Published cost: 2,069 GPU hours for 1600 epochs.""",
    "mae_vitl16_in1k": """
        MAE ViT-L/16 on ImageNet-1k, 800 epochs; 85.9 % after 1600 and fine-tuning (table 3).

        Published cost: 42 h on 64 V100.""",
    "mae_vith14_in1k": """
        MAE ViT-H/14 on ImageNet-1k, 800 epochs; 86.9 % after 1600 and fine-tuning (table 3).""",
    "convmae_tiny": scales.TINY_CARD,
    "convmae_lesson": """
        Lesson 02: some minutes on two cores, 64 x 64 views of the world, 64 cells of 8 x 8.""",
    "convmae_small": """
        Lesson 02's longer run on pixels of whole rooms, Muon; for three seeds.

        Measured: see data/receipts/convmae_small.json, and data/weights for the network.""",
    "convmae_gpu": scales.GPU_CARD.format("ConvMAE-S"),
    "convmae_vitb16_in1k": """ConvMAE-B on ImageNet-1k, 1600 epochs (section 4.1, PRETRAIN.md).

        As official: 3 nodes of 8 processes of 128, so batch 3072 at the rate of MAE; the authors
        name 2048 and 1024 elsewhere. Here 8 processes of 384. Expected after fine-tuning: 85.0 %
        (table 1). Published cost: 4,000 GPU hours.""",
    "fastconvmae_vitb16_in1k": """
        ConvMAE-B with complementary masks on ImageNet-1k, 50 epochs: every patch is encoded.

        As official (FastConvMAE's README, targets are pixels): 8 processes of 64, rate 6e-4.
        Expected after fine-tuning: 84.4 %, which takes ConvMAE 200 epochs. Published cost: 266 GPU
        hours.""",
}
PRESETS = with_cards(ROWS, CARDS)
