"""What a run says while it runs: JSON lines, TensorBoard, a progress bar."""

import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import nan
from pathlib import Path

import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from mimlib.places import record_work, write_text
from mimlib.training.parallel import mean_over_ranks

MIB = 2**20
SHOWN = {  # by the bar
    "loss": ("loss", ".4g"),
    "images_per_second": ("images/s", ".0f"),
    "mfu": ("MFU", ".0%"),
    "memory_mib": ("MiB", ".0f"),
}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `Trainer.fit` returns."""

    step: int = 0  # optimiser steps done, those before a resume included
    loss: float = nan  # mean over the steps of the last log line
    seconds: float = 0.0  # spent in steps, those before a resume included; not in evaluations
    images_per_second: float = 0.0  # over all ranks and all logged steps but the first
    peak_memory_mib: float = 0.0  # CUDA: allocated by torch; else: of the process, at logged steps
    history: list[dict[str, float]] = field(default_factory=list)  # the log lines
    stopped: bool = False  # True if a signal ended the run before its last step


class Meter:
    """Averages losses on the device and keeps time; reading it is the only wait for the device."""

    def __init__(self, device: torch.device, images_per_step: int):
        self.device, self.images_per_step = device, images_per_step
        self.start()

    def start(self, seconds: float = 0.0) -> None:
        """Begin a window; `seconds` were spent in steps before."""
        self.sums: dict[str, Tensor] = {}
        self.num_steps, self.seconds, self.clock = 0, seconds, time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step, without waiting for them."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.num_steps += 1

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count what happens inside as training time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.clock += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Return means since the last reading, over all ranks, with speed and memory."""
        names = list(self.sums)
        means = torch.stack([self.sums[name].float() for name in names]) / self.num_steps
        values = dict(zip(names, mean_over_ranks({"means": means})["means"].tolist()))
        now = time.perf_counter()
        elapsed = now - self.clock
        self.seconds += elapsed
        values["images_per_second"] = self.images_per_step * self.num_steps / elapsed
        values["memory_mib"] = memory_mib(self.device)
        values["seconds"] = self.seconds
        record_work("training", self.images_per_step * self.num_steps, elapsed)
        self.sums, self.num_steps, self.clock = {}, 0, now
        return values


def memory_mib(device: torch.device) -> float:
    """Return memory in MiB: the peak of torch on CUDA, else the process (or Apple GPU) now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / MIB
    return psutil.Process().memory_info().rss / MIB


class Log:
    """JSON lines in `out/log.jsonl`, TensorBoard beside it, a progress bar on stderr."""

    def __init__(
        self,
        out: Path | None,
        start: int,
        steps: int,
        progress: bool,
        history: Iterable[dict[str, float]] = (),
    ):
        """Open the files; a run that goes on keeps its lines up to step `start`.

        Without the folder `out` there are no files; `history` are then the lines written before.
        """
        self.history = read_lines(out / "log.jsonl", start) if out and start else list(history)
        self.seconds = self.history[-1].get("seconds", 0.0) if self.history else 0.0
        self.file = self.board = None
        if out:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, not always needed

            lines = [json.dumps(record) + "\n" for record in self.history]
            write_text(out / "log.jsonl", "".join(lines))
            self.file = open(out / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115
            self.board = SummaryWriter(out / "tensorboard", purge_step=start + 1)
        self.bar = tqdm(
            total=steps, initial=start, disable=not progress, file=sys.stderr, unit="step"
        )

    def write(self, record: dict[str, float]) -> None:
        """Keep one record and show it everywhere."""
        self.history.append(record)
        if self.file:
            with self.going_on():
                self.file.write(json.dumps(record) + "\n")
                self.file.flush()
                for name, value in record.items():
                    self.board.add_scalar(name, value, record["step"])
        shown = SHOWN.items()
        texts = {label: f"{record[n]:{form}}" for n, (label, form) in shown if n in record}
        self.bar.set_postfix(texts, refresh=False)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Warn of a full disk instead of losing the steps since the last checkpoint."""
        try:
            yield
        except OSError as error:
            warnings.warn(f"could not write to {self.file.name}: {error}", stacklevel=2)

    def summary(self, stopped: bool) -> Summary:
        """Sum up the whole run from its log lines."""
        lines = [record for record in self.history if "loss" in record]
        if not lines:
            return Summary()
        first, last = lines[0], lines[-1]
        speed = last["images_per_second"]
        if last["seconds"] > first["seconds"]:
            images = sum(
                line["images_per_second"] * (line["seconds"] - before["seconds"])
                for before, line in pairwise(lines)
            )
            speed = images / (last["seconds"] - first["seconds"])
        return Summary(
            step=last["step"],
            loss=last["loss"],
            seconds=last["seconds"],
            images_per_second=speed,
            peak_memory_mib=max(line["memory_mib"] for line in lines),
            history=self.history,
            stopped=stopped,
        )

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        """Flush and close everything."""
        self.bar.close()
        if self.file:
            for file in (self.file, self.board):
                with self.going_on():
                    file.close()


def read_lines(path: Path, last_step: int) -> list[dict[str, float]]:
    """Read the records up to a step; what a kill or a power cut tore is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # torn, or no text at all
            continue
        if isinstance(record, dict) and record.get("step", last_step + 1) <= last_step:
            records.append(record)
    return records
