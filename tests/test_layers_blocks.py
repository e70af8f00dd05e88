"""The transformer block."""

import torch
import torch.nn.functional as F
from torch import nn

from mimlib.layers.attention import Sight
from mimlib.layers.blocks import Block, DropPath, Mlp, initialize
from mimlib.layers.packing import pack, unpack


def test_a_block_is_pre_norm_with_exact_gelu():
    block, tokens = Block(8, heads=2), torch.randn(2, 5, 8)
    mlp = block.mlp
    x = tokens + block.attn(F.layer_norm(tokens, (8,), eps=1e-6))
    hidden = F.layer_norm(x, (8,), eps=1e-6) @ mlp.fc1.weight.T + mlp.fc1.bias
    exact = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(block(tokens), x + exact @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_names_inside_a_block_are_the_published_ones():
    assert {name.rpartition(".")[0] for name in Block(8, heads=2).state_dict()} == {
        "norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2",
    }  # fmt: skip


def test_the_last_outputs_alone_are_the_last_outputs():
    block, tokens = Block(8, heads=2), torch.randn(2, 7, 8)
    torch.testing.assert_close(block(tokens, num_outputs=3), block(tokens)[:, -3:])


def test_what_a_wide_block_recomputes_changes_no_gradient():
    block, tokens = Block(512, heads=8), torch.randn(2, 5, 512, requires_grad=True)
    assert block.recomputes and not Block(384, heads=6).recomputes

    def run(recomputes):
        block.recomputes, kept = recomputes, []

        def keep(tensor):
            kept.append(tensor)
            return tensor

        tokens.grad = None
        block.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = block(tokens)
        out.square().sum().backward()
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
        for parameter in block.parameters():
            sizes.pop(parameter.untyped_storage()._cdata, None)
        return sum(sizes.values()), [tokens.grad, *(p.grad for p in block.parameters())]

    (more, expected), (less, gradients) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients))
    statistics_of_norms = 4
    outputs_of_norms_and_gelu = 512 + 512 + 4 * 512
    assert more - less == 2 * 5 * 4 * (outputs_of_norms_and_gelu + statistics_of_norms)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert (values == values[:, :1]).all(), "an image is kept or dropped as a whole"
    assert set(values[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(out.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(out), out)


def test_drop_path_draws_for_every_image_of_a_row():
    torch.manual_seed(0)
    drop, shapes = DropPath(0.25), ((2000, 3), (4000, 2))
    row = drop(torch.ones(1, 14_000, 3), shapes)
    for values in unpack(row, shapes):
        assert (values == values[:, :1, :1]).all(), "an image is kept or dropped as a whole"
        assert set(values[:, 0, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
        assert abs(values.mean() - 1) < 0.05
    block = Block(8, heads=2, drop_path=0.5)
    tokens = torch.randn(1, 200, 8)
    changed = (
        (block(tokens, sight=Sight(packed=((50, 4),))) - tokens)[0]
        .unflatten(0, (50, 4))
        .abs()
        .sum(dim=2)
    )
    for kept in (changed > 0).unbind():
        assert kept.all() or not kept.any()
    assert {bool(kept.any()) for kept in changed} == {True, False}
    assert torch.equal(drop.eval()(row, shapes), row)


def test_a_block_sees_every_image_of_a_row_alone():
    block, parts = Block(8, heads=2), [torch.randn(3, 5, 8), torch.randn(2, 4, 8)]
    row, shapes = pack(parts)
    assert shapes == ((3, 5), (2, 4)) and row.shape == (1, 23, 8)
    for found, part in zip(
        unpack(block(row, sight=Sight(packed=shapes)), shapes), parts, strict=True
    ):
        torch.testing.assert_close(found, block(part))


def test_initialisation():
    block = Block(768, heads=12).apply(initialize)
    bound = (6 / (4 * 768)) ** 0.5  # as official: the fused matrix has 3 * 768 rows
    assert 0.99 * bound < block.attn.qkv.weight.abs().max() <= bound
    for module in block.modules():
        if isinstance(module, nn.Linear):
            assert module.bias.abs().max() == 0
    assert (block.norm1.weight == 1).all() and (block.norm1.bias == 0).all()
    assert Mlp(8, 32).fc1.weight.shape == (32, 8)
