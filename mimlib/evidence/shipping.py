"""Networks that come with the repository: made of finished runs, with a receipt.

A lesson shows live what a minute can show. What takes longer is trained once, by the same preset
anyone can run, for several seeds; the network of the first seed is kept in half precision.

    python -m mimlib ship croco_small runs/seed0 runs/seed1 runs/seed2
    python -m mimlib ship flow_small runs/flow0 runs/flow1 runs/flow2 --receipt-only
"""

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from mimlib.evidence import receipts
from mimlib.evidence.studies import RECEIPTS, summarise
from mimlib.places import weights, written_whole
from mimlib.presets import preset
from mimlib.presets.run import run_info
from mimlib.protocol import Trainable
from mimlib.runs.launch import SUMMARY_FILE
from mimlib.training.resume import newest_good

WEIGHTS = weights()
LEAST_SEEDS = 3  # fewer are no receipt
FREE_IN_RECEIPTS = ("seed", "device", "threads", "compile")  # of a preset's training


def weights_of(name: str) -> Path:
    """Return the file of a shipped network; it serves as the `pretrained` of a run.

    Raises:
        FileNotFoundError: if this repository does not ship it.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"{path} is not there (shipped: {there}); make it with 'python -m mimlib ship {name}' "
            f"from runs of 'python -m mimlib train {name}'"
        )
    return path


def shipped(name: str) -> Trainable:
    """Build the method of a preset with its shipped weights, on the CPU, in evaluation mode."""
    method = preset(name).method.build()
    method.load_state_dict(safetensors.torch.load_file(weights_of(name)))
    return method.eval()


def keep(name: str, folder: Path) -> None:
    """Store the network of a finished run under the name of its preset, in half precision."""
    _, content = newest_good(folder)
    state = {key: value.to(torch.float16).contiguous() for key, value in content["model"].items()}
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    with written_whole(WEIGHTS / f"{name}.safetensors") as part:
        part.write_bytes(safetensors.torch.save(state))


def receipt_of(name: str, folders: Sequence[Path]) -> dict:
    """Return what finished runs of one preset measured, seed by seed.

    Raises:
        ValueError: if a run is unfinished, has another configuration or start, or a seed twice.
    """
    expected = run_info(preset(name))
    found = [_finished(expected, folder) for folder in folders]
    seeds = [summary["run"]["train"]["seed"] for summary in found]
    starts = {summary["run"]["pretrained"] for summary in found}
    if len(set(seeds)) < max(LEAST_SEEDS, len(seeds)) or len(starts) > 1:
        raise ValueError(
            f"the runs have the seeds {seeds} and start from {sorted(starts)}; expected "
            f"{LEAST_SEEDS} seeds or more, each once, and one start"
        )
    summaries = [each["summary"] for each in found]
    made = [each.get("origin", {}) for each in found]
    environments = receipts.distinct(made)
    return {
        "preset": name,
        "config": expected | {"pretrained": starts.pop()},
        "seeds": seeds,
        "metrics": _metrics([summary["history"] for summary in summaries]),
        "seconds": [round(summary["seconds"], 1) for summary in summaries],
        "images_per_second": [round(summary["images_per_second"]) for summary in summaries],
        "peak_memory_mib": [round(summary["peak_memory_mib"]) for summary in summaries],
        "environments": environments,
        "made_by": [environments.index(each) for each in made],  # of each seed
    }


def _finished(expected: dict, folder: Path) -> dict:
    """Read the summary of a run with the preset's settings but for seed, start and machine."""
    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished run; expected {SUMMARY_FILE} in it")
    found = json.loads(path.read_text(encoding="utf-8"))
    own = {key: found["run"]["train"][key] for key in FREE_IN_RECEIPTS}
    free = {"train": expected["train"] | own, "pretrained": found["run"]["pretrained"]}
    if found["run"] != expected | free:
        raise ValueError(
            f"{folder} is a run of {found['run']['name']!r} with settings that are not those of "
            f"the preset {expected['name']!r}; train it again without overrides"
        )
    return found


def _metrics(histories: Sequence[Sequence[dict]]) -> dict:
    """Return each evaluation's curve over steps per seed, and the last values' interval."""
    metrics = {}
    for key in (key for key in histories[0][-1] if "/" in key):
        curves = [[(line["step"], line[key]) for line in h if key in line] for h in histories]
        metrics[key] = summarise([curve[-1][1] for curve in curves]) | {
            "steps": [step for step, _ in curves[0]],
            "curves": [[value for _, value in curve] for curve in curves],
        }
    return metrics


def ship(
    name: str, runs: Sequence[Path], label: str, receipt_only: bool, folder: Path | None
) -> None:
    """Write the receipt of a preset's finished runs, and the weights of the first; print where.

    A label is added to the name of the receipt, NAME_LABEL. In a folder other than the repository's
    one tries out: no network is kept.
    """
    path = (folder or RECEIPTS) / f"{'_'.join(filter(None, (name, label)))}.json"
    receipts.write(path, receipt_of(name, runs))
    print(path)
    if not (receipt_only or folder):
        keep(name, runs[0])
        print(weights_of(name))
