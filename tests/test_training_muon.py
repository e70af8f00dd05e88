"""Muon: torch's own on the matrices of blocks, AdamW on the rest, many matrices at once."""

import pytest
import torch
from training_toys import Toy, ToySource, config, fit, same, weights

from mimlib.training.checkpoint import list_checkpoints
from mimlib.training.muon import Muon, orthogonalize
from mimlib.training.optimizer import build_optimizer, set_rate
from mimlib.training.trainer import Trainer

HIDDEN = ["encoder.blocks.0.weight", "encoder.blocks.1.weight"]


def with_gradients(seed=0):
    """A toy whose parameters have gradients of noise."""
    method, generator = Toy(), torch.Generator().manual_seed(seed)
    for parameter in method.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return method


def named(groups):
    """The names in groups, and whether each is hidden."""
    return {name: group["hidden"] for group in groups for name in group["names"]}


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_every_singular_value_comes_near_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    matrices[1] *= 1e-4  # the size of a matrix does not matter
    turned = orthogonalize(matrices)
    values = torch.linalg.svdvals(turned)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    for one, matrix in zip(turned, matrices):  # in a batch or alone
        torch.testing.assert_close(one, orthogonalize(matrix[None])[0])
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert float((one * (left @ right)).sum() / one.norm() / min(shape) ** 0.5) > 0.95


def test_zero_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 8)), torch.zeros(2, 4, 8))


def test_only_matrices_inside_blocks_are_hidden():
    optimizer = build_optimizer(Toy(), config(optimizer="muon"))
    assert isinstance(optimizer, Muon)
    hidden = named(optimizer.param_groups)
    assert sorted(name for name in hidden if hidden[name]) == HIDDEN
    assert hidden.keys() == {name for name, _ in Toy().named_parameters()}
    assert not any(named(build_optimizer(Toy(), config()).param_groups).values())


def test_a_step_is_that_of_torch_where_it_is_hidden_and_adamw_elsewhere():
    run = config(optimizer="muon", precision="bfloat16", weight_decay=0.1, layer_decay=0.5)
    ours, theirs = Toy(), Toy()
    optimizer = build_optimizer(ours, run)
    blocks = dict(theirs.named_parameters())
    scales = (0.5**2, 0.5)  # of layers 1 and 2 of 3
    official = [
        torch.optim.Muon(
            [blocks[name]], lr=0.01 * scale, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        )
        for name, scale in zip(HIDDEN, scales)
    ]
    adamw = build_optimizer(theirs, config(layer_decay=0.5))
    for step in range(4):
        noise = with_gradients(step)
        for method in (ours, theirs):
            for parameter, other in zip(method.parameters(), noise.parameters()):
                parameter.grad = other.grad.clone()
        set_rate(optimizer, 0.01, 0.1)
        optimizer.step()
        for each in official:
            each.step()
        for name in HIDDEN:
            blocks[name].grad = None
        set_rate(adamw, 0.01, 0.1)
        adamw.step()
    before = dict(Toy().named_parameters())
    for name, parameter in ours.named_parameters():
        if name in HIDDEN:  # theirs rounds the norm to bfloat16, too
            step, wanted = parameter - before[name], blocks[name] - before[name]
            assert float((step - wanted).detach().norm() / wanted.detach().norm()) < 0.03
        else:
            assert torch.equal(parameter, blocks[name]), name


def test_parameters_without_a_gradient_stay():
    method = with_gradients()
    method.encoder.blocks[0].weight.grad = None
    optimizer = build_optimizer(method, config(optimizer="muon"))
    before = weights(method)
    set_rate(optimizer, 0.01, 0.1)
    optimizer.step()
    moved = {name for name, tensor in weights(method).items() if not tensor.equal(before[name])}
    assert moved == {name for name, _ in method.named_parameters()} - {HIDDEN[0]}


def test_three_and_two_steps_are_five_bitwise(tmp_path):
    whole, _ = fit(optimizer="muon")
    parts = {"optimizer": "muon", "out": tmp_path, "save_every": 3}
    fit(source=ToySource(interrupt=2), **parts)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000003.pt"]
    resumed, summary = fit(**parts)
    assert summary.step == 5 and same(weights(whole), weights(resumed))


def test_it_learns_and_keeps_one_momentum_per_matrix():
    method = Toy()
    trainer = Trainer(
        method, ToySource(), config(steps=60, optimizer="muon", base_rate=0.6), progress=False
    )
    losses = [line["loss"] for line in trainer.fit().history]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
    moments = [state for state in trainer.optimizer.state.values() if "exp_avg_sq" not in state]
    assert len(moments) == len(HIDDEN)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="optimizer.*'sgd'.*adamw.*muon"):
        config(optimizer="sgd")
