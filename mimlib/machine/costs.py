"""What a lesson costs here: work counted where its receipt was made, rates measured on both.

A lesson's time is training, rendering and the rest. Each part scales with a rate of its own: steps
of the lesson's preset, views of its world, and rounds of plain Python and small arrays. The rates
take some seconds to measure and are kept in the cache folder.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from mimlib import world
from mimlib.machine import bench
from mimlib.machine.origin import hardware, number_type
from mimlib.places import write_text
from mimlib.presets import preset
from mimlib.presets.run import Run
from mimlib.training.config import pick_device
from mimlib.training.precision import numeric_mode, resolve_precision
from mimlib.world.sets.cache import cache_folder
from mimlib.world.sets.workers import WORTHWHILE, count_workers

NAME = "rates.json"  # in the cache folder
SECONDS = 0.8  # per rate
VIEWS = 16  # one group of them
# Plain Python and small arrays, as in proofs, figures and imports; prints rounds a second.
ROUNDS = """
import time, numpy
rows, start, done = numpy.linspace(0, 1, 4096).reshape(64, 64), time.perf_counter(), 0
while time.perf_counter() - start < 0.25:
    words = {str(i): i * i for i in range(500)}
    order = sorted(words, key=words.get, reverse=True)
    for i in range(20):
        rows = numpy.sqrt(numpy.abs(numpy.sin(rows.T + i)))[::-1].copy()
    done += 1
print(done / (time.perf_counter() - start))
"""
# Of a lesson's time, and the rate it scales with; what is left scales with `rounds`.
PARTS = {"training": "images", "rendering": "views", "rendering_together": "views_together"}


class Rates(NamedTuple):
    """How fast a machine is at what a lesson does; all per second."""

    images: float  # or pairs, trained on by steps of the preset
    views: float  # rendered by one process
    views_together: float  # by as many processes as render a large set
    rounds: float  # of ROUNDS, by one thread


def rates(run: Run) -> Rates:
    """Return the rates of this machine for a preset, from the cache folder or measured now.

    What a reader has overridden is left out: the rates are kept under the name of the preset.
    """
    run = preset(run.name)
    known: dict[str, list[float]] = {}
    with suppress(OSError, ValueError):  # also of who has no home: measured again next time
        known = json.loads((cache_folder() / NAME).read_text(encoding="utf-8"))
    stamp, level, size = _stamp(), getattr(run.data, "level", "paper"), run.data.size
    step, views = f"{stamp} step {run.name}", f"{stamp} views {level} {size}"
    old = dict(known)
    if step not in known:
        known[step] = [_step_rate(run)]
    if views not in known:
        known[views] = _world_rates(level, size)
    if known != old:
        with suppress(OSError):  # a folder that cannot be written to
            path = cache_folder() / NAME
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(known, indent=1))
    return Rates(*known[step], *known[views])


def predict(receipt: Mapping, here: Rates) -> float:
    """Return the seconds that a measured lesson takes at the rates of another machine.

    Its receipt has `seconds` in all, `work` of each of PARTS, `rates` of the machine it ran on.
    """
    there, rest, seconds = receipt["rates"], receipt["seconds"], 0.0
    for part, work in receipt["work"].items():
        rate = PARTS[part]
        seconds += work["seconds"] * there[rate] / getattr(here, rate)
        rest -= work["seconds"]
    return seconds + rest * there["rounds"] / here.rounds


def read_work(path: Path) -> dict[str, dict[str, float]]:
    """Sum up what `places.record_work` has written: {part: {"count", "seconds"}}."""
    parts = {part: {"count": 0, "seconds": 0.0} for part in PARTS}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        part, count, seconds = json.loads(line)
        parts[part]["count"] += count
        parts[part]["seconds"] = round(parts[part]["seconds"] + seconds, 3)
    return parts


def _stamp() -> str:
    """Name machine, number type, threads, torch and the code whose speed is measured."""
    digest = hashlib.sha256()
    for text in (hardware(), number_type(), torch.get_num_threads(), torch.__version__):
        digest.update(f"{text}|".encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _step_rate(run: Run) -> float:
    """Time steps of a preset at its batch, on its device."""
    device, batch = pick_device(run.train.device), run.train.batch_size
    dtype = resolve_precision(run.train.precision, device)
    with numeric_mode(device, run.train.threads):
        method = run.method.build().to(device)
        return batch / bench.seconds_per_step(method, batch, device, dtype, SECONDS)


def _world_rates(level: str, size: int) -> list[float]:
    """Time rendering by one process, and plain work by one process and by one for each core."""
    world.views(1, size, level, cache=False)  # makes the atlas
    times = bench.times_of(lambda: world.views(VIEWS, size, level, cache=False, workers=1), SECONDS)
    views, workers = VIEWS / min(times), count_workers(WORTHWHILE, None)
    rounds = _rounds(1)
    together = _rounds(workers) if workers > 1 else rounds
    return [views, views * together / rounds, rounds]


def _rounds(processes: int) -> float:
    """Return the rounds a second of several processes together."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ROUNDS]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running)
