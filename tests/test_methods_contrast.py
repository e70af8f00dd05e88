"""Contrastive objectives, against loops written from the papers."""

import pytest
import torch
from torch.nn import functional as F

from mimlib.methods.objectives.contrast import ContrastConfig

CONFIG = ContrastConfig(hidden=8, outputs=6)


def vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def test_with_negatives_it_is_the_papers_sum():
    objective = CONFIG.build()
    queries, keys = vectors(2, 4, 3, 6), vectors(2, 4, 3, 6, seed=1)  # V, B, N, E
    found = objective.compare(queries, keys)
    for v in range(2):
        terms = []
        for b in range(4):
            for n in range(3):
                likeness = torch.stack([queries[v, b, n] @ keys[v, c, n] for c in range(4)]) / 0.2
                terms.append(likeness.exp().sum().log() - likeness[b])
        torch.testing.assert_close(found[v], torch.stack(terms).mean())


def test_without_negatives_it_is_the_distance():
    objective = ContrastConfig(negatives=False).build()
    queries, keys = vectors(2, 4, 3, 6), vectors(2, 4, 3, 6, seed=1)
    expected = (queries - keys).square().sum(-1).mean((1, 2))
    torch.testing.assert_close(objective.compare(queries, keys), expected)


def test_exact_cases():
    same = vectors(1, 5, 2, 6)[:, :1].expand(-1, 5, -1, -1)
    torch.testing.assert_close(CONFIG.build().compare(same, same), torch.full((1,), 5.0).log())
    positives = ContrastConfig(negatives=False).build()
    torch.testing.assert_close(positives.compare(same, same), torch.zeros(1), rtol=0, atol=1e-6)


def test_images_are_compared_between_other_crops():
    torch.manual_seed(0)
    objective = CONFIG.build()
    heads = CONFIG.build_head(5, True), CONFIG.build_head(5, False)
    assert len(heads[0]) == 2 and len(heads[1]) == 1
    student, teacher = torch.randn(2, 3, 4, 5).unbind()
    loss, kept = objective.between_crops(heads, student, teacher, 2)
    queries, keys = objective.embed(heads[0], student), objective.embed(heads[1], teacher[:2])
    pairs = [
        objective.compare(queries[v, None, :, None], keys[q, None, :, None])
        for q in range(2) for v in range(3) if v != q
    ]  # fmt: skip
    torch.testing.assert_close(loss, torch.cat(pairs).mean())
    assert kept is None, "there is no center to update"


def test_patches_of_crops_weigh_by_crop():
    torch.manual_seed(0)
    objective = CONFIG.build()
    heads = CONFIG.build_head(5, True), CONFIG.build_head(5, False)
    student = [torch.randn(2, 4, 9, 5), torch.randn(3, 4, 4, 5)]
    teacher = [torch.randn_like(part) for part in student]
    loss, _ = objective.within_crops(heads, student, teacher)
    each = [
        objective.compare(objective.embed(heads[0], ours), objective.embed(heads[1], theirs))
        for ours, theirs in zip(student, teacher)
    ]
    torch.testing.assert_close(loss, (each[0].sum() + each[1].sum()) / 5)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="temperature is 0.0"):
        ContrastConfig(temperature=0.0)
    with pytest.raises(ValueError, match="hidden is 0"):
        ContrastConfig(hidden=0)
