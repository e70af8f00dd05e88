"""A shipped network is that of finished runs of its preset, and says so when it is not."""

import json
import shutil

import pytest
import torch

from mimlib import cli
from mimlib.evidence import receipts, shipping
from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.runs.launch import SUMMARY_FILE, launch

NAME = "croco_tiny"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three finished runs and one with another setting."""
    folder = tmp_path_factory.mktemp("runs")
    changes = [{"train.seed": seed} for seed in range(3)] + [{"method.mask_ratio": 0.5}]
    folders = [folder / str(i) for i in range(len(changes))]
    runs = [override(preset(NAME), change) for change in changes]
    results = [launch(run, out, progress=False) for run, out in zip(runs, folders)]
    return folders, results


def test_the_network_of_the_first_run_is_kept(runs, tmp_path, monkeypatch):
    folders, results = runs
    monkeypatch.setattr(shipping, "WEIGHTS", tmp_path)
    shipping.keep(NAME, folders[0])
    kept, trained = shipping.shipped(NAME), results[0].method
    assert not kept.training and all(p.dtype == torch.float32 for p in kept.parameters())
    for name, value in trained.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value.half().float()), name


def test_a_receipt_has_the_last_values_of_every_seed(runs):
    folders, results = runs
    receipt = json.loads(json.dumps(shipping.receipt_of(NAME, folders[:3])))
    assert receipt["seeds"] == [0, 1, 2] and receipt["config"]["name"] == NAME
    found = receipt["metrics"]["cross_view/loss_true"]
    last = [result.summary.history[-1]["cross_view/loss_true"] for result in results[:3]]
    assert found["values"] == last and found["interval"][0] < found["mean"] < found["interval"][1]
    assert [curve[-1] for curve in found["curves"]] == last
    assert len(set(last)) == 3 and len(receipt["seconds"]) == 3
    (made,) = receipts.origins(receipt)
    assert receipt["made_by"] == [0, 0, 0] and {"commit", "dirty", "hardware"} <= made.keys()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((0, 1), r"seeds \[0, 1\] and .*expected 3"),
        ((0, 1, 1), r"seeds \[0, 1, 1\]"),
        ((0, 1, 3), "settings that are not those of the preset"),
    ],
)
def test_what_is_no_receipt_is_refused(runs, chosen, message):
    with pytest.raises(ValueError, match=message):
        shipping.receipt_of(NAME, [runs[0][i] for i in chosen])


def test_the_command_writes_receipt_and_network(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipping, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(shipping, "RECEIPTS", tmp_path)
    folders = [str(folder) for folder in runs[0][:3]]
    assert cli.main(["ship", NAME, *folders, "--receipt-only", "--label", "again"]) == 0
    assert (tmp_path / f"{NAME}_again.json").is_file() and not (tmp_path / "weights").exists()
    assert cli.main(["ship", NAME, *folders]) == 0
    assert f"{NAME}.safetensors" in capsys.readouterr().out
    assert (tmp_path / "weights" / f"{NAME}.safetensors").is_file()
    assert cli.main(["ship", NAME, *folders, "--receipts", str(tmp_path / "tried")]) == 0
    assert (tmp_path / "tried" / f"{NAME}.json").is_file()


def test_a_run_of_unknown_code_is_not_shipped(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipping, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(shipping, "RECEIPTS", tmp_path)
    monkeypatch.setattr(receipts.places, "receipts", lambda: tmp_path)
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in runs[0][:3]]
    summary = json.loads((folders[1] / SUMMARY_FILE).read_text())
    del summary["origin"]  # as before 2026-12
    (folders[1] / SUMMARY_FILE).write_text(json.dumps(summary))
    assert cli.main(["ship", NAME, *map(str, folders)]) == 1
    assert "needs code that a commit names" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists() and not (tmp_path / f"{NAME}.json").exists()


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        shipping.receipt_of(NAME, [tmp_path] * 3)


def test_a_network_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="shipped: none.*mimlib ship croco_tiny"):
        shipping.shipped(NAME)


@pytest.mark.parametrize("name", sorted(p.stem for p in shipping.WEIGHTS.glob("*.safetensors")))
def test_a_shipped_network_has_the_receipt_of_its_preset(name):
    receipt, run = receipts.read(name), preset(name)
    assert receipt["preset"] == run.name and len(set(receipt["seeds"])) >= 3
    assert receipt["config"]["train"]["steps"] == run.train.steps
    kept = shipping.shipped(name)
    assert kept.encoder.config == run.method.encoder
    assert all(value.isfinite().all() for value in kept.state_dict().values())
    size = shipping.weights_of(name).stat().st_size
    assert size < 8_000_000 and size < 2.1 * sum(v.numel() for v in kept.state_dict().values())
