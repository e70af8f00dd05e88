"""Runs of DINO, MoBY and SelfPatch on either: the embedded world in four sizes, the papers' own."""

from dataclasses import replace

from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.dino import DINOConfig
from mimlib.methods.objectives.contrast import ContrastConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import MultiCropConfig, SiameseConfig
from mimlib.presets import scales
from mimlib.presets.methods.autoencoder import IMAGENET_TRAIN_IMAGES
from mimlib.presets.run import Preset, with_cards
from mimlib.training.config import TrainConfig

COCO_TRAIN_IMAGES = 118_287
WHOLE = {"crop_scale": (1.0, 1.0), "flip": False}  # the methods cut their own crops
IMAGENET = ImageFolderConfig(root="data/imagenet", split="train", size=256, workers=12, **WHOLE)
COCO = replace(IMAGENET, root="data/coco", split="train2017")
LEARNED = {"learned_positions": True, "position_nudge": 0.1}  # of DINO's and SelfPatch's encoders
OFFICIAL = {  # AdamW of DINO and SelfPatch
    "base_rate": 5e-4, "min_rate": 1e-6, "weight_decay": 0.04, "final_weight_decay": 0.4,
    "clip_norm": 3.0, "clip_each": True,
}  # fmt: skip
BYOL_CROPS = MultiCropConfig(num_local=0, global_scale=(0.08, 1.0))
MOBY = {"momentum": 0.99, "image": ContrastConfig(), "crops": BYOL_CROPS}
MOBY_ADAMW = {
    "min_rate": 5e-6, "weight_decay": 0.05, "final_weight_decay": 0.0, "clip_each": False,
    "clip_norm": 2.5,  # of the mean of both directions; as official, 5 of their sum
    "no_decay": ("pos_embed", "relative_position_bias_table"),
}  # fmt: skip
RECIPES = {  # images, how many, batch, epochs, those of warm-up, AdamW
    "dino": (IMAGENET, IMAGENET_TRAIN_IMAGES, 1024, 200, 10, OFFICIAL),
    "dino, COCO": (COCO, COCO_TRAIN_IMAGES, 256, 200, 10, OFFICIAL),
    "moby": (IMAGENET, IMAGENET_TRAIN_IMAGES, 512, 300, 5, OFFICIAL | MOBY_ADAMW),
}
LESSON_TRAINING = TrainConfig(
    steps=200, batch_size=32, optimizer="muon", base_rate=2e-2, warmup_steps=20, weight_decay=0.04,
    clip_norm=3.0, clip_each=True, log_every=10, save_every=200,
)  # fmt: skip
SMALL_TRAINING = replace(  # eight times the steps of a lesson, and measured
    LESSON_TRAINING, steps=1600, threads=1, save_every=400, log_every=20, evaluate_every=400
)
GPU_TRAINING = TrainConfig(
    steps=10_000, batch_size=256, warmup_steps=500, save_every=2_000, evaluate_every=2_500,
    **OFFICIAL,
)  # fmt: skip
TINY_VIEWS = WorldImagesConfig(count=64, size=32, **WHOLE)
LESSON_VIEWS = WorldImagesConfig(count=4096, size=64, **WHOLE)
GPU_VIEWS = WorldImagesConfig(count=50_000, size=128, **WHOLE)
SIZES = {  # images, training and measurements of all four methods
    "tiny": (TINY_VIEWS, scales.TINY_TRAINING, scales.TINY_MEASURES),
    "lesson": (LESSON_VIEWS, LESSON_TRAINING, ()),
    "gpu": (GPU_VIEWS, GPU_TRAINING, scales.GPU_MEASURES),
    "small": (LESSON_VIEWS, SMALL_TRAINING, (scales.label_propagation(64, patch_size=4),)),
}


def _methods(
    encoder: ViTConfig,
    swin: SwinConfig,
    crops: MultiCropConfig,
    images: DistillationConfig,
    patches: DistillationConfig,
    contrast: ContrastConfig,
    momentum: tuple[float, float],
    patch_weight: float = 0.1,
) -> dict[str, SiameseConfig]:
    """The four methods of one size; momenta are DINO's and MoBY's, the weight is SelfPatch's."""
    on_dino = {"crops": crops, "image": images, "momentum": momentum[0]}
    on_moby = {"crops": replace(crops, num_local=0), "image": contrast, "momentum": momentum[1]}
    without = replace(encoder, class_token=False)
    return {
        "dino": DINOConfig(encoder=encoder, **on_dino),
        "moby": DINOConfig(encoder=swin, **on_moby),
        "selfpatch": SelfPatchConfig(
            encoder=without, patches=patches, patch_weight=patch_weight, **on_dino
        ),
        "selfpatch_moby": SelfPatchConfig(encoder=without, patches=contrast, **on_moby),
    }


TINY_SWIN = SwinConfig(
    first_width=16, depths=(1, 2), heads=(1, 2), first_patch=4, window=4, image_size=32
)
LESSON_SWIN = SwinConfig(
    first_width=32, depths=(1, 1, 2), heads=(1, 2, 4), first_patch=2, window=4, image_size=64
)
GPU_SWIN = SwinConfig(
    first_width=96, depths=(2, 6, 2), heads=(3, 6, 12), first_patch=2, window=8, image_size=128
)
TINY_CLASSES = DistillationConfig(prototypes=64, hidden=32, bottleneck=16)
# Two things keep a teacher of this size from saying the same of every image, which the center takes
# away: batch normalization, and a temperature half that of DINO.
LESSON_CLASSES = DistillationConfig(
    prototypes=256, hidden=128, bottleneck=64, batch_norm=True, teacher_temperature=0.02
)
GPU_CLASSES = DistillationConfig(prototypes=16_384, hidden=2048, bottleneck=256)
METHODS = {
    "tiny": _methods(
        encoder=replace(scales.TINY, **LEARNED),
        swin=TINY_SWIN,
        crops=MultiCropConfig(global_size=32, local_size=24, num_local=2, blur=(0.1, 0.5)),
        images=TINY_CLASSES,
        patches=replace(TINY_CLASSES, prototypes=32),
        contrast=ContrastConfig(hidden=32, outputs=16),
        momentum=(0.996, 0.996),
    ),
    "lesson": _methods(
        # Rotary positions: with a table of them even an untrained network follows objects by where
        # they were, and what training adds is hidden.
        encoder=ViTConfig(width=96, depth=3, heads=3, patch_size=4, image_size=64, rotary=True),
        swin=LESSON_SWIN,
        # Colors stay: they are what the things of the world are told apart by. No local crops: with
        # them, half of the loss of patches is about 4 x 4 of them, and things are followed less
        # well.
        crops=MultiCropConfig(
            global_size=32, local_size=16, num_local=0, blur=(0.1, 0.5), color=0.0
        ),
        images=LESSON_CLASSES,
        # Centered by the run, things are followed less well: claim selfpatch.9.
        patches=replace(LESSON_CLASSES, center="crop"),
        contrast=ContrastConfig(hidden=256, outputs=64),
        # At 0.99 a third of the teacher would still be its random weights after 200 steps.
        momentum=(0.96, 0.96),
        patch_weight=5.0,
    ),
    "gpu": _methods(
        encoder=replace(scales.GPU, **LEARNED),
        swin=GPU_SWIN,
        crops=MultiCropConfig(global_size=128, local_size=64, num_local=6, blur=(0.1, 1.2)),
        images=GPU_CLASSES,
        patches=replace(GPU_CLASSES, prototypes=4096),
        contrast=ContrastConfig(hidden=2048, outputs=256),
        momentum=(0.996, 0.99),
    ),
}
# After 400 steps a weight of 5 is best, after 1,600 it is one of 1: CHANGELOG.md.
METHODS["small"] = METHODS["lesson"] | {
    "selfpatch": replace(METHODS["lesson"]["selfpatch"], patch_weight=1.0)
}


def _on_the_world(method: str, *parameters: int) -> dict[str, Preset]:
    """Rows of one method, as many sizes of it as there are numbers of parameters."""
    return {
        f"{method}_{size}": Preset(number, METHODS[size][method], *SIZES[size])
        for size, number in zip(SIZES, parameters)
    }


def _official(recipe: str, parameters: int, method: SiameseConfig) -> Preset:
    """As official: batches spread over 8 processes."""
    images, num_images, batch_size, epochs, warmup, adamw = RECIPES[recipe]
    train = scales.in_epochs(
        epochs, num_images // batch_size, warmup, save=5, batch_size=batch_size // 8,
        betas=(0.9, 0.999), log_every=50, **adamw,
    )  # fmt: skip
    return Preset(parameters, method, images, train, processes=8)


def _vit(size: str, drop_path: float = 0.1, class_token: bool = False) -> ViTConfig:
    changes = {"drop_path": drop_path, "class_token": class_token}
    return vit_config(size, 16, 224, **changes, **LEARNED)


DINO_S = DINOConfig(encoder=_vit("S", class_token=True))
MOBY_SWIN = DINOConfig(encoder=SwinConfig(drop_path=0.2), **MOBY)
SELFPATCH_S, SELFPATCH_TI = (SelfPatchConfig(encoder=_vit(size)) for size in ("S", "Ti"))
SELFPATCH_MOBY_S = SelfPatchConfig(encoder=_vit("S", 0.2), patches=ContrastConfig(), **MOBY)
ROWS = {
    **_on_the_world("dino", 71_776, 789_184, 62_342_400, 789_184),
    **_on_the_world("moby", 68_410, 1_138_038, 17_348_804),
    **_on_the_world("selfpatch", 128_832, 1_344_704, 82_555_392, 1_344_704),
    **_on_the_world("selfpatch_moby", 124_064, 1_362_752, 57_410_560),
    "dino_vits16_in1k": _official("dino", 87_904_512, DINO_S),
    "selfpatch_vits16_in1k": _official("dino", 108_117_504, SELFPATCH_S),
    "selfpatch_vitti16_coco": _official("dino, COCO", 68_944_128, SELFPATCH_TI),
    "moby_swint_in1k": _official("moby", 65_562_100, MOBY_SWIN),
    "selfpatch_moby_vits16_in1k": _official("moby", 65_183_744, SELFPATCH_MOBY_S),
}
CARDS = {
    **{f"{method}_tiny": scales.TINY_CARD for method in METHODS["tiny"]},
    "dino_lesson": """
        Lesson 04's comparison: images alone, no loss for patches, 64 x 64 views of the world.""",
    "dino_small": """What `selfpatch_small` is compared with: some six minutes on one core.

        Measured: see data/receipts/dino_small.json, and data/weights for the network.""",
    "dino_gpu": scales.GPU_CARD.format("ViT-S"),
    "moby_lesson": """
        MoBY: two crops, told from those of the other images of a step, by a small Swin.

        `--method.image.no-negatives` leaves the telling apart away.""",
    "moby_gpu": scales.GPU_CARD.format("a Swin"),
    "selfpatch_lesson": """
        Lesson 04: DINO and patches, 64 x 64 views of the world, 256 patches of 4 x 4.""",
    "selfpatch_small": """
        Eight to nine minutes on one core, measured by label propagation in clips of 64 x 64.

        Measured: see data/receipts/selfpatch_small.json, and data/weights for the network.""",
    "selfpatch_gpu": scales.GPU_CARD.format("ViT-S"),
    "selfpatch_moby_lesson": """
        Patches on MoBY: predicted, and told from the same patch of the other images.

        `--method.patches.no-negatives` leaves the telling apart of patches away (claim
        selfpatch.5).""",
    "selfpatch_moby_gpu": scales.GPU_CARD.format("ViT-S"),
    "dino_vits16_in1k": """
        DINO ViT-S/16 with the crops and the recipe of SelfPatch, for comparison: 200 epochs.

        DINO itself has the class token in its blocks. Published for 300 epochs, as SelfPatch
        compares itself: 40.8 box AP and 37.3 mask AP on COCO, 38.3 mIoU on ADE20K (Semantic
        FPN).""",
    "selfpatch_vits16_in1k": """
        SelfPatch ViT-S/16 on ImageNet-1k, 200 epochs: batch 1024 as 8 processes of 128.

        Expected after fine-tuning: 42.1 box AP and 38.5 mask AP on COCO (Mask R-CNN, 12 epochs),
        41.2 mIoU on ADE20K (Semantic FPN, 40,000 steps). Differs: crops are cut, undistorted, from
        whole images stored in 256 x 256 pixels, and the warm-up has its peak a step later.""",
    "selfpatch_vitti16_coco": """
        SelfPatch ViT-Ti/16 on COCO's images, the setting of the paper's ablations.

        200 epochs, batch 256, judged by label propagation on DAVIS-2017.

        python -m mimlib follow selfpatch_vitti16_coco runs/selfpatch_vitti16_coco""",
    "moby_swint_in1k": """MoBY Swin-T, 300 epochs, batch 512 as 8 processes of 64.

        Published: 75.0 in the linear probe on ImageNet; fine-tuned, 43.6 box AP and 39.6 mask AP on
        COCO (Mask R-CNN, 12 epochs), 44.1 mIoU on ADE20K (UPerNet, 160,000 steps). Differs:
        negatives are the 511 other images of the step, not a queue of 4096; crops are resized
        bicubically.""",
    "selfpatch_moby_vits16_in1k": """
        SelfPatch on MoBY, ViT-S/16: patches are compared as images are.

        Published, for a ViT whose size, images and schedule are not at hand: 58.9 J&F on DAVIS-2017
        with negatives, 58.4 without (`--method.patches.no-negatives`). Nothing of it was released.
        Choices: MoBY's own recipe for a ViT-S, SelfPatch's aggregator, window and weight; the
        negatives of a patch are the same patches of the other images of the step.

        python -m mimlib follow selfpatch_moby_vits16_in1k runs/selfpatch_moby_vits16_in1k""",
}
PRESETS = with_cards(ROWS, CARDS)
