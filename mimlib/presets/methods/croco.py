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
from mimlib.evaluation.holes import HolesConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.presets import scales
from mimlib.presets.methods.autoencoder import LESSON_TRAINING
from mimlib.presets.run import Preset, with_cards
from mimlib.training.config import TrainConfig

HABITAT_PAIRS = 1_821_391  # of the first paper; the released lists hold 1,801,209
ALL_PAIRS = 5_706_000  # Habitat and the released crops of real photographs
REAL_PAIRS = ("crops/ARKitScenes", "crops/MegaDepth", "crops/3DStreetView", "crops/IndoorVL")
ROTARY = {"class_token": False, "rotary": True}


def _stopped_half_way(epochs: int, epoch: int, warmup: int, **others: object) -> TrainConfig:
    """As official: the cosine is laid out for twice the epochs that are trained."""
    whole = 2 * epochs * epoch
    return scales.in_epochs(
        epochs, epoch, warmup, schedule_steps=whole, batch_size=64, log_every=50, **others
    )


def _of_single_images(row: Preset) -> Preset:
    """Put single images, as many as the pairs have, in the place of the pairs of a row."""
    pairs = row.data
    same = {name: getattr(pairs, name) for name in ("level", "seed", "workers")}
    images = WorldImagesConfig(count=2 * pairs.count, size=pairs.stored_size, **same)
    data = HomographyPairsConfig(images=images, size=pairs.size, jitter=pairs.jitter)
    return replace(row, data=data)


TINY_DECODER = PairDecoderConfig(width=32, depth=2, heads=2)
LESSON_DECODER = PairDecoderConfig(width=128, depth=2, heads=4)
GPU_DECODER = PairDecoderConfig(width=256, depth=8, heads=8)
BASE_DECODER = PairDecoderConfig(width=768, depth=12, heads=12)
LESSON_METHOD = CroCoConfig(encoder=replace(scales.LESSON, **ROTARY), decoder=LESSON_DECODER)
# Hidden colors themselves: an error against smoothing means something only of these.
SMALL_METHOD = replace(
    LESSON_METHOD, decoder=replace(LESSON_DECODER, depth=4), normalize_target=False
)
SMALL_TRAINING = TrainConfig(
    steps=10_000, batch_size=32, base_rate=4e-2, optimizer="muon", warmup_steps=200, threads=1,
    log_every=100, save_every=2_000, evaluate_every=2_000,
)  # fmt: skip
SMALL = {"size": 64, "margin": 0.25, "jitter": 0.0}  # the views' crops lie up to 16 pixels apart
SMALL_PAIRS = (
    Part(pairs=WorldPairsConfig(count=8192, level="textured", **SMALL)),
    Part(pairs=WorldPairsConfig(count=4096, level="easy", **SMALL), repeats=2),
)
SMALL_MEASURES = tuple(
    HolesConfig(
        source=replace(part.pairs, count=256, seed=scales.HELD_OUT_SEED),
        name=f"holes_{part.pairs.level}",
    )
    for part in SMALL_PAIRS
)
ALL_SETS = (
    Part(pairs=PairFolderConfig(root="habitat_pairs", size=224)),
    *(
        Part(pairs=CropListConfig(root=root, crops=f"{root}/crops_release.txt", size=224))
        for root in REAL_PAIRS
    ),
)
WORLD = {
    "croco_tiny": Preset(
        73_248,
        CroCoConfig(encoder=replace(scales.TINY, class_token=False), decoder=TINY_DECODER),
        WorldPairsConfig(count=64, size=32, level="easy"),
        scales.TINY_TRAINING,
        (*scales.TINY_MEASURES, scales.cross_view(32, num_pairs=16)),
    ),
    "croco_lesson": Preset(
        1_389_376,
        LESSON_METHOD,
        WorldPairsConfig(count=1280, size=64, level="easy"),
        replace(LESSON_TRAINING, steps=200, warmup_steps=20, save_every=0),  # pairs: two images
    ),
    "croco_gpu": Preset(
        29_948_736,
        CroCoConfig(encoder=replace(scales.GPU, **ROTARY), decoder=GPU_DECODER),
        WorldPairsConfig(count=30_000, size=128, workers=8),
        replace(scales.GPU_TRAINING, batch_size=256, base_rate=3e-4),
        (scales.semantic_probe(128), scales.cross_view(128)),
    ),
}
ROWS = {
    **WORLD,
    **{name.replace("_", "_homography_"): _of_single_images(row) for name, row in WORLD.items()},
    "croco_small": Preset(
        1_919_040,
        SMALL_METHOD,
        MixtureConfig(parts=SMALL_PAIRS),
        SMALL_TRAINING,
        (scales.cross_view(64), *SMALL_MEASURES),
    ),
    "croco_vitb16_habitat": Preset(
        120_076_288,
        CroCoConfig(encoder=vit_config("B", 16, 224, class_token=False)),
        PairFolderConfig(root="data/habitat_pairs", size=224, workers=12),
        _stopped_half_way(400, HABITAT_PAIRS // 256, warmup=40, compile=True),
        processes=4,
    ),
    "crocov2_vitl_base": Preset(
        417_918_720,
        CroCoConfig(encoder=vit_config("L", 16, 224, **ROTARY), decoder=BASE_DECODER),
        MixtureConfig(root="data", parts=ALL_SETS, workers=12),
        _stopped_half_way(125, ALL_PAIRS // 512, warmup=12, precision="float32"),
        processes=8,
    ),
}
CARDS = {
    "croco_tiny": scales.TINY_CARD,
    "croco_lesson": """
        Lesson 03: some minutes on two cores, pairs of 64 x 64 views, 57 of 64 patches hidden.""",
    "croco_gpu": """
        One GPU, some minutes: ViT-S on pairs of 128 x 128 views, 256 patches of 8 x 8.""",
    "croco_homography_tiny": """
        The control of the first paper's table 2, see `croco_homography_lesson`: for tests.""",
    "croco_homography_lesson": """
        Pairs of one image by two homographies, from as many images of the same kind of rooms.""",
    "croco_homography_gpu": "The same beside `croco_gpu`.",
    "croco_small": """
        Lesson 03's longer run, an hour on one core: rooms where matching pays.

        Rooms whose every place has a color of its own teach to match, plain rooms to do so with
        less; crops of views a quarter larger, up to 16 pixels apart, teach what the measures ask.
        With --train.compile it took 37 minutes. Measured: see data/receipts/croco_small.json, and
        data/weights for the network.""",
    "croco_vitb16_habitat": """
        CroCo ViT-B/16 on Habitat pairs: 400 epochs of a schedule of 800, batch 256.

        Batch 256 as 4 processes of 64. Expected: 85.6 % delta_1 on NYUv2 (table 3), and with the
        decoder kept 3.00 px on Sintel clean (table 4). Published cost: 10 days on 4 A100.""",
    "crocov2_vitl_base": """
        CroCo v2, ViT-L/16 with the Base decoder, on rendered and real pairs, batch 512.

        Batch 512 as 8 processes of 64; 125 epochs of a schedule of 250, in float32 as published: of
        IndoorVL a tenth was released, the epochs make up for it. Crops are cut out of the original
        photographs as they are needed; decoding those wants many cores. Expected after fine-tuning:
        1.43 px on Sintel clean (v2, cumulative ablation). Published cost: 12 days on 8 A100.""",
}
PRESETS = with_cards(ROWS, CARDS)
