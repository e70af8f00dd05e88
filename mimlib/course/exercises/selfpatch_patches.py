"""Exercises of lesson 04 about patches: neighbours, positives, and labels that travel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mimlib.course.exercises.exercise import Exercise, Wrong
from mimlib.evaluation.propagation import PropagationConfig, affinity
from mimlib.layers.neighbours import nearest_neighbours, neighbour_table


def _neighbours_of(patch: int, height: int, width: int, window: int) -> list[int]:
    return neighbour_table((height, width), window)[0][patch].tolist()


def _neighbour_cases() -> tuple[tuple, ...]:
    return (5, 4, 4, 3), (0, 4, 6, 3), (23, 4, 6, 3), (0, 14, 14, 3), (8, 6, 7, 5)


def _steps(window: int) -> list[tuple[int, int]]:
    reach = range(-(window // 2), window // 2 + 1)
    return [(r, c) for r in reach for c in reach if (r, c) != (0, 0)]


def _padded(patch: int, height: int, width: int, window: int) -> list[int]:
    places = [(patch // width + r, patch % width + c) for r, c in _steps(window)]
    return [r * width + c for r, c in places if 0 <= r < height and 0 <= c < width]


def _clamped(patch: int, height: int, width: int, window: int) -> list[int]:
    places = [(patch // width + r, patch % width + c) for r, c in _steps(window)]
    return [
        min(max(r, 0), height - 1) * width + min(max(c, 0), width - 1) for r, c in places
    ]  # fmt: skip


def _flat(patch: int, height: int, width: int, window: int) -> list[int]:
    return [(patch + r * width + c) % (height * width) for r, c in _steps(window)]


def _with_itself(patch: int, height: int, width: int, window: int) -> list[int]:
    reach = range(-(window // 2), window // 2 + 1)
    row, column = divmod(patch, width)
    return [(row + r) % height * width + (column + c) % width for r in reach for c in reach]


def _by_height(patch: int, height: int, width: int, window: int) -> list[int]:
    row, column = divmod(patch, height)
    return [(row + r) % width * height + (column + c) % height for r, c in _steps(window)]


NEIGHBOURS = Exercise(
    name="selfpatch.3",
    task="List the places of the other patches in a window around a patch, row by row from the "
    "upper left; beyond the border the grid goes on at the other side.",
    minutes=10,
    difficulty=2,
    answer=_neighbours_of,
    source=neighbour_table,
    cases=_neighbour_cases,
    wrong=(
        Wrong(
            answer=_padded,
            hint="on a torus everybody has as many neighbours: take rows and columns modulo the "
            "grid instead of leaving them out",
        ),
        Wrong(
            answer=_clamped,
            hint="that stops at the border and names patches there twice; take the modulo instead",
        ),
        Wrong(
            answer=_flat,
            hint="row and column wrap by themselves: the left neighbour of the first patch of a "
            "row is the last one of the same row, not of the row above",
        ),
        Wrong(answer=_with_itself, hint="the patch is not its own neighbour: leave (0, 0) out"),
        Wrong(
            answer=_by_height,
            hint="patches are numbered row by row: place = row * width + column",
        ),
    ),
    hints=(
        "row, column = divmod(patch, width); steps from -(window // 2) to window // 2",
        "(row + r) % height * width + (column + c) % width for all r, c but (0, 0)",
    ),
)


def _positives_of(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    height = width = round(len(tokens) ** 0.5)
    index = nearest_neighbours(tokens[None], (height, width), k).index[0]
    assert near.shape == (len(tokens), 8)  # of the cases below
    return index.sort(dim=1).values


def _positive_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(13)

    def _case(side: int, width: int, k: int) -> tuple[Tensor, Tensor, int]:
        tokens = torch.randn(side * side, width, generator=draw)
        lengths = 0.2 + 3 * torch.rand(side * side, 1, generator=draw)
        return tokens * lengths, neighbour_table((side, side), 3)[0], k

    return _case(3, 4, 1), _case(4, 8, 4)


def _chosen(likeness: Tensor, near: Tensor, k: int) -> Tensor:
    return near.gather(1, likeness.topk(k, dim=1).indices).sort(dim=1).values


def _by_product(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    return _chosen((tokens[:, None] * tokens[near]).sum(dim=-1), near, k)


def _by_distance(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    return _chosen(-(tokens[:, None] - tokens[near]).norm(dim=-1), near, k)


def _farthest(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    return _chosen(-F.cosine_similarity(tokens[:, None], tokens[near], dim=-1), near, k)


def _columns(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    likeness = F.cosine_similarity(tokens[:, None], tokens[near], dim=-1)
    return likeness.topk(k, dim=1).indices.sort(dim=1).values


def _of_all(tokens: Tensor, near: Tensor, k: int) -> Tensor:
    cosines = F.normalize(tokens, dim=1) @ F.normalize(tokens, dim=1).T
    return cosines.fill_diagonal_(-2).topk(k, dim=1).indices.sort(dim=1).values


POSITIVES = Exercise(
    name="selfpatch.4",
    task="For each patch, choose the k of its candidates whose tokens have the largest cosine to "
    "its own, and return their places in ascending order.",
    minutes=10,
    difficulty=2,
    answer=_positives_of,
    source=nearest_neighbours,
    cases=_positive_cases,
    wrong=(
        Wrong(
            answer=_by_product,
            hint="a product prefers long tokens; the cosine does not know how long a token is",
        ),
        Wrong(
            answer=_by_distance,
            hint="the distance knows how long tokens are; compare directions, by the cosine",
        ),
        Wrong(answer=_farthest, hint="the most similar ones: the largest cosines"),
        Wrong(
            answer=_columns,
            hint="those are numbers of columns of `near`; look up the places: near.gather(1, ...)",
        ),
        Wrong(answer=_of_all, hint="only the candidates of a patch count, not the whole image"),
    ),
    hints=(
        "F.cosine_similarity(tokens[:, None], tokens[near], dim=-1) is [N, n]",
        "near.gather(1, cosines.topk(k, dim=1).indices).sort(dim=1).values",
    ),
)


def _carried(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    config = PropagationConfig(neighbours=best, temperature=temperature)
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    return affinity(cosines, config) @ labels


def _carry_cases() -> tuple[tuple, ...]:
    draw = torch.Generator().manual_seed(14)

    def _case(targets: int, sources: int, width: int, kinds: int, best: int) -> tuple:
        tokens = 2 * torch.randn(targets + sources, width, generator=draw)
        labels = torch.rand(sources, kinds, generator=draw).softmax(dim=-1)
        return *tokens.split((targets, sources)), labels, best

    return (*_case(1, 3, 4, 2, 2), 1.0), (*_case(5, 9, 8, 3, 4), 0.1)


def _weighed(cosines: Tensor, labels: Tensor, best: int, temperature: float) -> Tensor:
    least = cosines.topk(best, dim=1).values[:, -1:]
    return (cosines / temperature).masked_fill(cosines < least, -torch.inf).softmax(1) @ labels


def _cosines(target: Tensor, sources: Tensor) -> Tensor:
    return F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T


def _from_everyone(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    return _weighed(_cosines(target, sources), labels, len(sources), temperature) + 0 * best


def _of_any_length(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    return _weighed(target @ sources.T, labels, best, temperature)


def _lukewarm(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    return _weighed(_cosines(target, sources), labels, best, 2.0 + 0 * temperature)


def _only_best(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    return labels[_cosines(target, sources).argmax(dim=1)]


def _normalised_first(
    target: Tensor, sources: Tensor, labels: Tensor, best: int, temperature: float
) -> Tensor:
    weights = (_cosines(target, sources) / temperature).softmax(dim=1)
    least = weights.topk(best, dim=1).values[:, -1:]
    return weights.masked_fill(weights < least, 0.0) @ labels


CARRIED = Exercise(
    name="selfpatch.5",
    task="Give each token of a frame the labels of its most similar sources: weights exp(cosine / "
    "temperature) for the best so many, 0 for the others, and a sum of 1.",
    minutes=15,
    difficulty=3,
    answer=_carried,
    source=affinity,
    cases=_carry_cases,
    wrong=(
        Wrong(
            answer=_from_everyone,
            hint="only the most similar sources count: all others get a weight of 0",
        ),
        Wrong(answer=_of_any_length, hint="cosines, not products: bring tokens to unit length"),
        Wrong(answer=_lukewarm, hint="divide the cosines by the temperature that is given"),
        Wrong(
            answer=_only_best,
            hint="labels stay soft: a weighted mean of several sources, not the label of one",
        ),
        Wrong(
            answer=_normalised_first,
            hint="what is left must sum to 1 again: choose first, then normalise",
        ),
    ),
    hints=(
        "cosines.topk(best, dim=1) gives values and indices; the softmax runs over the values",
        "((values / temperature).softmax(1)[..., None] * labels[indices]).sum(dim=1)",
    ),
    tolerance=1e-5,
)

EXERCISES = (NEIGHBOURS, POSITIVES, CARRIED)
