"""Render a set in chunks that suit the processor: here, or large ones with several processes.

Two processes of one thread beat two threads by far. A worker is a plain Python process, which asks
nothing of its caller: it works from notebooks, tests and scripts alike. Its job stands in a file
OUT.job, the number of items done is the size of OUT.done, what it says goes to OUT.error and what
it has rendered to OUT.
"""

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

from mimlib.places import num_cores
from mimlib.world.rooms.atlas import default_atlas, one_thread
from mimlib.world.rooms.scenes import take
from mimlib.world.sets.cache import Fields
from mimlib.world.sets.recipes import Recipe

Progress = Callable[[int, int], None]  # items done, items in all
CPU_PIXELS, DEVICE_PIXELS = 1 << 16, 1 << 19  # rendered in one call
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


def chunk_size(recipe: Recipe, device: torch.device | None) -> int:
    """Return how many items to render in one call, a power of two up to a group."""
    pixels = CPU_PIXELS if device is None else DEVICE_PIXELS
    fitting = max(1, pixels // recipe.size**2)
    return min(recipe.group_size, 1 << (fitting.bit_length() - 1))


def render_here(
    recipe: Recipe,
    first: int,
    count: int,
    kinds: tuple[str, ...],
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Fields]:
    """Render `count` items from group `first` on in this process: {kind: {field: [count, ...]}}.

    Chunks are always whole, whatever length the set has. `progress` runs on the caller's threads.
    """
    result: dict[str, Fields] = {}
    step, items = chunk_size(recipe, device), ()
    atlas = default_atlas()
    if device is not None:
        atlas = atlas._replace(texels=atlas.texels.to(device), offsets=atlas.offsets.to(device))
    for start in range(0, -(-count // step) * step, step):
        with one_thread():
            group, here = divmod(start, recipe.group_size)
            items = items if here else recipe.draw(first + group)
            chunk = take(items, slice(here, here + step))
            if device is not None:
                chunk = tree_map(lambda tensor: tensor.to(device), chunk)
            rendered = recipe.render(chunk, kinds, atlas)
        if not result:
            result = tree_map(lambda part: part.new_empty((count, *part.shape[1:])), rendered)
        for whole, part in zip(tree_leaves(result), tree_leaves(rendered)):
            whole[start : start + step] = part[: count - start]
        if progress is not None:
            progress(min(start + step, count), count)
    return result


def count_workers(count: int, workers: int | None) -> int:
    """Return how many processes to use for a set: as many as asked for, or as useful.

    Raises:
        ValueError: if fewer than one is asked for.
    """
    if workers is None:
        return 1 if count < WORTHWHILE else min(num_cores(), MAX_WORKERS)
    if workers < 1:
        raise ValueError(f"{workers} workers; ask for 1 or more, or for None to leave it open")
    return workers


def split_jobs(recipe: Recipe, count: int, kinds: tuple[str, ...], workers: int) -> list[Job]:
    """Share the groups of a set out evenly, in order."""
    groups = -(-count // recipe.group_size)
    bounds = [round(groups * worker / workers) for worker in range(workers + 1)]
    ends = [min(bound * recipe.group_size, count) for bound in bounds]
    lengths = [after - first for first, after in itertools.pairwise(ends)]
    return [Job(recipe, *job, kinds) for job in zip(bounds, lengths) if job[1] > 0]


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
            return join_parts([torch.load(out, mmap=True) for out in outs])
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
    torch.save(render_here(*job, progress=lambda done, _: os.truncate(f"{out}.done", done)), out)


def join_parts(parts: list[dict[str, Fields]]) -> dict[str, Fields]:
    """Join the parts in order."""
    return {
        kind: {name: torch.cat([part[kind][name] for part in parts]) for name in fields}
        for kind, fields in parts[0].items()
    }
