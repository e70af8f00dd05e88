"""Where things lie, from whichever folder a process was started in."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill or a full disk leaves the old one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def num_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def root() -> Path:
    """Return the repository root: the folder that holds `mimlib/` and `notebooks/`.

    JupyterLab and nbval start a kernel in the notebook's folder, papermill in the caller's, so
    nothing in a lesson may depend on the current folder.
    """
    return ROOT


def receipts() -> Path:
    """Return the folder of measured results, one JSON file each."""
    return root() / "data" / "receipts"


def notebooks() -> tuple[Path, ...]:
    """Return the lessons in their order."""
    return tuple(sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb")))
