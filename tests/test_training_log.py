"""What a run tells: lines, files, the bar, the summary, FLOPs, a trace."""

import json
import math
import threading
import time

import pytest
import torch
from training_toys import Toy, ToySource, config, fit, same, weights

from mimlib.training import reading
from mimlib.training.trainer import Trainer


class Count:
    """An evaluation that counts its calls."""

    name = "count"

    def __init__(self):
        self.calls = 0

    def run(self, model, device):
        self.calls += 1
        torch.rand(self.calls)  # draws of an evaluation change nothing in training
        return {"calls": self.calls}


def test_lines_files_and_summary(tmp_path):
    count = Count()
    _, summary = fit(steps=7, log_every=3, evaluate_every=2, evaluations=[count], out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == summary.history
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 6, 7]
    assert [line.get("count/calls") for line in lines] == [None, 1, None, 2, 3, 4]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [1, 3, 6, 7]
    for line in logged:
        assert {"largest", "rate", "images_per_second", "memory_mib", "seconds", "mfu"} <= set(line)
        assert all(math.isfinite(value) for value in line.values())
    assert logged[0]["rate"] == 0.0
    assert [line["seconds"] for line in logged] == sorted(line["seconds"] for line in logged)
    assert summary.loss == logged[-1]["loss"] and summary.step == 7
    assert summary.seconds == logged[-1]["seconds"] and summary.peak_memory_mib > 10
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_logged_loss_is_the_mean_since_the_last_line():
    _, every = fit(steps=6, log_every=1)
    _, third = fit(steps=6, log_every=3)
    losses = [line["loss"] for line in every.history]
    means = [losses[0], sum(losses[1:3]) / 2, sum(losses[3:6]) / 3]
    assert [line["loss"] for line in third.history] == pytest.approx(means)


def test_evaluations_do_not_change_the_run():
    plain, _ = fit(Toy(dropout=0.2))
    evaluated, _ = fit(Toy(dropout=0.2), evaluate_every=1, evaluations=[Count()])
    assert same(weights(plain), weights(evaluated))


def test_a_torn_log_is_mended_on_resume(tmp_path):
    fit(source=ToySource(interrupt=2), out=tmp_path)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    _, summary = fit(out=tmp_path)
    assert [line["step"] for line in summary.history] == [1, 2, 3, 4, 5]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == summary.history


def test_quiet_means_silent_and_the_bar_goes_to_stderr(capfd):
    fit()
    assert capfd.readouterr() == ("", "")
    Trainer(Toy(), ToySource(), config()).fit()
    shown = capfd.readouterr()
    assert shown.out == "" and "loss=" in shown.err and "images/s=" in shown.err


def test_flops_are_those_of_the_matrix_products():
    method = Toy()
    trainer = Trainer(method, ToySource(), config(accumulation=2), progress=False)
    before = weights(method)
    trainer.train_step(next(ToySource().batches(0, 8, 0)), 0)
    products = sum(p.numel() for p in method.parameters() if p.ndim == 2)
    first = method.encoder.embed.weight.numel()  # needs no gradient of its input
    assert trainer.flops == 2 * 8 * (3 * products - first)
    assert same(before, weights(method)), "the rate of the first step is 0 and counting is pure"


def test_flops_of_a_method_that_cannot_run_on_shapes_are_left_out():
    class Looks(Toy):
        def forward(self, views):
            assert float(views.images.sum()) < 1e9  # needs the values
            return super().forward(views)

    _, summary = fit(Looks())
    assert "mfu" not in summary.history[-1] and summary.step == 5


def test_a_profile_needs_a_folder():
    with pytest.raises(ValueError, match="profile is on, but there is no output folder"):
        fit(profile=True)


def test_profile_writes_a_trace_and_a_table(tmp_path):
    fit(profile=True, out=tmp_path, steps=4)
    assert "addmm" in (tmp_path / "profile" / "kernels.txt").read_text()
    assert json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]


def test_reading_ahead_gives_the_same_batches_and_the_same_errors():
    def numbers():
        yield from range(20)
        raise OSError("disk gone")

    ahead = reading.read_ahead(numbers())
    assert [next(ahead) for _ in range(20)] == list(range(20))
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)


def test_reading_ahead_ends_with_its_reader():
    read = []

    def numbers():
        for number in range(10**9):
            read.append(number)
            yield number

    before = threading.active_count()
    ahead = reading.read_ahead(numbers())
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before
    count = len(read)
    time.sleep(0.05)
    assert len(read) == count <= 2 + reading.READ_AHEAD + 1
