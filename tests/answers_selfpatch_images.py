"""Answers to the exercises of lesson 04 about images, right and wrong."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong


@right("selfpatch.1")
def by_softmax(logits, center, temperature):
    return F.softmax((logits - center) / temperature, dim=-1)


@right("selfpatch.1")
def by_exponentials(logits, center, temperature):
    powers = np.exp((logits.double().numpy() - center.double().numpy()) / temperature)
    return powers / powers.sum(-1, keepdims=True)


@right("selfpatch.1")
def through_logarithms_in_the_arguments(logits, center, temperature):
    return logits.sub_(center).div_(temperature).log_softmax(-1).exp_()


@right("selfpatch.1")
def in_lists(logits, center, temperature):
    rows = [[math.exp((a - c) / temperature) for a, c in zip(row, center)] for row in logits]
    return [[power / sum(row) for power in row] for row in rows]


@wrong("selfpatch.1", "the last axis, not images")
def over_images(logits, center, temperature):
    return ((logits - center) / temperature).softmax(0).tolist()


@wrong("selfpatch.1", "centre first, then the temperature")
def left_as_logarithms(logits, center, temperature):
    return ((logits - center) / temperature).log_softmax(-1)


@wrong("selfpatch.1", "take the centre away before you divide")
def centered_too_late(logits, center, temperature):
    return (logits.double() / temperature - center).softmax(-1)


@wrong("selfpatch.1", "centre first, then the temperature")
def not_a_number(logits, center, temperature):
    return by_softmax(logits, center, temperature) * torch.nan


@right("selfpatch.2")
def by_two_loops(student, targets, temperature):
    total, pairs = 0, 0
    for q in range(len(targets)):
        for v in range(len(student)):
            if v != q:
                logs = (student[v] / temperature).log_softmax(-1)
                total += -(targets[q] * logs).sum(-1).mean()
                pairs += 1
    return total / pairs


@right("selfpatch.2")
def by_cross_entropy(student, targets, temperature):
    pairs = itertools.product(range(len(targets)), range(len(student)))
    losses = [F.cross_entropy(student[v] / temperature, targets[q]) for q, v in pairs if q != v]
    return sum(losses).item() / len(losses)


@right("selfpatch.2")
def by_einsum_and_a_mask(student, targets, temperature):
    logs = F.log_softmax(student.double() / temperature, dim=-1)
    losses = -torch.einsum("qbg,vbg->qv", targets.double(), logs) / student.shape[1]
    return losses[~torch.eye(len(targets), len(student), dtype=torch.bool)].mean()


@right("selfpatch.2")
def by_numpy(student, targets, temperature):
    x = student.numpy() / temperature
    logs = x - np.log(np.exp(x).sum(-1, keepdims=True))
    losses = -(targets.numpy()[:, None] * logs).sum(-1).mean(-1)
    np.fill_diagonal(losses, 0)
    return losses.sum() / (len(targets) * (len(student) - 1))


@wrong("selfpatch.2", "a crop does not teach itself")
def all_pairs(student, targets, temperature):
    logs = (student / temperature).log_softmax(-1)
    return -(targets[:, None] * logs).sum(-1).mean().item()


@wrong("selfpatch.2", "not their sum")
def summed(student, targets, temperature):
    count = len(targets) * (len(student) - 1)
    return float(by_two_loops(student, targets, temperature)) * count


@wrong("selfpatch.2", "the student has a temperature")
def without_temperature(student, targets, temperature):
    return by_cross_entropy(student, targets, 1.0)


@wrong("selfpatch.2", "two loops, over q and over v")
def softmax_forgotten(student, targets, temperature):
    return by_two_loops(student.exp(), targets, temperature)


@wrong("selfpatch.2", "got shape [1, 2, 1], expected float")
def of_each_image(student, targets, temperature):
    return -(targets[:, None] * (student / temperature).log_softmax(-1)).sum(-1)
