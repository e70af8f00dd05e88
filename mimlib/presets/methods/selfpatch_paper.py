"""The papers' own runs of DINO, MoBY, SelfPatch; selfpatch.py has those on the embedded world."""

from dataclasses import replace

from mimlib.data.images.configs import ImageFolderConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import vit_config
from mimlib.methods.dino import DINOConfig
from mimlib.methods.objectives.contrast import ContrastConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import MultiCropConfig
from mimlib.presets.methods.mae import IMAGENET_TRAIN_IMAGES
from mimlib.presets.methods.selfpatch import LEARNED
from mimlib.presets.run import Run
from mimlib.training.config import TrainConfig

COCO_TRAIN_IMAGES = 118_287
TWO_CROPS = MultiCropConfig(num_local=0, global_scale=(0.08, 1.0))  # BYOL's, as MoBY has them


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
    mIoU on ADE20K (Semantic FPN, 40,000 steps). Differs: crops are cut, undistorted, from whole
    images stored in 256 x 256 pixels, and the warm-up has its peak a step later.

    torchrun --nproc-per-node 8 -m mimlib train selfpatch_vits16_in1k --data.root data/imagenet
    """
    encoder = vit_config("S", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
    return _paper("selfpatch_vits16_in1k", SelfPatchConfig(encoder=encoder), "data/imagenet")


def selfpatch_vitti16_coco() -> Run:
    """SelfPatch ViT-Ti/16 on COCO's images, the setting of the paper's ablations.

    200 epochs, batch 256, judged by label propagation on DAVIS-2017.

    torchrun --nproc-per-node 8 -m mimlib train selfpatch_vitti16_coco --data.root data/coco
    python -m mimlib follow selfpatch_vitti16_coco runs/selfpatch_vitti16_coco
    """
    encoder = vit_config("Ti", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
    return _paper(
        *("selfpatch_vitti16_coco", SelfPatchConfig(encoder=encoder), "data/coco"),
        split="train2017",
        num_images=COCO_TRAIN_IMAGES,
        batch_size=256,
    )


def moby_swint_in1k() -> Run:
    """MoBY Swin-T, 300 epochs, batch 512 as 8 processes of 64.

    Published: 75.0 in the linear probe on ImageNet; fine-tuned, 43.6 box AP and 39.6 mask AP on
    COCO (Mask R-CNN, 12 epochs), 44.1 mIoU on ADE20K (UPerNet, 160,000 steps). Differs: negatives
    are the 511 other images of the step, not a queue of 4096; crops are resized bicubically.

    torchrun --nproc-per-node 8 -m mimlib train moby_swint_in1k --data.root data/imagenet
    """
    method = DINOConfig(
        encoder=SwinConfig(drop_path=0.2), crops=TWO_CROPS, image=ContrastConfig(), momentum=0.99
    )
    return _moby("moby_swint_in1k", method)


def selfpatch_moby_vits16_in1k() -> Run:
    """SelfPatch on MoBY, ViT-S/16: patches are compared as images are.

    Published, for a ViT whose size, images and schedule are not at hand: 58.9 J&F on DAVIS-2017
    with negatives, 58.4 without (`--method.patches.no-negatives`). Nothing of it was released.
    Choices: MoBY's own recipe for a ViT-S, SelfPatch's aggregator, window and weight; the negatives
    of a patch are the same patches of the other images of the step.

    torchrun --nproc-per-node 8 -m mimlib train selfpatch_moby_vits16_in1k --data.root data/imagenet
    python -m mimlib follow selfpatch_moby_vits16_in1k runs/selfpatch_moby_vits16_in1k
    """
    method = SelfPatchConfig(
        encoder=vit_config("S", 16, 224, class_token=False, drop_path=0.2, **LEARNED),
        crops=TWO_CROPS,
        image=ContrastConfig(),
        patches=ContrastConfig(),
        momentum=0.99,
    )
    return _moby("selfpatch_moby_vits16_in1k", method)


def _moby(name: str, method: DINOConfig | SelfPatchConfig) -> Run:
    """As official: 300 epochs, AdamW, 8 processes of 64 images."""
    run = _paper(name, method, "data/imagenet", batch_size=512)
    per_epoch = IMAGENET_TRAIN_IMAGES // 512
    train = replace(
        run.train,
        steps=300 * per_epoch,
        warmup_steps=5 * per_epoch,
        min_rate=5e-6,
        weight_decay=0.05,
        final_weight_decay=0.0,
        no_decay=("pos_embed", "relative_position_bias_table"),
        clip_norm=2.5,  # of the mean of both directions; as official, 5 of their sum
        clip_each=False,
    )
    return replace(run, train=train)


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
