"""Reports print what is the same on every machine, and read what was measured elsewhere."""

import json

import pytest

from mimlib import places
from mimlib.course.lesson import report


def test_band_asserts_and_prints_no_measurement(capsys):
    assert report.band("loss", 0.51234, 0.4, 0.6) is None, "a cell may end with it"
    assert capsys.readouterr().out == "loss: inside 0.4 to 0.6\n"
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


def test_receipts_are_written_whole_and_say_where(shelf):
    path = report.write_receipt("notebooks/x", {"seconds": 41.0, "peak_memory_mib": 700})
    stored = json.loads(path.read_text())
    assert {"commit", "hardware", "torch", "python", "threads", "mimlib"} <= set(stored)
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    found = report.receipt("notebooks/x")
    assert {"seconds", "peak_memory_mib", "hardware", "torch", "matmul_gflops"} <= set(found)
    with pytest.raises(FileNotFoundError, match="no receipt 'y'; there is notebooks/x"):
        report.receipt("y")


def test_banner_rounds_and_adds_the_gpu_run(shelf):
    assert report.banner("x") == "Measured: not yet."
    cost = {"seconds": 41.0, "peak_memory_mib": 700, "hardware": "2 CPU cores"}
    (shelf / "notebooks").mkdir()
    (shelf / "runs").mkdir()
    (shelf / "notebooks/x.json").write_text(json.dumps(cost))
    assert "about 45 s and 0.75 GiB of memory on 2 CPU cores" in report.banner("x", "mae")
    (shelf / "runs/mae_gpu.json").write_text(json.dumps({"seconds": 601, "hardware": "one GPU"}))
    assert '`PRESET = "gpu"`: about 11 min on one GPU.' in report.banner("x", "mae")


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
    }
    (shelf / "mae.9.json").write_text(json.dumps(study))
    assert report.verdict("mae.9")["seeds"] == 3
    printed = capsys.readouterr().out
    assert "0.450 +- 0.050" in printed and "paper: table 9: 12.3" in printed
    assert "verdict: inconclusive at this scale (3 seeds)" in printed
    study["settings"]["a"]["metrics"]["seconds"] = metric
    (shelf / "mae.9.json").write_text(json.dumps(study))
    report.verdict("mae.9", ("seconds",))
    table = capsys.readouterr().out.splitlines()[3]
    assert "seconds" in table and "accuracy" not in table, "only what was asked for"
