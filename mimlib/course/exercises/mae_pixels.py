"""Exercises of lesson 01 about pixels: normalise, score, undo."""

from functools import partial

import torch

from mimlib.course.exercises.exercise import Exercise
from mimlib.methods.objectives.masked import TARGET_EPS, masked_mse, normalize_patches


def _normalized(patches):
    """(x - mean) / sqrt(var + 1e-6) of each patch [B, K, P*P*3], the variance unbiased."""
    return normalize_patches(patches)[0]


def _patch_cases():
    slope, flat = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.5, 0.5, 0.5]]])
    random = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(3))
    return (slope,), (flat,), (random * torch.tensor([1e-3, 1.0, 10.0])[:, None],)


def _standardized(patches, axes=(-1,), unbiased=True, inside=TARGET_EPS, outside=0.0, power=0.5):
    mean = patches.mean(dim=axes, keepdim=True)
    variance = patches.var(dim=axes, unbiased=unbiased, keepdim=True)
    return (patches - mean) / ((variance + inside) ** power + outside)


NORMALIZE = Exercise(
    name="mae.3",
    answer=_normalized,
    source=normalize_patches,
    cases=_patch_cases,
    wrong={
        partial(_standardized, unbiased=False): "the official variance is unbiased, it divides by "
        "n - 1: torch's default. With 192 numbers in a patch this is a quarter of a per cent, "
        "enough to fail parity",
        partial(_standardized, axes=(1, 2)): "the statistics belong to one patch: average over the "
        "last axis only, not over the patches of the image",
        partial(_standardized, inside=0.0): "a flat patch has variance 0: without the 1e-6 its "
        "target is not a number, and one white wall ends the training",
        partial(_standardized, inside=0.0, outside=TARGET_EPS): "the 1e-6 belongs inside the root: "
        "outside it is a thousand times weaker for flat patches",
        partial(_standardized, power=1.0): "divide by the root of the variance",
    },
    hints=("mean and var over dim -1 with keepdim=True", "(patches - mean) / (var + 1e-6).sqrt()"),
)


def _loss_cases():
    draw = torch.Generator().manual_seed(4)
    prediction, target = torch.rand(2, 3, 4, 6, generator=draw)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]], dtype=torch.bool)
    tiny = (torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), torch.zeros(1, 2, 2))
    return ((*tiny, torch.tensor([[True, False]])), (prediction, target, mask))


def _error(prediction, target):
    return (prediction - target).square().mean(dim=-1)  # [B, N]


LOSS = Exercise(
    name="mae.4",
    answer=masked_mse,
    source=masked_mse,
    cases=_loss_cases,
    wrong={
        (lambda p, t, m: (_error(p, t) * ~m).sum() / (~m).sum()): "that scores the patches the "
        "encoder has seen; copying them is no achievement. True means hidden",
        (lambda p, t, m: _error(p, t).mean()): "you score every patch: the paper lost half a point",
        (lambda p, t, m: (_error(p, t) * m).mean()): "the sum is over masked patches, so divide by "
        "their number, mask.sum(), not by all patches: your loss is too small by the mask ratio",
        (lambda p, t, m: ((_error(p, t) * m).sum(1) / m.sum(1)).mean()): "the average is over the "
        "masked patches of the whole batch; averaging image by image first gives another number "
        "when images hide different counts",
        (lambda p, t, m: (_error(p, t) * m * p.shape[-1]).sum() / m.sum()): "the error of a patch "
        "is the mean over its pixels, not a sum",
    },
    hints=(
        "first the mean squared error of every patch [B, N], then select",
        "(error * mask).sum() / mask.sum()",
    ),
)


def _undo(prediction, patches):
    """Normalised pixels -> pixels, by mean and deviation of the true patches."""
    _, mean, std = normalize_patches(patches)
    return prediction * std + mean


def _undo_cases():
    draw = torch.Generator().manual_seed(5)
    small = torch.tensor([[[-1.0, 0.0, 1.0]]]), torch.tensor([[[2.0, 4.0, 6.0]]])
    patches = torch.rand(2, 3, 12, generator=draw) * torch.tensor([1e-3, 1.0, 1.0])[:, None]
    return small, (torch.randn(2, 3, 12, generator=draw), patches)


def _undone(x, patches, way=lambda x, mean, std: x * std + mean, unbiased=True, inside=TARGET_EPS):
    mean, variance = patches.mean(-1, True), patches.var(-1, unbiased=unbiased, keepdim=True)
    return way(x, mean, (variance + inside).sqrt())


UNDO = Exercise(
    name="mae.5",
    answer=_undo,
    source=normalize_patches,
    cases=_undo_cases,
    wrong={
        partial(_undone, way=lambda x, mean, std: x + mean): "right brightness, no contrast",
        partial(_undone, way=lambda x, mean, std: (x + mean) * std): "undo in reverse order: first "
        "the division (multiply), then the subtraction (add)",
        partial(_undone, way=lambda x, mean, std: (x - mean) / std): "you normalise again: undo it",
        partial(_undone, inside=0.0): "multiply by what was divided by, (var + 1e-6).sqrt(): for "
        "an almost flat patch that is far from the deviation itself",
        partial(_undone, unbiased=False): "the variance of the division was the unbiased one",
    },
    hints=("x = normalised * std + mean, with the statistics of the true patch",),
)
