"""Exercises of lesson 03 about pairs: which patches are hidden, how much two views share."""

import torch
from torch import Tensor

from mimlib.course.exercises.exercise import Exercise, Wrong
from mimlib.data.pairs.covisibility import Cloud, covisibility
from mimlib.layers.masking import as_bool, mask_from_noise
from mimlib.methods.croco import CroCo

RADIUS = 0.05  # metres


def _hidden(noise: Tensor, mask_ratio: float) -> Tensor:
    num_masked = int(noise.shape[1] * mask_ratio)
    return as_bool(mask_from_noise(-noise.argsort(dim=1), num_masked))


def _hidden_cases() -> tuple[tuple, ...]:
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    large = torch.rand(2, 196, generator=torch.Generator().manual_seed(0))
    return (
        (torch.tensor([[0.3, 0.1, 0.2]]), 0.34),
        (torch.tensor([[0.9, 0.5, 0.1, 0.3]]), 0.5),
        (noise, 0.8),
        (large, 0.9),
    )


def _by_value(noise: Tensor, count: int) -> Tensor:
    return noise.argsort(dim=1) < count


def _rounded_as_mae(noise: Tensor, mask_ratio: float) -> Tensor:
    num_patches = noise.shape[1]
    return _by_value(noise, num_patches - int(num_patches * (1 - mask_ratio)))


def _rounded(noise: Tensor, mask_ratio: float) -> Tensor:
    return _by_value(noise, round(noise.shape[1] * mask_ratio))


def _by_rank(noise: Tensor, mask_ratio: float) -> Tensor:
    return noise.argsort(dim=1).argsort(dim=1) < int(noise.shape[1] * mask_ratio)


def _shown(noise: Tensor, mask_ratio: float) -> Tensor:
    return ~_hidden(noise, mask_ratio)


def _by_threshold(noise: Tensor, mask_ratio: float) -> Tensor:
    return noise < mask_ratio


HIDDEN = Exercise(
    name="croco.1",
    task="From noise [B, N] and a ratio tell which patches are hidden, [B, N] bool, as CroCo's "
    "code does: the slots at which argsort holds a number below floor(ratio N).",
    minutes=10,
    difficulty=1,
    answer=_hidden,
    source=CroCo.sample_views,
    cases=_hidden_cases,
    wrong=(
        Wrong(
            answer=_rounded_as_mae,
            hint="MAE rounds what stays visible, CroCo what is hidden: int(196 * 0.9) = 176, "
            "while MAE would hide 177",
        ),
        Wrong(
            answer=_rounded,
            hint="the count is rounded down, not to the nearest: int(16 * 0.8) = 12",
        ),
        Wrong(
            answer=_by_rank,
            hint="those are ranks (argsort of argsort): masks are as random, but not the ones "
            "that the official code draws from this noise. Compare argsort itself with the count",
        ),
        Wrong(answer=_shown, hint="True should mean hidden: you mark what stays visible"),
        Wrong(
            answer=_by_threshold,
            hint="that hides another number of patches in every image; a batch needs equal counts",
        ),
    ),
    hints=(
        "noise.argsort(dim=1) is a permutation of 0 ... N - 1 in each row",
        "noise.argsort(dim=1) < int(N * mask_ratio)",
    ),
)


def _share(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    clouds = (Cloud(points.numpy(), num_pixels) for points in (points_1, points_2))
    return covisibility(*clouds)


def _share_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(3)
    line = torch.tensor([[0.0, 0.0, 1.0], [0.02, 0.0, 1.0], [0.5, 0.0, 1.0]])
    crowd = 0.3 * torch.rand(40, 3, generator=draw), 0.3 * torch.rand(25, 3, generator=draw)
    return (
        (line, line, 3),
        (line, line[:1], 4),
        (line[:1], line, 4),
        (*crowd, 50),
    )


def _near(points_1: Tensor, points_2: Tensor, radius: float = RADIUS) -> tuple[float, float]:
    near = torch.cdist(points_1.double(), points_2.double()) < radius
    return near.any(dim=1).sum().item(), near.any(dim=0).sum().item()


def _mean_share(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    return sum(_near(points_1, points_2)) / (2 * num_pixels)


def _larger_share(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    return max(_near(points_1, points_2)) / num_pixels


def _one_way(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    return _near(points_1, points_2)[0] / num_pixels


def _of_points(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    there, back = _near(points_1, points_2)
    return min(there / len(points_1), back / len(points_2))


def _of_couples(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    near = torch.cdist(points_1.double(), points_2.double()) < RADIUS
    return near.sum().item() / num_pixels


def _in_centimetres(points_1: Tensor, points_2: Tensor, num_pixels: int) -> float:
    return min(_near(points_1, points_2, radius=5.0)) / num_pixels


SHARE = Exercise(
    name="croco.2",
    task="From two clouds of points in metres and the number of pixels of an image return the "
    "co-visibility: the lesser share of pixels whose point has one of the other view within 5 cm.",
    minutes=10,
    difficulty=2,
    answer=_share,
    source=covisibility,
    cases=_share_cases,
    wrong=(
        Wrong(
            answer=_mean_share,
            hint="the lesser of both ways counts, not their mean: a close-up sees all of its own "
            "points in the wide view, which sees little of its own in the close-up",
        ),
        Wrong(answer=_larger_share, hint="take the lesser of the two counts, not the larger"),
        Wrong(
            answer=_one_way,
            hint="that is one way only, and changes when the views are exchanged; count the other "
            "way, too, and take the lesser",
        ),
        Wrong(
            answer=_of_points,
            hint="divide by the pixels of the image, not by the points: pixels without depth "
            "should count against a pair",
        ),
        Wrong(
            answer=_of_couples,
            hint="you count couples of points; count each point once: .any() before .sum()",
        ),
        Wrong(answer=_in_centimetres, hint="points are in metres: 5 cm are 0.05"),
    ),
    hints=(
        "torch.cdist gives all distances [K1, K2]; a point is seen if any of its row is below 0.05",
        "near = cdist < 0.05; min(near.any(1).sum(), near.any(0).sum()) / num_pixels",
    ),
    tolerance=1e-6,
)

EXERCISES = (HIDDEN, SHARE)
