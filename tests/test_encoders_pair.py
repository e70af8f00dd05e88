"""The decoder on two complete images, as stereo and flow use it."""

import pytest
import torch

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.positions import resize_table

KINDS = [("cross", False), ("cross", True), ("cat", False), ("cat", True)]


@pytest.fixture(params=KINDS, ids=["cross", "cross-rope", "cat", "cat-rope"])
def decoder(request):
    torch.manual_seed(0)
    kind, rotary = request.param
    encoder = ViTConfig(
        width=24, depth=1, heads=3, patch_size=8, image_size=32, class_token=False, rotary=rotary
    )
    return PairDecoderConfig(width=16, depth=3, heads=2, kind=kind).build(encoder)


def draw(num_patches=16):
    return torch.randn(2, 2, num_patches, 16).unbind()


def test_features_have_the_promised_shapes(decoder):
    features = decoder(*draw(), (4, 4), levels=(0, -1))
    assert features.tokens.shape == (2, 16, 16) and features.class_token is None
    assert [m.shape for m in features.levels] == [(2, 16, 4, 4)] * 2
    last = decoder.norm(features.levels[1].flatten(2).transpose(1, 2))
    torch.testing.assert_close(last, features.tokens)


def test_blocks_run_one_after_the_other(decoder):
    tokens, memory = draw()
    features = decoder(tokens, memory, (4, 4), levels=(0, 1, 2))
    tokens, memory, sight = decoder.add_positions(tokens, memory, (4, 4))
    for block, level in zip(decoder.blocks, features.levels):
        tokens, memory = block(tokens, memory, sight=sight)
        torch.testing.assert_close(level.flatten(2).transpose(1, 2), tokens)


def test_some_of_the_tokens_in_another_order(decoder):
    tokens, memory = draw()
    order = torch.stack([torch.randperm(16) for _ in range(2)])
    mixed = tokens.gather(1, order[:, :, None].expand(-1, -1, 16))
    whole = decoder(tokens, memory, (4, 4)).tokens
    expected = whole.gather(1, order[:, :, None].expand(-1, -1, 16))
    torch.testing.assert_close(decoder(mixed, memory, (4, 4), order).tokens, expected)
    some = decoder(mixed, memory, (4, 4), order, num_outputs=5).tokens
    torch.testing.assert_close(some, expected[:, -5:])
    for changes in ({"order": order}, {"num_outputs": 5}):
        with pytest.raises(ValueError, match="levels are maps of the whole grid"):
            decoder(mixed, memory, (4, 4), levels=(0,), **changes)


def test_tables_are_resized_and_rotations_computed_for_another_grid(decoder):
    tokens, memory = draw(5 * 8)
    assert decoder(tokens, memory, (5, 8)).tokens.isfinite().all()
    if not decoder.rotary:
        located, _, _ = decoder.add_positions(torch.zeros_like(tokens), memory, (5, 8))
        expected = resize_table(decoder.pos_embed[0], (4, 4), (5, 8))
        torch.testing.assert_close(located[0], expected)


def test_rows_and_columns_are_told_apart(decoder):
    tokens, memory = draw()
    flat = decoder(tokens, memory, (2, 8)).tokens
    assert not torch.allclose(flat, decoder(tokens, memory, (4, 4)).tokens)


def test_where_the_tokens_look(decoder):
    tokens, memory = draw()
    maps = [decoder.cross_attention_maps(tokens, memory, (4, 4), block=b) for b in (0, 2, -1)]
    assert all(m.shape == (2, 2, 16, 16) for m in maps)
    assert torch.equal(maps[1], maps[2]) and not torch.allclose(maps[0], maps[1])
