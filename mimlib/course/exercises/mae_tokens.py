"""Exercises of lesson 01 about tokens: draw a mask, put tokens back."""

import torch
from torch import Tensor

from mimlib.course.exercises.exercise import Exercise, Wrong
from mimlib.layers.masking import mask_from_noise, scatter_tokens
from mimlib.protocol import PatchMask


def _mask(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    return tuple(mask_from_noise(noise, num_masked))


def _mask_cases() -> tuple[tuple, ...]:
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    return (
        (torch.tensor([[0.3, 0.1, 0.2]]), 1),
        (torch.tensor([[0.5, 0.1, 0.9, 0.3]]), 2),
        (torch.tensor([[0.9, 0.5, 0.1, 0.3], [0.2, 0.4, 0.3, 0.1]]), 3),
        (noise, 12),
    )


def _split(order: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    return order[:, :num_visible], order[:, num_visible:]


def _unsorted(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    return _split(noise.argsort(dim=1), noise.shape[1] - num_masked)


def _swapped(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    masked, visible = _split(noise.argsort(dim=1), num_masked)
    return visible.sort(dim=1).values, masked.sort(dim=1).values


def _swapped_counts(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    visible, masked = _split(noise.argsort(dim=1), num_masked)
    return visible.sort(dim=1).values, masked.sort(dim=1).values


def _ranks(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    ranks = noise.argsort(dim=1).argsort(dim=1)
    visible, masked = _split(ranks, noise.shape[1] - num_masked)
    return visible.sort(dim=1).values, masked.sort(dim=1).values


def _one_for_all(noise: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
    visible, masked = _mask(noise[:1], num_masked)
    return visible.repeat(len(noise), 1), masked.repeat(len(noise), 1)


MASK = Exercise(
    name="mae.1",
    task="From noise [B, N] return the indices (visible [B, V], masked [B, M]), each ascending; "
    "the patches with the smallest noise stay visible.",
    minutes=10,
    difficulty=1,
    answer=_mask,
    source=mask_from_noise,
    cases=_mask_cases,
    wrong=(
        Wrong(
            answer=_unsorted,
            hint="argsort returns indices in the order of the noise; sort each part, so that the "
            "same set of patches is always written the same way",
        ),
        Wrong(
            answer=_swapped,
            hint="you hide the patches with the smallest noise and show the rest: swap the parts",
        ),
        Wrong(
            answer=_swapped_counts,
            hint="the first part has to hold N - num_masked patches: you show as many as should be "
            "hidden. At 75 % that is three times the encoder's work, and an easier puzzle",
        ),
        Wrong(
            answer=_ranks,
            hint="a second argsort gives the rank of every patch (what undoes the shuffle), not "
            "which patches come first",
        ),
        Wrong(
            answer=_one_for_all,
            hint="each image needs a mask of its own: sort along dim 1 of the whole [B, N]",
        ),
    ),
    hints=(
        "order = noise.argsort(dim=1) lists the patches from small noise to large",
        "cut the order after N - num_masked, then sort both parts",
    ),
)


def _put_back(visible: Tensor, masked: Tensor, index: PatchMask) -> Tensor:
    blank = torch.cat([visible, masked], dim=1)
    return scatter_tokens(scatter_tokens(blank, index.visible, visible), index.masked, masked)


def _put_back_cases() -> tuple[tuple, ...]:
    def _case(noise: Tensor, num_masked: int) -> tuple:
        index = mask_from_noise(noise, num_masked)
        batch, num_visible = index.visible.shape
        visible = torch.arange(1.0, 1 + batch * num_visible * 2).reshape(batch, num_visible, 2)
        masked = -torch.arange(1.0, 1 + batch * num_masked * 2).reshape(batch, num_masked, 2)
        return visible, masked, index

    noise = torch.rand(2, 9, generator=torch.Generator().manual_seed(2))
    return (
        _case(torch.tensor([[0.5, 0.1]]), 1),
        _case(torch.tensor([[0.5, 0.1, 0.9]]), 2),
        _case(noise, 6),
    )


def _still_shuffled(visible: Tensor, masked: Tensor, index: PatchMask) -> Tensor:
    return torch.cat([visible, masked], dim=1)


def _gathered(visible: Tensor, masked: Tensor, index: PatchMask) -> Tensor:
    """Use the order itself where its inverse is needed."""
    tokens = torch.cat([visible, masked], dim=1)
    order = torch.cat([index.visible, index.masked], dim=1)
    return tokens.gather(1, order[:, :, None].expand(tokens.shape))


def _visible_only(visible: Tensor, masked: Tensor, index: PatchMask) -> Tensor:
    blank = torch.zeros_like(torch.cat([visible, masked], dim=1))
    return scatter_tokens(blank, index.visible, visible)


PUT_BACK = Exercise(
    name="mae.2",
    task="Given visible [B, V, D] and masked [B, M, D] tokens and their indices, return all tokens "
    "[B, N, D] in image order.",
    minutes=15,
    difficulty=2,
    answer=_put_back,
    source=scatter_tokens,
    cases=_put_back_cases,
    wrong=(
        Wrong(
            answer=_still_shuffled,
            hint="visible tokens in front, mask tokens behind: that is the order they were "
            "computed in, not the order of the image. Every token would "
            "get the position of another patch",
        ),
        Wrong(
            answer=_gathered,
            hint="gathering with the order shuffles a second time; to undo a permutation gather "
            "with its inverse (argsort of the order), or scatter with the order itself",
        ),
        Wrong(answer=_visible_only, hint="the masked tokens have places too"),
    ),
    hints=(
        "result[b, index.visible[b, i]] = visible[b, i], and the same for the masked ones",
        "torch.cat both parts and both indices, then either scatter by the index or gather by its "
        "argsort",
    ),
)

EXERCISES = (MASK, PUT_BACK)
