"""Runs that fine-tune CroCo's encoder and decoder: stereo and flow."""

from dataclasses import replace

from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.mixture import MixtureConfig, Part
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.methods import croco
from mimlib.presets.run import Preset, with_cards
from mimlib.presets.scales import COSTS, TUNING_SEED, held_out, in_epochs
from mimlib.tasks.correspondence import FlowTaskConfig, StereoTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

SMALL_HEAD = {"scale_widths": (32, 32, 64, 64), "head_width": 32}
FULL_HEAD = {"scale_widths": (96, 192, 384, 384), "head_width": 128}
FLOW_CROP = {
    "size": (320, 384), "jitter": 0.4, "hue": 0.5 / 3.14, "alike": 0.8,
    "scale": (-0.2, 0.5), "scaled": 0.8, "stretch": 0.2, "stretched": 0.8,
    "mirrored": 0.5, "upside_down": 0.1,
}  # fmt: skip
STEREO_CROP = {
    "size": (352, 704), "jitter": 0.2, "hue": 0.1, "alike": 0.5,
    "scaled": 0.5, "widths_only": True, "upside_down": 0.5, "misaligned": 0.5,
}  # fmt: skip
SMALL_IMAGES = {"scale": (0.0, 1.0)}  # a short side below 800 pixels: they are only enlarged
LARGE_IMAGES = {"scale": (-0.2, 0.4)}
SINTEL_HELD_OUT = ("temple_2", "temple_3")  # as official: 98 of the 1,041 pairs
FLOW_SETS = (  # times per epoch, pairs, layout, folder below data/flow
    (40, 943, "sintel_clean", "sintel"),
    (40, 943, "sintel_final", "sintel"),
    (4, 40_302, "sceneflow_flow_clean", "sceneflow/FlyingThings3D"),
    (4, 40_302, "sceneflow_flow_final", "sceneflow/FlyingThings3D"),
    (4, 22_232, "flying_chairs_train", "flying_chairs"),
    (1, 306_268, "tartanair_flow", "tartanair"),
)
STEREO_SETS = (  # times per epoch, pairs, layout, folder below data/stereo, scale
    (1, 200_000, "crestereo", "crestereo", LARGE_IMAGES),
    (1, 35_454, "sceneflow_clean", "sceneflow", SMALL_IMAGES),
    (1, 35_454, "sceneflow_final", "sceneflow", SMALL_IMAGES),
    (30, 27, "eth3d", "eth3d", SMALL_IMAGES),
    (50, 54, "middlebury_2005", "middlebury/2005", LARGE_IMAGES),
    (50, 189, "middlebury_2005", "middlebury/2006", LARGE_IMAGES),
    (50, 138, "middlebury_2014", "middlebury/2014", LARGE_IMAGES),
    (50, 355, "middlebury_2021", "middlebury/2021", LARGE_IMAGES),
    (50, 15, "middlebury", "middlebury/MiddEval3/trainingF", LARGE_IMAGES),
    (1, 228, "booster", "booster/train/balanced", LARGE_IMAGES),
)
STEREO_TEST = {"root": "data/stereo/sceneflow", "only": ("TEST",)}
HELD_OUT_STEREO = 44  # as official: one of a hundred pairs of FlyingThings3D's test part
SIZES = {  # pre-training, head, images, steps, batch | parameters of flow, of stereo
    "tiny": ("croco_tiny", SMALL_HEAD, 32, 20, 8, 329_043, 329_010),
    "lesson": ("croco_lesson", SMALL_HEAD, 1024, 240, 16, 1_645_075, 1_645_042),
    "gpu": ("croco_gpu", FULL_HEAD, 16_384, 6_000, 64, 35_246_595, 35_246_562),
}


def _on_the_world(size: str) -> dict[str, Preset]:
    """Fine-tune for either on some pairs, and measure on half as many of held-out rooms.

    One rate for all layers and a cosine to 0, as CroCo-Stereo and -Flow are trained.
    """
    pretraining, head, count, steps, batch_size, *parameters = SIZES[size]
    network = _network(pretraining) | head
    side, _ = network["window"]
    train = TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=1.6e-2, warmup_steps=steps // 10
    )
    kinds = (("flow", FlowTaskConfig, "flow"), ("stereo", StereoTaskConfig, "disparity"))
    rows = {}
    for number, (name, task, target) in zip(parameters, kinds):
        pairs = WorldPairsConfig(
            count=count, size=side, level="easy", seed=TUNING_SEED, target=target, jitter=0.2
        )
        rows[f"{name}_{size}"] = Preset(
            number,
            task(**network),
            pairs,
            train,
            (held_out(pairs),),
            pretrained=f"runs/{pretraining}",
            card=f"{name.capitalize()} from a network of `{pretraining}`: {COSTS[size]}.",
        )
    return rows


def _on_textured_rooms(lesson: str, parameters: int) -> Preset:
    """Fine-tune the network of `croco_small` for longer, where every place has its own color."""
    row = WORLD[lesson]
    rooms = replace(row.data, count=4096, level="textured", margin=0.5, jitter=0.0)
    return replace(
        row,
        parameters=parameters,
        method=replace(row.method, **_network("croco_small")),
        data=rooms,
        train=replace(row.train, steps=2_400, warmup_steps=50, evaluate_every=400, threads=1),
        evaluations=(held_out(rooms, 256),),
        pretrained="data/weights/croco_small.safetensors",
    )


def _network(pretraining: str) -> dict[str, object]:
    """Encoder, decoder and image size of a CroCo, so that its weights fit."""
    row = croco.PRESETS[pretraining]
    side = (row.data.size, row.data.size)
    return {"encoder": row.method.encoder, "decoder": row.method.decoder, "window": side}


def _part(repeats: int, _: int, layout: str, root: str, **files: object) -> Part:
    return Part(pairs=MatchingFilesConfig(root=root, layout=layout, **files), repeats=repeats)


def _own_size(layout: str, num_images: int = 0, **files: object) -> ValidationConfig:
    """Measure on pairs at their own size; 0: all."""
    source = MatchingFilesConfig(layout=layout, **files)
    return ValidationConfig(source=source, num_images=num_images, batch_size=1, name=layout)


def _paper_training(epochs: int, epoch: int, batch_size: int, rate: float) -> TrainConfig:
    """As official: one epoch of warm-up, a cosine to 0, no layer decay, no mixed precision."""
    base_rate = rate * IMAGES_PER_BASE_RATE / batch_size
    shared = {"batch_size": batch_size, "base_rate": base_rate, "precision": "float32"}
    return in_epochs(epochs, epoch, warmup=1, evaluate=1, log_every=100, **shared)


WORLD = {name: row for size in SIZES for name, row in _on_the_world(size).items()}
NETWORK, PUBLISHED = _network("crocov2_vitl_base"), "CroCo_V2_ViTLarge_BaseDecoder.pth"
FLOW_PARTS = tuple(
    _part(*row, without=(*SINTEL_HELD_OUT, "TEST"), **FLOW_CROP) for row in FLOW_SETS
)
STEREO_PARTS = tuple(
    _part(*row, without=("TEST",), **STEREO_CROP, **scale) for *row, scale in STEREO_SETS
)
STEREO_EPOCH = sum(repeats * count for repeats, count, *_ in STEREO_SETS)  # pairs
ROWS = {
    "flow_small": _on_textured_rooms("flow_lesson", 2_174_739),
    "stereo_small": _on_textured_rooms("stereo_lesson", 2_174_706),
    "crocoflow_vitl_base": Preset(
        436_237_763,  # as official 437.4 M, without an unused residual unit of 1,180,160
        FlowTaskConfig(**NETWORK | {"window": FLOW_CROP["size"]}),
        MixtureConfig(root="data/flow", parts=FLOW_PARTS, workers=8),
        _paper_training(240, 30_000 // 8, batch_size=8, rate=2e-5),
        tuple(
            _own_size(layout, root="data/flow/sintel", only=SINTEL_HELD_OUT, **FLOW_CROP)
            for layout in ("sintel_clean", "sintel_final")
        ),
        pretrained=PUBLISHED,
    ),
    "crocostereo_vitl_base": Preset(
        436_237_730,
        StereoTaskConfig(**NETWORK | {"window": STEREO_CROP["size"]}),
        MixtureConfig(root="data/stereo", parts=STEREO_PARTS, workers=8),
        _paper_training(32, STEREO_EPOCH // 6, batch_size=6, rate=3e-5),
        (_own_size("sceneflow_final", HELD_OUT_STEREO, **STEREO_TEST, **STEREO_CROP),),
        pretrained=PUBLISHED,
    ),
}
CARDS = {
    "flow_small": """
        Flow from `croco_small`, ten minutes on one core: textured rooms.

        Up to 12 pixels. Without pre-training it stays at the error of a constant for these 2,400
        steps.""",
    "stereo_small": """
        Stereo from `croco_small`, eleven minutes on one core: rectified textured rooms.""",
    "crocoflow_vitl_base": """
        CroCo-Flow: CroCo v2 ViT-L/16 with the Base decoder, crops of 320 x 384, batch 8.

        240 "epochs" of 30,000 pairs at a peak rate of 2e-5, in float32, in one process; with
        several, divide --train.batch-size. Scaling, stretching, mirroring and colors are the
        official ones. Expected: 1.43 px on Sintel clean and 1.99 px on final (v2, cumulative
        ablation). Differs: what TartanAir's masks and Sintel's mark as invalid is not learned from;
        vectors are not interpolated when a pair is scaled.""",
    "crocostereo_vitl_base": """
        CroCo-Stereo: CroCo v2 ViT-L/16 with the Base decoder, crops of 352 x 704, batch 6.

        32 epochs at a peak rate of 3e-5, in float32, in one process; in three with
        --train.batch-size 2. All that has labels is trained on but FlyingThings3D's test part, as
        for the official main model. Scaling, turning upside down and cameras out of line are the
        official ones. Differs: gamma stays as it is, brightness changes less (0.8 to 1.2, not 0.5
        to 2), and all colors change in every pair, not each in half of them. Expected of a model
        that leaves some scenes out: 15.5 % bad pixels on Middlebury, 0.38 % on ETH3D (v2,
        cumulative ablation).""",
}
PRESETS = WORLD | with_cards(ROWS, CARDS)
