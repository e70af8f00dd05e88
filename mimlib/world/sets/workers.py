"""Render large sets with several processes of one thread each: two beat two threads by far.

A worker is a plain Python process, which asks nothing of its caller: it works from notebooks, tests
and scripts alike. Its job stands in a file OUT.job, the number of items done is the size of
OUT.done, what it says goes to OUT.error and what it has rendered to OUT.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from mimlib.places import num_cores
from mimlib.world.rooms.atlas import default_atlas
from mimlib.world.sets.cache import read_file, write_file
from mimlib.world.sets.chunks import Fields, Progress, render_here
from mimlib.world.sets.recipes import Recipe

WORTHWHILE = 768  # items; starting processes takes as long as rendering about half of them
MAX_WORKERS = 16
POLL = 0.1  # s
WORKER = "from mimlib.world.sets import workers; workers.work()"


class Job(NamedTuple):
    """What one worker renders: `count` items from group `first` on."""

    recipe: Recipe
    first: int
    count: int
    kinds: tuple[str, ...]


def count_workers(count: int, workers: int | None) -> int:
    """Return how many processes to use for a set: as many as asked for, or as useful.

    Raises:
        ValueError: if fewer than one is asked for.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers; ask for 1 or more, or for None to leave it open")
    if workers is not None:
        return workers
    return 1 if count < WORTHWHILE else min(num_cores(), MAX_WORKERS)


def split_jobs(recipe: Recipe, count: int, kinds: tuple[str, ...], workers: int) -> list[Job]:
    """Share the groups of a set out evenly, in order."""
    groups = -(-count // recipe.group_size)
    bounds = [round(groups * worker / workers) for worker in range(workers + 1)]
    jobs = []
    for first, after in zip(bounds[:-1], bounds[1:]):
        items = min(after * recipe.group_size, count) - first * recipe.group_size
        if items > 0:
            jobs.append(Job(recipe, first, items, kinds))
    return jobs


def render_with_workers(
    recipe: Recipe,
    count: int,
    kinds: tuple[str, ...],
    workers: int,
    progress: Progress | None = None,
) -> dict[str, Fields]:
    """Render a set with several processes; if one fails, warn and render it in this one."""
    default_atlas()  # on disk, if it can be, before everybody draws it
    jobs = split_jobs(recipe, count, kinds, workers)
    with tempfile.TemporaryDirectory(prefix="mimlib-") as folder:
        outs = [Path(folder) / f"{number}.part" for number in range(len(jobs))]
        try:
            run_workers(jobs, outs, count, progress)
            return join_parts([read_file(out, out.stem) for out in outs])
        except (OSError, ValueError, RuntimeError) as error:
            warnings.warn(f"rendering in one process, as workers failed: {error}", stacklevel=2)
    return render_here(recipe, 0, count, kinds, progress=progress)


def run_workers(jobs: list[Job], outs: list[Path], count: int, progress: Progress | None) -> None:
    """Start a worker per job and wait for all; none outlives this call.

    Raises:
        OSError: if one cannot be started.
        RuntimeError: if one fails, with the end of what it said.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment["OMP_NUM_THREADS"] = "1"
    running: list[subprocess.Popen] = []
    try:
        for job, out in zip(jobs, outs):
            Path(f"{out}.job").write_bytes(pickle.dumps(job))
            Path(f"{out}.done").touch()
            command = [sys.executable, "-c", WORKER, str(out)]
            with open(f"{out}.error", "wb") as said:
                running.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
        while any(worker.poll() is None for worker in running):
            time.sleep(POLL)
            if any(worker.poll() for worker in running):
                break
            if progress is not None:
                progress(sum(os.path.getsize(f"{out}.done") for out in outs), count)
        failed = [(worker.poll(), out) for worker, out in zip(running, outs) if worker.poll()]
    finally:
        for worker in running:
            if worker.poll() is None:
                worker.terminate()
            worker.wait()
    for code, out in failed:
        said = Path(f"{out}.error").read_text(errors="replace").strip()
        raise RuntimeError(f"worker ended with {code}: {said[-500:]}")


def work() -> None:
    """Be a worker: do the job of the file named in the command."""
    out = Path(sys.argv[1])
    job = pickle.loads(Path(f"{out}.job").read_bytes())
    rendered = render_here(*job, progress=lambda done, _: os.truncate(f"{out}.done", done))
    fields = {f"{kind}/{name}": t for kind, part in rendered.items() for name, t in part.items()}
    write_file(out, fields)


def join_parts(parts: list[Fields]) -> dict[str, Fields]:
    """Join the parts in order; their fields are named kind/field."""
    result: dict[str, Fields] = {}
    for name in parts[0]:
        kind, _, field = name.partition("/")
        result.setdefault(kind, {})[field] = torch.cat([part[name] for part in parts])
    return result
