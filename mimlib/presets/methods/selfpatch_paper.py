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
from mimlib.presets.run import Preset
from mimlib.training.config import TrainConfig

COCO_TRAIN_IMAGES = 118_287
TWO_CROPS = MultiCropConfig(num_local=0, global_scale=(0.08, 1.0))  # BYOL's, as MoBY has them
MOBY_EPOCH = IMAGENET_TRAIN_IMAGES // 512  # steps


def _training(num_images: int = IMAGENET_TRAIN_IMAGES, batch_size: int = 1024) -> TrainConfig:
    """As official: 200 epochs, AdamW, 8 processes."""
    epoch = num_images // batch_size  # steps
    return TrainConfig(
        steps=200 * epoch, batch_size=batch_size // 8, base_rate=5e-4, warmup_steps=10 * epoch,
        min_rate=1e-6, weight_decay=0.04, final_weight_decay=0.4, betas=(0.9, 0.999), clip_norm=3.0,
        clip_each=True, log_every=50, save_every=5 * epoch,
    )  # fmt: skip


IMAGENET = ImageFolderConfig(
    root="data/imagenet", split="train", size=256, crop_scale=(1.0, 1.0), flip=False, workers=12
)
MOBY_TRAINING = replace(  # as official: 300 epochs, 8 processes of 64 images
    _training(batch_size=512),
    steps=300 * MOBY_EPOCH,
    warmup_steps=5 * MOBY_EPOCH,
    min_rate=5e-6,
    weight_decay=0.05,
    final_weight_decay=0.0,
    no_decay=("pos_embed", "relative_position_bias_table"),
    clip_norm=2.5,  # of the mean of both directions; as official, 5 of their sum
    clip_each=False,
)


def _row(
    parameters: int,
    card: str,
    method: DINOConfig | SelfPatchConfig,
    data: ImageFolderConfig = IMAGENET,
    train: TrainConfig = _training(),  # noqa: B008
) -> Preset:
    return Preset(
        parameters=parameters, card=card, method=method, data=data, train=train, processes=8
    )


PRESETS = {
    "dino_vits16_in1k": _row(
        87_904_512,
        """DINO ViT-S/16 with the crops and the recipe of SelfPatch, for comparison: 200 epochs.

        DINO itself has the class token in its blocks. Published for 300 epochs, as SelfPatch
        compares itself: 40.8 box AP and 37.3 mask AP on COCO, 38.3 mIoU on ADE20K (Semantic
        FPN).""",
        DINOConfig(encoder=vit_config("S", 16, 224, drop_path=0.1, **LEARNED)),
    ),
    "selfpatch_vits16_in1k": _row(
        108_117_504,
        """SelfPatch ViT-S/16 on ImageNet-1k, 200 epochs: batch 1024 as 8 processes of 128.

        Expected after fine-tuning: 42.1 box AP and 38.5 mask AP on COCO (Mask R-CNN, 12 epochs),
        41.2 mIoU on ADE20K (Semantic FPN, 40,000 steps). Differs: crops are cut, undistorted, from
        whole images stored in 256 x 256 pixels, and the warm-up has its peak a step later.""",
        SelfPatchConfig(
            encoder=vit_config("S", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
        ),
    ),
    "selfpatch_vitti16_coco": _row(
        68_944_128,
        """SelfPatch ViT-Ti/16 on COCO's images, the setting of the paper's ablations.

        200 epochs, batch 256, judged by label propagation on DAVIS-2017.

        python -m mimlib follow selfpatch_vitti16_coco runs/selfpatch_vitti16_coco""",
        SelfPatchConfig(
            encoder=vit_config("Ti", 16, 224, class_token=False, drop_path=0.1, **LEARNED)
        ),
        data=replace(IMAGENET, root="data/coco", split="train2017"),
        train=_training(COCO_TRAIN_IMAGES, batch_size=256),
    ),
    "moby_swint_in1k": _row(
        65_562_100,
        """MoBY Swin-T, 300 epochs, batch 512 as 8 processes of 64.

        Published: 75.0 in the linear probe on ImageNet; fine-tuned, 43.6 box AP and 39.6 mask AP on
        COCO (Mask R-CNN, 12 epochs), 44.1 mIoU on ADE20K (UPerNet, 160,000 steps). Differs:
        negatives are the 511 other images of the step, not a queue of 4096; crops are resized
        bicubically.""",
        DINOConfig(
            encoder=SwinConfig(drop_path=0.2),
            crops=TWO_CROPS,
            image=ContrastConfig(),
            momentum=0.99,
        ),
        train=MOBY_TRAINING,
    ),
    "selfpatch_moby_vits16_in1k": _row(
        65_183_744,
        """SelfPatch on MoBY, ViT-S/16: patches are compared as images are.

        Published, for a ViT whose size, images and schedule are not at hand: 58.9 J&F on DAVIS-2017
        with negatives, 58.4 without (`--method.patches.no-negatives`). Nothing of it was released.
        Choices: MoBY's own recipe for a ViT-S, SelfPatch's aggregator, window and weight; the
        negatives of a patch are the same patches of the other images of the step.

        python -m mimlib follow selfpatch_moby_vits16_in1k runs/selfpatch_moby_vits16_in1k""",
        SelfPatchConfig(
            encoder=vit_config("S", 16, 224, class_token=False, drop_path=0.2, **LEARNED),
            crops=TWO_CROPS,
            image=ContrastConfig(),
            patches=ContrastConfig(),
            momentum=0.99,
        ),
        train=MOBY_TRAINING,
    ),
}
