"""Exercises of lesson 02 about masks: one mask for all stages, how far stages see, what leaks."""

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from mimlib.course.exercises.exercise import Exercise
from mimlib.encoders.convvit import ConvViT, ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.cells import find_places
from mimlib.layers.masking import (
    as_bool,
    gather_tokens,
    mask_from_bool,
    random_mask,
    scatter_tokens,
)
from mimlib.layers.patches import grid_of, patchify, unpatchify


def _at_stage(hidden, side):
    """Cells [B, h, w] -> positions of a stage, `side` along the side of a cell; True = hidden."""
    batch, h, w = hidden.shape
    visible = mask_from_bool(hidden.flatten(1)).visible
    places = find_places(visible, (h, w), (side, 1))
    shown = torch.zeros(batch * h * w * side**2, dtype=torch.bool)
    shown[places.rows] = True
    return ~shown.view(batch, h * side, w * side)


def _stage_cases():
    draw = torch.Generator().manual_seed(3)
    hidden = as_bool(random_mask(3, 15, 11, draw)).unflatten(1, (3, 5))
    row, square = torch.tensor([[[True, False]]]), torch.tensor([[[True, False], [True, True]]])
    return (row, 2), (square, 2), (hidden, 2), (hidden, 4)


def _in_one_line(hidden, side):
    line = hidden.flatten(1).repeat_interleave(side**2, dim=1)
    return line.view(len(hidden), -1, hidden.shape[2] * side)


def _interpolated(hidden, side):
    return F.interpolate(hidden[:, None].float(), scale_factor=side, mode="bilinear")[:, 0] > 0


STAGE = Exercise(
    name="convmae.1",
    answer=_at_stage,
    source=find_places,
    cases=_stage_cases,
    wrong={
        (lambda hidden, side: hidden.repeat(1, side, side)): "repeat lays copies of the whole mask "
        "side by side; every single value has to become a square of its own: repeat_interleave "
        "along both sides",
        _in_one_line: "side * side repetitions in a row make a line of the next cells, not a "
        "square; repeat along rows and along columns separately",
        (lambda *given: ~_at_stage(*given)): "True has to go on meaning hidden; the m of the paper "
        "is its opposite",
        _interpolated: "interpolation between neighbours hides positions of visible cells, too; "
        "nearest keeps every cell whole",
    },
    hints=(
        "every value of the small mask becomes a square of side x side equal values",
        "hidden.repeat_interleave(side, dim=1), and the same along dim 2",
    ),
)


def _sees(entries, depths, kernel):
    """Count the pixels along a side that a position of stages 1 and 2 sees, by the encoder."""
    side = 4 * sum(depths[:2]) * kernel * entries[0] * entries[1]
    side -= side % (entries[0] * entries[1] * entries[2])
    small = {"widths": (4, 4, 4), "heads": 1, "mlp_ratios": (1, 1, 1), "image_size": side}
    config = ConvViTConfig(**small, depths=depths, entries=entries, kernel=kernel)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        images = torch.rand(1, 3, side, side, requires_grad=True)
        maps = config.build()(images, levels=(0, 1)).levels
        found = []
        for level in maps:
            middle = level[0, :, level.shape[2] // 2, level.shape[3] // 2].sum()
            (slope,) = torch.autograd.grad(middle, images, retain_graph=True)
            found.append(int(slope.abs().sum(dim=(0, 1, 2)).count_nonzero()))
    return found[0], found[1]


def _by_formula(entries, depths, kernel, grow=1, deep=True, in_pixels=True, alone=False, entry=1):
    one, two = (1 + (depth if deep else 1) * (kernel - grow) for depth in depths[:2])
    two = two * entries[entry] + (0 if alone else one - 1)
    return tuple(side * (entries[0] if in_pixels else 1) for side in (one, two))


SEES = Exercise(
    name="convmae.2",
    answer=_sees,
    source=ConvViT.stages,
    cases=lambda: (((2, 2, 2), (1, 1, 1), 3), ((2, 4, 3), (2, 1, 1), 5), ((4, 2, 2), (2, 2, 1), 5)),
    wrong={
        partial(_by_formula, grow=0): "a kernel adds k - 1 positions: one of the k was seen before",
        (lambda e, depths, k: _by_formula(e, depths, k // 2 + 1)): "k // 2 are added on each side",
        partial(_by_formula, deep=False): "every block looks further: multiply by the depth",
        partial(_by_formula, in_pixels=False): "the answer is asked in pixels: a position of stage "
        "1 is entries[0] pixels wide",
        partial(_by_formula, alone=True): "a position of stage 2 sees positions of stage 1, and "
        "each of those has looked around itself before",
        partial(_by_formula, entry=2): "between stages 1 and 2 lies entries[1]",
    },
    hints=(
        "go backwards: from one position of the map, through the blocks, through the entry",
        "blocks: side += depth * (kernel - 1); entry: side *= entry. Stage 2 goes through its "
        "blocks, its entry, the blocks of stage 1 and the entry of stage 1",
    ),
)


def _leaks(encode, images, hidden, patch_size):
    """Whether pixels of hidden patches [B, N] bool change the memory of the visible ones."""
    return not torch.equal(encode(images), encode(_exchanged(images, hidden, patch_size)))


def _exchanged(images, hidden, patch_size):
    mask, patches = mask_from_bool(hidden), patchify(images, patch_size)
    filling = torch.full((*mask.masked.shape, patches.shape[2]), 1e3)
    patches = scatter_tokens(patches, mask.masked, filling)
    return unpatchify(patches, patch_size, grid_of(images, patch_size))


def _roughly(encode, *given):
    return not torch.allclose(encode(given[0]), encode(_exchanged(*given)), atol=1e-3)


def _leak_cases():
    draw = torch.Generator().manual_seed(4)
    images, mask = torch.rand(2, 3, 32, 32, generator=draw), random_mask(2, 16, 12, draw)
    images *= torch.tensor([0.4, 0.9])[:, None, None, None]  # an exchange of images shows

    def _of(name, config):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = config.build().eval().requires_grad_(False)  # images may still have slopes

        def encode(images):
            return encoder(images, mask).tokens

        encode.__name__ = f"encode_{name}"  # in messages
        return encode

    def encode_slightly(images):
        """Leak so little that nobody would see it in a picture."""
        means = patchify(images, 8).clamp(-1, 1).mean(dim=2, keepdim=True)  # [B, N, 1]
        return gather_tokens(means, mask.visible) + 2e-6 * means.mean(dim=1, keepdim=True)

    shape = {"widths": (4, 8, 16), "depths": (1, 1, 1), "heads": 2, "entries": (2, 2, 2)}
    convolutions = ConvViTConfig(**shape, image_size=32)
    encoders = (
        _of("vit", ViTConfig(width=16, depth=1, heads=2, patch_size=8, image_size=32)),
        _of("naive", replace(convolutions, masked=False)),
        _of("masked", convolutions),
        encode_slightly,
    )
    return tuple((encode, images, as_bool(mask), 8) for encode in encoders)


LEAKS = Exercise(
    name="convmae.3",
    answer=_leaks,
    source=scatter_tokens,
    cases=_leak_cases,
    wrong={
        (lambda encode, x, hidden, p: _leaks(encode, x, ~hidden, p)): "the memory has to depend on "
        "what is visible: exchange hidden pixels and leave all others as they are",
        _roughly: "a small leak is a leak: a network learns to read what torch.allclose overlooks. "
        "Exchange hidden pixels by something large and ask for equality",
        (lambda *given: not _leaks(*given)): "equal memories mean that nothing leaks; True is "
        "asked for when something does",
    },
    hints=(
        "encode twice: the images, and the images with other pixels in the hidden patches",
        "patchify, fill patches[hidden], unpatchify; then torch.equal, no tolerance",
    ),
)
