"""Every named run. The only place where data, methods, tasks and training meet.

A run comes in four sizes: `_tiny` trains in seconds and serves the tests, `_lesson` learns in a
minute on two CPU cores, `_gpu` is meant for some minutes on one GPU, and the paper's own size
wants its data set and many GPUs. Each function is a recipe card.
"""

import difflib
from collections.abc import Callable

from mimlib import world
from mimlib.data.sources import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.mae import MAEConfig
from mimlib.run import Run
from mimlib.tasks.classification import ClassifierConfig
from mimlib.tasks.depth import DepthTaskConfig
from mimlib.tasks.evaluation import FrozenProbeConfig, KNNConfig, ValidationConfig
from mimlib.training.config import TrainConfig

IMAGENET_TRAIN_IMAGES = 1_281_167
FINE_TUNING_NO_DECAY = ("pos_embed", "cls_token")


# -------------------------------------------------------------------------------- embedded world

TINY = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32)
LESSON = ViTConfig(width=128, depth=4, heads=4, patch_size=8, image_size=64)
GPU = vit_config("S", patch_size=8, image_size=128)
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
    objects = {"size": size, "aim": "object", "target": "label"}
    return KNNConfig(
        train=WorldImagesConfig(count=num_train, seed=HELD_OUT_SEED, **objects),
        held_out=WorldImagesConfig(count=num_images, seed=HELD_OUT_SEED + 1, **objects),
        num_classes=len(world.CLASSES),
        num_train=num_train,
        num_images=num_images,
        name="objects",
    )


def mae_tiny() -> Run:
    """Seconds on one core: for tests and for looking at the machinery."""
    return Run(
        name="mae_tiny",
        method=MAEConfig(encoder=TINY, decoder_width=32, decoder_depth=1, decoder_heads=2),
        data=WorldImagesConfig(count=64, size=32),
        train=TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5),
        evaluations=(semantic_probe(32, num_train=32, num_images=16),),
    )


def mae_lesson() -> Run:
    """Lesson 01: a minute on two cores, 64 x 64 views of the world, 64 patches of 8 x 8.

    python -m mimlib train mae_lesson --out runs/mae_lesson
    """
    return Run(
        name="mae_lesson",
        method=MAEConfig(encoder=LESSON, decoder_width=128, decoder_depth=2, decoder_heads=4),
        data=WorldImagesConfig(count=4096, size=64),
        train=TrainConfig(
            steps=800,
            batch_size=64,
            base_rate=1e-2,
            warmup_steps=80,
            log_every=20,
            save_every=200,
        ),
    )


def mae_gpu() -> Run:
    """Meant for one GPU and some minutes: ViT-S on 128 x 128 views, 256 patches of 8 x 8.

    python -m mimlib train mae_gpu --out runs/mae_gpu
    """
    return Run(
        name="mae_gpu",
        method=MAEConfig(encoder=GPU, decoder_width=256, decoder_depth=4, decoder_heads=8),
        data=WorldImagesConfig(count=50_000, size=128, workers=8),
        train=TrainConfig(
            steps=20_000,
            batch_size=512,
            base_rate=1.5e-4,
            warmup_steps=1_000,
            compile=True,
            save_every=2_000,
            evaluate_every=5_000,
        ),
        evaluations=(semantic_probe(128), object_neighbours(128)),
    )


def depth_tiny() -> Run:
    """Fine-tuned depth in seconds: for tests."""
    return _depth("depth_tiny", TINY, count=32, steps=20, batch_size=8)


def depth_lesson() -> Run:
    """Fine-tuned depth of lesson 01, under half a minute on two cores.

    python -m mimlib train depth_lesson --pretrained runs/mae_lesson --out runs/depth
    """
    return _depth("depth_lesson", LESSON, count=512, steps=160, batch_size=32)


def depth_gpu() -> Run:
    """Fine-tuned depth at 128 x 128 from an encoder of `mae_gpu`."""
    return _depth("depth_gpu", GPU, count=8192, steps=4_000, batch_size=128)


def _depth(name: str, encoder: ViTConfig, count: int, steps: int, batch_size: int) -> Run:
    """Few labelled images, so that what pre-training knows can matter; no crops: metres stay."""
    images = {"size": encoder.image_size, "target": "depth", "crop_scale": (1.0, 1.0)}
    task = DepthTaskConfig(encoder=encoder)
    return _downstream(name, task, images, count, _fine_tuning(steps, batch_size))


def classify_tiny() -> Run:
    """Fine-tuned classification in seconds: for tests."""
    return _classify("classify_tiny", TINY, count=32, steps=20, batch_size=8)


def classify_lesson() -> Run:
    """Fine-tuned classification of the object the camera looks at.

    python -m mimlib train classify_lesson --pretrained runs/mae_lesson --out runs/classify
    """
    return _classify("classify_lesson", LESSON, count=1024, steps=240, batch_size=64)


def classify_gpu() -> Run:
    """The same at 128 x 128 from an encoder of `mae_gpu`."""
    return _classify("classify_gpu", GPU, count=16_384, steps=5_000, batch_size=256)


def _classify(name: str, encoder: ViTConfig, count: int, steps: int, batch_size: int) -> Run:
    images = {"size": encoder.image_size, "aim": "object", "target": "label"}
    task = ClassifierConfig(encoder=encoder, num_classes=len(world.CLASSES))
    return _downstream(name, task, images, count, _fine_tuning(steps, batch_size))


def _downstream(name: str, task: object, images: dict, count: int, train: TrainConfig) -> Run:
    """Fine-tune a task on `count` world images and measure it on half as many held-out ones."""
    held_out = WorldImagesConfig(count=max(16, count // 2), seed=HELD_OUT_SEED, **images)
    validation = ValidationConfig(source=held_out, num_images=held_out.count, name="held_out")
    data = WorldImagesConfig(count=count, seed=HELD_OUT_SEED + 2, **images)
    return Run(name=name, method=task, data=data, train=train, evaluations=(validation,))


def _fine_tuning(steps: int, batch_size: int) -> TrainConfig:
    """AdamW with a lower rate towards the input, as MAE fine-tunes (appendix A.1, table 9)."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        base_rate=8e-3,
        warmup_steps=steps // 10,
        betas=(0.9, 0.999),
        layer_decay=0.75,
        no_decay=FINE_TUNING_NO_DECAY,
    )


# ------------------------------------------------------------------------------- full scale: MAE


def mae_vitb16_in1k() -> Run:
    """MAE ViT-B/16 on ImageNet-1k, 800 epochs (appendix A.1, table 8).

    Batch 4096 as 8 processes of 512. Expected after fine-tuning: 83.6 % for the released 1600
    epochs (table 3). Published cost: 2,069 GPU hours for 1600 epochs.

    torchrun --nproc-per-node 8 -m mimlib train mae_vitb16_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vitb16_in1k", vit_config("B", patch_size=16, image_size=224))


def mae_vitl16_in1k() -> Run:
    """MAE ViT-L/16 on ImageNet-1k, 800 epochs; 85.9 % after 1600 and fine-tuning (table 3).

    Published cost: 42 h on 64 V100.

    torchrun --nproc-per-node 8 -m mimlib train mae_vitl16_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vitl16_in1k", vit_config("L", patch_size=16, image_size=224))


def mae_vith14_in1k() -> Run:
    """MAE ViT-H/14 on ImageNet-1k, 800 epochs; 86.9 % after 1600 and fine-tuning (table 3).

    torchrun --nproc-per-node 8 -m mimlib train mae_vith14_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vith14_in1k", vit_config("H", patch_size=14, image_size=224))


def _mae_in1k(name: str, encoder: ViTConfig) -> Run:
    """The recipe all sizes share: only the encoder differs (appendix A.1)."""
    per_epoch = IMAGENET_TRAIN_IMAGES // 4096
    return Run(
        name=name,
        method=MAEConfig(encoder=encoder),
        data=ImageFolderConfig(root="data/imagenet", size=224, split="train", workers=12),
        train=TrainConfig(
            steps=800 * per_epoch,
            batch_size=512,
            base_rate=1.5e-4,
            warmup_steps=40 * per_epoch,
            compile=True,
            log_every=50,
            save_every=5 * per_epoch,
        ),
    )


def finetune_vitb16_in1k() -> Run:
    """MAE's fine-tuning of ViT-B/16 (appendix A.1, table 9), 100 epochs at batch 1024.

    Expected: 83.6 % with the paper's whole recipe. RandAugment and random erasing are not in
    this source yet, so expect less.

    torchrun --nproc-per-node 8 -m mimlib train finetune_vitb16_in1k --pretrained WEIGHTS
    """
    per_epoch = IMAGENET_TRAIN_IMAGES // 1024
    encoder = vit_config("B", 16, 224, drop_path=0.1, learned_positions=True)
    train, held_out = (
        ImageFolderConfig(
            root="data/imagenet", size=224, split=s, labels=True, workers=12, crop_scale=(0.08, 1.0)
        )
        for s in ("train", "val")
    )
    return Run(
        name="finetune_vitb16_in1k",
        method=ClassifierConfig(encoder=encoder, num_classes=1000, mixup=0.8, cutmix=1.0),
        data=train,
        train=TrainConfig(
            steps=100 * per_epoch,
            batch_size=128,
            base_rate=5e-4,
            min_rate=1e-6,
            warmup_steps=5 * per_epoch,
            betas=(0.9, 0.999),
            layer_decay=0.65,
            no_decay=FINE_TUNING_NO_DECAY,
            compile=True,
            save_every=per_epoch,
            evaluate_every=5 * per_epoch,
        ),
        evaluations=(ValidationConfig(source=held_out, num_images=0, name="val"),),
    )


PRESETS: dict[str, Callable[[], Run]] = {
    function.__name__: function
    for function in (
        *(mae_tiny, mae_lesson, mae_gpu, mae_vitb16_in1k, mae_vitl16_in1k, mae_vith14_in1k),
        *(depth_tiny, depth_lesson, depth_gpu),
        *(classify_tiny, classify_lesson, classify_gpu, finetune_vitb16_in1k),
    )
}


def preset(name: str) -> Run:
    """Return the run of this name.

    Raises:
        ValueError: if there is none; the message names the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
        raise ValueError(
            f"no preset is called {name!r}; did you mean {', '.join(near)}? "
            "'python -m mimlib list' shows all"
        )
    return PRESETS[name]()
