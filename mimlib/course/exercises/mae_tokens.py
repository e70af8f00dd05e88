"""Exercises of lesson 01 about tokens: draw a mask, put tokens back."""

from functools import partial

import torch

from mimlib.course.exercises.exercise import Exercise
from mimlib.layers.masking import gather_tokens, mask_from_noise, scatter_tokens


def _mask_cases():
    first, second = torch.tensor([[0.3, 0.1, 0.2]]), torch.tensor([[0.5, 0.1, 0.9, 0.3]])
    two = torch.tensor([[0.9, 0.5, 0.1, 0.3], [0.2, 0.4, 0.3, 0.1]])
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    return (first, 1), (second, 2), (two, 3), (noise, 12)


def _split(noise, num_masked, sorts=1, ascending=True, masked_first=False, swap_counts=False):
    order = noise
    for _ in range(sorts):
        order = order.argsort(dim=1)
    cut = num_masked if swap_counts ^ masked_first else noise.shape[1] - num_masked
    parts = [order[:, :cut], order[:, cut:]]
    visible, masked = [part.sort(dim=1).values for part in parts] if ascending else parts
    return (masked, visible) if masked_first else (visible, masked)


MASK = Exercise(
    name="mae.1",
    answer=mask_from_noise,
    source=mask_from_noise,
    cases=_mask_cases,
    wrong={
        partial(_split, ascending=False): "argsort returns indices in the order of the noise; sort "
        "each part, so that the same set of patches is always written the same way",
        partial(_split, masked_first=True): "you hide the patches with the smallest noise and show "
        "the rest: swap the parts",
        partial(_split, swap_counts=True): "the first part has to hold N - num_masked patches; at "
        "75 % you show three times as many, which is an easier puzzle",
        partial(_split, sorts=2): "a second argsort gives the rank of every patch (what undoes the "
        "shuffle), not which patches come first",
        (lambda noise, count: mask_from_noise(noise[:1].expand_as(noise), count)): "each image "
        "needs a mask of its own: sort along dim 1 of the whole [B, N]",
    },
    hints=(
        "order = noise.argsort(dim=1) lists the patches from small noise to large",
        "cut the order after N - num_masked, then sort both parts",
    ),
)


def _joined(visible, masked):
    return torch.cat([visible, masked], dim=1)


def _put_back(visible, masked, index):
    """[B, V, D] and [B, M, D] -> [B, N, D] in image order."""
    blank = _joined(visible, masked)
    return scatter_tokens(scatter_tokens(blank, index.visible, visible), index.masked, masked)


def _put_back_cases():
    def _case(noise, num_masked):
        index = mask_from_noise(noise, num_masked)
        batch, num_visible = index.visible.shape
        visible = torch.arange(1.0, 1 + batch * num_visible * 2).reshape(batch, num_visible, 2)
        masked = -torch.arange(1.0, 1 + batch * num_masked * 2).reshape(batch, num_masked, 2)
        return visible, masked, index

    one, two = torch.tensor([[0.5, 0.1]]), torch.tensor([[0.5, 0.1, 0.9]])
    noise = torch.rand(2, 9, generator=torch.Generator().manual_seed(2))
    return _case(one, 1), _case(two, 2), _case(noise, 6)


PUT_BACK = Exercise(
    name="mae.2",
    answer=_put_back,
    source=scatter_tokens,
    cases=_put_back_cases,
    wrong={
        (lambda v, m, index: _joined(v, m)): "visible tokens in front, mask tokens behind: that is "
        "the order they were computed in, not the order of the image. Every token would get the "
        "position of another patch",
        (lambda v, m, index: gather_tokens(_joined(v, m), _joined(*index))): "gathering with the "
        "order shuffles a second time; to undo a permutation gather with its inverse (argsort of "
        "the order), or scatter with the order itself",
        (lambda v, m, index: _put_back(v, 0 * m, index)): "the masked tokens have places too",
    },
    hints=(
        "result[b, index.visible[b, i]] = visible[b, i], and the same for the masked ones",
        "torch.cat both parts and both indices, then either scatter by the index or gather by its "
        "argsort",
    ),
)
