"""What a process of its own does in the trainer's tests."""

import json
import os
from pathlib import Path

import torch
from training_toys import Toy, ToySource, config

from mimlib.training.config import TrainConfig
from mimlib.training.parallel import leave
from mimlib.training.trainer import Trainer


def settings(batch_size: int, shard: bool = False, optimizer: str = "adamw"):
    """The run that every process of these tests trains."""
    changes = {"accumulation": 2, "save_every": 2, "clip_norm": 0.5, "shard": shard}
    return config(batch_size=batch_size, optimizer=optimizer, **changes)


def work(out: Path, run: TrainConfig, uneven: bool, events: dict, environment: dict) -> None:
    """Train, as under torchrun if `environment` says so, and write the summary to a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    source = ToySource(**events)
    trainer = Trainer(Toy("index", uneven=uneven), source, run, out=out, progress=False)
    summary = trainer.fit()
    told = {"step": summary.step, "stopped": summary.stopped}
    (out / f"rank_{trainer.ranks.rank}.json").write_text(json.dumps(told))
    leave()
