"""A run in plain data, built."""

from pathlib import Path

import torch

from mimlib.presets.run import Run
from mimlib.protocol import Evaluation, Source, Trainable
from mimlib.training.checkpoint import latest_checkpoint
from mimlib.weights import load_pretrained


def build(run: Run) -> tuple[Trainable, Source, tuple[Evaluation, ...]]:
    """Make the method, its source and its evaluations.

    The initial weights follow from the run's seed alone; pre-trained ones are loaded over them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.train.seed)
        method = run.method.build()
    if run.pretrained:
        load_pretrained(method, weights_file(run.pretrained))
    return method, run.data.build(), tuple(e.build() for e in run.evaluations)


def weights_file(path: str) -> Path:
    """Return the file itself or a folder's newest checkpoint; FileNotFoundError without either."""
    found = latest_checkpoint(Path(path)) if Path(path).is_dir() else Path(path)
    if found is None or not found.is_file():
        raise FileNotFoundError(
            f"pretrained is {path!r}, which is no file and no folder with a checkpoint; name a "
            "run's folder, one of its checkpoints, or a safetensors file"
        )
    return found
