"""Execute lessons from a fresh kernel and store them clean: two runs give the same bytes.

python -m mimlib.course.notebooks.render NOTEBOOK            execute, clean, store
python -m mimlib.course.notebooks.render --measure NOTEBOOK  and write its receipt
python -m mimlib.course.notebooks.render --check NOTEBOOK    execute, compare, store nothing
"""

import base64
import copy
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbformat
import psutil
import tyro
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat import NotebookNode
from tyro.conf import Positional, arg

from mimlib import places
from mimlib.course.lesson import report
from mimlib.course.notebooks import sandbox
from mimlib.evidence import receipts
from mimlib.machine import costs
from mimlib.machine.origin import origin
from mimlib.places import write_text

# Asks for what a receipt holds to compare machines by, in a kernel like that of the lesson.
RATES = """import json
from mimlib.machine.costs import rates
from mimlib.presets import preset
print(json.dumps(rates(preset({name!r}))._asdict()))"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MEASURED = re.compile(r"^Measured:.*$", re.MULTILINE)
STARTED = re.compile(r"course\.start\(\s*\"(\w+)\"")
LESSON_PRESET = re.compile(r'^PRESET = "lesson"', re.MULTILINE)
KEPT = re.compile(r"^# kept as (assets/[\w-]+\.png)$", re.MULTILINE)
TEXT_BEFORE_RETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
CELL_TIMEOUT = 3600  # seconds; for what hangs, not for what is slow


def main(arguments: list[str] | None = None) -> int:
    """Render the notebooks named on the command line; return how many differ (with --check)."""
    known = tyro.cli(
        Arguments,
        args=arguments,
        prog="python -m mimlib.course.notebooks.render",
        description=re.sub(r"\n+", "\n\n", __doc__),
    )
    missing = [path for path in known.notebooks if not path.is_file()]
    if missing or not known.notebooks:
        sys.exit(f"there is no notebook {missing[0]}" if missing else "name a notebook")
    sandbox.fix_environment()
    bad = 0
    for path in known.notebooks:
        before = path.read_bytes()
        text = render(path, measure=known.measure).encode()
        if not known.check:
            write_text(path, text.decode())
            keep_pictures(path)
        bad += known.check and text != before
        print(f"{path}: {'same' if text == before else 'changed'}, {len(text) / 1e6:.2f} MB")
    return bad


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line says."""

    notebooks: Annotated[tuple[Path, ...], Positional, arg(metavar="NOTEBOOK ...")]
    measure: bool = False  # write time and peak memory
    check: bool = False  # compare with what is stored


def render(path: Path, measure: bool = False) -> str:
    """Execute a notebook in its own folder and return the cleaned file as text.

    Args:
        path: the notebook; it is read, not written.
        measure: start with an empty world cache, and write receipts/notebooks/<name>.json.

    Raises:
        ValueError: if costs are to be measured by code that is not committed.
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    if measure:
        receipts.refuse_uncommitted([origin()])
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if measure:
        cost = measured(notebook, path.parent)
        receipts.write(places.receipts() / f"notebooks/{path.stem}.json", cost)
    else:
        execute(notebook, path.parent, {})
    write_banner(notebook, path.stem)
    clean(notebook)
    return nbformat.writes(notebook) + "\n"


def measured(notebook: NotebookNode, folder: Path) -> dict[str, object]:
    """Run a lesson with an empty cache, and a copy of it with PRESET = "tiny"; return its costs.

    Seconds in all and in each part, memory, and where; afterwards the rates of this machine.
    """
    tiny = copy.deepcopy(notebook)
    for cell in tiny.cells:
        cell.source = LESSON_PRESET.sub('PRESET = "tiny"', cell.source)
    name = f"{lesson_of(notebook)}_lesson"
    asked = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(RATES.format(name=name))])
    with tempfile.TemporaryDirectory(prefix="mimlib-") as cache:
        work = Path(cache) / "lesson.work"
        surroundings = {"MIMLIB_CACHE": cache, "MIMLIB_WORK": str(work)}
        seconds, peak = execute(notebook, folder, surroundings)
        parts = costs.read_work(work)
        tiny_seconds, _ = execute(tiny, folder, {"MIMLIB_CACHE": cache})
        execute(asked, folder, {"MIMLIB_CACHE": cache})
    return {
        "preset": name,
        "rates": json.loads(asked.cells[0].outputs[0].text),
        "seconds": round(seconds, 1),
        "tiny_seconds": round(tiny_seconds, 1),
        "peak_memory_mib": round(peak),
        "work": parts,
        "environment": origin(),
    }


def execute(notebook: NotebookNode, folder: Path, extra: dict[str, str]) -> tuple[float, float]:
    """Run all cells in a fresh kernel; return seconds and the peak memory in MiB."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder.resolve())}},
        store_widget_state=False,
        record_timing=False,
    )
    start = time.perf_counter()
    with (
        client.setup_kernel(env=os.environ | extra),
        memory_of(client.km.provisioner.pid) as memory,
    ):
        run_sync(client.kc.execute_interactive)(
            sandbox.kernel_prelude(), silent=True, store_history=False
        )
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    return time.perf_counter() - start, max(memory)


def clean(notebook: NotebookNode) -> None:
    """Keep what a reader needs and nothing that differs from run to run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": sorted(tags)} if tags else {})
        cell.source = cell.source.rstrip()
        digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        if cell.cell_type == "code":
            cell.outputs = _clean_outputs(cell.outputs)


def lesson_of(notebook: NotebookNode) -> str:
    """Return the method that a lesson starts with; empty if it starts none."""
    started = STARTED.search("\n".join(cell.source for cell in notebook.cells))
    return started.group(1) if started else ""


def write_banner(notebook: NotebookNode, name: str) -> None:
    """Put the measured costs into the line of the first cell that begins with "Measured:"."""
    line = report.banner(name, lesson_of(notebook))
    notebook.cells[0].source = MEASURED.sub(lambda _: line, notebook.cells[0].source)


def keep_pictures(path: Path) -> None:
    """Write the picture of each cell that says "# kept as assets/NAME.png" to that file too."""
    for cell in nbformat.read(path, as_version=4).cells:
        kept = KEPT.search(cell.source) if cell.cell_type == "code" else None
        if kept:
            (shown,) = (o.data for o in cell.outputs if "image/png" in o.get("data", {}))
            target = path.parent / kept.group(1)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(base64.b64decode(shown["image/png"]))


@contextmanager
def memory_of(pid: int, every: float = 1.0) -> Iterator[list[float]]:
    """Watch a process and its children; the list is filled with the sums of their memory in MiB.

    Pages that several of them share, the libraries of torch above all, count once on Linux and
    not at all where that is not known.
    """
    root, sums, done = psutil.Process(pid), [0.0], threading.Event()

    def _watch() -> None:
        finished = False
        while not finished:
            with suppress(psutil.NoSuchProcess):  # a child that has just ended
                found = [p.memory_full_info() for p in (root, *root.children(recursive=True))]
                sums.append(sum(getattr(each, "pss", each.uss) for each in found) / 2**20)
            finished = done.wait(every)

    thread = threading.Thread(target=_watch, daemon=True)
    thread.start()
    try:
        yield sums
    finally:
        done.set()
        thread.join()


def _clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Merge printed text, drop widgets and what went to stderr (shown here instead)."""
    kept: list[NotebookNode] = []
    for output in outputs:
        is_text = output.output_type == "stream"
        if is_text and output.name == "stderr":
            _show_complaints(output.text)
        elif is_text and kept and kept[-1].output_type == "stream":
            kept[-1].text = TEXT_BEFORE_RETURN.sub("", kept[-1].text + output.text)
        elif "application/vnd.jupyter.widget-view+json" not in output.get("data", {}):
            if is_text:
                output.text = TEXT_BEFORE_RETURN.sub("", output.text)
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            kept.append(output)
    return kept


def _show_complaints(text: str) -> None:
    """Repeat on our stderr what is not a progress bar."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip() and "%|" not in line]
    if lines:
        print("stderr of a cell, not stored:", *lines, sep="\n  ", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
