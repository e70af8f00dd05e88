"""Runs of DINO, MoBY and SelfPatch on the embedded world; selfpatch_paper has the papers' own."""

from dataclasses import replace

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.methods.dino import DINOConfig
from mimlib.methods.objectives.contrast import ContrastConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import MultiCropConfig
from mimlib.presets.run import Preset
from mimlib.presets.scales import (
    GPU,
    TINY,
    TINY_CARD,
    TINY_TRAINING,
    label_propagation,
    object_neighbours,
    semantic_probe,
)
from mimlib.training.config import TrainConfig

LEARNED = {"learned_positions": True, "position_nudge": 0.1}  # of DINO's and SelfPatch's encoders

# Patches of 4 x 4. Positions are the fixed ones of MAE: runs this short do not learn any.
SMALL = ViTConfig(width=96, depth=3, heads=3, patch_size=4, image_size=64, class_token=False)

# What is compared, in three sizes: crops, and widths of the heads.
TINY_CROPS = MultiCropConfig(global_size=32, local_size=24, num_local=2, blur=(0.1, 0.5))
# Colors stay: they are what the things of the world are told apart by. No local crops: with
# them, half of the loss of patches is about 4 x 4 of them, and things are followed less well.
LESSON_CROPS = MultiCropConfig(
    global_size=32, local_size=16, num_local=0, blur=(0.1, 0.5), colour=0.0
)
GPU_CROPS = MultiCropConfig(global_size=128, local_size=64, num_local=6, blur=(0.1, 1.2))
TINY_IMAGES = DistillationConfig(prototypes=64, hidden=32, bottleneck=16)
# Two things keep a teacher of this size from saying the same of every image, which the center takes
# away: batch normalization, and a temperature half that of DINO.
LESSON_IMAGES = DistillationConfig(
    prototypes=256, hidden=128, bottleneck=64, batch_norm=True, teacher_temperature=0.02
)
# Centered by the run, things are followed less well: claim selfpatch.9.
LESSON_PATCHES = replace(LESSON_IMAGES, centre="crop")
GPU_IMAGES = DistillationConfig(prototypes=16_384, hidden=2048, bottleneck=256)
TINY_CONTRAST = ContrastConfig(hidden=32, outputs=16)
LESSON_CONTRAST = ContrastConfig(hidden=256, outputs=64)
GPU_CONTRAST = ContrastConfig(hidden=2048, outputs=256)
TINY_SWIN = SwinConfig(
    first_width=16, depths=(1, 2), heads=(1, 2), first_patch=4, window=4, image_size=32
)
LESSON_SWIN = SwinConfig(
    first_width=32, depths=(1, 1, 2), heads=(1, 2, 4), first_patch=2, window=4, image_size=64
)
GPU_SWIN = SwinConfig(
    first_width=96, depths=(2, 6, 2), heads=(3, 6, 12), first_patch=2, window=8, image_size=128
)


LESSON_TRAINING = TrainConfig(
    steps=200, batch_size=32, base_rate=8e-3, warmup_steps=20, weight_decay=0.04, clip_norm=3.0,
    clip_each=True, log_every=10, save_every=200,
)  # fmt: skip


def _whole_views(count: int, size: int) -> WorldImagesConfig:
    """Views as they are: the method cuts its own crops."""
    return WorldImagesConfig(count=count, size=size, crop_scale=(1.0, 1.0), flip=False)


SIZES = {  # data, training and measurements are the same for all four methods
    "tiny": {
        "data": _whole_views(count=64, size=32),
        "train": TINY_TRAINING,
        "evaluations": (semantic_probe(32, num_train=32, num_images=16),),
    },
    "lesson": {"data": _whole_views(count=4096, size=64), "train": LESSON_TRAINING},
    "small": {  # twice the steps of a lesson, and measured
        "data": _whole_views(count=4096, size=64),
        "train": replace(
            LESSON_TRAINING,
            steps=400,
            threads=1,
            save_every=400,
            log_every=20,
            evaluate_every=200,
        ),
        "evaluations": (label_propagation(64, patch_size=4),),
    },
    "gpu": {
        "data": _whole_views(count=50_000, size=128),
        "train": TrainConfig(
            steps=10_000,
            batch_size=256,
            base_rate=5e-4,
            warmup_steps=500,
            min_rate=1e-6,
            weight_decay=0.04,
            final_weight_decay=0.4,
            clip_norm=3.0,
            clip_each=True,
            save_every=2_000,
            evaluate_every=2_500,
        ),
        "evaluations": (semantic_probe(128), object_neighbours(128)),
    },
}


def _selfpatch(
    encoder: ViTConfig, crops: MultiCropConfig, image: DistillationConfig, prototypes: int
) -> SelfPatchConfig:
    encoder = replace(encoder, class_token=False, **LEARNED)
    patches = replace(image, prototypes=prototypes)
    return SelfPatchConfig(encoder=encoder, crops=crops, image=image, patches=patches)


def _on_moby(
    encoder: ViTConfig, crops: MultiCropConfig, contrast: ContrastConfig, momentum: float
) -> SelfPatchConfig:
    return SelfPatchConfig(
        encoder=replace(encoder, class_token=False),
        crops=replace(crops, num_local=0),
        image=contrast,
        patches=contrast,
        momentum=momentum,
    )


def _row(size: str, parameters: int, method: object, card: str) -> Preset:
    return Preset(parameters=parameters, card=card, method=method, **SIZES[size])


SMALL_DINO = DINOConfig(
    encoder=replace(SMALL, class_token=True),
    crops=LESSON_CROPS,
    image=LESSON_IMAGES,
    momentum=0.99,
)
SMALL_SELFPATCH = SelfPatchConfig(
    encoder=SMALL,
    crops=LESSON_CROPS,
    image=LESSON_IMAGES,
    patches=LESSON_PATCHES,
    patch_weight=5.0,
    momentum=0.99,
)
LEARNED_TINY, LEARNED_GPU = (replace(encoder, **LEARNED) for encoder in (TINY, GPU))
TWO_TINY_CROPS, TWO_GPU_CROPS = (replace(crops, num_local=0) for crops in (TINY_CROPS, GPU_CROPS))
PRESETS = {
    "dino_tiny": _row(
        "tiny",
        71_776,
        DINOConfig(encoder=LEARNED_TINY, crops=TINY_CROPS, image=TINY_IMAGES),
        TINY_CARD,
    ),
    "dino_lesson": _row(
        "lesson",
        789_184,
        SMALL_DINO,
        "Lesson 04's comparison: images alone, no loss for patches, on 64 x 64 views of the world.",
    ),
    "dino_small": _row(
        "small",
        789_184,
        SMALL_DINO,
        """What `selfpatch_small` is compared with: some two minutes on one core.

        Measured: see data/receipts/dino_small.json, and data/weights for the network.""",
    ),
    "dino_gpu": _row(
        "gpu",
        62_342_400,
        DINOConfig(encoder=LEARNED_GPU, crops=GPU_CROPS, image=GPU_IMAGES),
        "One GPU and some minutes: ViT-S on 128 x 128 views, patches of 8 x 8.",
    ),
    "moby_tiny": _row(
        "tiny",
        68_410,
        DINOConfig(encoder=TINY_SWIN, crops=TWO_TINY_CROPS, image=TINY_CONTRAST),
        "MoBY with a Swin Transformer in seconds: for tests.",
    ),
    "moby_lesson": _row(
        "lesson",
        1_138_038,
        DINOConfig(encoder=LESSON_SWIN, crops=LESSON_CROPS, image=LESSON_CONTRAST, momentum=0.99),
        """MoBY: two crops, told from those of the other images of a step, by a small Swin.

        `--method.image.no-negatives` leaves the telling apart away.""",
    ),
    "moby_gpu": _row(
        "gpu",
        17_348_804,
        DINOConfig(encoder=GPU_SWIN, crops=TWO_GPU_CROPS, image=GPU_CONTRAST, momentum=0.99),
        "The same at 128 x 128, meant for one GPU.",
    ),
    "selfpatch_tiny": _row(
        "tiny",
        128_832,
        _selfpatch(TINY, TINY_CROPS, TINY_IMAGES, prototypes=32),
        TINY_CARD,
    ),
    "selfpatch_lesson": _row(
        "lesson",
        1_344_704,
        SMALL_SELFPATCH,
        "Lesson 04: DINO and patches, 64 x 64 views of the world, 256 patches of 4 x 4.",
    ),
    "selfpatch_small": _row(
        "small",
        1_344_704,
        SMALL_SELFPATCH,
        """Three to four minutes on one core, measured by label propagation in clips of 64 x 64.

        Measured: see data/receipts/selfpatch_small.json, and data/weights for the network.""",
    ),
    "selfpatch_gpu": _row(
        "gpu",
        82_555_392,
        _selfpatch(GPU, GPU_CROPS, GPU_IMAGES, prototypes=4096),
        "One GPU and some minutes: ViT-S on 128 x 128 views, 256 patches of 8 x 8.",
    ),
    "selfpatch_moby_tiny": _row(
        "tiny",
        124_064,
        _on_moby(LEARNED_TINY, TINY_CROPS, TINY_CONTRAST, momentum=0.996),
        "Patches on MoBY in seconds: for tests.",
    ),
    "selfpatch_moby_lesson": _row(
        "lesson",
        1_362_752,
        _on_moby(SMALL, LESSON_CROPS, LESSON_CONTRAST, momentum=0.99),
        """Patches on MoBY: predicted, and told from the same patch of the other images.

        `--method.patches.no-negatives` leaves the telling apart of patches away (claim
        selfpatch.5).""",
    ),
    "selfpatch_moby_gpu": _row(
        "gpu",
        57_410_560,
        _on_moby(LEARNED_GPU, GPU_CROPS, GPU_CONTRAST, momentum=0.99),
        "The same at 128 x 128, meant for one GPU.",
    ),
}
