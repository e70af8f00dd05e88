"""What the runs on the embedded world share: three sizes of encoders, and measurements."""

from mimlib import world
from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.data.videos.world import WorldVideosConfig
from mimlib.encoders.convvit import ConvViTConfig, convvit_config
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.evaluation.cross_view import CrossViewConfig
from mimlib.evaluation.frozen import FrozenProbeConfig, KNNConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.propagation import PropagationConfig
from mimlib.training.config import TrainConfig

TINY = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32)
LESSON = ViTConfig(width=128, depth=4, heads=4, patch_size=8, image_size=64)
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
    "mae": {"tiny": TINY, "lesson": LESSON, "gpu": GPU},
    "convmae": {"tiny": CONV_TINY, "lesson": CONV_LESSON, "gpu": CONV_GPU},
}
TINY_CARD = "Seconds on one core: for tests and for looking at the machinery."
TINY_TRAINING = TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5)
HELD_OUT_SEED = 1_000_000  # scenes that no training set holds


def semantic_probe(size: int, num_train: int = 512, num_images: int = 256) -> FrozenProbeConfig:
    """What is seen in each patch, told by a linear layer on frozen tokens, on held-out scenes."""
    return FrozenProbeConfig(
        train=WorldImagesConfig(count=num_train, size=size, seed=HELD_OUT_SEED, target="classes"),
        held_out=WorldImagesConfig(
            count=num_images, size=size, seed=HELD_OUT_SEED + 1, target="classes"
        ),
        num_classes=len(world.CLASSES),
        num_train=num_train,
        num_images=num_images,
        name="semantic",
    )


def object_neighbours(size: int, num_train: int = 1024, num_images: int = 512) -> KNNConfig:
    """Which object the camera looks at, told by the nearest frozen features."""
    return KNNConfig(**_objects(size, num_train, num_images))


def object_probe(size: int, num_train: int = 1024, num_images: int = 512) -> FrozenProbeConfig:
    """Which object the camera looks at, told by a linear layer on frozen features."""
    return FrozenProbeConfig(**_objects(size, num_train, num_images))


def _objects(size: int, num_train: int, num_images: int) -> dict[str, object]:
    """Labeled views to learn from, and others of held-out scenes."""
    train, held_out = (
        WorldImagesConfig(count=count, size=size, seed=seed, aim="object", target="label")
        for count, seed in ((num_train, HELD_OUT_SEED), (num_images, HELD_OUT_SEED + 1))
    )
    return {
        "train": train,
        "held_out": held_out,
        "num_classes": len(world.CLASSES),
        "num_train": num_train,
        "num_images": num_images,
        "name": "objects",
    }


def cross_view(size: int, num_pairs: int = 256) -> CrossViewConfig:
    """Where cross-attention looks and what is copied, on held-out pairs cut from larger views.

    The views of an easy pair differ by up to an eighth of their side, which is what looking
    straight ahead gets right; cut up to 3/16 of it apart, straight ahead is right for a third.
    """
    pairs = WorldPairsConfig(
        count=num_pairs,
        size=size * 3 // 2,
        level="easy",
        seed=HELD_OUT_SEED,
        margin=0.0,
        target="flow",
    )
    return CrossViewConfig(
        source=pairs,
        size=size,
        largest_shift=size * 3 // 16,
        radius=size / 8,
        num_images=num_pairs,
    )


def label_propagation(size: int, patch_size: int, count: int = 64) -> LabelPropagationConfig:
    """How well things are followed through held-out clips by frozen tokens; pixels beside them."""
    radius = round(12 / 30 * size / patch_size)  # 12 tokens of 30, as DAVIS' frames have
    return LabelPropagationConfig(
        source=WorldVideosConfig(count=count, size=size, seed=HELD_OUT_SEED),
        propagation=PropagationConfig(short_side=size, multiple=patch_size, radius=radius),
    )
