"""Answers to the exercises of lesson 00, right and wrong."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong
from einops import rearrange


@right("start.1")
def by_rearrange(images, patch_size):
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


@right("start.1")
def by_unfold(images, patch_size):
    parts = F.unfold(images, patch_size, stride=patch_size)
    return parts.unflatten(1, (3, -1)).permute(0, 3, 2, 1).flatten(2)


@right("start.1")
def by_two_unfolds_of_the_tensor(images, patch_size):
    parts = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return parts.permute(0, 2, 3, 4, 5, 1).reshape(len(images), -1, patch_size**2 * 3)


@right("start.1")
def by_a_convolution(images, patch_size):
    size = patch_size**2 * 3
    kernel = torch.eye(size).reshape(size, patch_size, patch_size, 3).permute(0, 3, 1, 2)
    return F.conv2d(images, kernel, stride=patch_size).flatten(2).transpose(1, 2)


@right("start.1")
def by_loops(images, patch_size):
    rows = range(0, images.shape[2], patch_size)
    columns = range(0, images.shape[3], patch_size)
    return [
        [
            image[:, r : r + patch_size, c : c + patch_size].permute(1, 2, 0).flatten()
            for r in rows
            for c in columns
        ]
        for image in images
    ]


@right("start.1")
def by_numpy(images, patch_size):
    b, c, h, w = images.shape
    x = images.numpy().astype(np.float64)
    x = x.reshape(b, c, h // patch_size, patch_size, w // patch_size, patch_size)
    return x.transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, patch_size**2 * 3)


@wrong("start.1", "the channel must vary fastest")
def unfold_and_no_more(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


@wrong("start.1", "got shape [1, 3, 4], expected [1, 4, 3]")
def unfold_without_its_transpose(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size)


@wrong("start.1", "cuts strips")
def a_view(images, patch_size):
    return images.view(len(images), -1, patch_size * patch_size * 3)


@wrong("start.1", "got int64, expected float32")
def whole_numbers(images, patch_size):
    return by_rearrange(images, patch_size).long()


@right("start.3")
def by_int(num_patches, mask_ratio):
    return int(num_patches * (1 - mask_ratio))


@right("start.3")
def by_math_floor(num_patches, mask_ratio):
    return math.floor((1.0 - mask_ratio) * num_patches)


@right("start.3")
def by_numpy_trunc(num_patches, mask_ratio):
    return np.trunc(num_patches * (1 - mask_ratio)).astype(np.int32)


@right("start.3")
def by_tensor(num_patches, mask_ratio):
    return (torch.tensor(num_patches) * torch.tensor(1 - mask_ratio, dtype=torch.float64)).long()


@wrong("start.3", "leave 10")
def less_by_the_ceiling(num_patches, mask_ratio):
    return num_patches - math.ceil(num_patches * mask_ratio)


@wrong("start.3", "leave 10")
def with_a_tolerance(num_patches, mask_ratio):
    return math.floor(num_patches * (1 - mask_ratio) + 1e-9)


@wrong("start.3", "leave 10")
def less_the_product(num_patches, mask_ratio):
    return int(num_patches - num_patches * mask_ratio)


@wrong("start.3", "leave 10")
def in_single_precision(num_patches, mask_ratio):
    return torch.floor(num_patches * (1 - torch.tensor(mask_ratio)))


@wrong("start.3", "CroCo's rounding")
def as_croco(num_patches, mask_ratio):
    return num_patches - int(num_patches * mask_ratio)


@wrong("start.3", "got 58.8")
def not_rounded(num_patches, mask_ratio):
    return num_patches * (1 - mask_ratio)


@wrong("start.3", "got shape [2], expected int")
def both_counts(num_patches, mask_ratio):
    visible = by_int(num_patches, mask_ratio)
    return torch.tensor([visible, num_patches - visible])


@right("start.2")
def by_outer_products(grid, width):
    frequency = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    rows = torch.outer(torch.arange(grid[0]).float(), frequency)[:, None].expand(-1, grid[1], -1)
    columns = torch.outer(torch.arange(grid[1]).float(), frequency).expand(grid[0], -1, -1)
    parts = [columns.sin(), columns.cos(), rows.sin(), rows.cos()]
    return torch.cat(parts, dim=-1).flatten(0, 1)


@right("start.2")
def by_numpy_in_double_precision(grid, width):
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.mgrid[: grid[0], : grid[1]].reshape(2, -1, 1)
    a, b = column * frequency, row * frequency
    return np.concatenate([np.sin(a), np.cos(a), np.sin(b), np.cos(b)], axis=1)


@right("start.2")
def by_plain_loops(grid, width):
    quarter, table = width // 4, []
    for row in range(grid[0]):
        for column in range(grid[1]):
            steps = [10000 ** (-k / quarter) for k in range(quarter)]
            parts = itertools.product((column, row), (math.sin, math.cos), steps)
            table.append([wave(place * step) for place, wave, step in parts])
    return table


@right("start.2")
def by_complex_waves(grid, width):
    quarter = width // 4
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).flip(1)  # column, row
    waves = (1j * places[..., None] * 1e4 ** (-torch.arange(quarter) / quarter)).exp()
    return torch.stack([waves.imag, waves.real], dim=2).flatten(1)


@wrong("start.2", "the first half encodes the COLUMN")
def rows_first(grid, width):
    return (
        by_numpy_in_double_precision(grid, width)
        .reshape(-1, 2, width // 2)[:, ::-1]
        .reshape(-1, width)
    )


@wrong("start.2", "outer products")
def one_step_short(grid, width):
    """As torch.linspace(0, 1, q) spaces the exponents, with both ends."""
    frequency = 10000 ** -torch.linspace(0, 1, width // 4)
    row, column = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    a, b = (place.reshape(-1, 1) * frequency for place in (column, row))
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], dim=1)


@wrong("start.2", "the exponent is negative")
def faster_and_faster(grid, width):
    frequency = 10000.0 ** (np.arange(width // 4) / (width // 4))
    row, column = np.mgrid[: grid[0], : grid[1]].reshape(2, -1, 1)
    a, b = column * frequency, row * frequency
    return np.concatenate([np.sin(a), np.cos(a), np.sin(b), np.cos(b)], axis=1)


@wrong("start.2", "got shape [2, 1, 4], expected [2, 4]")
def not_in_one_row(grid, width):
    return by_outer_products(grid, width).unflatten(0, grid).transpose(0, 1)
