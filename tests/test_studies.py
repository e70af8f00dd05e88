"""Statistics and verdicts of the study runner, and its resumption, on a stand-in notebook."""

import ast
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mimlib import cli
from mimlib.course.lesson import start as lesson
from mimlib.evidence import receipts, studies
from mimlib.evidence.claims import FLOORS, STUDIES, Rule, convmae, croco, mae, terms
from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.runs import show


def test_interval_matches_the_t_table():
    mean, low, high = studies.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert math.isclose(high - mean, 4.302653 / math.sqrt(3), rel_tol=1e-6)  # t(0.975, 2), s = 1
    assert math.isclose(mean - low, high - mean)
    assert studies.interval([1.0]) == (1.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.9, 0.91, 0.92], [0.5, 0.52, 0.51], "reproduced"),
        ([0.5, 0.52, 0.51], [0.9, 0.91, 0.92], "contradicted"),
        ([0.5, 0.9, 0.1], [0.5, 0.1, 0.9], "inconclusive"),
    ],
)
def test_a_rule_judges_the_paired_difference(a, b, verdict):
    values = {"a": {"m": a}, "b": {"m": b}}
    assert studies.judge(Rule(metric="m", better="a", worse="b"), values)["verdict"] == verdict
    turned = studies.judge(Rule(metric="m", better="b", worse="a", higher_is_better=False), values)
    assert turned["verdict"] == verdict


def test_a_margin_claims_no_difference():
    rule = Rule(metric="m", better="a", worse="b", margin=0.05)
    near = {"a": {"m": [1.0, 1.01, 1.0]}, "b": {"m": [1.0, 1.0, 1.01]}}
    far = {"a": {"m": [2.0, 2.01, 2.0]}, "b": {"m": [1.0, 1.0, 1.01]}}
    assert studies.judge(rule, near)["verdict"] == "reproduced"
    assert studies.judge(rule, far)["verdict"] == "contradicted"


def of_metric(**rows):
    return {label: {"m": values} for label, values in rows.items()}


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.9, 0.91, 0.92], [0.5, 0.52, 0.51], "reproduced"),
        ([0.7, 0.71, 0.72], [0.69, 0.7, 0.705], "reproduced"),
        ([0.5, 0.51, 0.52], [0.9, 0.91, 0.92], "contradicted"),  # above the floor: a finding
        ([0.5, 0.51, 0.52], [0.4, 0.41, 0.42], "floor"),  # the blind answer is as good
        ([0.58, 0.68, 0.59], [0.4, 0.41, 0.42], "floor"),  # untrained, for one seed
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_rule_whose_better_setting_does_not_beat_the_floors_says_so(a, b, verdict, sign):
    rows = {"a": a, "b": b, "untrained": [0.57, 0.6, 0.59], "blind": [0.55] * 3}
    values = of_metric(**{label: [sign * v for v in row] for label, row in rows.items()})
    rule = Rule(metric="m", better="a", worse="b", higher_is_better=sign > 0)
    assert studies.judge(rule, values, ("untrained", "blind"))["verdict"] == verdict
    assert studies.judge(rule, values)["verdict"] != "floor"


def test_a_margin_as_wide_as_the_gain_over_the_floor_says_nothing():
    values = of_metric(a=[0.8, 0.81, 0.82], b=[0.8, 0.82, 0.81], untrained=[0.88, 0.9, 0.89])
    for margin, verdict in ((0.05, "reproduced"), (0.1, "floor")):
        rule = Rule(metric="m", better="a", worse="b", margin=margin, higher_is_better=False)
        assert studies.judge(rule, values)["verdict"] == "reproduced"
        assert studies.judge(rule, values, ("untrained",))["verdict"] == verdict
    wrong_way = Rule(metric="m", better="a", worse="b", margin=0.05)
    assert studies.judge(wrong_way, values, ("untrained",))["verdict"] == "floor"


def test_what_floors_do_not_have_or_a_rule_itself_names_is_judged_without_them():
    values = of_metric(a=[2.0, 2.1, 2.0], b=[1.0, 1.1, 1.2], untrained=[3.0, 3.1, 3.0])
    rule = Rule(metric="m", better="a", worse="b")
    assert studies.judge(rule, values, ("untrained",))["verdict"] == "floor"
    named = Rule(metric="m", better="untrained", worse="a")
    assert studies.judge(named, values, ("untrained",))["verdict"] == "reproduced"
    values["untrained"] = {"other": [0.0] * 3}
    assert studies.judge(rule, values, ("untrained",))["verdict"] == "reproduced"


def test_the_worst_verdict_decides():
    assert studies.overall(["reproduced", "floor", "contradicted"]) == "contradicted"
    assert studies.overall(["reproduced", "floor", "inconclusive"]) == "floor"
    assert studies.overall(["reproduced", "inconclusive"]) == "inconclusive"
    assert studies.overall(["reproduced", "reproduced"]) == "reproduced"


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)
def test_every_rule_names_settings_of_its_study(study):
    assert (studies.NOTEBOOKS / study.notebook).is_file()
    for rule in study.rules:
        assert {rule.better, rule.worse} <= set(study.settings)


COUNTED = {  # not learned: there is no floor
    *(convmae.LEAK, convmae.TOKENS, convmae.FLOPS, mae.FLOPS, terms.STEP),
    *(croco.PARAMETERS, croco.FLOPS),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)
def test_every_study_has_floors_in_every_learned_metric(study):
    networks = [setting.get("NETWORK", "trained") for setting in study.settings.values()]
    assert networks.count("blind") == 1 and "untrained" in networks
    assert any(network not in FLOORS for network in networks)
    (always,) = (
        {ast.unparse(key) for key in node.value.keys}
        for node in ast.walk(ast.parse(Notebook(study.notebook).code))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "metrics"
    )
    for rule in study.rules:
        matching = study.settings[rule.better].get("MATCHING", "stereo")
        written = {repr(rule.metric), f"f{rule.metric.replace(matching, '{MATCHING}')!r}"}
        assert bool(always & written) != (rule.metric in COUNTED), rule.metric


@pytest.mark.parametrize("size", ["tiny", "its own", "gpu"])
@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)
def test_every_setting_resolves_and_its_notebook_takes_it(study, size):
    """What the notebook starts, with the parameters papermill gives it, is the setting's run."""
    size, notebook = study.size if size == "its own" else size, Notebook(study.notebook)
    files = set()
    for label in study.settings:
        plan = studies.plan(study, size, label)
        names = notebook.given(plan)
        run = eval(notebook.call("course.start"), {"course": lesson}, names).run
        assert run == plan.run
        for further in notebook.further_runs(run, names):
            assert further.method.encoder == run.method.encoder
        files.add(plan.result(Path(), 0))
    assert len(files) == len(study.settings), "two settings are the same"
    for rule in study.rules:
        matching = study.settings[rule.better].get("MATCHING", "stereo")
        written = rule.metric.replace(matching, "{MATCHING}")
        assert f'"{rule.metric}"' in notebook.code or f'f"{written}"' in notebook.code


@pytest.mark.parametrize("notebook", sorted({s.notebook for s in STUDIES.values()}))
def test_every_network_takes_its_views_and_its_encoder_fits_what_is_fine_tuned(notebook):
    tried = []
    for study in STUDIES.values():
        for label in study.settings if study.notebook == notebook else ():
            plan = studies.plan(study, study.size, label)
            names = Notebook(notebook).given(plan)
            if (plan.run.method, names.get("MATCHING")) in tried:
                continue
            tried.append((plan.run.method, names.get("MATCHING")))
            method = plan.run.method.build()
            with torch.no_grad():
                assert method(show.example_views(method, plan.run)).loss.isfinite()
            for further in Notebook(notebook).further_runs(plan.run, names):
                with torch.device("meta"):
                    task = further.method.build()
                assert shapes(task.encoder) == shapes(method.encoder)
    assert tried


def shapes(encoder):
    """Shape of each tensor of an encoder, by name."""
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}


class Notebook:
    """The code of a study's notebook, read and not run."""

    def __init__(self, name):
        cells = json.loads((studies.NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
        cells = [cell for cell in cells if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        self.defaults = sources[[bool(c["metadata"].get("tags")) for c in cells].index(True)]
        self.code = "\n".join(sources)
        self.calls = [node for node in ast.walk(ast.parse(self.code)) if isinstance(node, ast.Call)]

    def given(self, plan):
        """Its parameters by name, those of a setting in their places as papermill puts them."""
        names = {}
        exec(self.defaults, names)
        given = yaml.safe_load(yaml.safe_dump(dict(plan.parameters)))
        assert set(given) <= set(lesson.assigned_names(self.defaults))
        return names | given

    def call(self, function):
        """The source of the one call of a function."""
        (found,) = (node for node in self.calls if ast.unparse(node.func) == function)
        return ast.unparse(found)

    def further_runs(self, run, names):
        """What it fine-tunes, from the encoder of `run` and, where it says so, from its decoder."""
        kind = "convmae_" if names.get("METHOD") == "convmae" else ""
        texts = [node.args[0] for node in self.calls if ast.unparse(node.func) == "presets.preset"]
        tasks = ("segmentation", "detection") if "fine_tune" in self.code else ("",)
        for text in (ast.unparse(text) for text in texts if isinstance(text, ast.JoinedStr)):
            changes = {"method.encoder": run.method.encoder}
            if "MATCHING" in text and names.get("NETWORK") != "encoder":
                changes["method.decoder"] = run.method.decoder
            for task in tasks:
                further = preset(eval(text, {}, names | {"task": task, "kind": kind}))
                yield override(further, changes)


def test_a_study_at_lesson_scale_takes_its_share_of_the_batch():
    study = STUDIES["convmae.4"]
    base = preset("convmae_lesson").train
    plan = studies.plan(study, "lesson", "7 x 7")
    assert 0 < study.share_of_batch < 1
    assert plan.run.train.batch_size == round(study.share_of_batch * base.batch_size)
    assert plan.run.train.peak_rate(1) == pytest.approx(base.peak_rate(1))
    assert plan.run.method.encoder.kernel == 7
    assert studies.plan(study, "gpu", "5 x 5").run == preset("convmae_gpu")


def test_settings_may_have_a_share_of_the_steps_at_every_size():
    study = STUDIES["convmae.6"]
    for size in ("lesson", "gpu", "tiny"):
        for label, share in study.shares.items():
            run = studies.plan(study, size, label).run
            base, train = preset(run.name).train, run.train
            assert train.steps == round(share * base.steps), label
            assert train.warmup_steps == round(share * base.warmup_steps)
            batch = study.share_of_batch if size == "lesson" else 1.0
            assert train.batch_size == batch * base.batch_size
            assert train.peak_rate(1) == pytest.approx(base.peak_rate(1))
    mae, convmae = (studies.plan(study, "lesson", f"{n}, 1/1").run for n in ("MAE", "ConvMAE"))
    assert mae.name == "mae_lesson" and mae.data == convmae.data
    assert mae.train == replace(convmae.train, base_rate=mae.train.base_rate)


def test_mae_and_croco_are_compared_on_equal_terms():
    """Encoders of one kind, the same rooms, equally many images."""
    for size in ("lesson", "gpu"):
        mae, croco = (studies.plan(STUDIES["croco.6"], size, n).run for n in ("MAE", "CroCo"))
        assert mae.method.encoder == croco.method.encoder
        assert mae.data.level == croco.data.level
        seen = mae.train.steps * mae.train.batch_size, croco.train.steps * croco.train.batch_size
        assert seen[0] == 2 * seen[1]


def stand_in(calls, seconds=0.0):
    """A notebook that measures the same everywhere."""

    def run_notebook(plan, seed, path, jobs):
        calls.append((plan.label, seed, path))
        time.sleep(seconds)
        rules = [rule for study in STUDIES.values() for rule in study.rules]
        metrics = {rule.metric: 0.5 + seed / 10 for rule in rules}
        result = {"metrics": metrics, "seconds": 1.0, "environment": {}}
        result |= {"pretrain_images_per_second": 9.0, "peak_memory_mib": 1.0}
        path.write_text(json.dumps(result))

    return run_notebook


def test_a_study_resumes_and_shares_runs(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(studies, "_run_notebook", stand_in(calls))
    receipt = studies.run_study(STUDIES["mae.3"], "tiny", seeds=2, runs=tmp_path)
    assert len(calls) == 8 and receipt["verdict"] == "floor", "all settings measure the same"
    assert (receipt["seeds"], receipt["first_seed"]) == (2, 10)
    raw = {"method.normalize_target": False}
    assert receipt["settings"]["raw pixels"]["overrides"] == raw
    assert receipt["settings"]["blind"]["parameters"] == {"NETWORK": "blind"}
    studies.run_study(STUDIES["mae.3"], "tiny", seeds=3, runs=tmp_path)
    assert [(label, seed) for label, seed, _ in calls[8:]] == [
        (label, 12) for label in ("raw pixels", "normalised", "untrained", "blind")
    ]
    del calls[:]
    studies.run_study(STUDIES["mae.4"], "tiny", seeds=3, runs=tmp_path)
    labels = {label for label, *_ in calls}
    assert labels == {"2 blocks", "8 blocks"}, "the tiny preset itself and floors were run already"


CLEAN = {"commit": "abc", "dirty": False, "hardware": "2 cores of Bird"}
MADE = json.dumps(CLEAN)


def test_a_changed_mimlib_runs_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(studies, "_run_notebook", stand_in(calls))
    monkeypatch.setattr(studies, "origin", lambda: CLEAN)
    for version, runs in (("a", 8), ("a", 8), ("b", 16)):
        monkeypatch.setattr(studies, "sources_of", lambda run, code=(), v=version: v)
        studies.run_study(STUDIES["mae.3"], "tiny", seeds=2, runs=tmp_path)
        assert len(calls) == runs
    assert not list(tmp_path.glob("uncommitted"))
    monkeypatch.setattr(studies, "origin", lambda: CLEAN | {"dirty": True})
    studies.run_study(STUDIES["mae.3"], "tiny", seeds=2, runs=tmp_path)
    assert len(calls) == 24, "what uncommitted code has made is no result of the commit"
    assert all("uncommitted" in path.parts for *_, path in calls[16:])


def test_a_receipt_says_of_each_run_where_it_was_made(tmp_path, monkeypatch):
    places = [{"hardware": name} for name in ("Bird", "Snail")]
    inner = stand_in([])

    def run_notebook(plan, seed, path, jobs):
        inner(plan, seed, path, jobs)
        result = json.loads(path.read_text())
        result["environment"] = places[seed == 11 and plan.label == "raw pixels"]
        path.write_text(json.dumps(result))

    monkeypatch.setattr(studies, "_run_notebook", run_notebook)
    receipt = studies.run_study(STUDIES["mae.3"], "tiny", seeds=3, runs=tmp_path)
    assert [places.index(made) for made in receipt["environments"]] == [0, 1]
    made_by = {label: setting["made_by"] for label, setting in receipt["settings"].items()}
    assert made_by.pop("raw pixels") == [0, 1, 0]
    assert [*made_by.values()] == [[0, 0, 0]] * 3
    assert receipts.origins(receipt) == places
    old = {"environment": {"commit": "c679188", "hardware": "2 CPU cores"}}  # as they once were
    assert receipts.origins(old) == [old["environment"]]
    assert receipts.hardware_of(old["environment"]) == "2 CPU cores (processor not recorded)"


def test_a_receipt_of_uncommitted_code_is_refused(tmp_path, monkeypatch, capsys):
    shelf, calls = tmp_path / "receipts", []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "RECEIPTS", shelf)
    monkeypatch.setattr(receipts.places, "receipts", lambda: shelf)
    monkeypatch.setattr(studies, "_run_notebook", stand_in(calls))
    monkeypatch.setattr(studies, "origin", lambda: CLEAN | {"dirty": True})
    assert cli.main(["study", "mae.3"]) == 1
    said = capsys.readouterr().err
    assert "commit abc with changes" in said and "another folder" in said and not calls
    assert cli.main(["study", "mae.3", "--seeds", "3", "--receipts", "tried"]) == 0
    assert (tmp_path / "tried" / "mae.3.json").is_file() and not shelf.exists()
    monkeypatch.setattr(studies, "origin", lambda: CLEAN)
    assert cli.main(["study", "mae.3"]) == 1, "no commit is known of the runs"
    assert "code that no commit names" in capsys.readouterr().err and not shelf.exists()
    for path in (tmp_path / "runs").rglob("mae_ablation_*.json"):
        path.write_text(path.read_text().replace('"environment": {}', f'"environment": {MADE}'))
    assert cli.main(["study", "mae.3"]) == 0
    assert {seed for _, seed, _ in calls} == {*range(10, 15)}, "a study says how many it takes"
    kept = (shelf / "mae.3.json").read_text()
    assert cli.main(["study", "mae.3", "--seeds", "3"]) == 0
    assert (shelf / "mae.3.json").read_text() == kept, "fewer seeds do not replace a receipt"


def test_notebooks_of_one_run_share_its_folder(tmp_path, monkeypatch):
    """croco.1, 6 and 7 start from the same pre-training: its folder holds one network."""
    calls = []
    monkeypatch.setattr(studies, "_run_notebook", stand_in(calls))
    for name in ("croco.1", "croco.7"):
        studies.run_study(STUDIES[name], "tiny", seeds=2, runs=tmp_path)
    paths = {label: path for label, seed, path in calls if seed == 10}
    shared = ("90 %", "untrained", "encoder", "encoder and decoder")
    assert len({paths[label].parent for label in shared}) == 1
    assert len({paths[label] for label in shared}) == 4
    assert paths["50 %"].parent != paths["90 %"].parent
    del calls[:]
    receipt = studies.run_study(STUDIES["croco.6"], "tiny", seeds=2, runs=tmp_path)
    folders = {label: path.parent for label, seed, path in calls if seed == 10}
    assert folders["CroCo"] == folders["untrained"] == paths["90 %"].parent
    assert folders["MAE"] != folders["CroCo"]
    assert receipt["settings"]["MAE"]["preset"] == "mae_tiny"
    assert receipt["settings"]["MAE"]["parameters"] == {"METHOD": "mae", "NETWORK": "encoder"}


def test_two_commands_do_not_work_in_one_folder_at_once(tmp_path, monkeypatch):
    calls, busy, most = [], [], []
    inner = stand_in(calls, seconds=0.05)

    def watched(plan, seed, path, jobs):
        busy.append(path.parent)
        most.append(busy.count(path.parent))
        inner(plan, seed, path, jobs)
        busy.remove(path.parent)

    monkeypatch.setattr(studies, "_run_notebook", watched)

    def command(name):
        studies.run_study(STUDIES[name], "tiny", seeds=2, jobs=2, runs=tmp_path)

    commands = [threading.Thread(target=command, args=(n,)) for n in ("croco.7", "croco.7")]
    for thread in commands:
        thread.start()
    for thread in commands:
        thread.join()
    assert max(most) == 1, "two notebooks trained in one folder"
    assert len(calls) == len(set(calls)) == 4 * 2, "what another command had done was done again"


def test_a_failing_notebook_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "NOTEBOOKS", tmp_path)
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1 / 0", "outputs": []}
    cell["execution_count"] = None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}}
    notebook |= {"nbformat": 4, "nbformat_minor": 5}
    (tmp_path / STUDIES["mae.3"].notebook).write_text(json.dumps(notebook))
    with pytest.raises(RuntimeError, match="mae.3, (raw pixels|normalised), seed 10 failed.*ipynb"):
        studies.run_study(STUDIES["mae.3"], "tiny", seeds=2, runs=tmp_path / "runs")
    assert not list(tmp_path.rglob("mae_ablation_*.json"))
