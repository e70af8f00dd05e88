"""What learning by heart has in common: a small encoder without pre-training, and the way to 1."""

from collections.abc import Mapping

import torch

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.protocol import Evaluation, Source
from mimlib.training.config import TrainConfig
from mimlib.training.trainer import Trainer


def encoder_of(kind: str, size: int, stride: int, width: int) -> ConvViTConfig | ViTConfig:
    """An encoder of the given width."""
    if kind == "convvit":
        return ConvViTConfig(
            widths=(width // 4, width // 2, width), depths=(1, 1, 3), heads=4,
            entries=(stride // 4, 2, 2), image_size=size,
        )  # fmt: skip
    return ViTConfig(width=width, depth=4, heads=4, patch_size=stride, image_size=size)


def learn(
    task: object, source: Source, train: TrainConfig, measured: Evaluation
) -> Mapping[str, float]:
    """Build and train the task, print its way, return what is measured at the end."""
    torch.manual_seed(0)
    history = Trainer(task.build(), source, train, (measured,), progress=False).fit().history
    for line in history:
        print({k: round(v, 3) for k, v in line.items() if k in ("step", "loss") or "/" in k})
    return {k.partition("/")[2]: v for k, v in history[-1].items() if "/" in k}
