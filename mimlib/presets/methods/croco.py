"""Runs of CroCo: the embedded world in three sizes, and the two papers' own."""

from dataclasses import replace

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.mixture import MixtureConfig, Part
from mimlib.data.pairs.crops import CropListConfig
from mimlib.data.pairs.files import PairFolderConfig
from mimlib.data.pairs.homography import HomographyPairsConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import vit_config
from mimlib.methods.croco import CroCoConfig
from mimlib.presets.run import Run
from mimlib.presets.scales import GPU, LESSON, TINY, cross_view, semantic_probe
from mimlib.training.config import TrainConfig

HABITAT_PAIRS = 1_821_391  # of the first paper; the released lists hold 1,801,209
ALL_PAIRS = 5_706_000  # Habitat and the released crops of real photographs
REAL_PAIRS = ("ARKitScenes", "MegaDepth", "3DStreetView", "IndoorVL")  # lists of crops
ROTARY = {"class_token": False, "rotary": True}


def croco_tiny() -> Run:
    """Seconds on one core: for tests and for looking at the machinery."""
    return Run(
        name="croco_tiny",
        method=CroCoConfig(
            encoder=replace(TINY, class_token=False),
            decoder=PairDecoderConfig(width=32, depth=2, heads=2),
        ),
        data=WorldPairsConfig(count=64, size=32, level="easy"),
        train=TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5),
        evaluations=(semantic_probe(32, num_train=32, num_images=16), cross_view(32, num_pairs=16)),
    )


def croco_lesson() -> Run:
    """Lesson 03: about a minute on two cores, pairs of 64 x 64 views, 57 of 64 patches hidden.

    python -m mimlib train croco_lesson --out runs/croco_lesson
    """
    return Run(
        name="croco_lesson",
        method=CroCoConfig(
            encoder=replace(LESSON, **ROTARY),
            decoder=PairDecoderConfig(width=128, depth=2, heads=4),
        ),
        data=WorldPairsConfig(count=1280, size=64, level="easy"),
        train=TrainConfig(steps=400, batch_size=64, base_rate=1e-2, warmup_steps=40, log_every=20),
    )


def croco_small() -> Run:
    """Lesson 03's longer run, a quarter of an hour on one core: rooms in which matching pays.

    Rooms whose every place has a colour of its own teach to match, plain rooms to do so with less.
    Measured: see data/receipts/croco_small.json, and data/weights for the network.

    python -m mimlib train croco_small --out runs/croco_small
    """
    pairs = {"size": 64, "margin": 0.5, "jitter": 0.0}
    textured = WorldPairsConfig(count=8192, level="textured", **pairs)
    easy = WorldPairsConfig(count=4096, level="easy", **pairs)
    return Run(
        name="croco_small",
        method=replace(croco_lesson().method, mask_ratio=0.5),
        data=MixtureConfig(parts=(Part(pairs=textured), Part(pairs=easy, repeats=2))),
        train=TrainConfig(
            steps=8_000,
            batch_size=16,
            base_rate=3.2e-2,
            warmup_steps=100,
            threads=1,
            log_every=100,
            save_every=2_000,
            evaluate_every=2_000,
        ),
        evaluations=(cross_view(64),),
    )


def croco_gpu() -> Run:
    """One GPU, some minutes: ViT-S on pairs of 128 x 128 views, 256 patches of 8 x 8.

    python -m mimlib train croco_gpu --out runs/croco_gpu
    """
    return Run(
        name="croco_gpu",
        method=CroCoConfig(
            encoder=replace(GPU, **ROTARY),
            decoder=PairDecoderConfig(width=256, depth=8, heads=8),
        ),
        data=WorldPairsConfig(count=30_000, size=128, workers=8),
        train=TrainConfig(
            steps=20_000,
            batch_size=256,
            base_rate=3e-4,
            warmup_steps=1_000,
            compile=True,
            save_every=2_000,
            evaluate_every=5_000,
        ),
        evaluations=(semantic_probe(128), cross_view(128)),
    )


def croco_homography_tiny() -> Run:
    """The control of the first paper's table 2, see `croco_homography_lesson`: for tests."""
    return _of_single_images("croco_homography_tiny", croco_tiny())


def croco_homography_lesson() -> Run:
    """Pairs of one image by two homographies, from as many images of the same kind of rooms.

    python -m mimlib train croco_homography_lesson --out runs/croco_homography_lesson
    """
    return _of_single_images("croco_homography_lesson", croco_lesson())


def croco_homography_gpu() -> Run:
    """The same beside `croco_gpu`."""
    return _of_single_images("croco_homography_gpu", croco_gpu())


def _of_single_images(name: str, run: Run) -> Run:
    """Put single images, as many as the pairs have, in the place of the pairs of a run."""
    pairs = run.data
    images = WorldImagesConfig(
        count=2 * pairs.count,
        size=pairs.stored_size,
        level=pairs.level,
        seed=pairs.seed,
        workers=pairs.workers,
    )
    data = HomographyPairsConfig(images=images, size=pairs.size, jitter=pairs.jitter)
    return replace(run, name=name, data=data)


def croco_vitb16_habitat() -> Run:
    """CroCo ViT-B/16 on Habitat pairs: 400 epochs of a schedule of 800, batch 256.

    Batch 256 as 4 processes of 64. Expected: 85.6 % delta_1 on NYUv2 (table 3), and with the
    decoder kept 3.00 px on Sintel clean (table 4). Published cost: 10 days on 4 A100.

    torchrun --nproc-per-node 4 -m mimlib train croco_vitb16_habitat --data.root data/habitat_pairs
    """
    per_epoch = HABITAT_PAIRS // 256
    return Run(
        name="croco_vitb16_habitat",
        method=CroCoConfig(encoder=vit_config("B", 16, 224, class_token=False)),
        data=PairFolderConfig(root="data/habitat_pairs", size=224, workers=12),
        train=_stopped_half_way(per_epoch, warmup=40, epochs=400, compile=True),
    )


def crocov2_vitl_base() -> Run:
    """CroCo v2, ViT-L/16 with the Base decoder, on rendered and real pairs, batch 512.

    Batch 512 as 8 processes of 64; 125 epochs of a schedule of 250, in float32 as published: of
    IndoorVL a tenth was released, the epochs make up for it. Crops are cut out of the original
    photographs as they are needed; decoding those wants many cores. Expected after fine-tuning:
    1.43 px on Sintel clean (v2, cumulative ablation). Published cost: 12 days on 8 A100.

    torchrun --nproc-per-node 8 -m mimlib train crocov2_vitl_base --data.root data
    """
    per_epoch = ALL_PAIRS // 512
    real = (
        CropListConfig(root=f"crops/{name}", crops=f"crops/{name}/crops_release.txt", size=224)
        for name in REAL_PAIRS
    )
    pairs = PairFolderConfig(root="habitat_pairs", size=224), *real
    return Run(
        name="crocov2_vitl_base",
        method=CroCoConfig(
            encoder=vit_config("L", 16, 224, **ROTARY),
            decoder=PairDecoderConfig(width=768, depth=12, heads=12),
        ),
        data=MixtureConfig(root="data", parts=tuple(Part(pairs=p) for p in pairs), workers=12),
        train=_stopped_half_way(per_epoch, warmup=12, epochs=125, precision="float32"),
    )


def _stopped_half_way(per_epoch: int, warmup: int, epochs: int, **changes) -> TrainConfig:
    """As official: the cosine is laid out for twice the epochs that are trained."""
    return TrainConfig(
        steps=epochs * per_epoch,
        schedule_steps=2 * epochs * per_epoch,
        batch_size=64,
        base_rate=1.5e-4,
        warmup_steps=warmup * per_epoch,
        log_every=50,
        save_every=per_epoch,
        **changes,
    )
