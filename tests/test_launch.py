"""Training through the one entry: resumed, loaded when finished, in one process or two."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.runs.build import weights_file
from mimlib.runs.launch import launch, read_finished

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
def test_the_command_line_trains_in_two_processes(tmp_path):
    out = tmp_path / "two"
    command = [sys.executable, "-m", "mimlib", "train", "mae_tiny", "--train.steps", "2"]
    command += [
        "--train.warmup-steps",
        "1",
        "--train.device",
        "cpu",
        "--num-processes",
        "2",
        "--no-progress",
    ]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    stored = json.loads((out / "summary.json").read_text())
    assert stored["summary"]["step"] == 2
    shutil.rmtree(out)


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
