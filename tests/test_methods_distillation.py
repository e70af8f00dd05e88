"""DINO's objective, against loops written from the paper."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from mimlib.layers.projection import PrototypeHead
from mimlib.methods.objectives import distillation
from mimlib.methods.objectives.distillation import DistillationConfig

CONFIG = DistillationConfig(prototypes=10, hidden=8, bottleneck=6)


def make(seed=0):
    torch.manual_seed(seed)
    objective = CONFIG.build()
    objective.center.copy_(torch.randn(10) / 10)
    heads = CONFIG.build_head(5, True), CONFIG.build_head(5, False)
    for head in heads:
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return objective, heads


def entropy(objective, student, teacher):
    """H of one pair of logits, from the definition."""
    target = F.softmax((teacher - objective.center) / 0.04, dim=-1)
    return -(target * F.log_softmax(student / 0.1, dim=-1)).sum()


def test_between_crops_is_the_papers_sum():
    objective, heads = make()
    student, teacher = torch.randn(2, 5, 3, 5).unbind()  # V = 5, B = 3
    loss, mean = objective.between_crops(heads, student, teacher, 2)
    terms = [
        entropy(objective, heads[0](student[v, b]), heads[1](teacher[q, b]))
        for b in range(3) for q in range(2) for v in range(5) if v != q
    ]  # fmt: skip
    assert len(terms) == 3 * 8
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    torch.testing.assert_close(mean, heads[1](teacher).mean((0, 1)))


def test_within_crops_every_crop_weighs_the_same():
    objective, heads = make()
    student = [torch.randn(2, 3, 9, 5), torch.randn(4, 3, 4, 5)]
    teacher = [torch.randn_like(part) for part in student]
    loss, mean = objective.within_crops(heads, student, teacher)
    crops = []
    for ours, theirs in zip(student, teacher):
        for v in range(len(ours)):
            terms = [
                entropy(objective, heads[0](ours[v, b, n]), heads[1](theirs[v, b, n]))
                for b in range(3) for n in range(ours.shape[2])
            ]  # fmt: skip
            crops.append(torch.stack(terms).mean())
    torch.testing.assert_close(loss, torch.stack(crops).mean())
    rows = torch.cat([heads[1](part).flatten(0, 2) for part in teacher])
    torch.testing.assert_close(mean, rows.mean(0))


def test_centred_by_its_crop_a_patch_says_how_it_differs():
    objective, heads = make()
    objective = replace(CONFIG, center="crop").build()
    student = [torch.randn(2, 3, 9, 5), torch.randn(4, 3, 4, 5)]
    teacher = [torch.randn_like(part) for part in student]
    loss, mean = objective.within_crops(heads, student, teacher)
    crops = []
    for ours, theirs in zip(student, teacher):
        logits = heads[1](theirs)
        logits = logits - logits.mean(dim=2, keepdim=True)
        terms = [
            entropy(objective, said, wanted)
            for said, wanted in zip(heads[0](ours).flatten(0, 2), logits.flatten(0, 2))
        ]
        crops.append(torch.stack(terms).mean() * len(ours))
    torch.testing.assert_close(loss, torch.stack(crops).sum() / 6)
    objective.update_center(mean)
    torch.testing.assert_close(objective.center, torch.zeros(10), atol=1e-6, rtol=0)


def test_a_code_of_the_crop_satisfies_a_run_and_not_a_crop():
    """All patches of a crop alike, every crop different: what patches must not be content with."""
    _, heads = make()
    codes = torch.randn(2, 3, 1, 5).expand(-1, -1, 9, -1)  # [V, B, N, D]
    per_run, per_crop = (replace(CONFIG, center=name).build() for name in ("run", "crop"))
    targets = []
    for objective in (per_run, per_crop):
        objective.cross_entropies = lambda said, target: (
            targets.append(target) or said.sum(-1)[None]
        )
        objective.within_crops(heads, [codes], [codes])
    surest_run, surest_crop = (target.max(dim=-1).values for target in targets)
    assert surest_run.mean() > 0.9
    torch.testing.assert_close(surest_crop, torch.full_like(surest_crop, 0.1))


def test_the_centre_follows_the_mean():
    objective, _ = make()
    before, mean = objective.center.clone(), torch.randn(10)
    objective.update_center(mean)
    torch.testing.assert_close(objective.center, 0.9 * before + 0.1 * mean)


def test_a_center_is_found_by_its_former_name():
    stored, objective = torch.randn(10), CONFIG.build()
    nn.ModuleDict({"image": objective}).load_state_dict({"image.centre": stored})
    assert torch.equal(objective.center, stored) and [*objective.state_dict()] == ["center"]


def test_exact_cases():
    """One certain target; a student as unsure as can be."""
    objective = CONFIG.build()
    certain = torch.zeros(1, 10)
    certain[0, 3] = 1e3
    targets = objective.sharpen(certain)[None]
    torch.testing.assert_close(targets[0], F.one_hot(torch.tensor([3]), 10).float())
    equal = objective.cross_entropies(torch.zeros(1, 10), targets)
    torch.testing.assert_close(equal, torch.full((1, 1), 10.0).log())
    agreed = objective.cross_entropies(certain, targets)
    torch.testing.assert_close(agreed, torch.zeros(1, 1))


def test_a_uniform_teacher_teaches_nothing_but_to_be_uniform():
    objective = CONFIG.build()
    student = torch.randn(4, 10, requires_grad=True)
    targets = objective.sharpen(torch.zeros(4, 10))[None]
    objective.cross_entropies(student * 0, targets).mean().backward()
    torch.testing.assert_close(student.grad, torch.zeros(4, 10))


def test_without_centring_the_centre_stays():
    torch.manual_seed(0)
    objective = DistillationConfig(prototypes=10, center_momentum=1.0).build()
    objective.update_center(torch.randn(10))
    assert not objective.center.any()


def test_no_gradient_reaches_the_teacher():
    objective, heads = make()
    heads[1].requires_grad_(False)
    student, teacher = torch.randn(2, 4, 2, 5).unbind()
    student.requires_grad_()
    objective.between_crops(heads, student, teacher, 2)[0].backward()
    assert student.grad.abs().max() > 0
    assert all(p.grad is not None for p in heads[0].parameters())
    assert isinstance(heads[1], PrototypeHead) and heads[1].last_layer.weight.grad is None


@pytest.mark.parametrize("changes,message", [
    ({"prototypes": 0}, "prototypes is 0"),
    ({"teacher_temperature": 0.0}, "teacher_temperature is 0.0"),
    ({"center_momentum": 1.1}, "center_momentum is 1.1; expected 0 <= center_momentum <= 1"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(**changes)


def test_many_rows_are_compared_some_at_a_time_with_the_same_numbers(monkeypatch):
    objective, heads = make()
    student = [torch.randn(2, 3, 9, 5, requires_grad=True)]
    teacher = [torch.randn(2, 3, 9, 5)]

    def run():
        loss, mean = objective.within_crops(heads, student, teacher)
        weights = [student[0], *heads[0].parameters()]
        return [loss.detach(), mean.detach(), *torch.autograd.grad(loss, weights)]

    whole = run()
    monkeypatch.setattr(distillation, "ROWS_AT_ONCE", 7)
    for ours, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, expected)


def test_of_many_rows_nothing_as_wide_as_the_prototypes_is_kept(monkeypatch):
    objective, heads = make()
    heads[1].requires_grad_(False)
    student, teacher = [torch.randn(2, 3, 9, 5)], [torch.randn(2, 3, 9, 5)]
    monkeypatch.setattr(distillation, "ROWS_AT_ONCE", 7)
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        objective.within_crops(heads, student, teacher)
    assert kept and not any(len(shape) == 2 and shape[-1] == 10 for shape in kept)
