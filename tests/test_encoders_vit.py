"""The Vision Transformer."""

from functools import partial

import pytest
import torch

from mimlib.encoders.vit import VIT_SIZES, ViTConfig, vit_config
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_bool, random_mask
from mimlib.layers.patches import patchify, unpatchify
from mimlib.layers.rope import rotary_table, rotate
from mimlib.protocol import Encoder, PatchMask

TINY = {"width": 16, "depth": 3, "heads": 2, "patch_size": 8, "image_size": 32}
KINDS = [(True, False), (False, False), (True, True), (False, True)]  # class token, rotary


@pytest.fixture(params=KINDS, ids=["class", "no-class", "class-rope", "no-class-rope"])
def encoder(request):
    torch.manual_seed(0)
    class_token, rotary = request.param
    return ViTConfig(**TINY, class_token=class_token, rotary=rotary).build()


def draw(batch, num_patches, num_masked):
    return random_mask(batch, num_patches, num_masked, torch.Generator().manual_seed(1))


def test_features_have_the_promised_shapes(encoder):
    images = torch.randn(2, 3, 32, 32)
    features = encoder(images, levels=(0, -1))
    assert features.tokens.shape == (2, 16, 16) and features.grid == (4, 4)
    assert [m.shape for m in features.levels] == [(2, 16, 4, 4)] * 2
    assert (features.class_token is None) == (encoder.cls_token is None)
    assert encoder(images, draw(2, 16, 12)).tokens.shape == (2, 4, 16)
    assert (encoder.stride, encoder.width, encoder.num_layers) == (8, 16, 3)


def test_levels_are_the_outputs_of_the_blocks(encoder):
    features = encoder(torch.randn(2, 3, 32, 32), levels=(-1, 1))
    last = encoder.norm(features.levels[0].flatten(2).transpose(1, 2))
    torch.testing.assert_close(last, features.tokens)
    assert not torch.allclose(features.levels[0], features.levels[1])
    with pytest.raises(ValueError, match="without a mask"):
        encoder(torch.randn(2, 3, 32, 32), draw(2, 16, 12), levels=(0,))
    for levels in ((3,), (0, -4)):
        with pytest.raises(ValueError, match="not all there; expected 0 to 2, or -1 for the last"):
            encoder(torch.randn(2, 3, 32, 32), levels=levels)


def test_a_mask_that_hides_nothing_equals_no_mask(encoder):
    images = torch.randn(2, 3, 32, 32)
    nothing = mask_from_bool(torch.zeros(2, 16, dtype=torch.bool))
    torch.testing.assert_close(encoder(images, nothing).tokens, encoder(images).tokens)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (16, 40)])
def test_hidden_pixels_change_nothing_at_all(encoder, size):
    """Bitwise; the replacement pixels are drawn first, so that the mask is the same."""
    images, other = torch.randn(2, 3, *size), torch.randn(2, 3, *size) * 10
    grid = (size[0] // 8, size[1] // 8)
    mask = draw(2, grid[0] * grid[1], grid[0] * grid[1] // 2)
    hidden = as_bool(mask)[:, :, None]
    mixed = torch.where(hidden, patchify(other, 8), patchify(images, 8))
    changed = unpatchify(mixed, 8, grid)
    before, after = encoder(images, mask), encoder(changed, mask)
    assert (changed - images).abs().max() > 1
    assert (before.tokens - after.tokens).abs().max() == 0.0
    assert not torch.equal(encoder(images).tokens, encoder(changed).tokens)


def test_gradients_reach_visible_pixels_only(encoder):
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    mask = draw(2, 16, 12)
    encoder(images, mask).tokens.square().sum().backward()
    reached = patchify(images.grad, 8).abs().amax(dim=2) > 0
    assert torch.equal(reached, ~as_bool(mask))


def test_the_order_of_visible_patches_does_not_matter(encoder):
    images, mask = torch.randn(2, 3, 32, 32), draw(2, 16, 8)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]).expand(2, -1)
    shuffled = PatchMask(mask.visible.gather(1, order), mask.masked)
    expected = gather_tokens(encoder(images, mask).tokens, order)
    torch.testing.assert_close(encoder(images, shuffled).tokens, expected)


@pytest.mark.parametrize("changes", [
    {}, {"class_token": False}, {"class_token": False, "rotary": True}, {"rotary": True},
    {"learned_positions": True, "position_nudge": 0.1},
])  # fmt: skip
def test_sizes_in_one_pass_are_one_pass_each(changes):
    torch.manual_seed(0)
    encoder = ViTConfig(**TINY, **changes).build()
    images = [torch.randn(4, 3, 32, 32), torch.randn(6, 3, 24, 16)]
    results = []
    for encode in (encoder.encode_sizes, partial(Encoder.encode_sizes, encoder)):
        features = encode(images, levels=(-1, 0))
        encoder.zero_grad()
        parts = [t for each in features for t in (each.tokens, each.class_token, *each.levels)]
        parts = [t for t in parts if t is not None]
        sum(t.sin().sum() for t in parts).backward()
        gradients = [p.grad for p in encoder.parameters()]
        results.append(([each.grid for each in features], parts, gradients))
    together, apart = results
    assert together[0] == apart[0] == [(4, 4), (3, 2)]
    torch.testing.assert_close(together[1], apart[1], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(together[2], apart[2], rtol=1e-5, atol=1e-5)


def test_attention_maps_are_those_of_the_block(encoder):
    images = torch.randn(2, 3, 32, 32)
    rows = 16 + (encoder.cls_token is not None)
    maps = [encoder.attention_maps(images, block) for block in (0, 2, -1)]
    assert all(m.shape == (2, 2, rows, rows) for m in maps)
    torch.testing.assert_close(maps[0].sum(dim=-1), torch.ones(2, 2, rows))
    assert torch.equal(maps[1], maps[2]) and not torch.allclose(maps[0], maps[1])


@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
def test_rotary_positions_turn_patches_by_their_places_and_the_class_token_not_at_all(grid):
    torch.manual_seed(0)
    encoder, places = ViTConfig(**TINY, rotary=True).build(), rotary_table(grid, 8)
    num_patches = grid[0] * grid[1]
    for mask in (None, draw(2, num_patches, num_patches // 2)):
        seen = torch.arange(num_patches)[None] if mask is None else mask.visible
        tokens, sight = encoder.enter(torch.randn(2, num_patches, 192), grid, mask)
        alone = encoder.cls_token[0, 0]
        assert torch.equal(tokens[:, 0], alone.expand(2, -1)), "the class token has no position"
        block = encoder.blocks[0]
        queries, keys, _ = block.attn.project(block.norm1(tokens))[0].unbind(2)  # [2, 1 + K, D]
        turned = []
        for part in (queries, keys):
            part = part.unflatten(-1, (2, 8)).transpose(1, 2)  # [2, A, 1 + K, d]
            turned.append(torch.cat([part[:, :, :1], rotate(part[:, :, 1:], places[seen])], dim=2))
        expected = (turned[0] @ turned[1].transpose(-2, -1) / 8**0.5).softmax(dim=-1)
        torch.testing.assert_close(block.weigh(tokens, sight), expected)
        assert not torch.allclose(block.weigh(tokens), expected)
        bare = ViTConfig(**TINY, rotary=True, class_token=False).build().rope(grid, mask)
        assert torch.equal(sight.rope[:, 1:], bare)


def test_layers_are_numbered_from_the_pixels():
    encoder = ViTConfig(**TINY, learned_positions=True).build()
    found = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert found["cls_token"] == found["pos_embed"] == found["patch_embed.proj.bias"] == 0
    assert found["blocks.0.norm1.weight"] == 1 and found["blocks.2.mlp.fc2.bias"] == 3
    assert found["norm.weight"] == 4


def test_positions_are_fixed_or_learned():
    fixed, learned = ViTConfig(**TINY), ViTConfig(**TINY, learned_positions=True)
    assert "pos_embed" not in dict(fixed.build().named_parameters())
    assert "pos_embed" in dict(learned.build().named_parameters())
    assert torch.equal(fixed.build().pos_embed, learned.build().pos_embed)


def test_stochastic_depth_rises_linearly():
    encoder = ViTConfig(**TINY, drop_path=0.3).build()
    assert [b.drop_path.rate for b in encoder.blocks] == pytest.approx([0, 0.15, 0.3])


@pytest.mark.parametrize("size,patch,count", [("B", 16, 85_798_656), ("L", 16, 303_301_632),
                                              ("H", 14, 630_764_800)])  # fmt: skip
def test_published_sizes_have_the_published_parameters(size, patch, count):
    with torch.device("meta"):
        encoder = vit_config(size, patch, 224).build()
    assert sum(t.numel() for t in encoder.state_dict().values()) == count


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"heads": 3}, "width 16 does not divide into 3 heads"),
        ({"width": 18}, "width 18 is not a multiple of 4"),
        ({"image_size": 30}, "image_size 30 is not a multiple of the stride 8"),
        ({"drop_path": 1.0}, r"drop_path is 1.0; expected 0 <= drop_path < 1"),
    ],
)
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**{**TINY, **changes})


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="unknown ViT size 'XL'; choose one of Ti, S, B, L, H"):
        vit_config("XL", 16, 224)
    assert vit_config("Ti", 16, 224, class_token=False).width == VIT_SIZES["Ti"][0]
