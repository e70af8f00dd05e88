"""Runs that fine-tune CroCo's encoder and decoder: stereo and flow."""

from dataclasses import replace

from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.mixture import MixtureConfig, Part
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.evaluation.validation import ValidationConfig
from mimlib.presets.methods.croco import croco_gpu, croco_lesson, croco_tiny, crocov2_vitl_base
from mimlib.presets.run import Run
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


def flow_tiny() -> Run:
    """Fine-tuned flow in seconds: for tests."""
    return _flow("flow_tiny", croco_tiny(), SMALL_HEAD, count=32, train=_fine_tuning(20, 8))


def flow_lesson() -> Run:
    """Flow of lesson 03, about a minute on two cores: displacements of up to 8 pixels.

    python -m mimlib train flow_lesson --pretrained runs/croco_lesson --out runs/flow
    """
    return _flow("flow_lesson", croco_lesson(), SMALL_HEAD, count=1024, train=_fine_tuning(240, 16))


def flow_small() -> Run:
    """Flow from `croco_small`, a quarter of an hour on one core: textured rooms, up to 12 pixels.

    Without pre-training it stays at the error of a constant for these 2,400 steps.

    python -m mimlib train flow_small --pretrained data/weights/croco_small.safetensors
    """
    train = replace(_fine_tuning(2_400, 16), warmup_steps=50, evaluate_every=400, threads=1)
    run = _flow("flow_small", croco_lesson(), SMALL_HEAD, count=4096, train=train)
    pairs = replace(run.data, level="textured", margin=0.5, jitter=0.0)
    held_out = replace(pairs, count=256, seed=HELD_OUT_SEED)
    validation = replace(run.evaluations[0], source=held_out, num_images=held_out.count)
    return replace(run, data=pairs, evaluations=(validation,))


def flow_gpu() -> Run:
    """The same at 128 x 128 from a network of `croco_gpu`."""
    train = _fine_tuning(6_000, 64)
    return _flow("flow_gpu", croco_gpu(), FULL_HEAD, count=16_384, train=train)


def stereo_tiny() -> Run:
    """Fine-tuned stereo in seconds: for tests."""
    return _stereo("stereo_tiny", croco_tiny(), SMALL_HEAD, count=32, train=_fine_tuning(20, 8))


def stereo_lesson() -> Run:
    """Stereo of lesson 03, about a minute on two cores: rectified pairs of the world.

    python -m mimlib train stereo_lesson --pretrained runs/croco_lesson --out runs/stereo
    """
    return _stereo(
        "stereo_lesson", croco_lesson(), SMALL_HEAD, count=1024, train=_fine_tuning(240, 16)
    )


def stereo_gpu() -> Run:
    """The same at 128 x 128 from a network of `croco_gpu`."""
    train = _fine_tuning(6_000, 64)
    return _stereo("stereo_gpu", croco_gpu(), FULL_HEAD, count=16_384, train=train)


def crocoflow_vitl_base() -> Run:
    """CroCo-Flow: CroCo v2 ViT-L/16 with the Base decoder, crops of 320 x 384, batch 8.

    240 "epochs" of 30,000 pairs at a peak rate of 2e-5, in float32, in one process; with several,
    divide --train.batch-size. Scaling, stretching, mirroring and colours are the official ones.
    Expected: 1.43 px on Sintel clean and 1.99 px on final (v2, cumulative ablation). Differs:
    what TartanAir's masks and Sintel's mark as invalid is not learnt from; vectors are not
    interpolated when a pair is scaled.

    python -m mimlib train crocoflow_vitl_base --pretrained CroCo_V2_ViTLarge_BaseDecoder.pth
    """
    parts, held_out = [], []
    for repeats, _, layout, root in FLOW_SETS:
        without = (*SINTEL_HELD_OUT, "TEST")
        pairs = MatchingFilesConfig(root=root, layout=layout, without=without, **FLOW_CROP)
        parts.append(Part(pairs=pairs, repeats=repeats))
        if layout.startswith("sintel"):
            pairs = replace(pairs, root=f"data/flow/{root}", without=(), only=SINTEL_HELD_OUT)
            whole = {"num_images": 0, "batch_size": 1, "name": layout}
            held_out.append(ValidationConfig(source=pairs, **whole))
    per_epoch = 30_000 // 8
    return Run(
        name="crocoflow_vitl_base",
        method=FlowTaskConfig(**_network(crocov2_vitl_base()) | {"window": FLOW_CROP["size"]}),
        data=MixtureConfig(root="data/flow", parts=tuple(parts), workers=8),
        train=_paper_fine_tuning(240, per_epoch, batch_size=8, rate=2e-5),
        evaluations=tuple(held_out),
    )


def crocostereo_vitl_base() -> Run:
    """CroCo-Stereo: CroCo v2 ViT-L/16 with the Base decoder, crops of 352 x 704, batch 6.

    32 epochs at a peak rate of 3e-5, in float32, in one process; in three with --train.batch-size
    2. All that has labels is trained on but FlyingThings3D's test part, as for the official main
    model. Scaling, turning upside down and cameras out of line are the official ones. Differs:
    gamma stays as it is, brightness changes less (0.8 to 1.2, not 0.5 to 2), and all colours change
    in every pair, not each in half of them. Expected of a model that leaves some scenes out: 15.5 %
    bad pixels on Middlebury, 0.38 % on ETH3D (v2, cumulative ablation).

    python -m mimlib train crocostereo_vitl_base --pretrained CroCo_V2_ViTLarge_BaseDecoder.pth
    """
    parts = tuple(
        Part(
            pairs=MatchingFilesConfig(
                root=root, layout=layout, without=("TEST",), **STEREO_CROP, **scale
            ),
            repeats=repeats,
        )
        for repeats, _, layout, root, scale in STEREO_SETS
    )
    per_epoch = sum(repeats * count for repeats, count, *_ in STEREO_SETS) // 6
    held_out = MatchingFilesConfig(
        root="data/stereo/sceneflow", layout="sceneflow_final", only=("TEST",), **STEREO_CROP
    )
    whole = {"num_images": HELD_OUT_STEREO, "batch_size": 1, "name": "sceneflow_final"}
    return Run(
        name="crocostereo_vitl_base",
        method=StereoTaskConfig(**_network(crocov2_vitl_base()) | {"window": STEREO_CROP["size"]}),
        data=MixtureConfig(root="data/stereo", parts=parts, workers=8),
        train=_paper_fine_tuning(32, per_epoch, batch_size=6, rate=3e-5),
        evaluations=(ValidationConfig(source=held_out, **whole),),
    )


def _flow(name: str, pretrained: Run, head: dict, count: int, train: TrainConfig) -> Run:
    pairs = WorldPairsConfig(
        count=count, size=pretrained.data.size, level="easy", target="flow", jitter=0.2
    )
    return _matching(name, FlowTaskConfig(**_network(pretrained), **head), pairs, train)


def _stereo(name: str, pretrained: Run, head: dict, count: int, train: TrainConfig) -> Run:
    pairs = WorldPairsConfig(
        count=count, size=pretrained.data.size, level="easy", target="disparity", jitter=0.2
    )
    return _matching(name, StereoTaskConfig(**_network(pretrained), **head), pairs, train)


def _network(pretrained: Run) -> dict:
    """Encoder, decoder and image size of a CroCo, so that its weights fit."""
    method, side = pretrained.method, pretrained.data.size
    return {"encoder": method.encoder, "decoder": method.decoder, "window": (side, side)}


def _matching(name: str, task: object, pairs: WorldPairsConfig, train: TrainConfig) -> Run:
    """Fine-tune on some pairs and measure on half as many of held-out rooms."""
    held_out = replace(pairs, count=max(16, pairs.count // 2), seed=HELD_OUT_SEED)
    validation = ValidationConfig(source=held_out, num_images=held_out.count, name="held_out")
    data = replace(pairs, seed=HELD_OUT_SEED + 2)
    return Run(name=name, method=task, data=data, train=train, evaluations=(validation,))


def _fine_tuning(steps: int, batch_size: int) -> TrainConfig:
    """One rate for all layers and a cosine to 0, as CroCo-Stereo and -Flow are trained."""
    return TrainConfig(
        steps=steps, batch_size=batch_size, base_rate=1.6e-2, warmup_steps=steps // 10
    )


def _paper_fine_tuning(epochs: int, per_epoch: int, batch_size: int, rate: float) -> TrainConfig:
    """As official: one epoch of warm-up, a cosine to 0, no layer decay, no mixed precision."""
    return TrainConfig(
        steps=epochs * per_epoch,
        batch_size=batch_size,
        base_rate=rate * IMAGES_PER_BASE_RATE / batch_size,
        warmup_steps=per_epoch,
        precision="float32",
        log_every=100,
        save_every=per_epoch,
        evaluate_every=per_epoch,
    )
