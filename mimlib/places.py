"""Where things lie, from whichever folder a process was started in."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "_checkout").is_dir()  # copied by `pip install .`; not by `-e .`
SHIPPED = PACKAGE / "_checkout" if INSTALLED else PACKAGE.parent  # weights, receipts, studies


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill or a full disk leaves the old one.

    Raises:
        PermissionError: if it would change what an installation came with.
    """
    if INSTALLED and SHIPPED in path.resolve().parents:
        raise PermissionError(
            f"{path} came with the installed mimlib; to change what it ships, clone the repository "
            "and install it with 'pip install -e .'"
        )
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def num_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def root() -> Path:
    """Return where data sets are looked for and runs go: the checkout, else the current folder.

    JupyterLab and nbval start a kernel in the notebook's folder, papermill in the caller's, so
    nothing in a lesson of a checkout may depend on the current folder.
    """
    return Path.cwd() if INSTALLED else SHIPPED


def receipts() -> Path:
    """Return the folder of measured results, one JSON file each."""
    return SHIPPED / "data" / "receipts"


def weights() -> Path:
    """Return the folder of the networks that come with mimlib."""
    return SHIPPED / "data" / "weights"


def studies() -> Path:
    """Return the folder of the notebooks that measure claims."""
    return SHIPPED / "notebooks" / "studies"


def notebooks() -> tuple[Path, ...]:
    """Return the lessons in their order; none without a checkout."""
    return tuple(sorted((SHIPPED / "notebooks").glob("[0-9][0-9]_*.ipynb")))
