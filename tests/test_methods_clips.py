"""The losses of ConST-CL against loops, in cases that are known, and over two ranks."""

from math import exp, log

import pytest
import torch
from torch.nn import functional
from two_ranks import in_two_ranks

from mimlib.methods.objectives.clips import (
    clip_logits,
    contrast_clips,
    contrast_regions,
    match_regions,
    region_logits,
)

VIDEOS, REGIONS, WIDTH = 4, 3, 6


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(shape, generator=generator), dim=-1)


def regions(seed=0, videos=VIDEOS):
    return draw(2, videos, REGIONS, WIDTH, seed=seed)


def test_clips_by_loops():
    a, b = draw(2, VIDEOS, WIDTH)
    total = 0.0
    for own, other in ((a, b), (b, a)):
        for i in range(VIDEOS):
            positive = exp(own[i] @ other[i] / 0.1)
            against = sum(exp(own[i] @ other[j] / 0.1) for j in range(VIDEOS))
            against += sum(exp(own[i] @ own[j] / 0.1) for j in range(VIDEOS) if j != i)
            total -= log(positive / against) / VIDEOS
    assert contrast_clips(a, b).item() == pytest.approx(total, rel=1e-5)
    assert contrast_clips(a[:1], b[:1]) == 0


def test_regions_by_loops():
    (h, other), (z, _) = regions(), regions(1)
    match, back = match_regions(h, other)
    valid = torch.rand(VIDEOS, REGIONS) < 0.5
    valid[0, 0] = True
    losses = []
    for v in range(VIDEOS):
        for r in range(REGIONS):
            similar = [float(h[v, r] @ other[v, s]) for s in range(REGIONS)]
            assert similar[match[v, r]] == max(similar)
            similar = [float(h[v, s] @ other[v, r]) for s in range(REGIONS)]
            assert similar[back[v, r]] == max(similar)
            positive = exp(z[v, r] @ other[v, match[v, r]] / 0.2)
            strangers = other[torch.arange(VIDEOS) != v].flatten(0, 1)
            against = sum(exp(z[v, r] @ q / 0.2) for q in strangers)
            losses.append(-log(positive / (positive + against)))
    losses = torch.tensor(losses).view_as(valid)
    found = contrast_regions(z, other, match)
    torch.testing.assert_close(found, losses.mean())
    found = contrast_regions(z, other, match, valid=valid)
    torch.testing.assert_close(found, losses[valid].mean())


def test_nothing_to_tell_apart_costs_nothing():
    (_, other), (z, _) = regions(videos=1), regions(1, videos=1)
    match = torch.zeros(1, REGIONS, dtype=torch.int64)
    assert contrast_regions(z, other, match) == 0
    nobody = torch.zeros(VIDEOS, REGIONS, dtype=torch.bool)
    (_, other), (z, _) = regions(), regions(1)
    z.requires_grad_()
    loss = contrast_regions(z, other, match.expand(VIDEOS, -1), valid=nobody)
    loss.backward()
    assert loss == 0 and not z.grad.any()


def test_known_values():
    """Perfect decoding, and targets at right angles; then vectors at random in a wide space."""
    basis = torch.eye(VIDEOS * REGIONS).unflatten(0, (VIDEOS, REGIONS))
    match, back = match_regions(basis, basis)
    assert torch.equal(match, torch.arange(REGIONS).expand(VIDEOS, -1)) and torch.equal(match, back)
    negatives = (VIDEOS - 1) * REGIONS
    expected = log(1 + negatives * exp(-1 / 0.2))
    assert contrast_regions(basis, basis, match).item() == pytest.approx(expected, rel=1e-5)
    z, other = draw(2, 16, 8, 2048)
    loss = contrast_regions(z, other, torch.zeros(16, 8, dtype=torch.int64))
    assert loss.item() == pytest.approx(log(121), abs=0.05)


def test_regions_of_the_same_video_are_no_negatives():
    (_, other), (z, _) = regions(), regions(1)
    match = torch.zeros(VIDEOS, REGIONS, dtype=torch.int64)
    logits, labels = region_logits(z, other, match, 0.2)
    assert torch.equal(labels[:, 0], torch.arange(VIDEOS) * REGIONS)
    changed = other.clone()
    changed[1, 2] = -changed[1, 2]  # nobody's match
    moved = region_logits(z, changed, match, 0.2)[0] != logits
    assert not moved[1].any() and moved[[0, 2, 3]].sum() == 3 * REGIONS
    logits, own = clip_logits(other[:, 0], z[:, 0], 0.1)
    assert logits.isinf().sum() == VIDEOS and logits[0, VIDEOS].isinf()
    assert torch.equal(own, torch.arange(VIDEOS))


def test_everything_that_is_compared_learns():
    h, z = regions().requires_grad_(), regions(1).requires_grad_()
    contrast_regions(z[0], h[1], match_regions(*h)[0]).backward()
    assert z.grad[0].any() and h.grad[1].any() and not h.grad[0].any() and not z.grad[1].any()


def losses(rank=None):
    """Both losses and their gradients, of all videos or of a rank's half of them."""
    part = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    vectors = [draw(2, VIDEOS, WIDTH), regions(1), regions(2)]
    clips, h, z = (each[:, part].clone().requires_grad_() for each in vectors)
    match = match_regions(*h)[0]
    found = [contrast_clips(*clips), contrast_regions(z[0], h[1], match)]
    sum(found).backward()
    return {"loss": torch.stack(found).detach(), "clips": clips.grad, "h": h.grad, "z": z.grad}


def test_two_ranks_are_one_process(tmp_path):
    parts, whole = in_two_ranks(losses, tmp_path), losses()
    torch.testing.assert_close(sum(part["loss"] for part in parts) / 2, whole["loss"])
    for name in ("clips", "h", "z"):  # averaged over ranks, as training does
        found = torch.cat([part[name] for part in parts], dim=1) / 2
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-6)
