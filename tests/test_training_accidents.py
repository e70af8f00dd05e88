"""What goes wrong in training, and what is lost: nothing that was good."""

import pytest
import torch
from training_toys import Toy, ToySource, config, fit

from mimlib.training.checkpoint import list_checkpoints, load_checkpoint
from mimlib.training.trainer import Trainer


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
    trainer.read_meter(1e9)
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


def test_a_failing_evaluation_loses_no_training(tmp_path):
    class Evaluation:
        """Fails the first time."""

        name, calls = "probe", 0

        def run(self, model, device):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("no data")
            return {"accuracy": 0.5}

    evaluation = Evaluation()
    with pytest.raises(RuntimeError, match="no data"):
        fit(evaluations=(evaluation,), out=tmp_path, steps=3)
    (kept,) = list_checkpoints(tmp_path)
    assert kept.name == "step_00000003.pt"
    summary = fit(evaluations=(evaluation,), out=tmp_path, steps=3)[-1]
    assert summary.history[-1] == {"step": 3, "probe/accuracy": 0.5}
