"""Exercises of lesson 04 about patches: neighbours, positives, and labels that travel."""

from functools import partial

import torch
import torch.nn.functional as F

from mimlib.course.exercises.exercise import Exercise
from mimlib.evaluation.propagation import PropagationConfig, affinity
from mimlib.layers.neighbors import nearest_neighbors, neighbor_table


def _neighbors_of(patch, height, width, window):
    """The other places in a window on a torus, row by row from the upper left."""
    return neighbor_table((height, width), window)[0][patch].tolist()


def _around(
    patch, height, width, window, wrap=lambda place, size: place % size, itself=False, flat=False
):
    row, column = divmod(patch, width)
    reach = range(-(window // 2), window // 2 + 1)
    steps = [(r, c) for r in reach for c in reach if itself or (r, c) != (0, 0)]
    if flat:
        return [(patch + r * width + c) % (height * width) for r, c in steps]
    places = [(wrap(row + r, height), wrap(column + c, width)) for r, c in steps]
    return [r * width + c for r, c in places if 0 <= r < height and 0 <= c < width]


NEIGHBORS = Exercise(
    name="selfpatch.3",
    answer=_neighbors_of,
    source=neighbor_table,
    cases=lambda: ((5, 4, 4, 3), (0, 4, 6, 3), (23, 4, 6, 3), (0, 14, 14, 3), (8, 6, 7, 5)),
    wrong={
        partial(_around, wrap=lambda place, size: place): "on a torus everybody has as many "
        "neighbours: take rows and columns modulo the grid instead of leaving them out",
        partial(_around, wrap=lambda place, size: min(max(place, 0), size - 1)): "that stops at "
        "the border and names patches there twice; take the modulo instead",
        partial(_around, flat=True): "row and column wrap by themselves: the left neighbour of the "
        "first patch of a row is the last one of the same row, not of the row above",
        partial(_around, itself=True): "the patch is not its own neighbour: leave (0, 0) out",
        (lambda *given: sorted(_around(*given))): "keep the order of the steps: do not sort places",
        (lambda patch, h, w, window: _around(patch, w, h, window)): "patches are numbered row by "
        "row: place = row * width + column",
    },
    hints=(
        "row, column = divmod(patch, width); steps from -(window // 2) to window // 2",
        "(row + r) % height * width + (column + c) % width for all r, c but (0, 0)",
    ),
)


def _positives_of(tokens, near, k):
    """The k of the candidates `near` with the largest cosine, in ascending order of place."""
    height = width = round(len(tokens) ** 0.5)
    index = nearest_neighbors(tokens[None], (height, width), k).index[0]
    assert near.shape == (len(tokens), 8)  # of the cases below
    return index.sort(dim=1).values


def _positive_cases():
    draw = torch.Generator().manual_seed(13)

    def _case(side, width, k):
        tokens = torch.randn(side * side, width, generator=draw)
        lengths = 0.2 + 3 * torch.rand(side * side, 1, generator=draw)
        return tokens * lengths, neighbor_table((side, side), 3)[0], k

    return _case(3, 4, 1), _case(4, 8, 4)


def _cosine(tokens, others):
    return F.cosine_similarity(tokens[:, None], others, dim=-1)


def _best(tokens, near, k, rate=_cosine, places=True, ascending=True):
    columns = rate(tokens, tokens[near]).topk(k, dim=1).indices
    found = near.gather(1, columns) if places else columns
    return found.sort(dim=1).values if ascending else found


def _of_all(tokens, near, k):
    others = torch.arange(len(tokens)).expand(len(tokens), -1)
    others = others[~torch.eye(len(tokens), dtype=torch.bool)].view(len(tokens), -1)
    return _best(tokens, others, k)


POSITIVES = Exercise(
    name="selfpatch.4",
    answer=_positives_of,
    source=nearest_neighbors,
    cases=_positive_cases,
    wrong={
        partial(_best, rate=lambda a, b: (a[:, None] * b).sum(-1)): "a product prefers long "
        "tokens; the cosine does not know how long a token is",
        partial(_best, rate=lambda a, b: -(a[:, None] - b).norm(dim=-1)): "the distance knows how "
        "long tokens are; compare directions, by the cosine",
        partial(_best, rate=lambda a, b: -_cosine(a, b)): "the most similar: the largest cosines",
        partial(_best, places=False): "those are numbers of columns of `near`; look up the places: "
        "near.gather(1, ...)",
        partial(_best, ascending=False): "sort the chosen places: topk orders them by cosine",
        _of_all: "only the candidates of a patch count, not the whole image",
    },
    hints=(
        "F.cosine_similarity(tokens[:, None], tokens[near], dim=-1) is [N, n]",
        "near.gather(1, cosines.topk(k, dim=1).indices).sort(dim=1).values",
    ),
)


def _carried(target, sources, labels, best, temperature):
    """Mean of labels by exp(cosine / temperature) of the best so many sources."""
    config = PropagationConfig(neighbors=best, temperature=temperature)
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    return affinity(cosines, config) @ labels


def _carry_cases():
    draw = torch.Generator().manual_seed(14)

    def _case(targets, sources, width, kinds, best):
        tokens = 2 * torch.randn(targets + sources, width, generator=draw)
        labels = torch.rand(sources, kinds, generator=draw).softmax(dim=-1)
        return *tokens.split((targets, sources)), labels, best

    return (*_case(1, 3, 4, 2, 2), 1.0), (*_case(5, 9, 8, 3, 4), 0.1)


def _weighed(
    target, sources, labels, best, temperature, unit=True, count=min, heat=0.0, late=False
):
    target, sources = (F.normalize(t, dim=1) if unit else t for t in (target, sources))
    scores = target @ sources.T / (heat or temperature)
    left = scores < scores.topk(count(best, len(labels)), dim=1).values[:, -1:]
    if late:
        return scores.softmax(dim=1).masked_fill(left, 0.0) @ labels
    return scores.masked_fill(left, -torch.inf).softmax(dim=1) @ labels


CARRIED = Exercise(
    name="selfpatch.5",
    answer=_carried,
    source=affinity,
    cases=_carry_cases,
    wrong={
        partial(_weighed, count=lambda best, sources: sources): "only the most similar sources "
        "count: all others get a weight of 0",
        partial(_weighed, unit=False): "cosines, not products: bring tokens to unit length",
        partial(_weighed, heat=2.0): "divide the cosines by the temperature that is given",
        partial(_weighed, count=lambda best, sources: 1): "labels stay soft: a weighted mean of "
        "several sources, not the label of one",
        partial(_weighed, late=True): "what is left must sum to 1 again: choose first, then "
        "normalise",
    },
    hints=(
        "cosines.topk(best, dim=1) gives values and indices; the softmax runs over the values",
        "((values / temperature).softmax(1)[..., None] * labels[indices]).sum(dim=1)",
    ),
)
