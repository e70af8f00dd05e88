"""One process: what a step is, what is written, how a run ends and goes on."""

import errno
import json
import math
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from training_toys import Toy, ToySource, config, same, weights

from mimlib.training import checkpoint, log, reading
from mimlib.training.checkpoint import CheckpointError, list_checkpoints, load_checkpoint
from mimlib.training.signals import StopSignal
from mimlib.training.trainer import Trainer


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def fit(method=None, source=None, **changes):
    """Train a toy quietly; words that are not fields of the config go to the trainer."""
    own = {k: changes.pop(k) for k in ("out", "evaluations", "run_info") if k in changes}
    method = method or Toy()
    trainer = Trainer(method, source or ToySource(), config(**changes), progress=False, **own)
    return method, trainer.fit()


# ------------------------------------------------------------------------------------- the step


def test_a_step_is_forward_backward_adamw_after_step():
    """Two steps of the trainer against the same written out."""
    trained, _ = fit(steps=2, warmup_steps=0, weight_decay=0.1, clip_norm=0.05)
    method = Toy().train()
    trainer = Trainer(method, ToySource(), config(steps=2, warmup_steps=0), progress=False)
    decay = [p for p in method.parameters() if p.ndim > 1]
    rest = [p for p in method.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    for step, batch in zip(range(2), ToySource().batches(0, 8, 0)):
        rate = 0.3 * 8 / 256 * 0.5 * (1 + math.cos(math.pi * step / 2))
        for group in optimizer.param_groups:
            group["lr"] = rate
        output = method(method.sample_views(batch, trainer.draws.start(step, 0)))
        optimizer.zero_grad()
        output.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(method.parameters(), 0.05)
        assert norm > 0.05, "this test should clip"
        optimizer.step()
        method.after_step(output.state, step / 2)
    for name, tensor in weights(method).items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    assert trained.progress == [0.0, 0.5]


def test_the_draws_of_a_step_depend_on_seed_rank_step_and_micro_step():
    def draw(seed=0, rank=0, step=0, micro_step=0):
        draws = reading.StepDraws(seed, rank, torch.device("cpu"))
        views = torch.rand(4, generator=draws.start(step, micro_step))
        return tuple(views.tolist()), tuple(torch.rand(4).tolist())

    with torch.random.fork_rng(devices=[]):
        assert draw() == draw()
        others = [draw(), draw(seed=1), draw(rank=1), draw(step=1), draw(micro_step=1)]
        numbers = {values for both in others for values in both}
        assert len(numbers) == 10, "views and forward have streams of their own"


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_whole(parts):
    whole, first = fit(Toy("index"))
    halves, second = fit(Toy("index"), accumulation=parts)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(halves)[name], tensor, rtol=1e-5, atol=1e-6)
    assert len(halves.progress) == 5, "after_step runs once per step, not per part"
    assert second.loss == pytest.approx(first.loss, rel=1e-5)


def test_frozen_parameters_stay_and_need_no_state(tmp_path):
    method = Toy()
    method.encoder.requires_grad_(False)
    before = weights(method.encoder)
    fit(method, out=tmp_path)
    assert same(before, weights(method.encoder))
    stored = load_checkpoint(list_checkpoints(tmp_path)[0])["optimizer"]
    assert len(stored["state"]) == 2


def test_a_loss_in_low_precision_is_refused():
    class LowLoss(Toy):
        def forward(self, views):
            output = super().forward(views)
            return output._replace(loss=output.loss.bfloat16())

    with pytest.raises(TypeError, match="loss of LowLoss is torch.bfloat16; compute losses in flo"):
        fit(LowLoss())


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    seen = []
    method = Toy()
    method.decoder.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    fit(method, precision="bfloat16", steps=1)
    assert seen[-1] == torch.bfloat16  # before it, FLOPs are counted on shapes
    assert all(p.dtype is torch.float32 for p in method.parameters())


def test_compiled_steps_equal_eager_ones(monkeypatch):
    real_compile, calls = torch.compile, []

    def compile_without_compiler(module):
        calls.append(module)
        return real_compile(module, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    eager, _ = fit()
    compiled, _ = fit(compile=True)
    assert len(calls) == 1
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    for name, tensor in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[name], tensor, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- ending and going on


def test_three_and_two_steps_are_five_bitwise(tmp_path):
    whole, once = fit(Toy(dropout=0.3), accumulation=2)
    method, first = fit(
        Toy(dropout=0.3), ToySource(interrupt=2), accumulation=2, out=tmp_path / "a"
    )
    assert (first.step, first.stopped) == (3, True)
    resumed, second = fit(Toy(dropout=0.3), accumulation=2, out=tmp_path / "a")
    assert (second.step, second.stopped) == (5, False)
    assert same(weights(whole), weights(resumed)) and not same(weights(method), weights(resumed))
    assert [line["loss"] for line in second.history] == [line["loss"] for line in once.history]


def test_a_finished_run_is_read_not_trained(tmp_path):
    method, first = fit(out=tmp_path)
    again, second = fit(Toy(), ToySource(interrupt=0), out=tmp_path)
    assert same(weights(method), weights(again)) and second == first


def test_resuming_with_other_settings_names_them(tmp_path):
    run_info = {"method": {"mask_ratio": 0.75, "encoder": {"depth": 2}}, "train": {"keep": 1}}
    fit(out=tmp_path, run_info=run_info)
    changed = {"method": {"mask_ratio": 0.9, "encoder": {}}, "train": {"keep": 2}}
    with pytest.raises(CheckpointError) as caught:
        fit(out=tmp_path, run_info=changed, base_rate=0.2)
    message = str(caught.value)
    for name in (
        "run.method.mask_ratio: 0.75 stored, 0.9 now",
        "run.method.encoder.depth: 2 stored, 'absent' now",
        "train.base_rate: 0.3 stored, 0.2 now",
    ):
        assert name in message
    assert "keep" not in message and "new output folder" in message
    free = {"log_every": 3, "save_every": 2, "evaluate_every": 1, "keep": 1, "threads": 1}
    _, summary = fit(out=tmp_path, run_info=run_info, **free)
    assert summary.step == 5
    with pytest.raises(TypeError, match="run_info holds a Tensor; expected plain values"):
        fit(run_info={"weights": torch.zeros(1)})


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    class Bigger(Toy):
        def __init__(self):
            super().__init__()
            self.register_buffer("extra", torch.zeros(1))

    class Other(Toy):
        def __init__(self):
            super().__init__()
            self.decoder2 = self.decoder
            del self.decoder

    fit(out=tmp_path)
    with pytest.raises(CheckpointError, match="step_00000005.pt does not fit .*extra"):
        fit(Bigger(), out=tmp_path)
    with pytest.raises(CheckpointError, match="'decoder.weight' stored, 'decoder2.weight' here"):
        fit(Other(), out=tmp_path)


def test_a_broken_newest_checkpoint_costs_only_its_steps(tmp_path):
    whole, _ = fit(save_every=2, out=tmp_path)
    list_checkpoints(tmp_path)[0].write_bytes(b"PK broken")
    with pytest.warns(UserWarning, match="step_00000005.pt .* continuing from .*step_00000004.pt"):
        resumed, summary = fit(save_every=2, out=tmp_path)
    assert same(weights(whole), weights(resumed))
    assert [line["step"] for line in summary.history] == [1, 2, 3, 4, 5]


def test_save_and_keep(tmp_path):
    fit(steps=7, save_every=2, keep=3, out=tmp_path / "new" / "folder")
    names = [path.name for path in list_checkpoints(tmp_path / "new" / "folder")]
    assert names == [f"step_0000000{step}.pt" for step in (7, 6, 4)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_finishes_the_step_saves_and_leaves_no_trace(tmp_path, number):
    class Stopping(ToySource):
        def happen(self, step):
            if step == 1:
                signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    method = Toy().eval()
    state = torch.get_rng_state()
    _, summary = fit(method, Stopping(), out=tmp_path, log_every=4)
    assert summary.stopped and summary.step == 2
    assert load_checkpoint(list_checkpoints(tmp_path)[0])["step"] == 2
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert torch.equal(state, torch.get_rng_state())
    assert not method.training


def test_a_second_interrupt_is_not_waited_for():
    class Impatient(ToySource):
        def happen(self, step):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(source=Impatient())


def test_a_forked_data_worker_still_dies_of_a_signal():
    with StopSignal() as stop:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM and not stop.asked


def test_fitting_again_goes_on_where_the_trainer_is():
    whole, once = fit()
    method = Toy()
    trainer = Trainer(method, ToySource(interrupt=1), config(), progress=False)
    assert trainer.fit().step == 2
    trainer.source = ToySource()
    summary = trainer.fit()
    assert same(weights(whole), weights(method)) and summary.step == 5
    assert [line["loss"] for line in summary.history] == [line["loss"] for line in once.history]
    assert trainer.fit().step == 5


def test_after_a_full_disk_the_same_trainer_loses_nothing(tmp_path, monkeypatch):
    whole, _ = fit()
    method = Toy()
    trainer = Trainer(method, ToySource(), config(save_every=2), out=tmp_path, progress=False)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(OSError, match="could not save .*step_00000002.pt: .*No space left"):
        trainer.fit()
    monkeypatch.undo()
    trainer.save()
    assert load_checkpoint(list_checkpoints(tmp_path)[0])["step"] == 2
    assert trainer.fit().step == 5
    assert same(weights(whole), weights(method))


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    def full(record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "json", SimpleNamespace(dumps=full))
    with pytest.warns(UserWarning, match="could not write to .*log.jsonl: .*No space left"):
        _, summary = fit(out=tmp_path)
    assert summary.step == 5 and len(summary.history) == 5
    assert load_checkpoint(list_checkpoints(tmp_path)[0])["step"] == 5


def test_training_in_a_thread_works_without_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(fit()[1]))
    thread.start()
    thread.join()
    assert results[0].step == 5


# -------------------------------------------------------------------------------------- accidents


def test_a_non_finite_loss_names_its_step_and_the_last_good_checkpoint(tmp_path):
    source = ToySource(nan=4)
    with pytest.raises(FloatingPointError) as caught:
        fit(source=source, steps=20, save_every=2, log_every=100, out=tmp_path)
    assert "the loss of step 5 is not finite" in str(caught.value)
    assert f"last good checkpoint: {tmp_path / 'step_00000004.pt'}" in str(caught.value)
    newest = list_checkpoints(tmp_path)[0]
    assert newest.name == "step_00000004.pt"
    assert all(t.isfinite().all() for t in load_checkpoint(newest)["model"].values())
    with pytest.raises(FloatingPointError, match="step 5 .* last good checkpoint: none"):
        fit(source=source, steps=20, log_every=3)


def test_a_non_finite_gradient_is_not_saved_either(tmp_path):
    class Explodes(Toy):
        """The loss is finite, its gradient is not."""

        def forward(self, views):
            output = super().forward(views)
            zero = (self.decoder.bias - self.decoder.bias.detach()).abs().sum()
            return output._replace(loss=output.loss + torch.sqrt(zero))

    with pytest.raises(FloatingPointError, match="a weight or moment is not finite"):
        fit(Explodes(), out=tmp_path, steps=1)
    assert list_checkpoints(tmp_path) == []


def test_no_step_waits_for_the_device(monkeypatch):
    """Between log lines nothing is read back: `.item()` and its kin are counted."""
    reads = []

    def counting(name, real):
        def read(tensor, *args):
            reads.append(name)
            return real(tensor, *args)

        return read

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name)))
    trainer = Trainer(Toy(), ToySource(), config(clip_norm=1.0, accumulation=2), progress=False)
    batches = ToySource().batches(0, 8, 0)
    trainer.train_step(next(batches), 0)  # the first step also counts FLOPs
    batch = next(batches)
    reads.clear()
    values, _ = trainer.train_step(batch, 1)
    trainer.meter.add(values)
    assert reads == []
    trainer.read_meter(1, 1e9)
    assert reads == ["tolist"]


def test_sources_that_break_their_contract():
    class Ends(ToySource):
        def batches(self, *args):
            return (batch for batch, _ in zip(super().batches(*args), range(2)))

    class Short(ToySource):
        def batches(self, start, batch_size, *args):
            return super().batches(start, batch_size - 1, *args)

    with pytest.raises(ValueError, match="the source ended before batch 2"):
        fit(source=Ends())
    with pytest.raises(ValueError, match="batch 0 has 7 images; expected batch_size = 8"):
        fit(source=Short())


def test_an_output_folder_that_cannot_be_made_stops_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to the output folder"):
        Trainer(Toy(), ToySource(), config(), out=tmp_path / "file" / "run")


# ------------------------------------------------------------------------------------ what is told


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
