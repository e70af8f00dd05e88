"""Reports print values beside what they must be, and read what was measured elsewhere."""

import json

import pytest

from mimlib import places
from mimlib.course.lesson import report
from mimlib.machine.costs import Rates
from mimlib.presets import preset


def test_band_asserts_and_prints_the_value_beside_it(capsys):
    assert report.band("loss", 0.51234, 0.4, 0.6) is None, "a cell may end with it"
    assert capsys.readouterr().out == "loss: 0.512 (expected 0.4 to 0.6)\n"
    for bad in (0.39, 0.61, float("nan")):
        with pytest.raises(AssertionError, match="expected between 0.4 and 0.6"):
            report.band("loss", bad, 0.4, 0.6)


def test_table_aligns(capsys):
    report.table([{"size": "Ti", "width": 192}, {"size": "Huge", "width": 1280}])
    assert capsys.readouterr().out.splitlines() == [
        "size  width", "----  -----", "Ti      192", "Huge   1280",
    ]  # fmt: skip


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "receipts", lambda: tmp_path)
    return tmp_path


COST = {
    "preset": "mae_lesson",
    "seconds": 100.0,
    "tiny_seconds": 20.0,
    "peak_memory_mib": 700,
    "work": {"training": {"seconds": 60.0}, "rendering": {"seconds": 10.0}},
    "rates": {"images": 900.0, "views": 100.0, "views_together": 200.0, "rounds": 50.0},
    "environment": {"hardware": "2 cores of Bird", "number_type": "bfloat16"},
}


def keep(shelf, name, receipt):
    (shelf / name).parent.mkdir(exist_ok=True)
    (shelf / f"{name}.json").write_text(json.dumps(receipt))


def test_a_missing_receipt_is_named_with_those_there_are(shelf):
    keep(shelf, "notebooks/x", COST)
    assert report.receipt("notebooks/x") == COST
    with pytest.raises(FileNotFoundError, match="no receipt 'y'; there is notebooks/x"):
        report.receipt("y")


def test_banner_names_the_processor_rounds_and_adds_the_gpu_run(shelf):
    assert report.banner("x") == "Measured: not yet."
    keep(shelf, "notebooks/x", COST | {"seconds": 41.0})
    line = report.banner("x", "mae")
    assert "about 45 s and 0.75 GiB of memory on 2 cores of Bird (bfloat16)" in line
    keep(shelf, "runs/mae_gpu", {"seconds": 601, "hardware": "one GPU"})
    assert '`PRESET = "gpu"`: about 11 min on one GPU.' in report.banner("x", "mae")
    old = {"seconds": 41.0, "peak_memory_mib": 700, "hardware": "2 CPU cores"}
    keep(shelf, "notebooks/x", old)
    assert "on 2 CPU cores (processor not recorded)" in report.banner("x")


def test_a_slow_machine_is_told_before_what_it_costs_and_what_there_is_instead(shelf, monkeypatch):
    keep(shelf, "notebooks/x", COST)
    monkeypatch.setattr(report, "rates", lambda run: Rates(300.0, 50.0, 50.0, 50.0))
    monkeypatch.setattr(report, "hardware", lambda: "1 core of Snail")
    monkeypatch.setattr(report, "number_type", lambda: "float32")
    monkeypatch.setattr(places, "weights", lambda: shelf)
    first, second = report.costs_here("x", preset("mae_lesson")).splitlines()
    assert "about 230 s and 0.75 GiB here, on 1 core of Snail (float32)" in first  # 180 + 20 + 30
    assert "100 s on 2 cores of Bird (bfloat16)" in first
    assert 'PRESET = "tiny" runs every cell in about 20 s' in second and "shipped" not in second
    (shelf / "croco_small.safetensors").touch()
    keep(shelf, "notebooks/x", COST | {"preset": "croco_lesson"})
    assert 'shipped("croco_small") is trained' in report.costs_here("x", preset("croco_lesson"))
    monkeypatch.setattr(report, "rates", lambda run: Rates(900.0, 100.0, 200.0, 50.0))
    assert len(report.costs_here("x", preset("croco_lesson")).splitlines()) == 1
    assert report.costs_here("x", preset("mae_tiny")) == report.costs_here("y", None) == ""


def test_verdict_prints_rules(shelf, capsys):
    metric = {"values": [0.4, 0.5], "mean": 0.45, "interval": [0.4, 0.5]}
    study = {
        "claim": "more is better",
        "paper": "table 9: 12.3",
        "settings": {"a": {"metrics": {"accuracy": metric}}},
        "rules": [
            {"verdict": "inconclusive", "rule": "a beats b", "gain": 0.1, "interval": [-1, 1]}
        ],
        "verdict": "inconclusive",
        "seeds": 3,
        "environment": {"hardware": "2 CPU cores", "commit": "abc-dirty"},
    }
    (shelf / "mae.9.json").write_text(json.dumps(study))
    assert report.verdict("mae.9")["seeds"] == 3
    printed = capsys.readouterr().out
    assert "0.450 +- 0.050" in printed and "paper: table 9: 12.3" in printed
    assert "verdict: inconclusive at this scale (3 seeds)" in printed
    where = "on 2 CPU cores (processor not recorded) by commit abc with changes"
    assert f"measured {where}" in printed
    study["settings"]["a"]["metrics"]["seconds"] = metric
    (shelf / "mae.9.json").write_text(json.dumps(study))
    report.verdict("mae.9", ("seconds",))
    table = capsys.readouterr().out.splitlines()[3]
    assert "seconds" in table and "accuracy" not in table, "only what was asked for"


def test_the_runs_of_a_network_have_a_row_per_seed(shelf, capsys):
    ratio, share = {"values": [0.81, 0.8]}, {"values": [0.7, 0.71]}
    made = {"seeds": [3, 4], "metrics": {"holes/ratio": ratio, "semantic/accuracy": share}}
    keep(shelf, "net", made)
    assert report.seeds("net", {"frozen": "semantic/accuracy", "error": "holes/ratio"}) == made
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["net", "frozen", "error"]
    assert rows[2:] == [["seed", "3", "0.7", "0.81"], ["seed", "4", "0.71", "0.8"]]
    with pytest.raises(KeyError, match="holes/error"):
        report.seeds("net", {"error": "holes/error"})


def test_a_floor_has_a_row_and_no_costs(shelf, capsys):
    metric = {"values": [0.4, 0.5], "mean": 0.45, "interval": [0.4, 0.5]}
    rows = {"a": {"accuracy": metric, "step [ms]": metric}, "blind": {"accuracy": metric}}
    rule = {"verdict": "floor", "rule": "a beats b", "gain": 0.1, "interval": [-1, 1]}
    study = {"claim": "", "paper": "", "rules": [rule], "verdict": "floor", "seeds": 5}
    study |= {"settings": {label: {"metrics": row} for label, row in rows.items()}}
    (shelf / "mae.9.json").write_text(json.dumps(study | {"environments": []}))
    with pytest.raises(KeyError, match="mae.9 has no .'steps'.; it has"):
        report.verdict("mae.9", ("steps", "accuracy"))
    report.verdict("mae.9", ("step [ms]", "accuracy"))
    printed = capsys.readouterr().out
    assert "floor: a beats b" in printed and "verdict: floor at this scale (5 seeds)" in printed
    rows = [line.split() for line in printed.splitlines() if "+-" in line]
    assert [(row[0], row.count("+-")) for row in rows] == [("a", 2), ("blind", 1)]
