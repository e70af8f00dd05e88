"""How a run ends and goes on: exactly, or with a clear error."""

import errno
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from training_toys import Toy, ToySource, config, fit, same, weights

from mimlib.training import checkpoint, log
from mimlib.training.checkpoint import CheckpointError, list_checkpoints, load_checkpoint
from mimlib.training.signals import StopSignal
from mimlib.training.trainer import Trainer


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


def test_the_parts_of_a_mixture_are_compared_one_by_one(tmp_path):
    def info(root="a", repeats=4):
        parts = [{"pairs": {"root": "x"}, "repeats": 1}, {"pairs": {"root": "y"}}]
        parts[1]["repeats"] = repeats
        return {"data": {"root": root, "parts": parts}}

    fit(out=tmp_path, run_info=info())
    fit(out=tmp_path, run_info=info(root="b"))
    with pytest.raises(CheckpointError, match=r"run.data.parts.1.repeats: 4 stored, 5 now\)"):
        fit(out=tmp_path, run_info=info(repeats=5))


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


def test_a_log_torn_by_a_power_cut_is_taken_up_where_it_can_be_read(tmp_path):
    fit(out=tmp_path, steps=5, save_every=3)
    path = tmp_path / "log.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0] + b"\x00\xff\x00\n" + b"7\n" + b"null\n" + whole[1] + whole[2][:9])
    assert [line["step"] for line in log.read_lines(path, 3)] == [1, 2]


class Grown(ToySource):
    """The same settings, and the images of a folder to which some were added."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def identity(self):
        return f"{self.count} images, abc"


def test_a_run_goes_on_only_with_the_images_it_began_with(tmp_path):
    fit(source=Grown(20), out=tmp_path, steps=5, save_every=3)
    list_checkpoints(tmp_path)[0].unlink()  # killed after step 3
    with pytest.raises(
        CheckpointError, match="images: '20 images, abc' stored, '27 images, abc' now"
    ):
        fit(source=Grown(27), out=tmp_path, steps=5)
    assert fit(source=Grown(20), out=tmp_path, steps=5)[1].step == 5


def test_a_run_goes_on_only_in_the_number_type_it_began_in(tmp_path):
    fit(out=tmp_path, steps=5, save_every=3, precision="auto")
    stored = load_checkpoint(list_checkpoints(tmp_path)[0])["config"]["train"]["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[stored]
    with pytest.raises(CheckpointError, match=f"precision: '{stored}' stored, '{other}' now"):
        fit(out=tmp_path, steps=5, precision=other)
    assert fit(out=tmp_path, steps=5, precision=stored)[1].step == 5


def test_training_in_a_thread_works_without_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(fit()[1]))
    thread.start()
    thread.join()
    assert results[0].step == 5
