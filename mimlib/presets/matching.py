"""Runs that fine-tune CroCo's encoder and decoder: stereo and flow."""

from dataclasses import replace

from mimlib.data.pairs import WorldPairsConfig
from mimlib.presets.croco import croco_gpu, croco_lesson, croco_tiny
from mimlib.presets.scales import HELD_OUT_SEED
from mimlib.run import Run
from mimlib.tasks.correspondence import FlowTaskConfig, StereoTaskConfig
from mimlib.tasks.evaluation import ValidationConfig
from mimlib.training.config import TrainConfig

SMALL_HEAD = {"scale_widths": (32, 32, 64, 64), "head_width": 32}
FULL_HEAD = {"scale_widths": (96, 192, 384, 384), "head_width": 128}


def flow_tiny() -> Run:
    """Fine-tuned flow in seconds: for tests."""
    return _flow("flow_tiny", croco_tiny(), SMALL_HEAD, count=32, train=_fine_tuning(20, 8))


def flow_lesson() -> Run:
    """Flow of lesson 03, about a minute on two cores: displacements of up to 8 pixels.

    python -m mimlib train flow_lesson --pretrained runs/croco_lesson --out runs/flow
    """
    return _flow("flow_lesson", croco_lesson(), SMALL_HEAD, count=1024, train=_fine_tuning(240, 16))


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
