"""Answers to the exercises of lesson 04 about patches, right and wrong."""

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong


def step_by_step(patch, height, width, window):
    reach = window // 2
    row, column = divmod(patch, width)
    return [
        (row + r) % height * width + (column + c) % width
        for r in range(-reach, reach + 1)
        for c in range(-reach, reach + 1)
        if r or c
    ]


@right("selfpatch.3")
def as_a_list(patch, height, width, window):
    return step_by_step(patch, height, width, window)


@right("selfpatch.3")
def as_a_tuple(patch, height, width, window):
    return tuple(step_by_step(patch, height, width, window))


@right("selfpatch.3")
def by_rolling_a_tensor(patch, height, width, window):
    places = torch.arange(height * width).view(height, width)
    shift = window // 2 - patch // width, window // 2 - patch % width
    near = places.roll(shift, dims=(0, 1))[:window, :window].flatten()
    return torch.cat([near[: window**2 // 2], near[window**2 // 2 + 1 :]])


@right("selfpatch.3")
def by_an_array(patch, height, width, window):
    steps = np.arange(window) - window // 2
    rows, columns = (patch // width + steps) % height, (patch % width + steps) % width
    return np.delete((rows[:, None] * width + columns).ravel(), window**2 // 2).astype(np.int32)


@right("selfpatch.3")
def as_a_list_of_tensors(patch, height, width, window):
    return list(by_rolling_a_tensor(patch, height, width, window))


@wrong("selfpatch.3", "keep the order of the steps")
def as_a_sorted_tensor(patch, height, width, window):
    return by_rolling_a_tensor(patch, height, width, window).sort().values


@wrong("selfpatch.3", "leave (0, 0) out")
def with_the_patch_itself(patch, height, width, window):
    near = step_by_step(patch, height, width, window)
    return torch.tensor(near[: len(near) // 2] + [patch] + near[len(near) // 2 :])


@wrong("selfpatch.3", "row and column wrap by themselves")
def on_one_long_line(patch, height, width, window):
    steps = torch.arange(window) - window // 2
    near = (patch + steps[:, None] * width + steps).flatten() % (height * width)
    return near[near != patch]


@wrong("selfpatch.3", "expected a tensor, got set")
def as_a_set(patch, height, width, window):
    return set(step_by_step(patch, height, width, window))


@wrong("selfpatch.3", "row, column = divmod(patch, width)")
def always_three(patch, height, width, window):
    return step_by_step(patch, height, width, 3)


@right("selfpatch.4")
def by_topk(tokens, near, k):
    cosines = F.cosine_similarity(tokens[:, None], tokens[near], dim=-1)
    return near.gather(1, cosines.topk(k, dim=1).indices).sort(dim=1).values


@right("selfpatch.4")
def by_argsort_of_products(tokens, near, k):
    unit = F.normalize(tokens.double(), dim=1)
    cosines = (unit @ unit.T).gather(1, near)
    best = cosines.argsort(1, descending=True)[:, :k]
    return torch.sort(torch.take_along_dim(near, best, dim=1), dim=1)[0].int()


@right("selfpatch.4")
def by_distances_of_unit_tokens(tokens, near, k):
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    gaps = (unit[:, None] - unit[near]).norm(dim=-1)
    return near.gather(1, gaps.topk(k, dim=1, largest=False).indices).sort(dim=1).values.numpy()


@right("selfpatch.4")
def patch_by_patch(tokens, near, k):
    unit, chosen = F.normalize(tokens, dim=1), []
    for token, others in zip(unit, near.tolist()):
        others.sort(key=lambda place: float(token @ unit[place]), reverse=True)
        chosen.append(sorted(others[:k]))
    return chosen


@right("selfpatch.4")
def in_the_arguments(tokens, near, k):
    tokens /= tokens.norm(dim=1, keepdim=True)
    answer = by_topk(tokens, near, k)
    near.zero_()
    return answer


@wrong("selfpatch.4", "sort the chosen places")
def not_sorted(tokens, near, k):
    cosines = F.cosine_similarity(tokens[:, None], tokens[near], dim=-1)
    return near.gather(1, cosines.topk(k, dim=1).indices)


@wrong("selfpatch.4", "those are numbers of columns")
def columns(tokens, near, k):
    cosines = F.cosine_similarity(tokens[:, None], tokens[near], dim=-1)
    return cosines.topk(k, dim=1).indices.sort(dim=1).values.int()


@wrong("selfpatch.4", "a product prefers long tokens")
def by_products(tokens, near, k):
    products = (tokens @ tokens.T).gather(1, near)
    return near.gather(1, products.topk(k, dim=1).indices).sort(dim=1).values


@wrong("selfpatch.4", "only the candidates of a patch count")
def of_all_but_itself(tokens, near, k):
    unit = F.normalize(tokens, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    return cosines.topk(k, dim=1).indices.sort(dim=1).values


@wrong("selfpatch.4", "got shape [9, 1, 4], expected [9, 1]")
def the_tokens_themselves(tokens, near, k):
    return tokens[by_topk(tokens, near, k)]


@right("selfpatch.5")
def by_values_and_indices(target, sources, labels, best, temperature):
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    values, indices = cosines.topk(best, dim=1)
    return ((values / temperature).softmax(1)[..., None] * labels[indices]).sum(dim=1)


@right("selfpatch.5")
def by_scatter_in_double(target, sources, labels, best, temperature):
    target, sources = target.double(), sources.double()
    cosines = F.cosine_similarity(target[:, None], sources, dim=-1)
    weights = (cosines / temperature).exp()
    weights *= torch.zeros_like(weights).scatter(1, weights.topk(best, dim=1).indices, 1)
    return weights / weights.sum(1, keepdim=True) @ labels.double()


@right("selfpatch.5")
def by_renormalizing(target, sources, labels, best, temperature):
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    values, indices = (cosines / temperature).softmax(dim=1).topk(best, dim=1)
    return torch.einsum("nk,nkm->nm", values / values.sum(1, keepdim=True), labels[indices])


@right("selfpatch.5")
def one_by_one(target, sources, labels, best, temperature):
    found = []
    for token in target:
        cosines = torch.cosine_similarity(token[None], sources)
        order = cosines.argsort(descending=True)[:best]
        found.append(torch.softmax(cosines[order] / temperature, dim=0) @ labels[order])
    return found


@right("selfpatch.5")
def by_numpy_arrays(target, sources, labels, best, temperature):
    a, b, labels = (x.numpy() for x in (target, sources, labels))
    cosines = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    order = np.argsort(-cosines, axis=1)[:, :best]
    weights = np.exp(np.take_along_axis(cosines, order, axis=1) / temperature)
    return (weights[..., None] * labels[order]).sum(1) / weights.sum(1, keepdims=True)


@wrong("selfpatch.5", "what is left must sum to 1 again")
def not_renormalized(target, sources, labels, best, temperature):
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    values, indices = (cosines / temperature).softmax(dim=1).topk(best, dim=1)
    return torch.einsum("nk,nkm->nm", values, labels[indices])


@wrong("selfpatch.5", "bring tokens to unit length")
def of_products(target, sources, labels, best, temperature):
    values, indices = (target @ sources.T).topk(best, dim=1)
    return ((values / temperature).softmax(1)[..., None] * labels[indices]).sum(dim=1).tolist()


@wrong("selfpatch.5", "all others get a weight of 0")
def of_all_sources(target, sources, labels, best, temperature):
    cosines = F.normalize(target, dim=1) @ F.normalize(sources, dim=1).T
    return (cosines / temperature).softmax(1).double() @ labels.double()


@wrong("selfpatch.5", "cosines.topk(best, dim=1) gives values and indices")
def hard_labels(target, sources, labels, best, temperature):
    return by_values_and_indices(target, sources, labels, best, temperature).round()
