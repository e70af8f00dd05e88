"""The hybrid encoder: what it computes, what it does not see, and its sizes."""

import convmae_dense
import pytest
import torch
from torch import nn

from mimlib.encoders.convvit import CONVVIT_SIZES, ConvViTConfig, convvit_config
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_bool, random_mask
from mimlib.layers.patches import patchify, unpatchify
from mimlib.layers.positions import sincos_table
from mimlib.protocol import PatchMask
from mimlib.training.profile import count_flops

TINY = {"widths": (8, 12, 16), "depths": (2, 1, 3), "heads": 2, "image_size": 32}
ENTRIES = [(2, 2, 2), (4, 2, 2), (2, 2, 1), (1, 2, 4)]


def build(**changes):
    torch.manual_seed(0)
    return ConvViTConfig(**{**TINY, "entries": (2, 2, 2), **changes}).build()


@pytest.fixture
def encoder():
    return build()


def draw(batch, num_patches, num_masked):
    return random_mask(batch, num_patches, num_masked, torch.Generator().manual_seed(1))


def test_features_have_the_promised_shapes(encoder):
    features = encoder(torch.randn(2, 3, 32, 32), levels=(0, 1, 2, -1))
    assert features.tokens.shape == (2, 16, 16) and features.grid == (4, 4)
    assert features.class_token is None
    assert [tuple(m.shape[1:]) for m in features.levels[:3]] == [
        (8, 16, 16),
        (12, 8, 8),
        (16, 4, 4),
    ]
    assert torch.equal(features.levels[2], features.levels[3])
    assert encoder(torch.randn(2, 3, 32, 32), draw(2, 16, 12)).tokens.shape == (2, 4, 16)
    assert (encoder.stride, encoder.width, encoder.num_layers) == (8, 16, 3)


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_levels_are_the_maps_of_the_stages(entries, size):
    encoder, images = build(entries=entries), torch.randn(2, 3, *size)
    features = encoder(images, levels=(0, 1, 2))
    dense = convmae_dense.conv_stages(encoder, images)
    for ours, theirs in zip(features.levels, dense):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    last = encoder.norm(features.levels[2].flatten(2).transpose(1, 2))
    torch.testing.assert_close(last, features.tokens)


@pytest.mark.parametrize("changes,levels,message", [
    ({}, (3,), r"levels \(3,\) are not all there; expected 0 to 2, or -1 for the last"),
    ({"mask": True}, (1,), "without a mask"),
])  # fmt: skip
def test_levels_that_are_not_there_are_refused(encoder, changes, levels, message):
    mask = draw(2, 16, 12) if changes else None
    with pytest.raises(ValueError, match=message):
        encoder(torch.randn(2, 3, 32, 32), mask, levels)


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("share", [0.25, 0.75, 0.9])
def test_visible_cells_alone_equal_the_whole_maps(entries, share):
    """Outputs of every stage and every gradient, against the paper's order of things."""
    encoder, images = build(entries=entries), torch.randn(2, 3, 32, 32)
    grid = (32 // encoder.stride,) * 2
    num_patches = grid[0] * grid[1]
    mask = draw(2, num_patches, int(num_patches * share))
    keep = (~as_bool(mask)).float().view(2, 1, *grid)
    ours = encoder.stages(patchify(images, encoder.stride), grid, mask)
    dense = convmae_dense.stages(encoder, images, keep, mask)
    names, gradients = [n for n, _ in encoder.named_parameters() if not n.startswith("norm.")], []
    for stages in (ours, dense):
        loss = sum((t * torch.cos(torch.arange(t.numel()).view_as(t))).mean() for t in stages)
        wanted = [encoder.get_parameter(name) for name in names]
        gradients.append(torch.autograd.grad(loss, wanted))
    for a, b in zip(ours, dense):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    for name, a, b in zip(names, *gradients):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max(), name


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_that_hides_nothing_equals_no_mask(masked):
    encoder, images = build(masked=masked), torch.randn(2, 3, 32, 32)
    nothing = mask_from_bool(torch.zeros(2, 16, dtype=torch.bool))
    assert torch.equal(encoder(images, nothing).tokens, encoder(images).tokens)


def change_hidden(images, mask, stride):
    """Other pixels in the hidden cells."""
    grid = images.shape[-2] // stride, images.shape[-1] // stride
    other = patchify(torch.randn_like(images) * 10, stride)
    mixed = torch.where(as_bool(mask)[:, :, None], other, patchify(images, stride))
    return unpatchify(mixed, stride, grid)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (16, 40)])
def test_hidden_pixels_change_nothing_at_all(encoder, size):
    images = torch.randn(2, 3, *size)
    num_patches = size[0] * size[1] // 64
    mask = draw(2, num_patches, num_patches // 2)
    changed = change_hidden(images, mask, 8)
    assert (changed - images).abs().max() > 1
    assert torch.equal(encoder(images, mask).tokens, encoder(changed, mask).tokens)
    assert not torch.equal(encoder(images).tokens, encoder(changed).tokens)


def test_without_masked_convolutions_they_leak():
    encoder, images, mask = build(masked=False), torch.randn(2, 3, 32, 32), draw(2, 16, 12)
    changed = change_hidden(images, mask, 8)
    leak = (encoder(images, mask).tokens - encoder(changed, mask).tokens).abs().max()
    assert leak > 0.1
    dense = convmae_dense.stages(encoder, images, None, mask)
    ours = encoder.stages(patchify(images, 8), (4, 4), mask)
    for a, b in zip(ours, dense):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_gradients_reach_visible_pixels_only(masked):
    encoder, images = build(masked=masked), torch.randn(2, 3, 32, 32, requires_grad=True)
    mask = draw(2, 16, 12)
    encoder(images, mask).tokens.square().sum().backward()
    reached = patchify(images.grad, 8).abs().amax(dim=2) > 0
    if masked:
        assert torch.equal(reached, ~as_bool(mask))
    else:
        assert (reached & as_bool(mask)).any()


def test_the_order_of_visible_cells_does_not_matter(encoder):
    images, mask = torch.randn(2, 3, 32, 32), draw(2, 16, 8)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]).expand(2, -1)
    shuffled = PatchMask(mask.visible.gather(1, order), mask.masked)
    expected = gather_tokens(encoder(images, mask).tokens, order)
    torch.testing.assert_close(encoder(images, shuffled).tokens, expected)


def test_attention_maps_are_those_of_the_block(encoder):
    images = torch.randn(2, 3, 32, 32)
    maps = [encoder.attention_maps(images, block) for block in (0, 2, -1)]
    assert all(m.shape == (2, 2, 16, 16) for m in maps)
    torch.testing.assert_close(maps[0].sum(dim=-1), torch.ones(2, 2, 16))
    assert torch.equal(maps[1], maps[2]) and not torch.allclose(maps[0], maps[1])


def test_positions_are_those_of_mae_without_a_class_token():
    encoder = convvit_config("S", 224).build()
    assert torch.equal(encoder.pos_embed[0], sincos_table((14, 14), 384, class_token=True)[1:])
    assert "pos_embed" not in dict(encoder.named_parameters())
    assert "pos_embed" in dict(build(learned_positions=True).named_parameters())


def test_layers_are_numbered_as_official():
    """Embeddings and both stages of convolutions hardly move; 0.65^12 is their share."""
    with torch.device("meta"):
        encoder = convvit_config("B", 224, learned_positions=True).build()
    found = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert found["pos_embed"] == found["patch_embed4.bias"] == found["blocks2.1.conv1.bias"] == 0
    assert found["blocks1.0.attn.weight"] == found["patch_embed3.norm.bias"] == 0
    assert found["blocks3.0.norm1.weight"] == 1 and found["blocks3.10.mlp.fc2.bias"] == 11
    assert found["norm.weight"] == 12
    scales = sorted({0.65 ** (encoder.num_layers + 1 - layer) for layer in found.values()})
    assert scales[:3] == pytest.approx([0.00569, 0.00875, 0.01346], rel=1e-3)
    assert scales[-2:] == pytest.approx([0.65, 1.0])


def test_stochastic_depth_rises_linearly_over_all_blocks():
    with torch.device("meta"):
        encoder = convvit_config("B", 224, drop_path=0.1).build()
    blocks = [*encoder.blocks1, *encoder.blocks2, *encoder.blocks3]
    assert [b.drop_path.rate for b in blocks] == pytest.approx([0.1 * i / 14 for i in range(15)])


def test_norms_have_two_epsilons():
    with torch.device("meta"):
        encoder = convvit_config("B", 224).build()
    found = [m.eps for m in encoder.modules() if isinstance(m, nn.LayerNorm)]
    assert (found.count(1e-5), found.count(1e-6)) == (11, 23)


def test_initialisation():
    encoder = convvit_config("B", 32, depths=(1, 1, 1)).build()
    for layer, bound in (
        (encoder.patch_embed1.proj, 0.1443),
        (encoder.patch_embed2.proj, 0.03125),
        (encoder.patch_embed3.proj, 0.0510),  # Xavier
        (encoder.patch_embed4, (6 / (2 * 768)) ** 0.5),
    ):
        assert layer.weight.detach().abs().max() == pytest.approx(bound, rel=0.01)
    assert encoder.patch_embed3.proj.bias.abs().max() > 0
    assert encoder.patch_embed4.bias.abs().max() == 0


@pytest.mark.parametrize("size,count", [("S", 21_942_528), ("B", 84_605_824), ("L", 321_952_384)])
def test_published_sizes_have_the_published_parameters(size, count):
    with torch.device("meta"):
        encoder = convvit_config(size, 224).build()
    assert sum(t.numel() for t in encoder.state_dict().values()) == count


def test_cost_falls_with_what_is_hidden():
    """In proportion: nothing is computed for hidden cells but the maps of depthwise sums."""
    encoder = build(widths=(32, 64, 128), depths=(2, 2, 1), entries=(4, 2, 2), image_size=224)
    counted = [count_flops(Once(encoder), draw(1, 196, hidden)) for hidden in (0, 98, 147, 177)]
    assert counted == sorted(counted, reverse=True)
    assert counted[2] / counted[0] == pytest.approx(0.25, abs=0.03)


class Once(nn.Module):
    """An encoder as something that can be counted."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, mask):
        images = torch.zeros(1, 3, 224, 224, device=mask.visible.device)
        return type("Output", (), {"loss": self.encoder(images, mask).tokens.sum()})


@pytest.mark.parametrize("changes,message", [
    ({"heads": 3}, "width 16 of the last stage must be a multiple of 4 and of heads 3"),
    ({"image_size": 36}, "image_size 36 is not a multiple of the stride 8"),
    ({"kernel": 4}, "kernel is 4; choose an odd number"),
    ({"depths": (0, 1, 1)}, r"depths is \(0, 1, 1\); give one number of 1 or more per stage"),
    ({"entries": (0, 2, 2)}, r"entries is \(0, 2, 2\)"),
    ({"mlp_ratios": (4, 0, 4)}, "mlp_ratios is"),
    ({"drop_path": 1.0}, r"drop_path is 1.0; expected 0 <= drop_path < 1"),
])  # fmt: skip
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="unknown ConvViT size 'H'; choose one of S, B, L"):
        convvit_config("H", 224)
    assert convvit_config("L", 224).widths == CONVVIT_SIZES["L"][0]
