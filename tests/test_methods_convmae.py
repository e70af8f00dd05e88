"""ConvMAE: counts, masks, scales; what all methods share is in test_methods_contract.py."""

import pytest
import torch
from method_cases import CASES, PATCH, convmae, rows_of
from torch import nn

from mimlib.encoders.convvit import convvit_config
from mimlib.layers.cells import as_tokens, pick_cells
from mimlib.layers.masking import as_bool, complementary_masks, mask_from_bool
from mimlib.layers.patches import patchify
from mimlib.layers.positions import sincos_table
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.training.profile import count_flops

CASE, FAST = CASES["convmae"], CASES["convmae-fast"]


def base(**changes):
    return ConvMAEConfig(encoder=convvit_config("B", 224), **changes)


def on_meta(config):
    with torch.device("meta"):
        return config.build()


def test_the_published_size_has_the_published_parameters():
    model = on_meta(base())
    state = model.state_dict()
    assert (len(state), sum(t.numel() for t in state.values())) == (313, 115_041_408)
    assert sum(p.numel() for p in model.parameters()) == 114_790_528
    fusion = [p for n, p in model.named_parameters() if "output_decode" in n]
    assert sum(p.numel() for p in fusion) == 3_146_496 + 1_180_416


def test_norms_have_two_epsilons():
    found = [m.eps for m in on_meta(base()).modules() if isinstance(m, nn.LayerNorm)]
    assert (found.count(1e-5), found.count(1e-6)) == (11, 40)


def test_there_is_no_class_token():
    config = base()
    assert (config.num_visible, config.num_masked, config.num_patches) == (49, 147, 196)
    table = CASE.build().decoder_pos_embed[0]
    assert torch.equal(table, sincos_table((4, 4), 16, class_token=True)[1:])


def test_fusion_keeps_the_default_of_convolutions():
    fine = ConvMAEConfig(
        encoder=convvit_config("B", 32, depths=(1, 1, 1)), decoder_depth=1, mask_ratio=0.5
    ).build().stage1_output_decode  # fmt: skip
    assert fine.weight.detach().abs().max() == pytest.approx(0.0156, rel=0.01)
    assert fine.bias.abs().max() > 0.01


def test_scales_are_summed_before_the_norm():
    """LN(E3 + conv4x4(E1) + conv2x2(E2)) on whole maps, then the visible cells."""
    model = CASE.build()
    images, encoder = CASE.draw(model).images, model.encoder
    maps = encoder(images, levels=(0, 1, 2)).levels
    fine, middle = model.stage1_output_decode(maps[0]), model.stage2_output_decode(maps[1])
    expected = encoder.norm(as_tokens(maps[2] + fine + middle, (1, 1)))
    mask = mask_from_bool(torch.zeros(2, 16, dtype=torch.bool))
    ours = model.encode(patchify(images, PATCH), mask, (4, 4))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_cells_of_all_scales_are_the_same_ones():
    """The sum of one cell depends on the stages of that cell alone."""
    model, layouts = CASE.build(), CASE.configure().encoder.layouts
    stages = [torch.randn(1, 4 * (a * b) ** 2, c) for (a, b), c in zip(layouts, (8, 16, 24))]
    whole = model.fuse(*stages)
    order = torch.tensor([[2, 0, 3, 1]])
    mixed = [pick_cells(tokens, order, layout) for tokens, layout in zip(stages, layouts)]
    torch.testing.assert_close(model.fuse(*mixed), whole[:, order[0]])


def test_fusion_of_nothing_is_one_scale():
    many, one = CASE.build(), CASES["convmae-one-scale"].build()
    for conv in (many.stage1_output_decode, many.stage2_output_decode):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
    one.load_state_dict({n: t for n, t in many.state_dict().items() if "output_decode" not in n})
    views = CASE.draw(many)
    assert torch.equal(many(views).prediction, one(views).prediction)


def test_without_masked_convolutions_the_prediction_leaks():
    leaking = convmae(encoder={"masked": False}).build()
    views = CASE.draw(leaking)
    changed = CASE.replace_pixels(views, as_bool(views.mask))
    difference = leaking(views).prediction - leaking(changed).prediction
    assert difference.abs().max() > 0.05


def test_complementary_masks_show_every_patch_once():
    masks = complementary_masks(3, 16, 4, torch.Generator().manual_seed(0))
    assert masks.visible.shape == (12, 4) and masks.masked.shape == (12, 12)
    shown = (~as_bool(masks)).view(4, 3, 16)  # groups, images, patches
    assert (shown.sum(dim=0) == 1).all()
    assert not torch.equal(shown[:, 0], shown[:, 1])
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"16 patches do not split into groups of {number}"):
            complementary_masks(3, 16, number, torch.Generator())


def test_the_first_group_is_convmae_with_the_same_draw():
    plain, fast = CASE.build(), FAST.build()
    views, groups = CASE.draw(plain), FAST.draw(fast)
    assert len(groups.images) == 4 * len(views.images)
    first = rows_of(groups, slice(0, 2))
    assert torch.equal(first.mask.visible, views.mask.visible)
    assert torch.equal(fast(first).prediction, plain(views).prediction)
    parts = [fast(rows_of(groups, slice(i, i + 2))).loss for i in range(0, 8, 2)]
    torch.testing.assert_close(fast(groups).loss, sum(parts) / 4)


def test_groups_that_do_not_come_out_even_are_refused():
    with pytest.raises(ValueError, match="16 patches into groups of 3 visible ones"):
        FAST.build(mask_ratio=0.8)


def test_a_step_costs_what_the_visible_cells_cost():
    """66.4 GFLOP per image, forward and backward; the official code computes 103.3."""
    views = CASE.draw(convmae().build(), batch=1)
    index = torch.arange(196, device="meta")[None]
    mask = views.mask._replace(visible=index[:, :49], masked=index[:, 49:])
    views = views._replace(images=torch.empty(1, 3, 224, 224, device="meta"), mask=mask)
    assert count_flops(on_meta(base()), views) / 1e9 == pytest.approx(66.4, abs=0.1)
