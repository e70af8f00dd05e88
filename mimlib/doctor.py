"""What is installed, which device will be used, what each lesson will cost here, what is wrong.

`python -m mimlib doctor` prints it in words a newcomer can act on; its exit code is the number of
things that must be mended before the lessons run.
"""

import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from mimlib import __version__
from mimlib.training.config import pick_device
from mimlib.training.precision import has_fast_bfloat16
from mimlib.training.profile import matmul_rate
from mimlib.world.cache import cache_folder

PACKAGES = {
    "torch": (2, 11),
    "torchvision": (0, 26),
    "timm": (1, 0),
    "torchmetrics": (1, 6),
    "scikit-image": (0, 25),
    "jupyterlab": (4, 0),
    "papermill": (2, 6),
    "matplotlib": (3, 9),
    "ipywidgets": (8, 0),
}
TEST_PACKAGES = ("pytest", "nbval", "beartype")
NEEDED_MEMORY_GIB = 3.0
NEEDED_DISK_GIB = 1.0
LESSON_RECEIPTS = Path(__file__).resolve().parents[1] / "data" / "receipts" / "notebooks"


class Finding(NamedTuple):
    """One line of the report."""

    state: str  # "ok", "note" (works, but know this) or "fix" (mend this first)
    text: str


def examine() -> list[Finding]:
    """Look at everything a lesson needs; return one finding per thing looked at."""
    return [
        *_python(),
        *_packages(),
        *_device(),
        *_memory(),
        *_cache(),
        *_lessons(),
    ]


def report() -> int:
    """Print the findings; return how many of them must be mended."""
    findings = examine()
    print(f"mimlib {__version__}")
    for finding in findings:
        print(f"  {finding.state:>4}  {finding.text}")
    broken = sum(finding.state == "fix" for finding in findings)
    print("all well: run a lesson" if not broken else f"{broken} thing(s) to mend first")
    return broken


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("ok", f"Python {version} at {sys.prefix}")]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    found, findings = [], []
    for name, least in PACKAGES.items():
        version = _version(name)
        wanted = ".".join(map(str, least))
        if version is None:
            text = f"{name} is missing; run: pip install -e ."
            findings.append(Finding("fix", text))
        elif tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < least:
            text = f"{name} {version} is older than {wanted}; run: pip install -U {name}"
            findings.append(Finding("fix", text))
        else:
            found.append(f"{name} {version}")
    missing = [name for name in TEST_PACKAGES if _version(name) is None]
    if missing:
        text = (
            f"{', '.join(missing)} not installed: only the tests need it (pip install -e '.[test]')"
        )
        findings.append(Finding("note", text))
    return [Finding("ok", ", ".join(found)), *findings]


def _device() -> list[Finding]:
    device = pick_device("auto")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        name = torch.cuda.get_device_name(device)
        return [
            Finding("ok", f"will train on {name}" + (f" (one of {count})" if count > 1 else ""))
        ]
    if device.type != "cpu":
        return [Finding("ok", f"will train on {device.type}")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fast = "fast bfloat16" if has_fast_bfloat16(device) else "no fast bfloat16: float32"
    text = f"no GPU: will train on {cores} CPU core(s), {fast}. The lessons are made for this"
    return [Finding("ok", text)]


def _memory() -> list[Finding]:
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_MEMORY_GIB:
        text = (
            f"{free:.1f} GiB of memory free, lessons need {NEEDED_MEMORY_GIB:.0f}: close programs"
        )
        return [Finding("note", text)]
    return [Finding("ok", f"{free:.0f} GiB of memory free")]


def _cache() -> list[Finding]:
    folder = cache_folder()
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        text = f"cannot write {folder}: worlds are rendered again each time; set MIMLIB_CACHE"
        return [Finding("note", text)]
    free = shutil.disk_usage(nearest).free / 2**30
    if free < NEEDED_DISK_GIB:
        text = f"{free:.1f} GiB of disk free at {folder}; set MIMLIB_CACHE to a roomier place"
        return [Finding("note", text)]
    return [Finding("ok", f"rendered worlds are kept in {folder} ({free:.0f} GiB free)")]


def _lessons() -> list[Finding]:
    """Scale the measured time of each lesson by how fast this machine multiplies matrices."""
    receipts = sorted(LESSON_RECEIPTS.glob("*.json"))
    if not receipts:
        return [Finding("note", "no measured lesson times found beside this package")]
    here = matmul_rate(torch.device("cpu"), torch.float32, torch.get_num_threads()) / 1e9
    findings = []
    for path in receipts:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        seconds = receipt["seconds"] * max(1.0, receipt["matmul_gflops"] / here)
        memory = receipt["peak_memory_mib"] / 1024
        text = f"lesson {path.stem}: about {seconds:.0f} s and {memory:.1f} GiB here"
        findings.append(Finding("ok", text))
    return findings
