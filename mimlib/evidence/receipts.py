"""Receipts: where a number was measured, and files that are written whole or not at all."""

import platform
import subprocess

import torch

from mimlib import __version__
from mimlib.places import INSTALLED, SHIPPED, num_cores
from mimlib.training.profile import matmul_rate

CPU = torch.device("cpu")


def provenance() -> dict[str, object]:
    """Return commit, hardware, its speed in float32 matrix products, and versions."""
    git = ["git", "-C", str(SHIPPED), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    rate = matmul_rate(CPU, torch.float32, torch.get_num_threads())
    return {
        "commit": None if INSTALLED else found.stdout.strip() or None,
        "hardware": gpu or f"{num_cores()} CPU cores",
        "machine": platform.machine(),
        "matmul_gflops": round(rate / 1e9, 1),
        "threads": torch.get_num_threads(),
        "mimlib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
