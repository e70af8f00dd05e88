"""Processes of their own: two ranks are one, a kill costs nothing, every rank stops together."""

import json
import multiprocessing
import signal

import pytest
import torch
from training_toys import Toy, ToySource, same, weights
from training_worker import settings, work
from two_ranks import PATIENCE, free_port

from mimlib.training import parallel
from mimlib.training.checkpoint import list_checkpoints, load_checkpoint
from mimlib.training.trainer import Trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mimlib.training.trainer", "torch.utils.tensorboard"])  # slow


def train(out, run, events, uneven=False):
    """Train in one process per entry of `events`; return the exit codes and what each told."""
    out.mkdir(exist_ok=True)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(events))}
        for rank in range(len(events))
    ]
    workers = [
        CONTEXT.Process(target=work, args=(out, run, uneven, event, environment))
        for event, environment in zip(events, ranks, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=PATIENCE)
    told = [json.loads(path.read_text()) for path in sorted(out.glob("rank_*.json"))]
    return [worker.exitcode for worker in workers], told


def fit_here(out=None, uneven=False, optimizer="adamw"):
    """The same run in this process: one rank of 8 images."""
    method, run = Toy("index", uneven=uneven), settings(8, optimizer=optimizer)
    return method, Trainer(method, ToySource(), run, out=out, progress=False).fit()


def test_killed_and_resumed_is_as_if_nothing_happened(tmp_path):
    """kill -9 in step 4, one step after the checkpoint of step 2."""
    codes, told = train(tmp_path, settings(8), [{"kill": 3}])
    assert (codes, told) == ([-signal.SIGKILL], [])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000002.pt"]
    resumed, summary = fit_here(tmp_path)
    whole, once = fit_here()
    assert same(weights(whole), weights(resumed))
    assert [line["step"] for line in summary.history] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in summary.history] == [line["loss"] for line in once.history]


@pytest.mark.parametrize(
    ("optimizer", "uneven"), [("adamw", False), ("adamw", True), ("muon", False)]
)
@pytest.mark.parametrize("shard", [False, True])
def test_two_ranks_are_one_process_even_when_one_is_stopped(tmp_path, shard, optimizer, uneven):
    """A signal reaches rank 1 only; both stop after step 3 and go on to the same end."""
    run = settings(4, shard, optimizer)
    stopped = {"step": 3, "stopped": True}
    assert train(tmp_path, run, [{}, {"interrupt": 2}], uneven) == ([0, 0], [stopped, stopped])
    assert load_checkpoint(list_checkpoints(tmp_path)[0])["step"] == 3
    finished = {"step": 5, "stopped": False}
    assert train(tmp_path, run, [{}, {}], uneven) == ([0, 0], [finished, finished])
    stored = load_checkpoint(list_checkpoints(tmp_path)[0])
    assert stored["step"] == 5 and stored["config"]["num_ranks"] == 2
    one, summary = fit_here(uneven=uneven, optimizer=optimizer)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(stored["model"][name], tensor, rtol=1e-5, atol=1e-6)
    assert not same(weights(Toy("index")), stored["model"])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in summary.history]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-5)


def test_an_incomplete_torchrun_environment_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but .*MASTER_ADDR.*start with torchrun"):
        parallel.join(torch.device("cpu"))


def test_without_torchrun_everything_is_the_identity():
    tensors = {"a": torch.ones(2)}
    assert parallel.join(torch.device("cpu")) == (0, 1)
    assert parallel.mean_over_ranks(tensors)["a"] is tensors["a"]
    assert parallel.largest_over_ranks(-3) == -3
    method = Toy()
    assert parallel.wrap(method, torch.device("cpu")) is method
