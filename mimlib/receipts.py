"""Receipts: where a number was measured, and files that are written whole or not at all."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from mimlib import __version__
from mimlib.training.profile import matmul_rate

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def provenance() -> dict[str, object]:
    """Return commit, hardware, its speed in float32 matrix products, and versions."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    rate = matmul_rate(CPU, torch.float32, torch.get_num_threads())
    return {
        "commit": found.stdout.strip() or None,
        "hardware": gpu or f"{num_cores()} CPU cores",
        "machine": platform.machine(),
        "matmul_gflops": round(rate / 1e9, 1),
        "threads": torch.get_num_threads(),
        "mimlib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill or a full disk leaves the old one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def num_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
