"""Answers to the exercises of lesson 02 about the network, right and wrong."""

import torch
import torch.nn.functional as F
from answers import right, wrong
from einops import rearrange
from torch import nn


@right("convmae.4")
def by_conv2d(maps, shown, matrix, bias, kernels):
    maps = F.linear(maps, matrix, bias) * shown[..., None]
    maps = rearrange(maps, "h w c -> 1 c h w")
    side = kernels.shape[-1]
    mixed = F.conv2d(maps, kernels, padding=side // 2, groups=len(kernels))
    return rearrange(mixed, "1 c h w -> h w c")[shown]


@right("convmae.4")
def by_unfold_in_double(maps, shown, matrix, bias, kernels):
    maps = (maps.double() @ matrix.double().T + bias).masked_fill(~shown[..., None], 0.0)
    side = kernels.shape[-1]
    around = F.unfold(maps.permute(2, 0, 1)[None], side, padding=side // 2)
    around = around.view(len(matrix), side**2, -1)
    sums = torch.einsum("ckn,ck->nc", around, kernels.flatten(1).double())
    return sums[shown.flatten()]


@right("convmae.4")
def by_loops(maps, shown, matrix, bias, kernels):
    (h, w), reach = shown.shape, kernels.shape[-1] // 2
    sums = []
    for r, c in shown.nonzero().tolist():
        total = torch.zeros(len(matrix))
        for y in range(max(r - reach, 0), min(r + reach + 1, h)):
            for x in range(max(c - reach, 0), min(c + reach + 1, w)):
                if shown[y, x]:
                    value = matrix @ maps[y, x] + bias
                    total += value * kernels[:, 0, y - r + reach, x - c + reach]
        sums.append(total)
    return sums


@right("convmae.4")
def in_the_arguments_with_slopes(maps, shown, matrix, bias, kernels):
    maps[...] = F.linear(maps, matrix, bias)
    maps[~shown] = 0
    conv = nn.Conv2d(len(matrix), len(matrix), kernels.shape[-1], 1, "same", 1, len(matrix), False)
    conv.weight.data = kernels
    return conv(maps.permute(2, 0, 1))[:, shown].T


@wrong("convmae.4", "F.linear(maps, matrix, bias)")
def by_the_matrix_from_the_left(maps, shown, matrix, bias, kernels):
    return by_conv2d(maps, shown, matrix.T, bias, kernels)


@wrong("convmae.4", "F.linear(maps, matrix, bias)")
def kernels_before_the_matrix(maps, shown, matrix, bias, kernels):
    same, zero = torch.eye(len(matrix)), torch.zeros_like(bias)
    return F.linear(by_conv2d(maps, shown, same, zero, kernels), matrix, bias)


@wrong("convmae.4", "hidden positions have a part")
def masked_too_late(maps, shown, matrix, bias, kernels):
    everything = by_conv2d(maps, torch.ones_like(shown), matrix, bias, kernels)
    return everything[shown.flatten()]


@wrong("convmae.4", "you mask before the matrix")
def masked_too_early(maps, shown, matrix, bias, kernels):
    return masked_too_late(maps * shown[..., None], shown, matrix, bias, kernels)


@wrong("convmae.4", "got shape [1, 3, 1]")
def a_whole_map(maps, shown, matrix, bias, kernels):
    return by_conv2d(maps, shown.fill_(True), matrix, bias, kernels).view(*maps.shape)


def cells_of(maps, kernel):
    """One vector for each cell: [B, N, D]."""
    return rearrange(F.conv2d(maps, kernel, stride=kernel.shape[-1]), "b d h w -> b (h w) d")


@right("convmae.5")
def by_convolutions(map_1, map_2, tokens, visible, to_1, to_2):
    total = cells_of(map_1, to_1) + cells_of(map_2, to_2)
    rows = torch.arange(len(visible))[:, None]
    return F.layer_norm(total[rows, visible] + tokens, tokens.shape[-1:], eps=1e-6)


@right("convmae.5")
def by_patches_in_double(map_1, map_2, tokens, visible, to_1, to_2):
    tokens = tokens.double()
    for maps, kernel in ((map_1, to_1), (map_2, to_2)):
        side = kernel.shape[-1]
        patches = rearrange(maps, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side)
        parts = patches.double() @ kernel.flatten(1).double().T
        tokens = tokens + parts.gather(1, visible[..., None].expand_as(tokens))
    mean, var = tokens.mean(-1, keepdim=True), tokens.var(-1, unbiased=False, keepdim=True)
    return (tokens - mean) / (var + 1e-6).sqrt()


@right("convmae.5")
def with_a_module(map_1, map_2, tokens, visible, to_1, to_2):
    tokens += torch.stack([part[i] for part, i in zip(cells_of(map_1, to_1), visible)])
    tokens += torch.stack([part[i] for part, i in zip(cells_of(map_2, to_2), visible)])
    return nn.LayerNorm(tokens.shape[-1], eps=1e-6)(tokens)


@right("convmae.5")
def token_by_token(map_1, map_2, tokens, visible, to_1, to_2):
    width, images = map_2.shape[3] // 2, []
    for b in range(len(tokens)):
        images.append([])
        for token, cell in zip(tokens[b], visible[b].tolist()):
            r, c = divmod(cell, width)
            for maps, kernel, s in ((map_1, to_1, 4), (map_2, to_2, 2)):
                part = maps[b, :, r * s : r * s + s, c * s : c * s + s]
                token = token + (kernel * part).sum((1, 2, 3))
            images[b].append(F.layer_norm(token, token.shape, eps=1e-6))
    return images


@wrong("convmae.5", "pick the same cells")
def the_first_cells(map_1, map_2, tokens, visible, to_1, to_2):
    total = cells_of(map_1, to_1) + cells_of(map_2, to_2)
    return F.layer_norm(total[:, : visible.shape[1]] + tokens, tokens.shape[-1:], eps=1e-6)


@wrong("convmae.5", "its code has one")
def without_the_norm(map_1, map_2, tokens, visible, to_1, to_2):
    total = (cells_of(map_1, to_1) + cells_of(map_2, to_2)).double()
    return total[torch.arange(len(visible))[:, None], visible] + tokens


@wrong("convmae.5", "cells are counted row by row")
def column_by_column(map_1, map_2, tokens, visible, to_1, to_2):
    maps = map_1.transpose(2, 3), map_2.transpose(2, 3)
    return by_convolutions(*maps, tokens, visible, to_1.transpose(2, 3), to_2.transpose(2, 3))


@wrong("convmae.5", "a convolution whose kernel is its stride")
def without_the_tokens(map_1, map_2, tokens, visible, to_1, to_2):
    return by_convolutions(map_1, map_2, 0 * tokens, visible, to_1, to_2)
