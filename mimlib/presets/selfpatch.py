"""Runs of DINO, MoBY and SelfPatch: the embedded world in three sizes, and the papers' own."""

from dataclasses import replace

from mimlib.data.sources import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.contrast import ContrastConfig
from mimlib.methods.dino import DINOConfig
from mimlib.methods.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import MultiCropConfig
from mimlib.presets.mae import IMAGENET_TRAIN_IMAGES
from mimlib.presets.scales import GPU, LESSON, TINY, object_neighbours, semantic_probe
from mimlib.run import Run
from mimlib.training.config import TrainConfig

LEARNED = {"learned_positions": True, "position_nudge": 0.1}  # of DINO's and SelfPatch's encoders
COCO_TRAIN_IMAGES = 118_287

# What is compared, in three sizes: crops, and widths of the heads.
TINY_CROPS = MultiCropConfig(global_size=32, local_size=24, num_local=2, blur=(0.1, 0.5))
LESSON_CROPS = MultiCropConfig(global_size=48, local_size=24, num_local=4, blur=(0.1, 0.5))
GPU_CROPS = MultiCropConfig(global_size=128, local_size=64, num_local=6, blur=(0.1, 1.2))
TINY_IMAGES = DistillationConfig(prototypes=64, hidden=32, bottleneck=16)
LESSON_IMAGES = DistillationConfig(prototypes=1024, hidden=256, bottleneck=64)
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


def dino_tiny() -> Run:
    """Seconds on one core: for tests and for looking at the machinery."""
    return _dino_tiny("dino_tiny", replace(TINY, **LEARNED), TINY_IMAGES)


def dino_lesson() -> Run:
    """Lesson 04's comparison: images alone, no loss for patches, on 64 x 64 views of the world.

    python -m mimlib train dino_lesson --out runs/dino_lesson
    """
    method = DINOConfig(
        encoder=replace(LESSON, **LEARNED), crops=LESSON_CROPS, image=LESSON_IMAGES, momentum=0.99
    )
    return _lesson("dino_lesson", method)


def dino_gpu() -> Run:
    """Meant for one GPU and some minutes: ViT-S on 128 x 128 views, patches of 8 x 8.

    python -m mimlib train dino_gpu --out runs/dino_gpu
    """
    method = DINOConfig(encoder=replace(GPU, **LEARNED), crops=GPU_CROPS, image=GPU_IMAGES)
    return _gpu("dino_gpu", method)


def moby_tiny() -> Run:
    """MoBY with a Swin Transformer in seconds: for tests."""
    return _dino_tiny("moby_tiny", TINY_SWIN, TINY_CONTRAST, num_local=0)


def moby_lesson() -> Run:
    """MoBY: two crops, told from those of the other images of a step, by a small Swin.

    `--method.image.no-negatives` leaves the telling apart away.

    python -m mimlib train moby_lesson --out runs/moby_lesson
    """
    crops = replace(LESSON_CROPS, num_local=0)
    method = DINOConfig(encoder=LESSON_SWIN, crops=crops, image=LESSON_CONTRAST, momentum=0.99)
    return _lesson("moby_lesson", method)


def moby_gpu() -> Run:
    """The same at 128 x 128, meant for one GPU.

    python -m mimlib train moby_gpu --out runs/moby_gpu
    """
    crops = replace(GPU_CROPS, num_local=0)
    method = DINOConfig(encoder=GPU_SWIN, crops=crops, image=GPU_CONTRAST, momentum=0.99)
    return _gpu("moby_gpu", method)


def selfpatch_tiny() -> Run:
    """Seconds on one core: for tests and for looking at the machinery."""
    return _tiny("selfpatch_tiny", _selfpatch(TINY, TINY_CROPS, TINY_IMAGES, prototypes=32))


def selfpatch_lesson() -> Run:
    """Lesson 04: DINO and patches, 64 x 64 views of the world, 64 patches of 8 x 8.

    python -m mimlib train selfpatch_lesson --out runs/selfpatch_lesson
    """
    method = _selfpatch(LESSON, LESSON_CROPS, LESSON_IMAGES, prototypes=256, momentum=0.99)
    return _lesson("selfpatch_lesson", method)


def selfpatch_gpu() -> Run:
    """Meant for one GPU and some minutes: ViT-S on 128 x 128 views, 256 patches of 8 x 8.

    python -m mimlib train selfpatch_gpu --out runs/selfpatch_gpu
    """
    return _gpu("selfpatch_gpu", _selfpatch(GPU, GPU_CROPS, GPU_IMAGES, prototypes=4096))


def selfpatch_moby_tiny() -> Run:
    """Patches on MoBY in seconds: for tests."""
    return _tiny("selfpatch_moby_tiny", _on_moby(TINY, TINY_CROPS, TINY_CONTRAST))


def selfpatch_moby_lesson() -> Run:
    """Patches on MoBY: predicted, and told from the same patch of the other images.

    `--method.patches.no-negatives` leaves the telling apart of patches away (claim selfpatch.5).

    python -m mimlib train selfpatch_moby_lesson --out runs/selfpatch_moby_lesson
    """
    method = _on_moby(LESSON, LESSON_CROPS, LESSON_CONTRAST, momentum=0.99)
    return _lesson("selfpatch_moby_lesson", method)


def selfpatch_moby_gpu() -> Run:
    """The same at 128 x 128, meant for one GPU.

    python -m mimlib train selfpatch_moby_gpu --out runs/selfpatch_moby_gpu
    """
    return _gpu("selfpatch_moby_gpu", _on_moby(GPU, GPU_CROPS, GPU_CONTRAST, momentum=0.99))


def dino_vits16_in1k() -> Run:
    """DINO ViT-S/16 with the crops and the recipe of SelfPatch, for comparison: 200 epochs.

    DINO itself has the class token in its blocks. Published for 300 epochs, as SelfPatch compares
    itself: 40.8 box AP and 37.3 mask AP on COCO, 38.3 mIoU on ADE20K (Semantic FPN).

    torchrun --nproc-per-node 8 -m mimlib train dino_vits16_in1k --data.root data/imagenet
    """
    encoder = vit_config("S", 16, 224, drop_path=0.1, **LEARNED)
    return _paper("dino_vits16_in1k", DINOConfig(encoder=encoder), "data/imagenet")


def selfpatch_vits16_in1k() -> Run:
    """SelfPatch ViT-S/16 on ImageNet-1k, 200 epochs: batch 1024 as 8 processes of 128.

    Expected after fine-tuning: 42.1 box AP and 38.5 mask AP on COCO (Mask R-CNN, 12 epochs), 41.2
    mIoU on ADE20K (Semantic FPN, 40,000 steps). Differs: crops are cut from squares of 256 pixels,
    to which whole images are resized, and the warm-up has its peak a step later.

    torchrun --nproc-per-node 8 -m mimlib train selfpatch_vits16_in1k --data.root data/imagenet
    """
    encoder = vit_config("S", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
    return _paper("selfpatch_vits16_in1k", SelfPatchConfig(encoder=encoder), "data/imagenet")


def selfpatch_vitti16_coco() -> Run:
    """SelfPatch ViT-Ti/16 on COCO's images, the setting of the paper's ablations.

    200 epochs, batch 256, judged by label propagation on DAVIS-2017.

    torchrun --nproc-per-node 8 -m mimlib train selfpatch_vitti16_coco --data.root data/coco
    """
    encoder = vit_config("Ti", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
    return _paper(
        *("selfpatch_vitti16_coco", SelfPatchConfig(encoder=encoder), "data/coco"),
        split="train2017",
        num_images=COCO_TRAIN_IMAGES,
        batch_size=256,
    )


def _selfpatch(
    encoder: ViTConfig,
    crops: MultiCropConfig,
    image: DistillationConfig,
    prototypes: int,
    momentum: float = 0.996,
) -> SelfPatchConfig:
    return SelfPatchConfig(
        encoder=replace(encoder, class_token=False, **LEARNED),
        crops=crops,
        image=image,
        patches=replace(image, prototypes=prototypes),
        momentum=momentum,
    )


def _on_moby(
    encoder: ViTConfig, crops: MultiCropConfig, contrast: ContrastConfig, momentum: float = 0.996
) -> SelfPatchConfig:
    return SelfPatchConfig(
        encoder=replace(encoder, class_token=False, **LEARNED),
        crops=replace(crops, num_local=0),
        image=contrast,
        patches=contrast,
        momentum=momentum,
    )


def _dino_tiny(name: str, encoder: object, image: object, num_local: int = 2) -> Run:
    crops = replace(TINY_CROPS, num_local=num_local)
    return _tiny(name, DINOConfig(encoder=encoder, crops=crops, image=image))


def _tiny(name: str, method: DINOConfig | SelfPatchConfig) -> Run:
    return Run(
        name=name,
        method=method,
        data=_whole_views(count=64, size=32),
        train=TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5),
        evaluations=(semantic_probe(32, num_train=32, num_images=16),),
    )


def _lesson(name: str, method: DINOConfig | SelfPatchConfig) -> Run:
    train = TrainConfig(
        steps=400,
        batch_size=64,
        base_rate=4e-3,
        warmup_steps=40,
        weight_decay=0.04,
        clip_norm=3.0,
        clip_each=True,
        log_every=20,
        save_every=200,
    )
    return Run(name=name, method=method, data=_whole_views(count=4096, size=64), train=train)


def _gpu(name: str, method: DINOConfig | SelfPatchConfig) -> Run:
    return Run(
        name=name,
        method=method,
        data=_whole_views(count=50_000, size=128),
        train=TrainConfig(
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
        evaluations=(semantic_probe(128), object_neighbours(128)),
    )


def _whole_views(count: int, size: int) -> WorldImagesConfig:
    """Views as they are: the method cuts its own crops."""
    return WorldImagesConfig(count=count, size=size, crop_scale=(1.0, 1.0), flip=False)


def _paper(
    name: str,
    method: DINOConfig | SelfPatchConfig,
    root: str,
    split: str = "train",
    num_images: int = IMAGENET_TRAIN_IMAGES,
    batch_size: int = 1024,
) -> Run:
    """As official: 200 epochs, AdamW, 8 processes."""
    per_epoch = num_images // batch_size
    return Run(
        name=name,
        method=method,
        data=ImageFolderConfig(
            root=root, split=split, size=256, crop_scale=(1.0, 1.0), flip=False, workers=12
        ),
        train=TrainConfig(
            steps=200 * per_epoch,
            batch_size=batch_size // 8,
            base_rate=5e-4,
            warmup_steps=10 * per_epoch,
            min_rate=1e-6,
            weight_decay=0.04,
            final_weight_decay=0.4,
            betas=(0.9, 0.999),
            clip_norm=3.0,
            clip_each=True,
            log_every=50,
            save_every=5 * per_epoch,
        ),
    )
