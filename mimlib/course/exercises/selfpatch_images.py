"""Exercises of lesson 04 about images: what the teacher teaches, and who is compared to whom."""

import itertools
from functools import partial

import torch

from mimlib.course.exercises.exercise import Exercise
from mimlib.methods.objectives.distillation import (
    Distillation,
    DistillationConfig,
    mean_over_other_crops,
)


def _objective(prototypes, **temperatures: float):
    config = DistillationConfig(prototypes=prototypes, hidden=1, bottleneck=1, **temperatures)
    return config.build()


def _targets(logits, center, temperature):
    """Logits [B, G] less the centre [G], by the temperature, as probabilities."""
    objective = _objective(logits.shape[-1], teacher_temperature=temperature)
    objective.center.copy_(center)
    return objective.sharpen(logits)


def _target_cases():
    draw = torch.Generator().manual_seed(11)
    logits, center = torch.tensor([[0.3, 0.1, -0.2]]), torch.tensor([0.2, 0.0, 0.0])
    many = torch.randn(4, 6, generator=draw).tanh(), torch.randn(6, generator=draw).tanh()
    return (logits, center, 0.1), (*many, 0.5)


def _taught(logits, center, temperature, before=1.0, after=0.0, axis=-1, power=1):
    says = (logits - before * center) / temperature**power - after * center
    return says.softmax(dim=axis)


TARGETS = Exercise(
    name="selfpatch.1",
    answer=_targets,
    source=Distillation.sharpen,
    cases=_target_cases,
    wrong={
        partial(_taught, before=0.0): "the centre is missing: without it one class always wins",
        partial(_taught, before=0.0, after=1.0): "take the centre away before you divide",
        partial(_taught, before=-1.0): "the centre is taken away: added it would feed the winner",
        partial(_taught, power=-1): "divide by the temperature: a low one makes the teacher surer",
        partial(_taught, axis=0): "the softmax runs over prototypes, the last axis, not images",
    },
    hints=("centre first, then the temperature", "((logits - centre) / temperature).softmax(-1)"),
)


def _image_loss(student, targets, temperature):
    """Mean of H(target q, student v) over images and all q != v; the first v are the q."""
    losses = _objective(student.shape[-1]).cross_entropies(student / temperature, targets)
    return mean_over_other_crops(losses.mean(dim=-1))


def _loss_cases():
    draw = torch.Generator().manual_seed(12)

    def _case(crops, teachers, batch, prototypes):
        student = torch.randn(crops, batch, prototypes, generator=draw).tanh()
        targets = torch.randn(teachers, batch, prototypes, generator=draw).softmax(dim=-1)
        return student, targets

    return (*_case(2, 1, 1, 3), 1.0), (*_case(5, 2, 4, 6), 0.1)


def _others(q, v, teachers):
    return q != v


def _mean(student, targets, temperature, pairs=_others, over=(1, 0), power=1, turned=False):
    says = student / temperature**power
    terms = -(targets[:, None] * says.log_softmax(dim=-1)).sum(dim=-1)  # [Q, V, B]
    if turned:
        terms = -(says.softmax(dim=-1) * targets[:, None].log()).sum(dim=-1)
    every = itertools.product(range(len(targets)), range(len(says)))
    chosen = [terms[q, v].mean() for q, v in every if pairs(q, v, len(targets))]
    return sum(chosen) / (len(chosen) ** over[0] * says.shape[-1] ** over[1])


IMAGE_LOSS = Exercise(
    name="selfpatch.2",
    answer=_image_loss,
    source=mean_over_other_crops,
    cases=_loss_cases,
    wrong={
        partial(_mean, pairs=lambda *given: True): "a crop does not teach itself: skip v == q",
        partial(_mean, pairs=lambda q, v, teachers: v >= teachers): "the other global crop is "
        "taught, too: with two teachers and five crops there are eight pairs",
        partial(_mean, over=(0, 0)): "the mean over pairs, not their sum: divide by their number",
        partial(_mean, power=0): "the student has a temperature, too: divide its logits by it "
        "before the softmax",
        partial(_mean, turned=True): "H(p, q) = - sum p log q, with the teacher's probabilities "
        "outside the logarithm",
        partial(_mean, over=(1, 1)): "sum over the prototypes; the mean is over images and pairs",
    },
    hints=(
        "two loops, over q and over v, and skip v == q",
        "-(targets[q] * (student[v] / temperature).log_softmax(-1)).sum(-1).mean() for each pair",
    ),
)
