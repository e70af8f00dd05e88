"""Attention against its formula, and the two ways to compute it against each other."""

import pytest
import torch

from mimlib.layers import attention
from mimlib.layers.attention import Attention


def by_the_formula(layer, tokens):
    """Loops over images, heads and tokens."""
    width = tokens.shape[-1]
    d = width // layer.heads
    projected = tokens @ layer.qkv.weight.T + layer.qkv.bias
    q, k, v = projected.split(width, dim=-1)
    result = torch.zeros_like(tokens)
    for b in range(tokens.shape[0]):
        for a in range(layer.heads):
            part = slice(a * d, (a + 1) * d)
            for i in range(tokens.shape[1]):
                logits = torch.stack([q[b, i, part] @ key / d**0.5 for key in k[b, :, part]])
                result[b, i, part] = logits.softmax(0) @ v[b, :, part]
    return result @ layer.proj.weight.T + layer.proj.bias


def test_attention_is_the_formula():
    layer = Attention(12, heads=3)
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(tokens), by_the_formula(layer, tokens))


@pytest.mark.parametrize("eager", [True, False])
def test_both_kernels_agree_with_their_gradients(monkeypatch, eager):
    layer = Attention(16, heads=2).double()
    tokens = torch.randn(2, 9, 16, dtype=torch.float64)

    def run(use_eager):
        monkeypatch.setattr(attention, "_prefer_eager", lambda *heads: use_eager)
        layer.zero_grad()
        out = layer(tokens)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in layer.parameters())]

    for ours, other in zip(run(eager), run(not eager)):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_outputs", [1, 4, 7])
def test_the_last_outputs_alone_are_the_last_outputs(num_outputs):
    layer = Attention(16, heads=4)
    tokens = torch.randn(2, 7, 16)
    short = layer(tokens, num_outputs)
    torch.testing.assert_close(short, layer(tokens)[:, -num_outputs:])


def test_weights_sum_to_one_and_follow_the_logits():
    layer = Attention(8, heads=2)
    weights = layer.weigh(layer.project(torch.randn(3, 6, 8)))
    assert weights.shape == (3, 2, 6, 6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 6))
    same = layer.weigh(layer.project(torch.zeros(1, 6, 8)))
    torch.testing.assert_close(same, torch.full((1, 2, 6, 6), 1 / 6))


def test_the_kernel_rule_on_a_cpu():
    short, long = torch.zeros(1, 1, 17, 8), torch.zeros(1, 1, 200, 8)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        for heads in (short, long):
            assert not attention._prefer_eager(heads, heads)
            assert attention._prefer_eager(heads.bfloat16(), heads.bfloat16())
        assert attention._prefer_eager(long, long, bias=long), "a bias that learns has no kernel"
        torch.set_float32_matmul_precision("medium")
        assert attention._prefer_eager(long, long)
        frame = torch.zeros(1, 1, 1560, 8)
        assert not attention._prefer_eager(frame, frame)
        assert attention._prefer_eager(frame.bfloat16(), frame.bfloat16())
    finally:
        torch.set_float32_matmul_precision(before)
    assert not attention._prefer_eager(long.to("meta"), long.to("meta"))
