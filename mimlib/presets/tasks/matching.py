"""Runs that fine-tune CroCo's encoder and decoder: stereo and flow."""

from dataclasses import replace

from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.mixture import MixtureConfig, Part
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.methods import croco
from mimlib.presets.run import Preset
from mimlib.presets.scales import HELD_OUT_SEED
from mimlib.tasks.correspondence import FlowTaskConfig, StereoTaskConfig
from mimlib.training.config import IMAGES_PER_BASE_RATE, TrainConfig

SMALL_HEAD = {"scale_widths": (32, 32, 64, 64), "head_width": 32}
FULL_HEAD = {"scale_widths": (96, 192, 384, 384), "head_width": 128}
FLOW_CROP = {
    "size": (320, 384),
    "jitter": 0.4,
    "hue": 0.5 / 3.14,
    "alike": 0.8,
    "scale": (-0.2, 0.5),
    "scaled": 0.8,
    "stretch": 0.2,
    "stretched": 0.8,
    "mirrored": 0.5,
    "upside_down": 0.1,
}
STEREO_CROP = {
    "size": (352, 704),
    "jitter": 0.2,
    "hue": 0.1,
    "alike": 0.5,
    "scaled": 0.5,
    "widths_only": True,
    "upside_down": 0.5,
    "misaligned": 0.5,
}
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
HELD_OUT_STEREO = 44  # as official: one of a hundred pairs of FlyingThings3D's test part
WORLD = {  # pre-training, head, images, steps, batch | parameters of flow, of stereo
    "tiny": ("croco_tiny", SMALL_HEAD, 32, 20, 8, 329_043, 329_010),
    "lesson": ("croco_lesson", SMALL_HEAD, 1024, 240, 16, 1_645_075, 1_645_042),
    "gpu": ("croco_gpu", FULL_HEAD, 16_384, 6_000, 64, 35_246_595, 35_246_562),
}
CARDS = {
    "tiny": "Fine-tuned {} in seconds: for tests.",
    "lesson": "{} of lesson 03, a minute on two cores: 64 x 64 pairs of the world.",
    "gpu": "{} at 128 x 128 from a network of `croco_gpu`, some minutes on one GPU.",
}
WHOLE = {"num_images": 0, "batch_size": 1}  # pairs at their own size, all of them


def _on_the_world(task: type, target: str, size: str, parameters: int) -> Preset:
    """Fine-tune on some pairs and measure on half as many of held-out rooms.

    One rate for all layers and a cosine to 0, as CroCo-Stereo and -Flow are trained.
    """
    pretraining, head, count, steps, batch_size, *_ = WORLD[size]
    network = _network(pretraining)
    pairs = WorldPairsConfig(
        count=count, size=network["window"][0], level="easy", target=target, jitter=0.2
    )
    train = TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=1.6e-2, warmup_steps=steps // 10
    )
    return Preset(
        parameters=parameters,
        card=CARDS[size].format("flow" if target == "flow" else "stereo").capitalize(),
        pretrained=f"runs/{pretraining}",
        method=task(**network, **head),
        train=train,
        **_on_pairs(pairs),
    )


def _on_pairs(pairs: WorldPairsConfig) -> dict[str, object]:
    """Data and measurement of half as many pairs, at least 16, of held-out rooms."""
    held_out = replace(pairs, count=max(16, pairs.count // 2), seed=HELD_OUT_SEED)
    validation = ValidationConfig(source=held_out, num_images=held_out.count, name="held_out")
    return {"data": replace(pairs, seed=HELD_OUT_SEED + 2), "evaluations": (validation,)}


def _network(pretraining: str) -> dict[str, object]:
    """Encoder, decoder and image size of a CroCo, so that its weights fit."""
    row = croco.PRESETS[pretraining]
    side = (row.data.size, row.data.size)
    return {"encoder": row.method.encoder, "decoder": row.method.decoder, "window": side}


def _paper_training(epochs: int, epoch: int, batch_size: int, rate: float) -> TrainConfig:
    """As official: one epoch of warm-up, a cosine to 0, no layer decay, no mixed precision."""
    return TrainConfig(
        steps=epochs * epoch, batch_size=batch_size,
        base_rate=rate * IMAGES_PER_BASE_RATE / batch_size, warmup_steps=epoch, precision="float32",
        log_every=100, save_every=epoch, evaluate_every=epoch,
    )  # fmt: skip


def _flow_small(row: Preset) -> Preset:
    """Put textured rooms, larger displacements and more steps in the place of a lesson's."""
    pairs = replace(row.data, count=4096, level="textured", margin=0.5, jitter=0.0)
    held_out = replace(pairs, count=256, seed=HELD_OUT_SEED)
    return replace(
        row,
        card="""Flow from `croco_small`, a quarter of an hour on one core: textured rooms.

        Up to 12 pixels. Without pre-training it stays at the error of a constant for these 2,400
        steps.""",
        pretrained="data/weights/croco_small.safetensors",
        data=pairs,
        train=replace(row.train, steps=2_400, warmup_steps=50, evaluate_every=400, threads=1),
        evaluations=(ValidationConfig(source=held_out, num_images=256, name="held_out"),),
    )


ON_THE_WORLD = {
    f"{name}_{size}": _on_the_world(task, target, size, WORLD[size][index])
    for name, task, target, index in (
        ("flow", FlowTaskConfig, "flow", -2),
        ("stereo", StereoTaskConfig, "disparity", -1),
    )
    for size in WORLD
}
PRESETS = ON_THE_WORLD | {
    "flow_small": _flow_small(ON_THE_WORLD["flow_lesson"]),
    "crocoflow_vitl_base": Preset(
        parameters=436_237_763,  # as official 437.4 M, without an unused residual unit of 1,180,160
        card="""CroCo-Flow: CroCo v2 ViT-L/16 with the Base decoder, crops of 320 x 384, batch 8.

        240 "epochs" of 30,000 pairs at a peak rate of 2e-5, in float32, in one process; with
        several, divide --train.batch-size. Scaling, stretching, mirroring and colors are the
        official ones. Expected: 1.43 px on Sintel clean and 1.99 px on final (v2, cumulative
        ablation). Differs: what TartanAir's masks and Sintel's mark as invalid is not learned from;
        vectors are not interpolated when a pair is scaled.""",
        pretrained="CroCo_V2_ViTLarge_BaseDecoder.pth",
        method=FlowTaskConfig(**_network("crocov2_vitl_base") | {"window": FLOW_CROP["size"]}),
        data=MixtureConfig(
            root="data/flow",
            parts=tuple(
                Part(
                    pairs=MatchingFilesConfig(
                        root=root, layout=layout, without=(*SINTEL_HELD_OUT, "TEST"), **FLOW_CROP
                    ),
                    repeats=repeats,
                )
                for repeats, _, layout, root in FLOW_SETS
            ),
            workers=8,
        ),
        train=_paper_training(240, 30_000 // 8, batch_size=8, rate=2e-5),
        evaluations=tuple(
            ValidationConfig(
                source=MatchingFilesConfig(
                    root="data/flow/sintel", layout=layout, only=SINTEL_HELD_OUT, **FLOW_CROP
                ),
                name=layout,
                **WHOLE,
            )
            for layout in ("sintel_clean", "sintel_final")
        ),
    ),
    "crocostereo_vitl_base": Preset(
        parameters=436_237_730,
        card="""CroCo-Stereo: CroCo v2 ViT-L/16 with the Base decoder, crops of 352 x 704, batch 6.

        32 epochs at a peak rate of 3e-5, in float32, in one process; in three with
        --train.batch-size 2. All that has labels is trained on but FlyingThings3D's test part, as
        for the official main model. Scaling, turning upside down and cameras out of line are the
        official ones. Differs: gamma stays as it is, brightness changes less (0.8 to 1.2, not 0.5
        to 2), and all colors change in every pair, not each in half of them. Expected of a model
        that leaves some scenes out: 15.5 % bad pixels on Middlebury, 0.38 % on ETH3D (v2,
        cumulative ablation).""",
        pretrained="CroCo_V2_ViTLarge_BaseDecoder.pth",
        method=StereoTaskConfig(**_network("crocov2_vitl_base") | {"window": STEREO_CROP["size"]}),
        data=MixtureConfig(
            root="data/stereo",
            parts=tuple(
                Part(
                    pairs=MatchingFilesConfig(
                        root=root, layout=layout, without=("TEST",), **STEREO_CROP, **scale
                    ),
                    repeats=repeats,
                )
                for repeats, _, layout, root, scale in STEREO_SETS
            ),
            workers=8,
        ),
        train=_paper_training(
            32, sum(repeats * count for repeats, count, *_ in STEREO_SETS) // 6, 6, rate=3e-5
        ),
        evaluations=(
            ValidationConfig(
                source=MatchingFilesConfig(
                    root="data/stereo/sceneflow",
                    layout="sceneflow_final",
                    only=("TEST",),
                    **STEREO_CROP,
                ),
                name="sceneflow_final",
                **WHOLE | {"num_images": HELD_OUT_STEREO},
            ),
        ),
    ),
}
