"""The two ways a decoder block looks at a second image."""

import pytest
import torch
import torch.nn.functional as F

from mimlib.layers import attention
from mimlib.layers.attention import EVERYONE, CrossAttention, Sight
from mimlib.layers.cross import CatBlock, CrossBlock
from mimlib.layers.rope import rotary_table

WIDTH, HEADS = 16, 2


def norm(x, layer):
    return F.layer_norm(x, (WIDTH,), layer.weight, layer.bias, eps=1e-6)


def shaken(block):
    """Norms and biases that could not be left out unnoticed."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return block


def places(rows, columns):
    return rotary_table((rows, columns), WIDTH // HEADS)[None]


def test_cross_attention_is_the_formula():
    layer = CrossAttention(12, heads=3)
    tokens, memory = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    q, k, v = layer.projq(tokens), layer.projk(memory), layer.projv(memory)
    expected = torch.zeros_like(tokens)
    for b in range(2):
        for a in range(3):
            part = slice(4 * a, 4 * a + 4)
            for i in range(4):
                logits = torch.stack([q[b, i, part] @ key / 2 for key in k[b, :, part]])
                expected[b, i, part] = logits.softmax(0) @ v[b, :, part]
    torch.testing.assert_close(layer(tokens, memory), layer.proj(expected))
    projected = layer.project_queries(tokens), layer.project_memory(memory)
    weights = layer.weigh(projected)
    assert weights.shape == (2, 3, 4, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("eager", [False, True])
def test_a_cross_block_is_its_four_steps(monkeypatch, rotary, eager):
    monkeypatch.setattr(attention, "_prefer_eager", lambda *heads: eager)
    block = shaken(CrossBlock(WIDTH, HEADS))
    tokens, memory = torch.randn(2, 6, WIDTH), torch.randn(2, 8, WIDTH)
    sight = Sight(places(2, 3), places(2, 4)) if rotary else EVERYONE
    x = tokens + block.attn(norm(tokens, block.norm1), sight=Sight(sight.rope))
    normed = norm(memory, block.norm_y)
    x = x + block.cross_attn(norm(x, block.norm2), normed, sight)
    x = x + block.mlp(norm(x, block.norm3))
    result, same_memory = block(tokens, memory, sight=sight)
    torch.testing.assert_close(result, x)
    assert same_memory is memory
    short, _ = block(tokens, memory, 2, sight)
    torch.testing.assert_close(short, result[:, -2:])
    bare, _ = block(tokens, memory)
    assert torch.allclose(bare, result) != rotary


def test_names_inside_a_cross_block_are_the_published_ones():
    assert {name.rpartition(".")[0] for name in CrossBlock(WIDTH, HEADS).state_dict()} == {
        "norm1", "norm2", "norm3", "norm_y", "attn.qkv", "attn.proj", "cross_attn.projq",
        "cross_attn.projk", "cross_attn.projv", "cross_attn.proj", "mlp.fc1", "mlp.fc2",
    }  # fmt: skip


def test_a_cross_block_without_its_second_look_ignores_the_memory():
    block = CrossBlock(WIDTH, HEADS)
    tokens, memory, other = torch.randn(3, 1, 5, WIDTH)
    assert not torch.allclose(block(tokens, memory)[0], block(tokens, other)[0])
    with torch.no_grad():
        for parameter in block.cross_attn.proj.parameters():
            parameter.zero_()
    assert torch.equal(block(tokens, memory)[0], block(tokens, other)[0])


@pytest.mark.parametrize("kind", [CrossBlock, CatBlock])
@pytest.mark.parametrize("rotary", [False, True])
def test_the_order_of_tokens_with_their_places_does_not_matter(kind, rotary):
    block = shaken(kind(WIDTH, HEADS))
    tokens, memory = torch.randn(2, 6, WIDTH), torch.randn(2, 6, WIDTH)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    sight = Sight(places(2, 3), places(2, 3)) if rotary else EVERYONE
    shuffled = sight._replace(rope=sight.rope[:, order]) if rotary else sight
    expected, _ = block(tokens, memory, sight=sight)
    result, _ = block(tokens[:, order], memory, sight=shuffled)
    torch.testing.assert_close(result, expected[:, order])
    maps = block.cross_weigh(tokens, memory, sight)
    moved = block.cross_weigh(tokens[:, order], memory, shuffled)
    torch.testing.assert_close(moved, maps[:, :, order])


@pytest.mark.parametrize("rotary", [False, True])
def test_a_cat_block_is_a_plain_block_on_both_images(rotary):
    block = shaken(CatBlock(WIDTH, HEADS))
    tokens, memory = torch.randn(2, 4, WIDTH), torch.randn(2, 6, WIDTH)
    sight = Sight(places(2, 2), places(2, 3)) if rotary else EVERYONE
    both, rows = torch.cat([tokens, memory], dim=1), None
    if rotary:
        rows = torch.cat(sight[:2], dim=1)
    x = both + block.attn(norm(both, block.norm1), sight=Sight(rows))
    x = x + block.mlp(norm(x, block.norm2))
    new_tokens, new_memory = block(tokens, memory, sight=sight)
    torch.testing.assert_close(new_tokens, x[:, :4])
    torch.testing.assert_close(new_memory, x[:, 4:])
    short, _ = block(tokens, memory, 3, sight)
    torch.testing.assert_close(short, new_tokens[:, -3:])


@pytest.mark.parametrize("kind,rest", [(CrossBlock, 0), (CatBlock, 1)])
def test_weights_say_where_tokens_look(kind, rest):
    block = shaken(kind(WIDTH, HEADS))
    tokens, memory = torch.randn(2, 4, WIDTH), torch.randn(2, 6, WIDTH)
    weights = block.cross_weigh(tokens, memory)
    assert weights.shape == (2, HEADS, 4, 6)
    total = weights.sum(dim=-1)
    assert torch.allclose(total, torch.ones_like(total)) if rest == 0 else (total < 1).all()


def test_cat_has_fewer_parameters_and_cross_fewer_operations():
    """8.42 M parameters and 7.84 GFLOP per pair between them, for 8 blocks of width 512."""
    from torch.utils.flop_counter import FlopCounterMode

    counts, flops = {}, {}
    for kind in (CrossBlock, CatBlock):
        with torch.device("meta"):
            block, tokens = kind(512, 16), torch.empty(1, 196, 512)
        counts[kind] = 8 * sum(p.numel() for p in block.parameters())
        with FlopCounterMode(display=False) as counter:
            block(tokens, tokens)
        flops[kind] = 8 * counter.get_total_flops() / 1e9
    assert counts == {CrossBlock: 33_640_448, CatBlock: 25_219_072}
    assert flops[CrossBlock] == pytest.approx(14.41, abs=0.05)
    assert flops[CatBlock] == pytest.approx(22.25, abs=0.05)


def test_what_a_wide_cross_block_recomputes_changes_no_gradient():
    block = CrossBlock(512, heads=8)
    tokens, memory = torch.randn(2, 2, 5, 512).requires_grad_().unbind()

    def gradients(recomputes):
        block.recomputes = recomputes
        block.zero_grad()
        block(tokens, memory)[0].square().sum().backward()
        return [p.grad for p in block.parameters()]

    assert block.recomputes
    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False)))
