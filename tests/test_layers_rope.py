"""Rotary positions against their closed form."""

import math
from functools import partial

import pytest
import torch

from mimlib.layers.attention import Attention, Sight
from mimlib.layers.rope import rotary_table, rotate


def angle_by_the_formula(place, channel, d):
    """The angle that turns a channel of a token at a place (row, column)."""
    half, quarter = d // 2, d // 4
    return place[channel // half] * 100.0 ** (-(channel % quarter) / quarter)


def rotate_by_the_formula(vector, place):
    """One head of one token, channel by channel, in float64."""
    d = len(vector)
    quarter = d // 4
    result = torch.empty(d, dtype=torch.float64)
    for start in (0, d // 2):
        for i in range(start, start + quarter):
            angle = angle_by_the_formula(place, i, d)
            u, v = float(vector[i]), float(vector[i + quarter])
            result[i] = u * math.cos(angle) - v * math.sin(angle)
            result[i + quarter] = v * math.cos(angle) + u * math.sin(angle)
    return result


@pytest.mark.parametrize("d", [4, 12, 64])
def test_the_closed_form(d):
    heads = torch.randn(1, 2, 6, d)
    turned = rotate(heads, rotary_table((2, 3), d)[None])
    for token in range(6):
        for head in range(2):
            expected = rotate_by_the_formula(heads[0, head, token], divmod(token, 3))
            assert (turned[0, head, token].double() - expected).abs().max() < 1e-6


def test_frequencies_fall_from_one_to_almost_a_hundredth():
    angles = rotary_table((2, 2), 64)[3, 64:].asin().abs().view(4, 16)  # of the place (1, 1)
    assert angles[0, 0] == pytest.approx(1, rel=1e-5)
    assert angles[0, 15] == pytest.approx(0.01334, rel=1e-3)
    assert all(torch.equal(angles[0], row) for row in angles)


def test_rows_turn_the_first_half_and_columns_the_second():
    heads = torch.randn(1, 1, 4, 8)
    turned = rotate(heads, rotary_table((2, 2), 8)[None])
    moved = (turned - heads).abs() > 1e-6
    assert not moved[0, 0, 0].any(), "the first place turns nothing"
    assert moved[0, 0, 1].tolist() == [False] * 4 + [True] * 4
    assert moved[0, 0, 2].tolist() == [True] * 4 + [False] * 4


def test_pairs_are_half_a_block_apart_and_not_neighbours():
    heads = torch.zeros(1, 1, 3, 16)
    heads[..., 0] = 1
    turned = rotate(heads, rotary_table((3, 1), 16)[None])
    assert (turned[0, 0, 1:] != 0).nonzero()[:, 1].tolist() == [0, 4] * 2


def test_lengths_stay():
    heads = torch.randn(2, 3, 15, 12)
    turned = rotate(heads, rotary_table((3, 5), 12)[None])
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


def test_products_depend_on_the_difference_of_places_only():
    query, key = torch.randn(2, 1, 1, 1, 16)
    grid, table = (5, 5), rotary_table((5, 5), 16)

    def product(place, other):
        turn = [table[None, [r * grid[1] + c]] for r, c in (place, other)]
        return (rotate(query, turn[0]) * rotate(key, turn[1])).sum()

    expected = product((0, 0), (2, 1))
    torch.testing.assert_close(product((2, 3), (4, 4)), expected)
    assert (product((2, 3), (4, 3)) - expected).abs() > 1e-3


def test_every_image_may_have_places_of_its_own():
    heads, table = torch.randn(2, 1, 3, 8), rotary_table((2, 3), 8)
    places = torch.tensor([[0, 2, 4], [5, 1, 3]])
    together = rotate(heads, table[places])
    for b in range(2):
        assert torch.equal(together[b : b + 1], rotate(heads[b : b + 1], table[None, places[b]]))


def test_attention_turns_queries_and_keys_but_not_values():
    layer, tokens = Attention(16, heads=2), torch.randn(1, 6, 16)
    turns = rotary_table((2, 3), 8)[None]
    sight = Sight(turns)
    q, k, v = (
        part.unflatten(-1, (2, 8)).transpose(1, 2) for part in layer.project(tokens)[0].unbind(2)
    )
    logits = rotate(q, turns) @ rotate(k, turns).transpose(-2, -1) / 8**0.5
    seen = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(tokens, sight=sight), layer.proj(seen))
    torch.testing.assert_close(layer.weigh(layer.project(tokens), sight), logits.softmax(-1))
    torch.testing.assert_close(layer(tokens, 2, sight), layer(tokens, sight=sight)[:, -2:])
    assert not torch.allclose(layer(tokens), layer(tokens, sight=sight))


def test_gradients_are_those_of_the_sum_of_both_parts():
    heads, table = torch.randn(2, 3, 6, 12, requires_grad=True), rotary_table((2, 3), 12)[None]
    gradient = torch.randn(2, 3, 6, 12)
    ours = torch.autograd.grad(rotate(heads, table), heads, gradient)[0]
    own, other = table[:, None].chunk(2, dim=-1)
    partners = torch.cat([heads.chunk(4, dim=-1)[i] for i in (1, 0, 3, 2)], dim=-1)
    expected = torch.autograd.grad(heads * own + partners * other, heads, gradient)[0]
    torch.testing.assert_close(ours, expected)


def test_transforms_of_functions_go_through():
    """Gradients of gradients, of single samples, and forward mode, as of plain products."""
    table, tangent = rotary_table((2, 3), 12)[None].double(), torch.randn(4, 3, 6, 12).double()
    heads = torch.randn(4, 3, 6, 12, dtype=torch.float64)

    def plain(heads):
        own, other = table[:, None].chunk(2, dim=-1)
        partners = torch.cat([heads.chunk(4, dim=-1)[i] for i in (1, 0, 3, 2)], dim=-1)
        return heads * own + partners * other

    def energy(of, heads):
        return (of(heads[None])[0] ** 3).sum()

    def everything(of):
        slopes = torch.func.vmap(torch.func.grad(partial(energy, of)))(heads)
        curved = torch.func.jvp(torch.func.grad(lambda x: (of(x) ** 3).sum()), (heads,), (tangent,))
        return slopes, *curved, *torch.func.jvp(of, (heads,), (tangent,))

    ours = everything(lambda x: rotate(x, table))
    for found, expected in zip(ours, everything(plain), strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, table), heads[:1].requires_grad_())


def test_numbers_keep_their_type():
    heads = torch.randn(1, 1, 4, 8).bfloat16()
    assert rotate(heads, rotary_table((2, 2), 8)[None]).dtype == torch.bfloat16


def test_a_head_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="per head 6 is not a multiple of 4, .* use 4 or 8"):
        rotary_table((2, 2), 6)
