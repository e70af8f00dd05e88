"""Answers to the exercises of lesson 01 about tokens, right and wrong."""

import numpy as np
import torch
from answers import right, wrong
from einops import repeat

from mimlib.layers.masking import PatchMask


@right("mae.1")
def by_argsort(noise, num_masked):
    order = noise.argsort(dim=1)
    num_visible = noise.shape[1] - num_masked
    return order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values


@right("mae.1")
def in_short_integers(noise, num_masked):
    return [part.int() for part in by_argsort(noise, num_masked)]


@right("mae.1")
def by_topk(noise, num_masked):
    masked = noise.topk(num_masked, dim=1).indices
    visible = noise.topk(noise.shape[1] - num_masked, dim=1, largest=False).indices
    return PatchMask(visible.sort(1).values, masked.sort(1).values)


@right("mae.1")
def by_ranks(noise, num_masked):
    hidden = noise.argsort(1).argsort(1) >= noise.shape[1] - num_masked
    parts = [part.nonzero()[:, 1].view(len(noise), -1) for part in (~hidden, hidden)]
    return tuple(parts)


@right("mae.1")
def by_numpy_sorts(noise, num_masked):
    order = np.argsort(noise.numpy(), axis=1)
    cut = noise.shape[1] - num_masked
    return np.sort(order[:, :cut], axis=1), np.sort(order[:, cut:], axis=1)


@right("mae.1")
def in_nested_lists(noise, num_masked):
    visible, masked = by_argsort(noise, num_masked)
    return visible.tolist(), masked.tolist()


@right("mae.1")
def in_place(noise, num_masked):
    visible, masked = by_argsort(noise, num_masked)
    noise.fill_(0)
    return visible, masked


@wrong("mae.1", "swap the parts")
def largest_first(noise, num_masked):
    order = noise.argsort(dim=1, descending=True)
    num_visible = noise.shape[1] - num_masked
    return order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values


@wrong("mae.1", "sort each part")
def not_sorted(noise, num_masked):
    order = noise.argsort(dim=1).int()
    return order.split([noise.shape[1] - num_masked, num_masked], dim=1)


@wrong("mae.1", "got bool, expected int64")
def as_bools(noise, num_masked):
    return tuple(part.bool() for part in by_argsort(noise, num_masked))


@wrong("mae.1", "got float32, expected int64")
def as_floats(noise, num_masked):
    return tuple(part.float() for part in by_argsort(noise, num_masked))


@wrong("mae.1", "expected 2 parts, got Tensor")
def visible_alone(noise, num_masked):
    return by_argsort(noise, num_masked)[0]


@wrong("mae.1", "raised IndexError")
def for_one_image(noise, num_masked):
    return by_argsort(noise[0], num_masked)


@right("mae.2")
def by_scatter(visible, masked, index):
    both, order = torch.cat([visible, masked], 1), torch.cat(tuple(index), 1)
    return torch.empty_like(both).scatter_(1, order[..., None].expand_as(both), both)


@right("mae.2")
def by_the_inverse(visible, masked, index):
    both, order = torch.cat([visible, masked], 1), torch.cat([index.visible, index.masked], 1)
    return both.gather(1, repeat(order.argsort(1), "b n -> b n d", d=both.shape[-1]))


@right("mae.2")
def by_assignment(visible, masked, index):
    rows = torch.arange(len(visible))[:, None]
    blank = visible.new_zeros(len(visible), visible.shape[1] + masked.shape[1], visible.shape[2])
    blank[rows, index.visible] = visible
    blank[rows, index.masked] = masked
    return blank


@right("mae.2")
def by_sorting_pairs(visible, masked, index):
    return [
        [token for _, token in sorted(zip([*a, *b], [*v, *m]), key=lambda pair: int(pair[0]))]
        for v, m, a, b in zip(visible, masked, index.visible, index.masked)
    ]


@right("mae.2")
def spoiling_the_index(visible, masked, index):
    answer = by_scatter(visible, masked, index)
    index.visible.zero_()
    index.masked.zero_()
    return answer


@wrong("mae.2", "not the order of the image")
def in_order_of_computation(visible, masked, index):
    return torch.cat([visible, masked], dim=1)


@wrong("mae.2", "shuffles a second time")
def by_the_order_itself(visible, masked, index):
    both, order = torch.cat([visible, masked], 1), torch.cat(tuple(index), 1)
    return both.gather(1, order[..., None].expand_as(both))


@wrong("mae.2", "the masked tokens have places too")
def masked_left_blank(visible, masked, index):
    return by_assignment(visible, torch.zeros_like(masked), index)


@wrong("mae.2", "result[b, index.visible[b, i]] = visible[b, i]")
def by_the_first_image(visible, masked, index):
    blank = by_assignment(visible, masked, index)
    blank[:, index.visible[0]], blank[:, index.masked[0]] = visible, masked
    return blank
