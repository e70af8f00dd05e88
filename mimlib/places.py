"""Where things lie, from whichever folder a process was started in."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "_checkout").is_dir()  # copied by `pip install .`; not by `-e .`
SHIPPED = PACKAGE / "_checkout" if INSTALLED else PACKAGE.parent  # weights, receipts, studies


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Name a file to write; it takes the place of `path` at the end, or vanishes on an error.

    Its bytes reach the disk before it takes the name: a kill, a power cut or a full disk leaves
    the old file, if there was one. Of a symbolic link the file it leads to is replaced, not the
    link; a device or a pipe is written to as it stands. Folders are not made.

    Raises:
        OSError: if the file cannot be written, or came with an installed package.
    """
    if path.exists() and not path.is_file():  # a file in the place of /dev/stdout helps nobody
        yield path
        return
    path = path.resolve()
    if INSTALLED and SHIPPED in path.parents:
        raise PermissionError(
            f"{path} came with the installed mimlib; to change what it ships, clone the repository "
            "and install it with 'pip install -e .'"
        )
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield part
        descriptor = os.open(part, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def num_cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def record_work(part: str, count: int, seconds: float) -> None:
    """Add what was done, in how long, to the file that MIMLIB_WORK names, if it names one.

    This is how the time of a lesson is told apart; every process adds lines to the one file.

    Args:
        part: of a lesson's time: training, rendering, rendering_together (by several processes).
        count: of images, pairs, views or clips.
        seconds: on the clock.
    """
    path = os.environ.get("MIMLIB_WORK")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([part, count, seconds]) + "\n")
