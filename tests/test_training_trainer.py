"""One process: what a step of the trainer is."""

import math

import pytest
import torch
from training_toys import Toy, ToySource, config, fit, same, weights

from mimlib.training import reading
from mimlib.training.checkpoint import list_checkpoints, load_checkpoint
from mimlib.training.trainer import Trainer


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


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_whole(parts, uneven):
    """Also where the parts have unequally many values that count."""
    whole, first = fit(Toy("index", uneven=uneven))
    halves, second = fit(Toy("index", uneven=uneven), accumulation=parts)
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
