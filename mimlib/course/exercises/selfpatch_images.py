"""Exercises of lesson 04 about images: what the teacher teaches, and who is compared to whom."""

import torch
from torch import Tensor

from mimlib.course.exercises.exercise import Exercise, Wrong
from mimlib.methods.objectives.distillation import (
    Distillation,
    DistillationConfig,
    mean_over_other_crops,
)


def _objective(prototypes: int, **temperatures: float) -> Distillation:
    config = DistillationConfig(prototypes=prototypes, hidden=1, bottleneck=1, **temperatures)
    return config.build()


def _targets(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    objective = _objective(logits.shape[-1], teacher_temperature=temperature)
    objective.centre.copy_(centre)
    return objective.sharpen(logits)


def _target_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(11)
    logits, centre = torch.tensor([[0.3, 0.1, -0.2]]), torch.tensor([0.2, 0.0, 0.0])
    many = torch.randn(4, 6, generator=draw).tanh(), torch.randn(6, generator=draw).tanh()
    return (logits, centre, 0.1), (*many, 0.5)


def _not_centred(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(dim=-1)


def _centred_late(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    return (logits / temperature - centre).softmax(dim=-1)


def _added(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    return ((logits + centre) / temperature).softmax(dim=-1)


def _flattened(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    return ((logits - centre) * temperature).softmax(dim=-1)


def _over_images(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    return ((logits - centre) / temperature).softmax(dim=0)


TARGETS = Exercise(
    name="selfpatch.1",
    task="Turn the teacher's logits [B, G] into what it teaches: take the centre [G] away, divide "
    "by the temperature, make probabilities.",
    minutes=5,
    difficulty=1,
    answer=_targets,
    source=Distillation.sharpen,
    cases=_target_cases,
    wrong=(
        Wrong(
            answer=_not_centred,
            hint="the centre is missing: without it one class wins for every image",
        ),
        Wrong(
            answer=_centred_late,
            hint="the centre is a mean of logits: take it away before you divide",
        ),
        Wrong(
            answer=_added, hint="the centre is taken away, not added: that would feed the winner"
        ),
        Wrong(
            answer=_flattened,
            hint="divide by the temperature: a low one must make the teacher surer, not less sure",
        ),
        Wrong(
            answer=_over_images,
            hint="the softmax runs over the prototypes, the last axis, not over the images",
        ),
    ),
    hints=("centre first, then the temperature", "((logits - centre) / temperature).softmax(-1)"),
    tolerance=1e-6,
)


def _image_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    losses = _objective(student.shape[-1]).cross_entropies(student / temperature, targets)
    return mean_over_other_crops(losses.mean(dim=-1))


def _loss_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(12)

    def _case(crops: int, teachers: int, batch: int, prototypes: int) -> tuple[Tensor, Tensor]:
        student = torch.randn(crops, batch, prototypes, generator=draw).tanh()
        targets = torch.randn(teachers, batch, prototypes, generator=draw).softmax(dim=-1)
        return student, targets

    return (*_case(2, 1, 1, 3), 1.0), (*_case(5, 2, 4, 6), 0.1)


def _terms(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Every pair: [Q, V, B]."""
    says = (student / temperature).log_softmax(dim=-1)
    return -(targets[:, None] * says).sum(dim=-1)


def _others(terms: Tensor) -> Tensor:
    pairs = [terms[q, v].mean() for q in range(len(terms)) for v in range(terms.shape[1]) if v != q]
    return torch.stack(pairs)


def _with_itself(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _terms(student, targets, temperature).mean()


def _locals_only(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _terms(student, targets, temperature)[:, len(targets) :].mean()


def _summed(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _others(_terms(student, targets, temperature)).sum()


def _at_temperature_one(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _others(_terms(student, targets, 1.0)).mean() + 0 * temperature


def _turned_around(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    says = (student / temperature).softmax(dim=-1)
    return _others(-(says * targets[:, None].log()).sum(dim=-1)).mean()


def _mean_over_classes(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _others(_terms(student, targets, temperature)).mean() / student.shape[-1]


IMAGE_LOSS = Exercise(
    name="selfpatch.2",
    task="Average H(target of crop q, student of crop v) over the images and over all pairs of "
    "a teacher's crop q and another crop v; crop q of the teacher is crop q of the student.",
    minutes=10,
    difficulty=2,
    answer=_image_loss,
    source=mean_over_other_crops,
    cases=_loss_cases,
    wrong=(
        Wrong(
            answer=_with_itself,
            hint="a crop does not teach itself: leave out the pairs with v equal to q",
        ),
        Wrong(
            answer=_locals_only,
            hint="the other global crop is taught, too: with two teachers and five crops there are "
            "eight pairs",
        ),
        Wrong(answer=_summed, hint="the mean over pairs, not their sum: divide by their number"),
        Wrong(
            answer=_at_temperature_one,
            hint="the student has a temperature, too: divide its logits by it before the softmax",
        ),
        Wrong(
            answer=_turned_around,
            hint="H(p, q) = - sum p log q, with the teacher's probabilities outside the logarithm",
        ),
        Wrong(
            answer=_mean_over_classes,
            hint="sum over the prototypes; the mean is over images and pairs",
        ),
    ),
    hints=(
        "two loops, over q and over v, and skip v == q",
        "-(targets[q] * (student[v] / temperature).log_softmax(-1)).sum(-1).mean() for each pair",
    ),
    tolerance=1e-5,
)

EXERCISES = (TARGETS, IMAGE_LOSS)
