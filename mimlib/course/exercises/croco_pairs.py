"""Exercises of lesson 03 about pairs: which patches are hidden, how much two views share."""

from functools import partial

import torch

from mimlib.course.exercises.exercise import Exercise
from mimlib.data.pairs.covisibility import Cloud, covisibility
from mimlib.layers.masking import as_bool, mask_from_noise
from mimlib.methods.croco import CroCo

RADIUS = 0.05  # metres


def _hidden(noise, mask_ratio):
    """Noise [B, N] -> hidden [B, N]: where argsort is below floor(ratio N), as official."""
    num_masked = int(noise.shape[1] * mask_ratio)
    return as_bool(mask_from_noise(-noise.argsort(dim=1), num_masked))


def _hidden_cases():
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    large = torch.rand(2, 196, generator=torch.Generator().manual_seed(0))
    three, four = torch.tensor([[0.3, 0.1, 0.2]]), torch.tensor([[0.9, 0.5, 0.1, 0.3]])
    return (three, 0.34), (four, 0.5), (noise, 0.8), (large, 0.9)


def _below(noise, mask_ratio, sorts=1, count=lambda n, ratio: int(n * ratio)):
    for _ in range(sorts):
        noise = noise.argsort(dim=1)
    return noise < count(noise.shape[1], mask_ratio)


HIDDEN = Exercise(
    name="croco.4",
    answer=_hidden,
    source=CroCo.sample_views,
    cases=_hidden_cases,
    wrong={
        partial(_below, count=lambda n, ratio: n - int(n * (1 - ratio))): "MAE rounds what stays "
        "visible, CroCo what is hidden: int(196 * 0.9) = 176, while MAE would hide 177",
        partial(_below, count=lambda n, ratio: round(n * ratio)): "the count is rounded down, not "
        "to the nearest: int(16 * 0.8) = 12",
        partial(_below, sorts=2): "those are ranks (argsort of argsort): as random, but not the "
        "masks of the official code, which compares argsort itself with the count",
        (lambda *given: ~_hidden(*given)): "True should mean hidden: you mark what stays visible",
        partial(_below, sorts=0, count=lambda n, ratio: ratio): "that hides another number of "
        "patches in every image; a batch needs equal counts",
    },
    hints=(
        "noise.argsort(dim=1) is a permutation of 0 ... N - 1 in each row",
        "noise.argsort(dim=1) < int(N * mask_ratio)",
    ),
)


def _share(points_1, points_2, num_pixels):
    """The lesser share of pixels whose point has one of the other view within 5 cm."""
    clouds = (Cloud(points.numpy(), num_pixels) for points in (points_1, points_2))
    return covisibility(*clouds)


def _share_cases():
    draw = torch.Generator().manual_seed(3)
    line = torch.tensor([[0.0, 0.0, 1.0], [0.02, 0.0, 1.0], [0.5, 0.0, 1.0]])
    crowd = 0.3 * torch.rand(40, 3, generator=draw), 0.3 * torch.rand(25, 3, generator=draw)
    return ((line, line, 3), (line, line[:1], 4), (line[:1], line, 4), (*crowd, 50))


def _seen(
    points_1, points_2, num_pixels, choose=torch.min, radius=RADIUS, once=True, by_points=False
):
    near = torch.cdist(points_1.double(), points_2.double()) < radius
    counts = [(near.any(dim=axis) if once else near).sum() for axis in (1, 0)]
    sizes = (len(points_1), len(points_2)) if by_points else (num_pixels, num_pixels)
    return choose(torch.stack(counts) / torch.tensor(sizes)).item()


SHARE = Exercise(
    name="croco.1",
    answer=_share,
    source=covisibility,
    cases=_share_cases,
    wrong={
        partial(_seen, choose=torch.mean): "the lesser of both ways counts, not their mean: all of "
        "a close-up is seen in the wide view, of which the close-up shows little",
        partial(_seen, choose=torch.max): "take the lesser of the two counts, not the larger",
        partial(_seen, choose=lambda both: both[0]): "that is one way only, and changes when the "
        "views are exchanged; count the other way, too, and take the lesser",
        partial(_seen, by_points=True): "divide by the pixels of the image, not by the points: "
        "pixels without depth should count against a pair",
        partial(_seen, once=False): "count each point once, not couples: .any() before .sum()",
        partial(_seen, radius=5.0): "points are in metres: 5 cm are 0.05, and squared 0.0025",
    },
    hints=(
        "torch.cdist gives all distances [K1, K2]; a point is seen if any of its row is below 0.05",
        "near = cdist < 0.05; min(near.any(1).sum(), near.any(0).sum()) / num_pixels",
    ),
)
