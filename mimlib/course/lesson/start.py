"""The setup cell: parameters in, a resolved run out, one printed line."""

import ast
import atexit
import difflib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import mimlib
from mimlib import places
from mimlib.course.lesson import report
from mimlib.presets import PRESETS, preset
from mimlib.presets.run import Run, override
from mimlib.training.config import pick_device

# The preset a lesson means by "paper": the size of the paper's main experiment.
PAPER_RUNS = {
    "mae": "mae_vitb16_in1k",
    "convmae": "convmae_vitb16_in1k",
    "croco": "croco_vitb16_habitat",
    "selfpatch": "selfpatch_vits16_in1k",
}
PARAMETERS = ("PRESET", "SEED", "OVERRIDES", "RUN_DIR", "NPROC")


class Lesson(NamedTuple):
    """What the parameters of a lesson resolve to."""

    name: str  # method the lesson is about, for instance "mae"
    run: Run  # resolved preset, with the seed and the overrides in it
    seed: int
    run_dir: Path  # where training writes; a folder removed at exit if none was named
    num_processes: int


def start(
    lesson: str,
    preset: str = "lesson",
    seed: int = 0,
    overrides: Mapping[str, object] | str | None = None,
    run_dir: str = "",
    num_processes: int = 1,
    notebook: str = "",
) -> Lesson:
    """Resolve the parameters of a lesson and print one line that says what will run.

    papermill passes `-p SEED 1e2` as a float, `-p OVERRIDES '{"train.steps": 10}'` as a string
    and a misspelt name without complaint: values are brought to their type or refused, and names
    that the parameters cell does not have are refused with the list of those it has.

    Args:
        lesson: method, the first part of the preset names: "mae" for mae_tiny, mae_lesson, ...
        preset: "tiny", "lesson", "gpu", "paper", or the full name of a preset of the method.
        seed: of initialisation, order, augmentation and masks.
        overrides: dotted fields of the run, for instance {"train.steps": 100}.
        run_dir: folder for checkpoints and logs, relative to the repository root; a finished run
            with the same configuration is loaded from it. Empty: a temporary folder.
        num_processes: ranks, on this machine.
        notebook: file name of the lesson without suffix, to say what it will cost here.

    Raises:
        ValueError: for an unknown name or a value of the wrong type; the message lists what is
            valid.
    """
    refuse_unknown_parameters()
    seed = _whole("SEED", seed, least=0)
    num_processes = _whole("NPROC", num_processes, least=1)
    run = _resolve(lesson, preset)
    run = _apply(run, {"train.seed": seed, **_mapping(overrides)})
    if getattr(run.data, "root", ""):  # relative to the repository, wherever the kernel was started
        folder = places.root() / Path(run.data.root).expanduser()
        run = override(run, {"data.root": str(folder)})
    line = f"mimlib {mimlib.__version__} | {run.name} | seed {seed}"
    if num_processes > 1:
        line += f" | {num_processes} processes"
    print(f"{line} | device {pick_device(run.train.device).type}", flush=True)
    if notebook and os.environ.get("MIMLIB_STATIC") != "1":  # when rendered, nobody listens
        _tell_costs(notebook, run)
    return Lesson(lesson, run, seed, _folder(run_dir), num_processes)


def _tell_costs(notebook: str, run: Run) -> None:
    """Tell a reader what is coming, on stderr: it is another text on every machine."""
    try:
        text = report.costs_here(notebook, run)
    except Exception as error:  # of whatever kind: it is advice, and the lesson goes on
        text = f"what this lesson costs here could not be measured: {error}"
    if text:
        print(text, file=sys.stderr, flush=True)


def refuse_unknown_parameters() -> None:
    """Raise if papermill injected a name that the parameters cell does not define.

    papermill puts injected values into a cell of its own, right after the parameters cell; its
    first line is the comment "# Parameters". Outside of IPython there is nothing to check.

    Raises:
        ValueError: naming the unknown parameters and the valid ones.
    """
    cells = _executed_cells()
    for before, cell in zip(["", *cells], cells):
        if not cell.lstrip().startswith("# Parameters\n"):
            continue
        valid = assigned_names(before)
        if unknown := [name for name in assigned_names(cell) if name not in valid]:
            near = difflib.get_close_matches(unknown[0].upper(), valid, n=1)
            raise ValueError(
                f"unknown parameter {', '.join(unknown)}; valid are {', '.join(valid)}"
                + "".join(f"; did you mean {name}?" for name in near)
            )


def assigned_names(source: str) -> tuple[str, ...]:
    """Return the names that a cell of plain or annotated assignments gives a value to."""
    names = []
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return tuple(names)


def _executed_cells() -> list[str]:
    import IPython

    shell = IPython.get_ipython()
    return list(shell.user_ns.get("In", ())) if shell else []


def _resolve(lesson: str, name: str) -> Run:
    """Find the run that the short or full name `name` stands for in this lesson."""
    prefix = f"{lesson}_"
    runs = {full.removeprefix(prefix): full for full in PRESETS if full.startswith(prefix)}
    if not runs:
        raise ValueError(f"no preset belongs to {lesson!r}; there are {', '.join(PRESETS)}")
    if lesson in PAPER_RUNS:
        runs["paper"] = PAPER_RUNS[lesson]
    full = runs.get(name, name)
    if full not in runs.values():
        raise ValueError(f"unknown PRESET {name!r}; valid are {', '.join(runs)}")
    return preset(full)


def _mapping(overrides: Mapping | str | None) -> dict[str, object]:
    """Bring OVERRIDES to a dictionary; papermill's command line can only pass text."""
    if isinstance(overrides, str):
        overrides = _parse(overrides.strip() or "{}")
    overrides = {} if overrides is None else overrides
    if not isinstance(overrides, Mapping) or not all(isinstance(k, str) for k in overrides):
        raise ValueError(
            f'OVERRIDES is {overrides!r}, expected names with values such as {{"train.steps": 100}}'
        )
    return dict(overrides)


def _apply(run: Run, changes: Mapping[str, object]) -> Run:
    """Replace dotted fields, all at once; text where a number or a bool is due is read as one."""
    try:
        return override(run, changes)
    except ValueError:
        parsed = {k: _parse(v) if isinstance(v, str) else v for k, v in changes.items()}
        if parsed == dict(changes):
            raise
        return override(run, parsed)


def _parse(text: str) -> object:
    """Read a number, a bool, a list or a dictionary written as JSON or Python; else the text."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _whole(name: str, value: object, least: int) -> int:
    """Bring a parameter to an int: 3, 3.0 and "3" are 3, anything else is refused."""
    number = _parse(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return number


def _folder(run_dir: str) -> Path:
    if not isinstance(run_dir, str):
        raise ValueError(f"RUN_DIR is {run_dir!r}, expected a folder name or an empty string")
    if run_dir:
        return places.root() / Path(run_dir).expanduser()
    folder = tempfile.mkdtemp(prefix="mimlib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
