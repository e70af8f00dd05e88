"""Printed results beside what they must be, and the receipts behind stored numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from mimlib import places
from mimlib.evidence import receipts
from mimlib.evidence.receipts import read as receipt
from mimlib.machine.costs import predict, rates
from mimlib.machine.origin import hardware, number_type
from mimlib.presets.run import Run

LONG = 180  # seconds; a lesson that takes longer here says what there is instead


def band(name: str, value: float, low: float, high: float) -> None:
    """Assert that a measured value lies in a band; print both.

    The notebook check compares the band alone: the value passed when it lies inside.

    Raises:
        AssertionError: with the value, if it lies outside or is not a number.
    """
    value = float(value.detach() if isinstance(value, torch.Tensor) else value)
    if not low <= value <= high:
        raise AssertionError(f"{name} is {value:.4g}, expected between {low:g} and {high:g}")
    print(f"{name}: {value:.3g} (expected {low:g} to {high:g})")


def table(rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows of named values as aligned text; floats with three significant digits.

    Meant for integers, words and receipts. A number measured in the notebook goes through `band`.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    number = [all(isinstance(row.get(name, 0), (int, float)) for row in rows) for name in columns]
    for line in [columns, ["-" * width for width in widths], *cells]:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, number))
        print("  ".join(padded).rstrip())


def verdict(study: str, metrics: Sequence[str] = ()) -> dict:
    """Print what a claim has earned: the settings, each rule, the verdict. Returns the receipt.

    `study` names a committed receipt, for instance "mae.1"; the table has these metrics, by default
    all, as mean over seeds +- half of the 95 % interval by Student's t; KeyError if there is no
    such metric. "floor": what is compared does not beat the untrained network, or an answer that
    never looks.
    """
    found = receipt(study)
    known = set().union(*(setting["metrics"] for setting in found["settings"].values()))
    if unknown := set(metrics) - known:
        raise KeyError(f"{study} has no {sorted(unknown)}; it has {sorted(known)}")
    print(f"{study}: {found['claim']}\npaper: {found['paper']}\n")
    table([_setting_row(label, s["metrics"], metrics) for label, s in found["settings"].items()])
    for rule in found["rules"]:
        gain, low, high = (f"{value:.3f}" for value in (rule["gain"], *rule["interval"]))
        print(f"{rule['verdict']}: {rule['rule']}; gain {gain}, 95 % interval {low} to {high}")
    made = receipts.origins(found)
    print(f"verdict: {found['verdict']} at this scale ({found['seeds']} seeds)")
    print("measured", *(f"on {receipts.hardware_of(m)} by {receipts.code_of(m)}" for m in made))
    return found


def seeds(network: str, metrics: Mapping[str, str]) -> dict:
    """Print what the runs of a shipped network reached, a row per seed. Returns the receipt.

    `metrics`: column -> name in the receipt, for instance "error over smoothing" -> "holes/ratio".
    """
    found = receipt(network)
    columns = (found["metrics"][name]["values"] for name in metrics.values())
    rows = zip(found["seeds"], *columns)
    table({network: f"seed {seed}"} | dict(zip(metrics, values)) for seed, *values in rows)
    return found


def banner(notebook: str, lesson: str = "") -> str:
    """Return the line of measured costs that stands at the top of a lesson.

    Args:
        notebook: file name without suffix; its receipt is written by
            `python -m mimlib.course.notebooks.render --measure`.
        lesson: method, to add what its `_gpu` preset took when runs/<lesson>_gpu has a receipt.
    """
    try:
        cost = receipt(f"notebooks/{notebook}")
    except FileNotFoundError:
        return "Measured: not yet."
    (made,) = receipts.origins(cost)
    line = (
        f"Measured: about {rounded_seconds(cost['seconds'])} and "
        f"{rounded_memory(cost['peak_memory_mib'])} of memory on {receipts.hardware_of(made)}, "
        "first run, nothing cached."
    )
    if (places.receipts() / f"runs/{lesson}_gpu.json").is_file():
        gpu = receipt(f"runs/{lesson}_gpu")
        line += f' `PRESET = "gpu"`: about {rounded_seconds(gpu["seconds"])} on {gpu["hardware"]}.'
    return line


def costs_here(notebook: str, run: Run) -> str:
    """Say what a lesson will cost on this machine, and what there is instead if that is much.

    Takes some seconds when this machine runs the preset for the first time. Empty for a lesson
    that was not measured, or measured with another preset.
    """
    try:
        cost = receipt(f"notebooks/{notebook}")
    except FileNotFoundError:
        return ""
    if cost.get("preset") != run.name:
        return ""
    here, (made,) = rates(run), receipts.origins(cost)
    seconds = predict(cost, here)
    line = (
        f"this lesson takes about {rounded_seconds(seconds)} and "
        f"{rounded_memory(cost['peak_memory_mib'])} here, on {hardware()} ({number_type()}); "
        f"{rounded_seconds(cost['seconds'])} on {receipts.hardware_of(made)}"
    )
    if seconds > LONG:
        tiny = rounded_seconds(cost["tiny_seconds"] * cost["rates"]["rounds"] / here.rounds)
        line += f'\nPRESET = "tiny" runs every cell in about {tiny}, but learns nothing'
        shipped = f"{run.name.partition('_')[0]}_small"
        if (places.weights() / f"{shipped}.safetensors").is_file():
            line += f'; mimlib.evidence.shipping.shipped("{shipped}") is trained already'
    return line


def rounded_seconds(seconds: float) -> str:
    """Round up to 5 s, above five minutes to whole minutes."""
    if seconds > 300:
        return f"{math.ceil(seconds / 60)} min"
    return f"{5 * math.ceil(seconds / 5)} s"


def rounded_memory(mib: float) -> str:
    """Round up to a quarter of a GiB."""
    return f"{math.ceil(mib / 256) / 4:g} GiB"


def _setting_row(label: str, found: Mapping, metrics: Sequence[str]) -> dict[str, str]:
    row = {"setting": label}
    for name in (each for each in metrics or found if each in found):  # floors lack some
        mean, (low, high) = found[name]["mean"], found[name]["interval"]
        row[name] = f"{mean:.3f} +- {(high - low) / 2:.3f}"
    return row


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
