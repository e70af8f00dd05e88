"""One call that trains a run: here in this process, or in several through torchrun.

The same call serves the command line, the lessons and the studies. A folder that already holds
the finished run is read instead of trained again; an unfinished one is resumed.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from mimlib.machine.origin import origin
from mimlib.places import write_text
from mimlib.presets import preset
from mimlib.presets.run import Run
from mimlib.protocol import Trainable
from mimlib.runs.build import build
from mimlib.training.resume import flatten, newest_good
from mimlib.training.trainer import Summary, Trainer

SUMMARY_FILE = "summary.json"


class Result(NamedTuple):
    """What a finished (or stopped) run leaves behind."""

    method: Trainable  # on the CPU, in evaluation mode
    summary: Summary
    out: Path


def launch(run: Run, out: Path | str, num_processes: int = 1, progress: bool = True) -> Result:
    """Train `run` in folder `out` and return the trained method.

    Args:
        run: what to train, from `presets.preset` and `presets.override`.
        out: folder for checkpoints, logs and the summary; created if missing.
        num_processes: processes on this machine; more than one goes through torchrun.
        progress: show a progress bar.

    Raises:
        ValueError: if `num_processes` is below one.
        RuntimeError: if a process of a torchrun launch fails.
    """
    if num_processes < 1:
        raise ValueError(f"num_processes must be 1 or more, got {num_processes}")
    out = Path(out)
    finished = read_finished(run, out, num_processes)
    if finished is not None:
        return finished
    if num_processes > 1:
        _launch_processes(run, out, num_processes, progress)
        finished = read_finished(run, out, num_processes)
        if finished is None:
            raise RuntimeError(
                f"training stopped before its last step; run it again to go on: {out}"
            )
        return finished
    return train_here(run, out, progress)


def train_here(run: Run, out: Path, progress: bool = True) -> Result:
    """Train in this process (one of several under torchrun)."""
    method, source, evaluations = build(run)
    trainer = Trainer(
        *(method, source, run.train, evaluations, out),
        run_info={k: v for k, v in run_info(run).items() if k != "train"},
        progress=progress,
    )
    summary = trainer.fit()
    if trainer.is_main and not summary.stopped:
        made = {"run": run_info(run), "num_ranks": trainer.ranks.num_ranks, "origin": origin()}
        text = json.dumps({**made, "summary": dataclasses.asdict(summary)}, indent=1)
        write_text(out / SUMMARY_FILE, text + "\n")
    return Result(method.cpu().eval(), summary, out)


def read_finished(run: Run, out: Path, num_ranks: int = 1) -> Result | None:
    """Load a finished run of this very config and number of ranks; None if there is none."""
    path = out / SUMMARY_FILE
    if not path.is_file():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["run"] != run_info(run) or stored.get("num_ranks") != num_ranks:
        return None
    _, content = newest_good(out)
    if content is None or content["step"] != run.train.steps:
        return None
    method = run.method.build()
    method.load_state_dict(content["model"])
    return Result(method.eval(), Summary(**stored["summary"]), out)


def run_info(run: Run) -> dict:
    """Describe a run as plain JSON values, for checkpoints and receipts."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def flags(run: Run) -> list[str]:
    """Return the command-line flags that turn the preset of this name into `run`.

    Raises:
        ValueError: if part of it is of another kind than the preset's, an encoder for instance.
    """
    changed = []
    base = dict(flatten(run_info(preset(run.name))))
    for name, value in flatten(run_info(run)):
        if name not in base:
            raise ValueError(
                f"{run.name} has no {'.'.join(name)}: this run differs from its preset in kind, "
                "which a command line cannot say; start from a preset of that kind, or train in "
                "one process"
            )
        if base[name] != value:
            changed += _flag(".".join(name), value)
    return changed


def _flag(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        head, _, last = name.rpartition(".")
        switch = last if value else f"no-{last}"
        return ["--" + ".".join(filter(None, [head, switch])).replace("_", "-")]
    values = value if isinstance(value, list) else [value]
    return ["--" + name.replace("_", "-"), *map(str, values)]


def _launch_processes(run: Run, out: Path, num_processes: int, progress: bool) -> None:
    """Start torchrun on the command line that describes this run."""
    if run.train.device == "cuda" and torch.cuda.device_count() < num_processes:
        raise ValueError(
            f"{num_processes} processes asked for, but this machine has "
            f"{torch.cuda.device_count()} GPUs; lower num_processes or use device='cpu'"
        )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(num_processes), "-m", "mimlib", "train", run.name),
        *(*flags(run), "--out", str(out), *(() if progress else ("--no-progress",))),
    ]
    with subprocess.Popen(command) as running:
        while running.poll() is None:
            try:
                running.wait()
            except KeyboardInterrupt:
                continue  # the processes have had the same signal: they save, then they end
    if running.returncode != 0:
        raise RuntimeError(f"torchrun ended with code {running.returncode}: {' '.join(command)}")
