"""Class attention: against plain attention over the sequences that it never builds."""

import pytest
import torch
from torch import nn

from mimlib.layers.class_attention import Aggregator
from mimlib.layers.neighbors import Neighbors, nearest_neighbors

WIDTH, HEADS, GRID = 12, 3, (4, 5)


@pytest.fixture
def aggregator():
    torch.manual_seed(0)
    made = Aggregator(WIDTH, HEADS)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def tokens():
    return torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(1))


def by_sequences(aggregator, sequence):
    """Sum up one sequence of tokens [n, D], as the paper writes it."""
    summary = aggregator.cls_token[0]  # [1, D]
    for block in aggregator.blocks:
        attn = block.attn
        both = block.norm1(torch.cat([summary, sequence]))
        heads = [
            part.unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for part in (attn.q(both[:1]), attn.k(both), attn.v(both))
        ]
        seen = nn.functional.scaled_dot_product_attention(*heads)  # [A, 1, d]
        summary = summary + attn.proj(seen.transpose(0, 1).flatten(1))
        summary = summary + block.mlp(block.norm2(summary)[None])[0]
    return summary[0]


def summed(aggregator, tokens, chosen):
    """The summary of each patch's neighbours."""
    return aggregator([tokens], [chosen])[1][0]


def test_summaries_are_those_of_sequences(aggregator, tokens):
    chosen = nearest_neighbors(tokens, GRID, 4)
    images, (patches,) = aggregator([tokens], [chosen])
    assert images.shape == (2, WIDTH) and patches.shape == (2, 20, WIDTH)
    for b in range(2):
        torch.testing.assert_close(images[b], by_sequences(aggregator, tokens[b]))
        for patch in (0, 7, 19):
            expected = by_sequences(aggregator, tokens[b, chosen.index[b, patch]])
            torch.testing.assert_close(patches[b, patch], expected)


def test_the_image_does_not_know_of_neighbours(aggregator, tokens):
    alone, none = aggregator([tokens])
    images, _ = aggregator([tokens], [nearest_neighbors(tokens, GRID, 4)])
    assert none == []
    torch.testing.assert_close(alone, images)


def test_sizes_summed_up_together_are_summed_up_apart(aggregator, tokens):
    sizes = [tokens, tokens[:1, :12].flip(1)]
    chosen = [nearest_neighbors(part, grid, 3) for part, grid in zip(sizes, (GRID, (3, 4)))]
    images, patches = aggregator(sizes, chosen)
    apart = [aggregator([part], [each]) for part, each in zip(sizes, chosen)]
    torch.testing.assert_close(images, torch.cat([each[0] for each in apart]))
    for found, (_, (expected,)) in zip(patches, apart, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_order_of_neighbours_does_not_matter(aggregator, tokens):
    chosen = nearest_neighbors(tokens, GRID, 4)
    turned = Neighbors(chosen.index.flip(-1), chosen.valid.flip(-1))
    found = [summed(aggregator, tokens, each) for each in (chosen, turned)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_equal_tokens_make_the_choice_irrelevant(aggregator, tokens):
    same = tokens[:, :1].expand(-1, 20, -1)
    patches = summed(aggregator, same, nearest_neighbors(same, GRID, 4))
    torch.testing.assert_close(patches, patches[:, :1].expand_as(patches))


def test_a_longer_token_is_the_same_token(aggregator, tokens):
    """All that is read of a token has been through a LayerNorm."""
    chosen = nearest_neighbors(tokens, GRID, 4)
    longer = tokens - tokens.mean(dim=-1, keepdim=True)
    found = [summed(aggregator, scale * longer, chosen) for scale in (1.0, 7.0)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


def test_what_is_not_valid_is_not_seen(aggregator, tokens):
    chosen = nearest_neighbors(tokens, GRID, 4, wrap=False)
    assert chosen.valid.sum(-1)[0].view(GRID)[0, 0] == 3
    patches = summed(aggregator, tokens, chosen)
    near = chosen.index[0, 0][chosen.valid[0, 0]]
    torch.testing.assert_close(patches[0, 0], by_sequences(aggregator, tokens[0, near]))
    other = torch.where(chosen.valid, chosen.index, 11)
    again = summed(aggregator, tokens, Neighbors(other, chosen.valid))
    torch.testing.assert_close(patches, again)
