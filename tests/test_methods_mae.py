"""MAE: counts, names, positions; what all methods share is in test_methods_contract.py."""

import pytest
import torch
from method_cases import CASES, PATCH

from mimlib.encoders.vit import vit_config
from mimlib.layers.masking import as_bool
from mimlib.layers.patches import patchify
from mimlib.methods.mae import MAEConfig

CASE = CASES["mae"]


@pytest.mark.parametrize("ratio,visible", [
    (0.4, 117), (0.5, 98), (0.6, 78), (0.7, 58), (0.75, 49), (0.8, 39), (0.85, 29), (0.9, 19),
])  # fmt: skip
def test_a_ratio_leaves_as_many_patches_as_in_the_official_code(ratio, visible):
    config = MAEConfig(encoder=vit_config("B", 16, 224), mask_ratio=ratio)
    assert (config.num_visible, config.num_masked) == (visible, 196 - visible)
    assert config.num_patches == 196


@pytest.mark.parametrize("size,patch,total,trainable,tensors", [
    ("B", 16, 111_907_840, 111_655_680, 254),
    ("L", 16, 329_541_888, 329_239_296, 398),
    ("H", 14, 657_074_508, 656_613_964, 494),
])  # fmt: skip
def test_published_sizes_have_the_published_parameters(size, patch, total, trainable, tensors):
    with torch.device("meta"):
        model = MAEConfig(encoder=vit_config(size, patch, 224)).build()
    state = model.state_dict()
    assert (len(state), sum(t.numel() for t in state.values())) == (tensors, total)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def test_which_parameters_decay_as_official():
    with torch.device("meta"):
        model = MAEConfig(encoder=vit_config("B", 16, 224)).build()
    flat = {n for n, p in model.named_parameters() if p.ndim <= 1 or n.endswith(".bias")}
    decayed = {n for n, _ in model.named_parameters()} - flat
    assert (len(decayed), len(flat)) == (85, 167)
    assert {"encoder.cls_token", "mask_token"} <= decayed


def test_initialisation_of_the_tokens():
    model = MAEConfig(encoder=vit_config("S", 16, 224), decoder_depth=1).build()
    for token in (model.encoder.cls_token, model.mask_token):
        assert 0.015 < token.std() < 0.025


def test_every_token_gets_the_position_of_its_patch():
    model = CASE.build()
    views = CASE.draw(model)
    with torch.no_grad():
        model.mask_token.zero_()
        model.decoder_embed.weight.zero_()
    memory = model.encode(patchify(views.images, PATCH), views.mask, (4, 4))
    tokens = model.fill_in(memory, views.mask, (4, 4))
    order = torch.cat([views.mask.visible, views.mask.masked], dim=1)
    for b in range(2):
        assert torch.equal(tokens[b, 0], model.decoder_pos_embed[0, 0])
        assert torch.equal(tokens[b, 1:], model.decoder_pos_embed[0, 1 + order[b]])


@pytest.mark.parametrize("changes,message", [
    ({"mask_ratio": 0.99}, "hides 16 of 16 patches"),
    ({"decoder_heads": 3}, "decoder_width 16 must be a multiple"),
    ({"decoder_depth": 0}, "decoder_depth is 0"),
])  # fmt: skip
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CASE.build(**changes)


def test_mask_tokens_may_go_through_the_encoder():
    """All patches are encoded, and still nothing of hidden ones gets in."""
    plain, model = CASE.build(), CASE.build(encode_masked=True)
    views = CASE.draw(model)
    other = CASE.replace_pixels(views, as_bool(views.mask))
    memories = [
        model.encode(patchify(v.images, PATCH), v.mask, (4, 4)).detach() for v in (views, other)
    ]
    assert memories[0].shape == (2, 1 + 16, 24) and torch.equal(*memories)
    assert torch.equal(model(views).prediction, model(other).prediction)
    assert model(views).prediction.shape == plain(views).prediction.shape
    assert plain.state_dict().keys() == model.state_dict().keys(), "one mask token, elsewhere"
    model(views).loss.backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_the_mask_token_is_embedded_and_told_its_position():
    model = CASE.build(encode_masked=True)
    views = CASE.draw(model)
    hidden = as_bool(views.mask)[:, :, None]
    filled = torch.where(hidden, model.mask_token, patchify(views.images, PATCH))
    expected = model.encoder.encode(filled, (4, 4))  # in the order of the grid
    order = torch.cat(views.mask, dim=1) + 1
    rows = torch.cat([torch.zeros(2, 1, dtype=torch.long), order], dim=1)
    found = model.encode(patchify(views.images, PATCH), views.mask, (4, 4))
    expected = expected.gather(1, rows[:, :, None].expand(found.shape))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["mae", "mae-no-class", "convmae"])
def test_the_loss_may_count_visible_patches_too(name):
    case = CASES[name]
    plain, model = case.build(), case.build(predict_visible=True)
    views = case.draw(model)
    some, every = plain(views), model(views)
    count = views.mask.masked.shape[1]
    assert every.prediction.shape[1] == 16 and every.mask.all()
    torch.testing.assert_close(every.prediction[:, -count:], some.prediction, atol=1e-5, rtol=0)
    assert torch.equal(every.target[:, -count:], some.target)
    error = (every.prediction - every.target).square().mean()
    torch.testing.assert_close(every.loss, error, atol=1e-6, rtol=0)
    patches = patchify(views.images, PATCH)
    standard = (patches - patches.mean(2, keepdim=True)) / (
        patches.var(2, keepdim=True) + 1e-6
    ).sqrt()
    order = torch.cat(views.mask, dim=1)[:, :, None].expand(every.target.shape)
    torch.testing.assert_close(every.target, standard.gather(1, order), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.reconstruct(views), plain.reconstruct(views))
