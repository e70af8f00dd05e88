"""Claims of the papers in miniature: one notebook over settings and seeds, and a verdict by rule.

`python -m mimlib study mae.1` runs the study's notebook through papermill once per setting and
seed, keeps every executed notebook and its `result.json`, and writes a receipt with means, 95 %
intervals and the verdict. A run whose result is already there is not run again. Studies that
differ only in what they override share a notebook, and settings they share are run once.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import yaml
from scipy import stats
from tqdm import tqdm

from mimlib.claims import STUDIES, Rule, Study
from mimlib.presets import preset
from mimlib.receipts import ROOT, write_text
from mimlib.run import Run, override

NOTEBOOKS = ROOT / "notebooks" / "studies"
RECEIPTS = ROOT / "data" / "receipts"
CONFIDENCE = 0.95
LESSON_SEEDS = 3  # fewer are no receipt


class Interval(NamedTuple):
    """Mean over seeds and its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: list[float]) -> Interval:
    """Return mean and 95 % interval by Student's t; a single value has an infinite interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, float("-inf"), float("inf"))
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def judge(rule: Rule, values: Mapping[str, Mapping[str, list[float]]]) -> dict:
    """Apply a rule to values[setting][metric], one value per seed in the same order."""
    sign = 1.0 if rule.higher_is_better else -1.0
    pairs = zip(values[rule.better][rule.metric], values[rule.worse][rule.metric], strict=True)
    gain = interval([sign * (b - w) for b, w in pairs])
    if rule.margin:
        yes = -rule.margin < gain.low and gain.high < rule.margin
        no = gain.low > rule.margin or gain.high < -rule.margin
    else:
        yes, no = gain.low > 0, gain.high < 0
    verdict = "reproduced" if yes else "contradicted" if no else "inconclusive"
    words = "equals" if rule.margin else "beats"
    return {
        "rule": f"{rule.metric}: {rule.better} {words} {rule.worse}"
        + (f" within {rule.margin}" if rule.margin else ""),
        "gain": gain.mean,
        "interval": [gain.low, gain.high],
        "verdict": verdict,
    }


def overall(verdicts: list[str]) -> str:
    """Combine the verdicts of all rules: any contradiction counts, else all must be reproduced."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "reproduced" if set(verdicts) == {"reproduced"} else "inconclusive"


def run_study(
    study: Study, size: str = "lesson", seeds: int = 3, jobs: int = 1, runs: Path | None = None
) -> dict:
    """Run what is missing of a study and return its receipt.

    Args:
        study: one of STUDIES.
        size: size of the preset: tiny, lesson or gpu.
        seeds: number of seeds, 0 .. seeds - 1.
        jobs: notebooks at a time; the cores are shared among them.
        runs: folder of the runs; default runs/studies in the current folder.
    """
    if seeds < 2 or jobs < 1:
        raise ValueError(f"got {seeds} seeds and {jobs} jobs; take 2 seeds or more and 1 job")
    runs = Path("runs/studies") if runs is None else runs
    base = preset(f"{study.method}_{size}")
    folders = {  # a mistyped override is refused before anything runs
        label: _folder(runs, study.notebook, override(base, changes))
        for label, changes in study.settings.items()
    }
    todo = [
        (label, seed, folder / f"seed{seed}")
        for seed in range(seeds)
        for label, folder in folders.items()
    ]
    missing = [entry for entry in todo if not (entry[2] / "result.json").is_file()]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        done = [
            pool.submit(_run_notebook, study, size, label, seed, folder, jobs)
            for label, seed, folder in missing
        ]
        try:
            for future in tqdm(as_completed(done), study.name, len(done), unit="run"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # a failure is told now, not after all other runs
            raise
    results = {
        label: [json.loads((f / "result.json").read_text()) for lab, _, f in todo if lab == label]
        for label in study.settings
    }
    return _receipt(study, size, seeds, results)


def _folder(runs: Path, notebook: str, run: Run) -> Path:
    """Folder named by the resolved run and the code cells that measure it.

    Studies share runs, and a changed preset or notebook runs anew. A change of mimlib itself does
    not show: remove the folder after one.
    """
    cells = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    digest = hashlib.sha256(f"{code} {run}".encode()).hexdigest()
    return runs / f"{run.name}_{digest[:10]}"


def _run_notebook(study: Study, size: str, label: str, seed: int, folder: Path, jobs: int) -> None:
    """Execute the study's notebook for one setting and seed in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {
        "PRESET": size,
        "SEED": seed,
        "OVERRIDES": dict(study.settings[label]),
        "RUN_DIR": str(folder.resolve()),
    }
    threads = max(1, (os.cpu_count() or 1) // jobs)
    command = [
        *(sys.executable, "-m", "papermill", str(NOTEBOOKS / study.notebook)),
        *(str(folder / "executed.ipynb"), "--no-progress-bar", "-y", yaml.safe_dump(parameters)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    if done.returncode != 0 or not (folder / "result.json").is_file():
        raise RuntimeError(
            f"{study.name}, {label}, seed {seed} failed; see {folder / 'executed.ipynb'}\n"
            + done.stderr[-2000:]
        )


def _receipt(study: Study, size: str, seeds: int, results: Mapping[str, list[dict]]) -> dict:
    """Gather results into means, intervals and verdicts."""
    values = {
        label: {m: [r["metrics"][m] for r in runs] for m in runs[0]["metrics"]}
        for label, runs in results.items()
    }
    rules = [judge(rule, values) for rule in study.rules]
    settings = {
        label: {
            "overrides": dict(study.settings[label]),
            "metrics": {
                name: {"values": v, "mean": interval(v).mean, "interval": list(interval(v)[1:])}
                for name, v in metrics.items()
            },
            "seconds": [round(run["seconds"], 1) for run in results[label]],
            "images_per_second": [round(r["pretrain_images_per_second"]) for r in results[label]],
            "peak_memory_mib": [round(run["peak_memory_mib"]) for run in results[label]],
        }
        for label, metrics in values.items()
    }
    return {
        "study": study.name,
        "claim": study.claim,
        "paper": study.paper,
        "preset": f"{study.method}_{size}",
        "config": asdict(preset(f"{study.method}_{size}")),
        "seeds": seeds,
        "settings": settings,
        "rules": rules,
        "verdict": overall([rule["verdict"] for rule in rules]),
        "environment": next(iter(results.values()))[0]["environment"],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m mimlib study`."""
    parser.add_argument("name", choices=sorted(STUDIES), nargs="+")
    parser.add_argument("--size", default="lesson", choices=("tiny", "lesson", "gpu"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--receipts", type=Path, help="folder of the receipts")


def main(known: argparse.Namespace) -> None:
    """Run studies and write their receipts: those of the lessons into data/receipts."""
    of_lessons = known.size == "lesson" and known.seeds >= LESSON_SEEDS
    folder = known.receipts or (RECEIPTS if of_lessons else Path("runs/receipts") / known.size)
    folder.mkdir(parents=True, exist_ok=True)
    for name in known.name:
        receipt = run_study(STUDIES[name], known.size, known.seeds, known.jobs)
        write_text(folder / f"{name}.json", json.dumps(receipt, indent=1) + "\n")
        print(f"{name}: {receipt['verdict']} ({receipt['claim']})")
        for rule in receipt["rules"]:
            low, high = rule["interval"]
            print(f"  {rule['verdict']}: {rule['rule']}: {rule['gain']:+.4f}", end=" ")
            print(f"[{low:+.4f}, {high:+.4f}]")
