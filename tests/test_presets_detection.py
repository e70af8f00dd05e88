"""The runs of detection: recipes as published, encoders that fit, trained, stopped and resumed."""

import pytest
import torch

from mimlib.presets import preset
from mimlib.presets.run import override
from mimlib.runs import show
from mimlib.runs.build import build
from mimlib.training.checkpoint import latest_checkpoint
from mimlib.training.trainer import Trainer


@pytest.mark.parametrize("name", ["detection_convmaeb_coco", "detection_vitb16_coco"])
def test_coco_is_trained_as_mimdet_does(name):
    run = preset(name)
    with torch.device("meta"):
        method = run.method.build()
    assert run.train.peak_rate(8) == pytest.approx(8e-5) and run.train.batch_size * 8 == 32
    epochs = 25 if "convmae" in name else 100
    assert run.train.steps == {25: 92_187, 100: 368_750}[epochs]
    assert run.train.warmup_steps / (run.train.steps / epochs) == pytest.approx(0.125, abs=1e-3)
    assert (run.train.weight_decay, run.train.layer_decay, run.train.min_rate) == (0.1, 1, 0)
    assert run.data.size == 1024 and run.data.scale == (0.1, 2.0) and run.data.skip_empty
    assert not run.evaluations[0].source.skip_empty
    windows = method.encoder.windows
    assert windows.window_bias.table.shape == (12, 31, 31)
    assert windows.global_bias.table.shape == (12, 127, 127)
    assert sum(windows.is_global) == 4
    assert method.encoder.pos_embed.shape == (1, 64 * 64, 768)
    assert not isinstance(method.encoder.pos_embed, torch.nn.Parameter), "resized and frozen"


@pytest.mark.parametrize("kind,pretraining", [("", "mae"), ("_convmae", "convmae")])
def test_sizes_differ_in_scale_and_take_pretrained_encoders(kind, pretraining):
    runs = [preset(f"detection{kind}_{size}") for size in ("tiny", "lesson", "gpu")]
    assert runs[0].train.steps < runs[1].train.steps < runs[2].train.steps
    for run, size in zip(runs, ("tiny", "lesson", "gpu")):
        with torch.device("meta"):
            task, method = (r.method.build() for r in (run, preset(f"{pretraining}_{size}")))
        ours, theirs = (
            {n: t.shape for n, t in each.encoder.state_dict().items()} for each in (task, method)
        )
        assert ours == theirs
        held_out = run.evaluations[0].source
        assert held_out.seed != run.data.seed and held_out.size == run.data.size


@pytest.mark.parametrize("name", ["detection_tiny", "detection_convmae_lesson"])
def test_what_is_shown_of_a_run(name):
    text = show.describe(preset(name))
    assert "parameters in head" in text and "of the encoder alone" in text


def train(run, out):
    """Train a run and return its log and its weights."""
    method, source, evaluations = build(run)
    trainer = Trainer(method, source, run.train, evaluations, out=out, progress=False)
    return trainer.fit().history, method.state_dict()


def test_a_run_starts_from_a_pretrained_encoder_and_resumes_bit_for_bit(tmp_path, recwarn):
    stored = preset("convmae_tiny").method.build()
    torch.save({"model": stored.state_dict()}, tmp_path / "convmae.pt")
    run = override(
        preset("detection_convmae_tiny"),
        {"pretrained": str(tmp_path / "convmae.pt"), "train.save_every": 2, "train.log_every": 1},
    )
    stage = "blocks3.0.attn.qkv.weight"
    begun = build(run)[0].encoder.state_dict()
    assert torch.equal(begun[stage], stored.encoder.state_dict()[stage])
    history, whole = train(run, tmp_path / "run")
    assert {"held_out/box_ap", "held_out/mask_ap"} <= set(history[-1])
    assert not torch.equal(whole["encoder." + stage], begun[stage])
    latest_checkpoint(tmp_path / "run").unlink()  # as if the run had been killed after 2 steps
    again, resumed = train(run, tmp_path / "run")
    assert [line["loss"] for line in again] == [line["loss"] for line in history]
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert not [w for w in recwarn if "not counted" in str(w.message)]
