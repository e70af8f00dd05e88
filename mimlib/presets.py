"""Every named run. The only place where data, methods, tasks and training meet.

A run comes in four sizes: `_tiny` trains in seconds and serves the tests, `_lesson` learns in a
minute on two CPU cores, `_gpu` takes some minutes on one GPU, and the paper's own size wants its
data set and many GPUs. Each function is a recipe card.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from mimlib.data.sources import ImageFolderConfig, WorldImagesConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.mae import MAEConfig
from mimlib.protocol import Evaluation, Source, Trainable
from mimlib.training.config import TrainConfig
from mimlib.weights import load_encoder

IMAGENET_TRAIN_IMAGES = 1_281_167


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a training run, as plain data."""

    name: Annotated[str, tyro.conf.Suppress]  # name of the preset it came from
    method: object  # config with build() -> Trainable
    data: object  # config with build() -> Source
    train: TrainConfig
    evaluations: Annotated[tuple, tyro.conf.Suppress] = ()  # configs with build() -> Evaluation
    pretrained: str = ""  # checkpoint or safetensors file whose encoder the run starts from


def build(
    run: Run, with_data: bool = True
) -> tuple[Trainable, Source | None, tuple[Evaluation, ...]]:
    """Make the method, its source and its evaluations; load pre-trained encoder weights."""
    method = run.method.build()
    if run.pretrained:
        load_encoder(method.encoder, run.pretrained)
    if not with_data:
        return method, None, ()
    return method, run.data.build(), tuple(e.build() for e in run.evaluations)


def preset(name: str) -> Run:
    """Return the run of this name.

    Raises:
        ValueError: if there is none; the message names the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
        raise ValueError(
            f"no preset is called {name!r}; did you mean {', '.join(near)}? "
            "'python -m mimlib list' shows all"
        )
    return PRESETS[name]()


def override(run: Run, changes: Mapping[str, object]) -> Run:
    """Return `run` with dotted fields replaced, for instance {"train.steps": 100}.

    Raises:
        ValueError: if a name is not a field or a value has the wrong type.
    """
    for name, value in changes.items():
        run = _replace_path(run, name.split("."), value, name)
    return run


def _replace_path(config: object, path: list[str], value: object, full: str) -> object:
    fields = [f.name for f in dataclasses.fields(config)]
    head, *rest = path
    if head not in fields or head == "name":
        fields = [f for f in fields if f != "name"]
        raise ValueError(f"no field {head!r} in {full!r}; {type(config).__name__} has {fields}")
    old = getattr(config, head)
    if rest:
        if not dataclasses.is_dataclass(old):
            raise ValueError(f"{head!r} in {full!r} has no fields of its own; set it directly")
        return replace(config, **{head: _replace_path(old, rest, value, full)})
    return replace(config, **{head: _same_kind(old, value, full)})


def _same_kind(old: object, value: object, full: str) -> object:
    """Accept `value` in place of `old` if it is of the same kind; whole floats serve as ints."""
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if type(old) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(old, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(old) is not type(value):
        raise ValueError(
            f"{full} is {old!r}, a {type(old).__name__}; got {value!r}, a {type(value).__name__}"
        )
    return value


# ---------------------------------------------------------------------------------------- MAE


def mae_tiny() -> Run:
    """Seconds on one core: for tests and for looking at the machinery."""
    encoder = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32)
    return Run(
        name="mae_tiny",
        method=MAEConfig(encoder=encoder, decoder_width=32, decoder_depth=1, decoder_heads=2),
        data=WorldImagesConfig(count=64, size=32),
        train=TrainConfig(steps=20, batch_size=16, base_rate=4e-3, warmup_steps=5, log_every=5),
    )


def mae_lesson() -> Run:
    """Lesson 01: a minute on two cores, 64 x 64 views of the world, 64 patches of 8 x 8.

    python -m mimlib train mae_lesson --out runs/mae_lesson
    """
    encoder = ViTConfig(width=128, depth=4, heads=4, patch_size=8, image_size=64)
    return Run(
        name="mae_lesson",
        method=MAEConfig(encoder=encoder, decoder_width=128, decoder_depth=2, decoder_heads=4),
        data=WorldImagesConfig(count=4096, size=64),
        train=TrainConfig(
            steps=600, batch_size=128, base_rate=2e-3, warmup_steps=60, log_every=20
        ),
    )


def mae_gpu() -> Run:
    """One GPU, some minutes: ViT-S on 128 x 128 views, 256 patches of 8 x 8.

    python -m mimlib train mae_gpu --out runs/mae_gpu
    """
    encoder = vit_config("S", patch_size=8, image_size=128)
    return Run(
        name="mae_gpu",
        method=MAEConfig(encoder=encoder, decoder_width=256, decoder_depth=4, decoder_heads=8),
        data=WorldImagesConfig(count=50_000, size=128),
        train=TrainConfig(
            steps=20_000, batch_size=512, base_rate=1.5e-4, warmup_steps=1_000, compile=True
        ),
    )


def mae_vitb16_in1k() -> Run:
    """MAE ViT-B/16 on ImageNet-1k, 800 epochs (appendix A.1, table 8).

    Batch 4096 as 8 processes of 512. Expected after fine-tuning: 83.6 % for the released 1600
    epochs (table 3). Published cost: 2,069 GPU hours for 1600 epochs on A100-class cards.

    torchrun --nproc-per-node 8 -m mimlib train mae_vitb16_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vitb16_in1k", vit_config("B", patch_size=16, image_size=224))


def mae_vitl16_in1k() -> Run:
    """MAE ViT-L/16 on ImageNet-1k, 800 epochs: 85.9 % after fine-tuning (table 3).

    Published cost: 42 h on 64 V100.

    torchrun --nproc-per-node 8 -m mimlib train mae_vitl16_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vitl16_in1k", vit_config("L", patch_size=16, image_size=224))


def mae_vith14_in1k() -> Run:
    """MAE ViT-H/14 on ImageNet-1k, 800 epochs: 86.9 % after fine-tuning (table 3).

    torchrun --nproc-per-node 8 -m mimlib train mae_vith14_in1k --data.root data/imagenet
    """
    return _mae_in1k("mae_vith14_in1k", vit_config("H", patch_size=14, image_size=224))


def _mae_in1k(name: str, encoder: ViTConfig) -> Run:
    """The recipe all sizes share: only the encoder differs (appendix A.1)."""
    per_epoch = IMAGENET_TRAIN_IMAGES // 4096
    return Run(
        name=name,
        method=MAEConfig(encoder=encoder),
        data=ImageFolderConfig(root="data/imagenet", size=224, split="train"),
        train=TrainConfig(
            steps=800 * per_epoch,
            batch_size=512,
            base_rate=1.5e-4,
            warmup_steps=40 * per_epoch,
            weight_decay=0.05,
            compile=True,
            log_every=50,
            save_every=5 * per_epoch,
        ),
    )


PRESETS: dict[str, Callable[[], Run]] = {
    function.__name__: function
    for function in (
        *(mae_tiny, mae_lesson, mae_gpu),
        *(mae_vitb16_in1k, mae_vitl16_in1k, mae_vith14_in1k),
    )
}
