"""Where things lie, from whichever folder a kernel was started in."""

from pathlib import Path

from mimlib.receipts import ROOT


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
