"""Exercises of lesson 02 about the network: a masked convolution, and all scales in one token."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from mimlib.course.exercises.exercise import Exercise
from mimlib.layers.blocks import NORM_EPS
from mimlib.layers.cells import Places, as_tokens, join_tiles, pick_cells
from mimlib.layers.depthwise import DepthwiseConv
from mimlib.layers.masking import gather_tokens
from mimlib.methods.convmae import ConvMAE


def _sums(maps, shown, matrix, bias, kernels):
    """Mix maps [h, w, C] by matrix and bias, sum k x k shown neighbours: [K, C] where shown."""
    conv = DepthwiseConv(len(matrix), kernels.shape[-1])
    conv.weight.data, conv.bias.data = kernels, torch.zeros(len(matrix))
    values = F.linear(maps, matrix, bias)[shown]  # [K, C]
    places = Places(shown.flatten().nonzero().flatten(), tuple(shown.shape))
    with torch.no_grad():
        return conv(values[None], places)[0]


def _sums_cases():
    def _case(h, w, channels, side, part):
        draw = torch.Generator().manual_seed(h)
        maps = torch.randn(h, w, channels, generator=draw)
        shown = torch.rand(h, w, generator=draw) < part
        shown[0, 0] = True
        matrix, bias = torch.randn(channels, channels + 1, generator=draw).split([channels, 1], 1)
        kernels = torch.randn(channels, 1, side, side, generator=draw)
        return maps, shown, matrix, bias[:, 0], kernels

    return _case(1, 3, 1, 3, 0.5), _case(4, 6, 3, 3, 0.4), _case(7, 5, 8, 5, 0.4)


def _not_masked(maps, shown, matrix, bias, kernels, masked_before=False):
    """Mask nothing, or the input of the matrix, whose bias then stands where nothing should."""
    maps = F.linear(maps * shown[..., None] if masked_before else maps, matrix, bias)
    reach = kernels.shape[-1] // 2
    mixed = F.conv2d(maps.permute(2, 0, 1), kernels, padding=reach, groups=len(kernels))
    return mixed.permute(1, 2, 0)[shown]


def _scaled_up(maps, shown, matrix, bias, kernels):
    """Divide by the share of terms that are there, as partial convolutions do."""
    size = kernels.shape[-1]
    flags = shown[None, None].float()
    count = F.conv2d(flags, torch.ones(1, 1, size, size), padding=size // 2)[0, 0]
    sums = _sums(maps, shown, matrix, bias, kernels)
    return sums * size**2 / count[shown][:, None]


SUMS = Exercise(
    name="convmae.4",
    answer=_sums,
    source=DepthwiseConv,
    cases=_sums_cases,
    wrong={
        _not_masked: "hidden positions have a part in your sums: that is the leak. Reading only "
        "shown positions afterwards does not undo it",
        partial(_not_masked, masked_before=True): "you mask before the matrix, so that hidden "
        "positions still hold its bias; the mask comes after the matrix, right before the kernels",
        _scaled_up: "ConvMAE does not scale sums with fewer terms up: masked positions count as "
        "zero, like those beyond the border",
        (lambda maps, shown, m, b, k: _sums(maps, shown, m, b, k.flip(2, 3))): "torch's "
        "convolutions are correlations: kernels[c, 0, 0, 0] meets the position above and to the "
        "left, not below and to the right",
        (lambda maps, shown, m, b, k: _sums(maps, shown, m, 0 * b, k)): "the matrix has a bias, "
        "which shown positions keep",
    },
    hints=(
        "F.linear(maps, matrix, bias) first, then zero where hidden, then the kernels",
        "F.conv2d wants [1, C, h, w], padding=k // 2 and groups=C",
    ),
)


def _fused(map_1, map_2, tokens, visible, to_1, to_2):
    """Bring maps of stages 1 and 2 to the visible cells, add the tokens, normalise: [B, V, D]."""
    total = tokens
    for maps, kernel in ((map_1, to_1), (map_2, to_2)):
        width, channels, side, _ = kernel.shape
        conv = nn.Conv2d(channels, width, side, stride=side, bias=False)
        conv.weight.data = kernel
        layout = (side // 2, 2)
        shown = pick_cells(as_tokens(maps, layout), visible, layout)
        with torch.no_grad():
            total = total + join_tiles(shown, conv, layout)
    return _norm(total)


def _norm(tokens):
    return F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS)


def _fused_cases():
    def _case(h, w, num_visible, width):
        draw = torch.Generator().manual_seed(width)
        visible = torch.rand(2, h * w, generator=draw).argsort(1)[:, :num_visible].sort(1).values
        return (
            torch.randn(2, 3, 4 * h, 4 * w, generator=draw),
            torch.randn(2, 5, 2 * h, 2 * w, generator=draw),
            torch.randn(2, num_visible, width, generator=draw),
            visible,
            torch.randn(width, 3, 4, 4, generator=draw),
            torch.randn(width, 5, 2, 2, generator=draw),
        )

    return _case(2, 2, 2, 4), _case(3, 4, 5, 8)


def _added(map_1, map_2, tokens, visible, to_1, to_2, before=None, after=_norm, pick=None):
    total = before(tokens) if before else tokens
    for maps, kernel in ((map_1, to_1), (map_2, to_2)):
        parts = F.conv2d(maps, kernel, stride=kernel.shape[-1])
        cells = pick(visible, *parts.shape[2:]) if pick else visible
        total = total + gather_tokens(parts.flatten(2).transpose(1, 2), cells)
    return after(total) if after else total


def _first_cells(visible, h, w):
    return torch.arange(visible.shape[1]).expand_as(visible)


FUSED = Exercise(
    name="convmae.5",
    answer=_fused,
    source=ConvMAE.fuse,
    cases=_fused_cases,
    wrong={
        partial(_added, before=_norm, after=None): "first the sum of all stages, then the norm",
        partial(_added, after=None): "the formula of the paper has no norm; its code has one, "
        "after the sum",
        partial(_added, pick=_first_cells): "the tokens of stage 3 are those of the visible cells: "
        "pick the same cells from the maps, not the first V of them",
        partial(_added, pick=lambda visible, h, w: visible % h * w + visible // h): "cells are "
        "counted row by row",
    },
    hints=(
        "a convolution whose kernel is its stride brings a map to one vector for each cell",
        "F.conv2d(map_1, to_1, stride=4), flatten, pick the visible cells, add, layer_norm",
    ),
)
