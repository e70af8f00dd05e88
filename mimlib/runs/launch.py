"""One call that trains a run: here in this process, or in several on this machine.

The same call serves the command line, the lessons and the studies. A folder that already holds
the finished run is read instead of trained again; an unfinished one is resumed.
"""

import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from mimlib.machine.origin import origin
from mimlib.places import num_cores, write_text
from mimlib.presets.run import Run, run_info
from mimlib.protocol import Trainable
from mimlib.runs.build import build
from mimlib.runs.mistakes import Mistake, mistakes
from mimlib.training.checkpoint import CheckpointError
from mimlib.training.resume import newest_good
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
        num_processes: processes on this machine. Several are started afresh and import the main
            script: one that calls this with more than one needs `if __name__ == "__main__":`.
        progress: show a progress bar.

    Raises:
        Mistake: (a ValueError) if a value, a file or a device does not fit, found before training;
            or if several processes were stopped before the last step.
        RuntimeError: if one of several processes fails, with its traceback.
    """
    out = Path(out)
    if num_processes < 1:
        raise Mistake(f"num_processes must be 1 or more, got {num_processes}")
    with mistakes(CheckpointError):
        finished = read_finished(run, out, num_processes)
    if finished is None and num_processes == 1:
        return train_here(run, out, progress)
    if finished is None:
        _launch_processes(run, out, num_processes, progress)
        finished = read_finished(run, out, num_processes)
    if finished is None:
        raise Mistake(f"training stopped before its last step; run it again to go on: {out}")
    return finished


def train_here(run: Run, out: Path, progress: bool = True) -> Result:
    """Train in this process (one of several under torchrun)."""
    described = run_info(run)
    with mistakes():
        method, source, evaluations = build(run)
        trainer = Trainer(
            *(method, source, run.train, evaluations, out),
            run_info={k: v for k, v in described.items() if k != "train"},
            progress=progress,
        )
    with mistakes(CheckpointError):  # the folder holds another run
        summary = trainer.fit()
    if trainer.is_main and not summary.stopped:
        made = {"run": described, "num_ranks": trainer.ranks.num_ranks, "origin": origin()}
        text = json.dumps({**made, "summary": dataclasses.asdict(summary)}, indent=1)
        write_text(out / SUMMARY_FILE, text + "\n")
    return Result(method.cpu().eval(), summary, out)


def read_finished(run: Run, out: Path, num_ranks: int = 1) -> Result | None:
    """Load a finished run of this very config and number of ranks; None if there is none."""
    path = out / SUMMARY_FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_bytes())
    except ValueError:  # torn by a power cut; the checkpoints know how far the run has come
        return None
    if stored["run"] != run_info(run) or stored.get("num_ranks") != num_ranks:
        return None
    _, content = newest_good(out)
    if content is None or content["step"] != run.train.steps:
        return None
    method = run.method.build()
    method.load_state_dict(content["model"])
    return Result(method.eval(), Summary(**stored["summary"]), out)


def _launch_processes(run: Run, out: Path, num_processes: int, progress: bool) -> None:
    """Train in processes of their own; they save and end when they or this one are interrupted.

    Not by torch.distributed.launcher: its agent sends a second interrupt after that of the
    terminal, which a rank takes as the wish not to wait, and tells an error twice.
    """
    if run.train.device == "cuda" and torch.cuda.device_count() < num_processes:
        raise Mistake(
            f"{num_processes} processes asked for, but this machine has "
            f"{torch.cuda.device_count()} GPUs; lower num_processes or use device='cpu'"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (num_processes, port, run, out, progress)
    ranks = start_processes(_train_rank, given, num_processes, join=False, start_method="spawn")
    while True:
        try:
            if ranks.join():
                return
        except KeyboardInterrupt:  # of the terminal or of this process alone: ask, do not insist
            for process in ranks.processes:
                process.terminate()
        except (ProcessRaisedException, ProcessExitedException) as error:
            text = str(error).strip()
            before, mark, mistake = text.rpartition(f"{Mistake.__qualname__}: ")
            if mark and before.endswith(f"\n{Mistake.__module__}."):
                raise Mistake(mistake) from None
            raise RuntimeError(text) from None


def _train_rank(rank: int, num_ranks: int, port: int, run: Run, out: Path, progress: bool) -> None:
    """Train as one of several processes of this machine, which torch finds by these variables."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks}
    names |= {"LOCAL_WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    if "OMP_NUM_THREADS" not in os.environ:  # else every rank takes all cores
        torch.set_num_threads(max(1, num_cores() // num_ranks))
    train_here(run, out, progress)
