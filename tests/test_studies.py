"""Statistics and verdicts of the study runner, and its resumption, on a stand-in notebook."""

import json
import math

import pytest

from mimlib import studies
from mimlib.claims import STUDIES, Rule


def test_interval_matches_the_t_table():
    mean, low, high = studies.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert math.isclose(high - mean, 4.302653 / math.sqrt(3), rel_tol=1e-6)  # t(0.975, 2), s = 1
    assert math.isclose(mean - low, high - mean)
    assert studies.interval([1.0]).high == math.inf


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


def test_one_contradiction_decides():
    assert studies.overall(["reproduced", "contradicted"]) == "contradicted"
    assert studies.overall(["reproduced", "inconclusive"]) == "inconclusive"
    assert studies.overall(["reproduced", "reproduced"]) == "reproduced"


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)
def test_every_rule_names_settings_of_its_study(study):
    assert (studies.NOTEBOOKS / study.notebook).is_file()
    for rule in study.rules:
        assert {rule.better, rule.worse} <= set(study.settings)


def test_a_study_resumes_and_shares_runs(tmp_path, monkeypatch):
    calls = []

    def fake(study, size, label, seed, folder, jobs):
        calls.append((tuple(study.settings[label].items()), seed))
        folder.mkdir(parents=True)
        metrics = {m: 0.5 + seed / 10 for rule in study.rules for m in [rule.metric]}
        result = {"metrics": metrics, "seconds": 1.0, "environment": {}}
        result |= {"pretrain_images_per_second": 9.0, "peak_memory_mib": 1.0}
        (folder / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(studies, "_run_notebook", fake)
    receipt = studies.run_study(STUDIES["mae.3"], "tiny", seeds=2, runs=tmp_path)
    assert len(calls) == 4 and receipt["verdict"] == "inconclusive"
    studies.run_study(STUDIES["mae.3"], "tiny", seeds=3, runs=tmp_path)
    assert calls[4:] == [((("method.normalize_target", False),), 2), ((), 2)]
    del calls[:]
    studies.run_study(STUDIES["mae.4"], "tiny", seeds=3, runs=tmp_path)
    assert () not in {changes for changes, _ in calls}, "the preset itself was run already"
