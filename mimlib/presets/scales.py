"""What the runs share: three sizes of encoders on the embedded world, recipes, measurements."""

from dataclasses import replace

from mimlib import world
from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.data.videos.world import WorldVideosConfig
from mimlib.encoders.convvit import ConvViTConfig, convvit_config
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.evaluation.cross_view import CrossViewConfig
from mimlib.evaluation.frozen import FrozenProbeConfig, KNNConfig
from mimlib.evaluation.holes import HolesConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.propagation import PropagationConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.training.config import TrainConfig

TINY = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32)
LESSON = ViTConfig(width=128, depth=4, heads=4, patch_size=8, image_size=64)
SMALL = replace(LESSON, class_token=False, rotary=True)
GPU = vit_config("S", patch_size=8, image_size=128)
# The same cells of 8 x 8 pixels, in which the first two stages see 4 x 4 and 2 x 2 positions.
EIGHTH = (2, 2, 2)
CONV_TINY = ConvViTConfig(
    widths=(16, 24, 32), depths=(1, 1, 2), heads=2, entries=EIGHTH, image_size=32
)
CONV_LESSON = ConvViTConfig(
    widths=(32, 64, 128), depths=(1, 1, 3), heads=4, entries=EIGHTH, image_size=64
)
CONV_GPU = convvit_config("S", image_size=128, entries=EIGHTH)
ENCODERS = {  # by pre-training and size
    "mae": {"tiny": TINY, "lesson": LESSON, "small": SMALL, "gpu": GPU},
    "convmae": {"tiny": CONV_TINY, "lesson": CONV_LESSON, "small": CONV_LESSON, "gpu": CONV_GPU},
}
COSTS = {
    "tiny": "seconds, for tests",
    "lesson": "some minutes on two cores, 64 x 64 views of the world",
    "small": "half an hour of one core at most, 64 x 64 views of the world",
    "gpu": "some minutes on one GPU, 128 x 128 views of the world",
}
TINY_CARD = "Seconds on one core: for tests and for looking at the machinery."
GPU_CARD = "One GPU and some minutes: {} on 128 x 128 views, 256 patches of 8 x 8."
TINY_TRAINING = TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5)
GPU_TRAINING = TrainConfig(
    steps=20_000, batch_size=512, warmup_steps=1_000, compile=True,
    save_every=2_000, evaluate_every=5_000,
)  # fmt: skip
HELD_OUT_SEED = 1_000_000  # scenes that no training set holds
OBJECTS = {"target": "label", "aim": "object"}  # views of one thing each
TUNING_SEED = HELD_OUT_SEED + 2  # scenes that nothing was pre-trained on


def in_epochs(
    epochs: int, epoch: float, warmup: float, save: int = 1, evaluate: int = 0, **others: object
) -> TrainConfig:
    """Write a recipe whose lengths are epochs, of `epoch` steps each, as papers tell it."""
    lengths = {"warmup_steps": warmup, "save_every": save, "evaluate_every": evaluate}
    lengths = {name: round(number * epoch) for name, number in lengths.items()}
    return TrainConfig(steps=int(epochs * epoch), **lengths, **others)


def semantic_probe(size: int, num_train: int = 512, num_images: int = 256) -> FrozenProbeConfig:
    """What is seen in each patch, told by a linear layer on frozen tokens, on held-out scenes."""
    views = _held_out(size, num_train, num_images, target="classes")
    return FrozenProbeConfig(name="semantic", **views)


def object_neighbors(size: int, num_train: int = 1024, num_images: int = 512) -> KNNConfig:
    """Which object the camera looks at, told by the nearest frozen features."""
    return KNNConfig(name="objects", **_held_out(size, num_train, num_images, **OBJECTS))


def object_probe(size: int, num_train: int = 1024, num_images: int = 512) -> FrozenProbeConfig:
    """Which object the camera looks at, told by a linear layer on frozen features."""
    return FrozenProbeConfig(name="objects", **_held_out(size, num_train, num_images, **OBJECTS))


def _held_out(size: int, num_train: int, num_images: int, **views: str) -> dict[str, object]:
    """Labeled views of held-out scenes to learn from, and of others to measure on."""
    train, held_out = (
        WorldImagesConfig(count=count, size=size, seed=seed, **views)
        for count, seed in ((num_train, HELD_OUT_SEED), (num_images, HELD_OUT_SEED + 1))
    )
    counts = {"num_train": num_train, "num_images": num_images, "num_classes": len(world.CLASSES)}
    return {"train": train, "held_out": held_out, **counts}


def held_out(data: WorldImagesConfig | WorldPairsConfig, count: int = 0) -> ValidationConfig:
    """Measure on as many images or pairs of held-out scenes; 0: half as many, 16 to 1,024."""
    count = count or min(max(16, data.count // 2), 1024)
    source = replace(data, count=count, seed=HELD_OUT_SEED)
    return ValidationConfig(source=source, num_images=count, name="held_out")


def cross_view(size: int, num_pairs: int = 256) -> CrossViewConfig:
    """Where cross-attention looks and what is copied, on held-out pairs cut from larger views.

    The views of an easy pair differ by up to an eighth of their side, which is what looking
    straight ahead gets right; cut up to 3/16 of it apart, straight ahead is right for a third.
    """
    side = size * 3 // 2
    pairs = WorldPairsConfig(
        count=num_pairs, size=side, level="easy", seed=HELD_OUT_SEED, margin=0.0, target="flow"
    )
    shift, radius = size * 3 // 16, size / 8
    return CrossViewConfig(
        source=pairs, size=size, largest_shift=shift, radius=radius, num_images=num_pairs
    )


def label_propagation(size: int, patch_size: int, count: int = 64) -> LabelPropagationConfig:
    """How well things are followed through held-out clips by frozen tokens; pixels beside them."""
    radius = round(12 / 30 * size / patch_size)  # 12 tokens of 30, as DAVIS' frames have
    return LabelPropagationConfig(
        source=WorldVideosConfig(count=count, size=size, seed=HELD_OUT_SEED),
        propagation=PropagationConfig(short_side=size, multiple=patch_size, radius=radius),
    )


TINY_MEASURES = (semantic_probe(32, num_train=32, num_images=16),)
SMALL_MEASURES = (
    semantic_probe(64),
    HolesConfig(source=WorldImagesConfig(count=256, size=64, seed=HELD_OUT_SEED + 1)),
)
GPU_MEASURES = (semantic_probe(128), object_neighbors(128))
