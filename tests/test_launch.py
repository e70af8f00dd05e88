"""Training through the one entry: resumed, loaded when finished, in one process or two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
import torch

from mimlib import cli
from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.runs.build import weights_file
from mimlib.runs.launch import launch, read_finished
from mimlib.runs.mistakes import Mistake
from mimlib.training.checkpoint import latest_checkpoint
from mimlib.training.trainer import Trainer

QUICK = {"train.steps": 4, "train.warmup_steps": 1, "train.log_every": 1, "train.device": "cpu"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = override(preset("mae_tiny"), QUICK)
    return run, launch(run, tmp_path_factory.mktemp("mae"), progress=False)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_finished_run_is_loaded_not_trained_again(finished):
    run, result = finished
    again = launch(run, result.out, progress=False)
    assert same(again.method, result.method) and again.summary == result.summary
    assert read_finished(override(run, {"train.steps": 5}), result.out) is None


def test_the_seed_decides_the_weights(tmp_path, finished):
    run, result = finished
    again = launch(run, tmp_path / "a", progress=False)
    other = launch(override(run, {"train.seed": 1}), tmp_path / "b", progress=False)
    assert same(again.method, result.method)
    assert not same(other.method, result.method)


def test_launching_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    launch(override(preset("mae_tiny"), QUICK | {"train.steps": 1}), tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_task_starts_from_a_pretrained_encoder(tmp_path, finished):
    _, result = finished
    changes = QUICK | {"pretrained": str(result.out), "train.base_rate": 1e-12}
    task = launch(override(preset("depth_tiny"), changes), tmp_path, progress=False)
    name = "blocks.0.attn.qkv.weight"
    left = task.method.encoder.state_dict()[name]
    assert torch.allclose(left, result.method.encoder.state_dict()[name], atol=1e-6)
    assert task.summary.history[-1]["held_out/rmse"] > 0


def test_a_missing_pretrained_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weights_file(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no folder with a checkpoint"):
        weights_file(str(tmp_path))


@pytest.mark.slow
def test_an_interrupt_of_two_processes_saves_and_ends(tmp_path):
    """As the terminal does it: a signal to the command and both ranks at once."""
    command = [
        *(sys.executable, "-m", "mimlib", "train", "mae_tiny", "--train.steps", "100000"),
        *("--train.log-every", "1", "--train.device", "cpu", "--num-processes", "2"),
        *("--no-progress", "--out", str(tmp_path)),
    ]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not any(tmp_path.glob("*.jsonl")) and running.poll() is None:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 1 and "Traceback" not in told
    assert "error: training stopped before its last step; run it again to go on" in told
    assert latest_checkpoint(tmp_path), "saved"


@pytest.mark.slow
def test_any_run_trains_in_two_processes(tmp_path):
    """A run travels as the object it is, also with an encoder that its preset does not have."""
    encoder = preset("convmae_tiny").method.encoder
    run = override(preset("depth_tiny"), QUICK | {"method.encoder": encoder})
    result = launch(run, tmp_path, num_processes=2, progress=False)
    assert result.method.encoder.config == encoder and result.summary.step == 4
    assert json.loads((tmp_path / "summary.json").read_text())["num_ranks"] == 2


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Data that cannot be read."""

    def build(self):
        """Return the source, which is the configuration itself."""
        return self

    def batches(self, *_):
        """Fail as soon as a batch is asked for."""
        raise ValueError("rotten data")


@pytest.mark.slow
def test_an_error_in_one_of_two_processes_shows_where_it_arose(tmp_path):
    run = replace(override(preset("mae_tiny"), QUICK), data=Broken())
    with pytest.raises(RuntimeError) as raised:
        launch(run, tmp_path, num_processes=2, progress=False)
    told = str(raised.value)
    assert told.count("Traceback") == 1 and "rotten data" in told and "trainer.fit()" in told


@pytest.mark.slow
def test_a_mistake_is_told_in_a_line_by_two_processes(tmp_path, capfd):
    flags = ["--pretrained", str(tmp_path / "nowhere"), "--num-processes", "2"]
    assert cli.main(["train", "mae_tiny", *flags, "--out", str(tmp_path), "--no-progress"]) == 1
    told = capfd.readouterr().err
    assert "error: pretrained is" in told and "Traceback" not in told


def test_an_error_in_training_is_no_mistake(tmp_path):
    run = replace(override(preset("mae_tiny"), QUICK), data=Broken())
    with pytest.raises(ValueError, match="rotten data") as raised:
        launch(run, tmp_path, progress=False)
    assert not isinstance(raised.value, Mistake)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_the_command_line_shows_where_an_error_arose(error, monkeypatch, tmp_path):
    """And an error in the preparation is told in a line: as test_presets.py asks."""

    def fail(_):
        raise error("in the middle of it")

    monkeypatch.setattr(Trainer, "fit", fail)
    with pytest.raises(error, match="in the middle of it"):
        cli.main(["train", "mae_tiny", "--train.device", "cpu", "--out", str(tmp_path)])


def test_the_folder_of_another_run_is_told_in_a_line(finished, capsys):
    flags = ["--train.device", "cpu", "--train.base-rate", "1", "--out", str(finished[1].out)]
    assert cli.main(["train", "mae_tiny", *flags]) == 1
    assert "other settings (train.base_rate" in capsys.readouterr().err


def test_a_run_that_does_not_start_where_its_card_says_is_told(tmp_path, finished, capsys):
    brief = ["--train.device", "cpu", "--train.steps", "1", "--train.warmup-steps", "0"]
    flags = [*brief, "--no-progress", "--out"]
    assert cli.main(["train", "depth_tiny", *flags, str(tmp_path / "nothing")]) == 0
    assert "random weights; its card says --pretrained runs/mae_tiny" in capsys.readouterr().out
    start = ["--pretrained", str(finished[1].out)]
    assert cli.main(["train", "depth_tiny", *flags, str(tmp_path / "it"), *start]) == 0
    assert "random weights" not in capsys.readouterr().out


def test_fewer_than_one_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_processes must be 1 or more"):
        launch(preset("mae_tiny"), tmp_path, num_processes=0)


def test_an_earlier_checkpoint_is_not_a_finished_run(tmp_path, finished):
    run, result = finished
    out = tmp_path / "copy"
    shutil.copytree(result.out, out)
    (last,) = out.glob("step_*4.pt")
    last.unlink()
    assert read_finished(run, out) is None
    assert read_finished(run, result.out, num_ranks=2) is None


def test_a_summary_torn_by_a_power_cut_is_written_again(tmp_path, finished):
    run, result = finished
    out = tmp_path / "torn"
    shutil.copytree(result.out, out)
    for rest in (b"", b'{"run": {', b"\x00\xff\x00"):
        (out / "summary.json").write_bytes(rest)
        assert read_finished(run, out) is None
    again = launch(run, out, progress=False)
    assert again.summary.step == run.train.steps
    assert read_finished(run, out).summary.history == result.summary.history
