"""Answers to the exercises of lesson 03 about pairs, right and wrong."""

import math

import numpy as np
import torch
from answers import right, wrong


@right("croco.4")
def by_one_comparison(noise, mask_ratio):
    return noise.argsort(dim=1) < int(noise.shape[1] * mask_ratio)


@right("croco.4")
def by_numpy(noise, mask_ratio):
    return np.argsort(noise.numpy(), axis=1) < math.floor(noise.shape[1] * mask_ratio)


@right("croco.4")
def in_lists(noise, mask_ratio):
    count = int(mask_ratio * noise.shape[1])
    rows = noise.tolist()
    return [[i < count for i in sorted(range(len(row)), key=row.__getitem__)] for row in rows]


@right("croco.4")
def by_filling(noise, mask_ratio):
    hidden, order = torch.ones(noise.shape, dtype=torch.bool), noise.argsort(1)
    hidden[order >= int(noise.shape[1] * mask_ratio)] = False
    noise.zero_()
    return hidden


@wrong("croco.4", "got int64, expected bool")
def as_integers(noise, mask_ratio):
    return by_one_comparison(noise, mask_ratio).long()


@wrong("croco.4", "those are ranks")
def by_scattering(noise, mask_ratio):
    """What the words would suggest; the official code compares argsort itself."""
    hidden = np.zeros(noise.shape, dtype=bool)
    first = noise.argsort(1)[:, : int(noise.shape[1] * mask_ratio)]
    np.put_along_axis(hidden, first.numpy(), True, axis=1)
    return hidden


@wrong("croco.4", "MAE rounds what stays visible")
def not_rounded(noise, mask_ratio):
    return noise.argsort(dim=1) < noise.shape[1] * mask_ratio


@wrong("croco.4", "you mark what stays visible")
def turned_round(noise, mask_ratio):
    return noise.argsort(dim=1) >= int(noise.shape[1] * mask_ratio)


@wrong("croco.4", "a batch needs equal counts")
def by_a_bound_on_noise(noise, mask_ratio):
    return noise < mask_ratio


@wrong("croco.4", "got shape [1, 1], expected [1, 3]")
def as_indices(noise, mask_ratio):
    return noise.argsort(dim=1)[:, : int(noise.shape[1] * mask_ratio)]


@right("croco.1")
def by_cdist(points_1, points_2, num_pixels):
    near = torch.cdist(points_1, points_2) < 0.05
    return min(near.any(1).sum(), near.any(0).sum()) / num_pixels


@right("croco.1")
def by_squares(points_1, points_2, num_pixels):
    near = (points_1[:, None] - points_2).square().sum(-1) < 0.05**2
    shares = torch.stack([near.any(dim=axis).sum() for axis in (0, 1)]) / num_pixels
    return shares.min()


@right("croco.1")
def by_numpy_in_double(points_1, points_2, num_pixels):
    gaps = np.linalg.norm(points_1.double().numpy()[:, None] - points_2.double().numpy(), axis=-1)
    seen = [(gaps.min(axis) < 0.05).sum() for axis in (0, 1)]
    return np.float32(min(seen) / num_pixels)


@right("croco.1")
def by_loops(points_1, points_2, num_pixels):
    one, two = points_1.tolist(), points_2.tolist()
    counts = [
        sum(any(math.dist(p, q) <= 0.05 for q in theirs) for p in mine)
        for mine, theirs in ((one, two), (two, one))
    ]
    return min(counts) / num_pixels


@wrong("croco.1", "not their mean")
def both_ways_averaged(points_1, points_2, num_pixels):
    near = torch.cdist(points_1, points_2) < 0.05
    return (near.any(1).sum() + near.any(0).sum()) / (2 * num_pixels)


@wrong("croco.1", "not by the points")
def by_means(points_1, points_2, num_pixels):
    near = torch.cdist(points_1, points_2) < 0.05
    return torch.min(near.any(1).float().mean(), near.any(0).float().mean())


@wrong("croco.1", "count each point once, not couples")
def couples(points_1, points_2, num_pixels):
    return float((torch.cdist(points_1, points_2) < 0.05).sum()) / num_pixels


@wrong("croco.1", "that is one way only")
def one_way(points_1, points_2, num_pixels):
    return (torch.cdist(points_1, points_2) < 0.05).any(1).sum() / num_pixels


@wrong("croco.1", "5 cm are 0.05, and squared 0.0025")
def squares_below_five_centimeters(points_1, points_2, num_pixels):
    near = (points_1[:, None] - points_2).square().sum(-1) < 0.05
    return min(near.any(1).sum(), near.any(0).sum()) / num_pixels


@wrong("croco.1", "got shape [2], expected float")
def both_ways(points_1, points_2, num_pixels):
    near = torch.cdist(points_1, points_2) < 0.05
    return [near.any(1).sum() / num_pixels, near.any(0).sum() / num_pixels]
