"""Claims of the papers in miniature: one notebook over settings and seeds, and a verdict by rule.

`python -m mimlib study mae.1` runs the study's notebook through papermill once per setting and
seed, keeps every executed notebook and its result, and writes a receipt with means, 95 % intervals
and the verdict. A notebook whose result is already there is not run again.

Each pre-training run has a folder of its own, named by its resolved preset and the sources behind
it, and in it one per seed: a changed mimlib runs again, and one whose comments changed does not.
All notebooks that start from this run and seed work there, one at a time, also those of another
`study` command: what one of them has trained, the others load.
"""

import difflib
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import yaml
from filelock import FileLock
from scipy import stats
from tqdm import tqdm

from mimlib import places
from mimlib.evidence import receipts
from mimlib.evidence.claims import FLOORS, STUDIES, Rule, Study
from mimlib.evidence.receipts import distinct, refuse_uncommitted
from mimlib.evidence.sources import sources_of
from mimlib.machine.origin import origin
from mimlib.places import num_cores
from mimlib.presets import preset
from mimlib.presets.run import Run, override, part_of, run_info
from mimlib.runs.mistakes import Mistake, mistakes

NOTEBOOKS = places.studies()
RECEIPTS = places.receipts()
CONFIDENCE = 0.95
# Setting -> metric -> one value per seed, in one order.
Values = Mapping[str, Mapping[str, list[float]]]
FIRST_SEED = 10  # rules, metrics and settings were chosen with those before it


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval by Student's t; a single value has an infinite interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def summarise(values: list[float]) -> dict:
    """Return what a receipt says of one metric: the value of each seed, mean and interval."""
    mean, *ends = interval(values)
    return {"values": values, "mean": mean, "interval": ends}


def gain_of(rule: Rule, values: Values, better: str, worse: str) -> tuple[float, float, float]:
    """Return mean and interval of a setting's paired gain over another in the metric of a rule."""
    sign = 1.0 if rule.higher_is_better else -1.0
    pairs = zip(values[better][rule.metric], values[worse][rule.metric], strict=True)
    return interval([sign * (b - w) for b, w in pairs])


def judge(rule: Rule, values: Values, floors: Iterable[str] = ()) -> dict:
    """Apply a rule to the settings of its study, of which some are floors.

    The better one of the two must have gained something over every floor that has the metric
    (costs have none) and that the rule does not itself compare with: the paired interval lies above
    zero, or above the margin, else the floor, too, might be "no difference".
    """
    gain, low, high = gain_of(rule, values, rule.better, rule.worse)
    best = rule.better if gain > 0 else rule.worse
    below = [f for f in floors if rule.metric in values[f] and f not in (rule.better, rule.worse)]
    over = [gain_of(rule, values, best, floor) for floor in below]
    if rule.margin:
        yes = -rule.margin < low and high < rule.margin
        no = low > rule.margin or high < -rule.margin
    else:
        yes, no = low > 0, high < 0
    verdict = "reproduced" if yes else "contradicted" if no else "inconclusive"
    floored = any(least <= rule.margin for _, least, _ in over)
    words, within = ("equals", f" within {rule.margin}") if rule.margin else ("beats", "")
    return {
        "rule": f"{rule.metric}: {rule.better} {words} {rule.worse}{within}",
        "gain": gain,
        "interval": [low, high],
        "verdict": "floor" if floored else verdict,
    }


def overall(verdicts: list[str]) -> str:
    """Combine the verdicts of all rules: a claim needs all; one against it outweighs a floor."""
    for worst in ("contradicted", "floor", "inconclusive"):
        if worst in verdicts:
            return worst
    return "reproduced"


def run_study(
    study: Study, size: str = "", seeds: int = 0, jobs: int = 1, runs: Path | None = None
) -> dict:
    """Run what is missing of a study and return its receipt.

    The size is that of its presets (tiny, lesson, small, gpu; empty: the study's own); seeds (0: as
    many as the study says) count from FIRST_SEED; `jobs` notebooks run at a time and share the
    cores; `runs` is the folder of the runs, by default runs/studies in the current one. What
    uncommitted code makes lies apart.
    """
    seeds = seeds or study.seeds
    if seeds < 2 or jobs < 1:
        raise Mistake(f"got {seeds} seeds and {jobs} jobs; take 2 seeds or more and 1 job")
    runs = Path("runs/studies") if runs is None else runs
    runs = runs / "uncommitted" if origin()["dirty"] else runs
    with mistakes():
        plans = [plan(study, size or study.size, label) for label in study.settings]
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    paths = [[planned.result(runs, seed) for seed in numbers] for planned in plans]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        done = [
            pool.submit(_measure, planned, seed, path, jobs)
            for planned, row in zip(plans, paths)
            for seed, path in zip(numbers, row)
            if not path.is_file()
        ]
        try:
            for future in tqdm(as_completed(done), study.name, len(done), unit="run"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # a failure is told now, not after all other runs
            raise
    return _receipt(study, plans, [[json.loads(path.read_text()) for path in row] for row in paths])


class Plan(NamedTuple):
    """One setting of a study at one size: what a notebook is given, whatever the seed."""

    study: Study
    label: str
    run: Run  # resolved
    parameters: Mapping[str, object]  # of the notebook
    further: Mapping[str, object]  # of these, those of this setting

    def result(self, runs: Path, seed: int) -> Path:
        """Return the file of the result, in the folder that all notebooks of this run share.

        A changed preset, or a change of the code that trains it, has another folder; changed cells
        or parameters, or a change of what the cells import, another file.
        """
        notebook = (NOTEBOOKS / self.study.notebook).read_text(encoding="utf-8")
        cells = json.loads(notebook)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        given = {k: v for k, v in self.parameters.items() if k != "OVERRIDES"}  # in the run
        name = _digest(code, given, sources_of(self.run, code))
        folder = f"{self.run.name}_{_digest(self.run, sources_of(self.run))}"
        return runs / folder / f"seed{seed}" / f"{Path(self.study.notebook).stem}_{name}.json"


def plan(study: Study, size: str, label: str) -> Plan:
    """Resolve a setting; ValueError if a preset or one of its fields is mistyped."""
    changes = study.settings[label]
    further = {name: value for name, value in changes.items() if name.isupper()}
    base = preset(f"{further.get('METHOD', study.method)}_{size}")
    batch = study.share_of_batch if size == "lesson" else 1.0
    overrides = part_of(base.train, study.shares.get(label, 1.0), batch)
    overrides |= {name: value for name, value in changes.items() if name not in further}
    parameters = {"PRESET": size, "OVERRIDES": overrides, **further}
    return Plan(study, label, override(base, overrides), parameters, further)


def _digest(*values: object) -> str:
    return hashlib.sha256(" ".join(map(str, values)).encode()).hexdigest()[:10]


def _measure(planned: Plan, seed: int, path: Path, jobs: int) -> None:
    """Run a notebook in its folder when nobody else works there, unless somebody has done so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):  # let go when the process ends, however it ends
        if not path.is_file():
            _run_notebook(planned, seed, path, jobs)


def _run_notebook(planned: Plan, seed: int, path: Path, jobs: int) -> None:
    """Execute the study's notebook for one setting and seed in a process of its own."""
    study, executed, result = planned.study, path.with_suffix(".ipynb"), path.parent / "result.json"
    parameters = dict(planned.parameters) | {"SEED": seed, "RUN_DIR": str(path.parent.resolve())}
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, num_cores() // jobs))}
    command = [sys.executable, "-m", "papermill", NOTEBOOKS / study.notebook, executed]
    command += ["--no-progress-bar", "-y", yaml.safe_dump(parameters)]
    result.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0 or not result.is_file():
        raise RuntimeError(
            f"{study.name}, {planned.label}, seed {seed} failed; see {executed}\n"
            + done.stderr[-2000:]
        )
    result.replace(path)


def _receipt(study: Study, plans: list[Plan], results: list[list[dict]]) -> dict:
    """Gather results, of each plan one per seed, into means, intervals and verdicts."""
    values = {
        planned.label: {m: [r["metrics"][m] for r in runs] for m in runs[0]["metrics"]}
        for planned, runs in zip(plans, results)
    }
    floors = [planned.label for planned in plans if planned.further.get("NETWORK") in FLOORS]
    rules = [judge(rule, values, floors) for rule in study.rules]
    environments = distinct(run["environment"] for runs in results for run in runs)
    settings = {
        planned.label: {
            "preset": planned.run.name,
            "overrides": planned.parameters["OVERRIDES"],
            "parameters": planned.further,
            "metrics": {name: summarise(v) for name, v in values[planned.label].items()},
            "seconds": [round(run["seconds"], 1) for run in runs],
            "images_per_second": [round(run["pretrain_images_per_second"]) for run in runs],
            "peak_memory_mib": [round(run["peak_memory_mib"]) for run in runs],
            "made_by": [environments.index(run["environment"]) for run in runs],
        }
        for planned, runs in zip(plans, results)
    }
    base = preset(f"{study.method}_{plans[0].parameters['PRESET']}")
    return {
        "study": study.name,
        "claim": study.claim,
        "paper": study.paper,
        "preset": base.name,
        "config": run_info(base),
        "seeds": len(results[0]),
        "first_seed": FIRST_SEED,
        "settings": settings,
        "rules": rules,
        "verdict": overall([rule["verdict"] for rule in rules]),
        "environments": environments,
    }


def find(names: Sequence[str]) -> list[Study]:
    """Return the claims of these names; ValueError if none is named or one is unknown."""
    unknown = [name for name in names if name not in STUDIES]
    if unknown or not names:
        near = difflib.get_close_matches(unknown[0], STUDIES) if unknown else []
        said = f"no claim is called {unknown[0]!r}" if unknown else "no claim is named"
        raise ValueError(f"{said}; choose from {', '.join(near or sorted(STUDIES))}")
    return [STUDIES[name] for name in names]


def report(studies: Sequence[Study], size: str, seeds: int, jobs: int, folder: Path | None) -> None:
    """Run studies, print verdicts, write receipts: at their own size into data/receipts."""
    for study in studies:
        fewer = 0 < seeds < study.seeds
        own = size in ("", study.size) and not fewer and not places.INSTALLED
        into = folder or (RECEIPTS if own else Path("runs/receipts") / (size or study.size))
        if into.resolve() == RECEIPTS:
            refuse_uncommitted([origin()])  # now, not after the runs
        receipt = run_study(study, size, seeds, jobs)
        receipts.write(into / f"{study.name}.json", receipt)
        print(f"{study.name}: {receipt['verdict']} ({receipt['claim']})")
        for rule in receipt["rules"]:
            gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(rule["gain"], *rule["interval"])
            print(f"  {rule['verdict']}: {rule['rule']}: {gain}")
