"""Where a number was made, and by what: commit, processor, number type, versions."""

import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import torch

from mimlib import __version__
from mimlib.places import SHIPPED, num_cores
from mimlib.training.config import pick_device
from mimlib.training.precision import resolve_precision

CODE = ("mimlib", "notebooks/studies")  # changes elsewhere make no tree dirty


def origin() -> dict[str, object]:
    """Return commit, hardware, number type and versions, as plain values.

    `commit` and `dirty` are None where the code is no checkout of its own: not installed from a
    clone, or git is missing.
    """
    commit = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--", *CODE)
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "hardware": hardware(),
        "number_type": number_type(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "mimlib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def hardware() -> str:
    """Name the GPU, or the cores and the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = num_cores()
    return f"{cores} {'core' if cores == 1 else 'cores'} of {processor()}"


@lru_cache
def processor() -> str:
    """Name the processor and the widest instructions torch uses on it."""
    name = ""
    if Path("/proc/cpuinfo").is_file():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = text.partition("model name")[2].partition(":")[2].partition("\n")[0]
    elif platform.system() == "Darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string") or ""
    name = " ".join((name or platform.processor() or platform.machine()).split())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def number_type() -> str:
    """Name the number type in which steps are computed here."""
    return str(resolve_precision("auto", pick_device("auto"))).removeprefix("torch.")


def _git(*arguments: str) -> str | None:
    """Ask git about the checkout this package lies in; None if it lies in none of its own."""
    top = _output("git", "-C", str(SHIPPED), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != SHIPPED:
        return None
    return _output("git", "-C", str(SHIPPED), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()
