"""MAE: counts, purity, leaks, gradients, learning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mimlib.data.batches import ImageBatch
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_bool
from mimlib.layers.patches import denormalize, normalize, patchify, unpatchify
from mimlib.methods.mae import MAEConfig, MAEViews
from mimlib.methods.objectives import normalize_patches

GOLDEN = Path(__file__).parent / "golden"
ENCODER = {"width": 24, "depth": 2, "heads": 3, "patch_size": 8, "image_size": 32}
DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def build(class_token=True, **changes):
    torch.manual_seed(0)
    encoder = ViTConfig(**ENCODER, class_token=class_token)
    return MAEConfig(encoder=encoder, **{**DECODER, **changes}).build()


def draw(model, batch=2, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)
    return model.sample_views(ImageBatch(images), generator)


def replace_pixels(views, where, size=(32, 32)):
    """The same views with other pixels in the patches `where` [B, N]."""
    patches = patchify(views.images, 8)
    other = torch.randn_like(patches) * 10
    mixed = torch.where(where[:, :, None], other, patches)
    return MAEViews(unpatchify(mixed, 8, (size[0] // 8, size[1] // 8)), views.mask)


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


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (48, 48), (16, 40)])
def test_one_forward_pass(class_token, size):
    model = build(class_token)
    views = draw(model, size=size)
    num_patches = size[0] * size[1] // 64
    num_masked = num_patches - int(num_patches * 0.25)
    output = model(views)
    assert output.prediction.shape == output.target.shape == (2, num_masked, 192)
    assert torch.equal(output.mask, as_bool(views.mask))
    assert output.mask.sum() == 2 * num_masked
    assert output.loss.requires_grad and not output.prediction.requires_grad
    assert output.terms["reconstruction"] == output.loss


def test_equal_views_make_equal_outputs_and_change_no_state():
    model = build()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    views = draw(model)
    first, second = model(views), model(views)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.prediction, second.prediction)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_views_depend_on_the_generator_alone():
    model = build()
    one, same, other = draw(model), draw(model), draw(model, seed=1)
    assert torch.equal(one.mask.masked, same.mask.masked)
    assert not torch.equal(one.mask.masked, other.mask.masked)
    assert one.images.dtype == torch.float32


@pytest.mark.parametrize("class_token", [True, False])
def test_the_prediction_cannot_see_hidden_pixels(class_token):
    model = build(class_token)
    views = draw(model)
    changed = replace_pixels(views, as_bool(views.mask))
    before, after = model(views), model(changed)
    assert (before.target - after.target).abs().max() > 0.1, "nothing was changed"
    assert (before.prediction - after.prediction).abs().max() == 0.0
    seen = model(replace_pixels(views, ~as_bool(views.mask)))
    assert (before.prediction - seen.prediction).abs().max() > 1e-4
    assert (before.target - seen.target).abs().max() == 0.0


def test_predictions_get_gradients_from_visible_pixels_only():
    model = build()
    views = draw(model)
    images = views.images.clone().requires_grad_()
    patches = patchify(images, 8)
    memory = model.encode(patches, views.mask, (4, 4))
    model.decode(memory, views.mask, (4, 4)).square().sum().backward()
    reached = patchify(images.grad, 8).abs().amax(dim=2) > 0
    assert torch.equal(reached, ~as_bool(views.mask))


def test_every_parameter_learns():
    model = build()
    model(draw(model)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_every_token_gets_the_position_of_its_patch():
    model = build()
    views = draw(model)
    with torch.no_grad():
        model.mask_token.zero_()
        model.decoder_embed.weight.zero_()
    memory = model.encode(patchify(views.images, 8), views.mask, (4, 4))
    tokens = model.fill_in(memory, views.mask, (4, 4))
    order = torch.cat([views.mask.visible, views.mask.masked], dim=1)
    for b in range(2):
        assert torch.equal(tokens[b, 0], model.decoder_pos_embed[0, 0])
        assert torch.equal(tokens[b, 1:], model.decoder_pos_embed[0, 1 + order[b]])


def test_the_order_of_visible_patches_does_not_change_the_loss():
    model = build()
    views = draw(model)
    mask = views.mask._replace(visible=views.mask.visible.flip(1))
    torch.testing.assert_close(model(MAEViews(views.images, mask)).loss, model(views).loss)


def test_two_halves_accumulate_to_the_whole():
    model = build()
    views = draw(model, batch=4)

    def gradients(parts):
        model.zero_grad()
        for images, visible, masked in parts:
            mask = views.mask._replace(visible=visible, masked=masked)
            (model(MAEViews(images, mask)).loss / len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    tensors = (views.images, *views.mask)
    halves = [tuple(t[i : i + 2] for t in tensors) for i in (0, 2)]
    torch.testing.assert_close(gradients(halves), gradients([tensors]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("normalize_target", [True, False])
def test_the_target(normalize_target):
    model = build(normalize_target=normalize_target)
    views = draw(model)
    masked = gather_tokens(patchify(views.images, 8), views.mask.masked)
    expected = normalize_patches(masked)[0] if normalize_target else masked
    assert torch.equal(model(views).target, expected)


def test_pictures_show_visible_pixels_and_predictions():
    model = build(normalize_target=True)
    views = draw(model)
    original = patchify(denormalize(views.images), 8)
    hidden = as_bool(views.mask)
    for borrow in (True, False):
        picture = patchify(model.reconstruct(views, borrow_statistics=borrow), 8)
        torch.testing.assert_close(picture[~hidden], original[~hidden], rtol=0, atol=1e-6)
        assert (picture[hidden] - original[hidden]).abs().mean() > 0.01
        assert picture.min() >= 0 and picture.max() <= 1
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
    grey = patchify(model.reconstruct(views), 8)[hidden]
    mean = patchify(views.images, 8).mean(dim=2, keepdim=True).expand(-1, -1, 192)
    expected = patchify(denormalize(unpatchify(mean, 8, (4, 4))), 8)[hidden]
    torch.testing.assert_close(grey, expected.clamp(0, 1), rtol=0, atol=1e-5)


def test_a_painted_mask_is_taken():
    model = build()
    painted = torch.zeros(1, 16, dtype=torch.bool)
    painted[0, [0, 5, 10]] = True
    images = normalize(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    output = model(MAEViews(images, mask_from_bool(painted)))
    assert output.prediction.shape == (1, 3, 192) and torch.equal(output.mask, painted)


@pytest.mark.parametrize("changes,message", [
    ({"mask_ratio": 1.0}, "mask_ratio 1.0"),
    ({"mask_ratio": 0.99}, "hides 16 of 16 patches"),
    ({"decoder_heads": 3}, "decoder_width 16 must be a multiple"),
    ({"decoder_depth": 0}, "decoder_depth is 0"),
])  # fmt: skip
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_an_image_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="image side 36 is not a multiple of the patch side 8"):
        draw(build(), size=(32, 36))


def test_the_stored_digest():
    """A refactoring must not move these numbers; tests/golden/update_digest.py rewrites them."""
    sys.path.insert(0, str(GOLDEN))
    try:
        from update_digest import digest
    finally:
        sys.path.pop(0)
    stored = json.loads((GOLDEN / "digest_mae.json").read_text())
    found = digest()
    assert found["loss"] == pytest.approx(stored["loss"], rel=1e-5)
    assert found["prediction"] == pytest.approx(stored["prediction"], rel=1e-4, abs=1e-5)
    assert found["gradient_norm"] == pytest.approx(stored["gradient_norm"], rel=1e-4)


def test_two_images_can_be_learned_by_heart():
    model = build(decoder_width=32)
    views = draw(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    first = float(model(views).loss.detach())
    for _ in range(200):
        optimizer.zero_grad()
        loss = model(views).loss
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first / 5


COMPILE = """
import torch
from mimlib.data.batches import ImageBatch
from mimlib.encoders.vit import ViTConfig
from mimlib.methods.mae import MAEConfig
encoder = ViTConfig(width=24, depth=1, heads=3, patch_size=8, image_size=32)
model = MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=2, decoder_heads=2).build()
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
for seed in range(3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    views = model.sample_views(ImageBatch(images), generator)
    model.zero_grad()
    plain = model(views).loss
    plain.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with torch.compiler.set_stance("fail_on_recompile" if seed else "default"):
        loss = compiled(views).loss
        loss.backward()
    torch.testing.assert_close(loss, plain)
    for parameter, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
"""


def test_forward_compiles_to_one_graph():
    """In a process of its own: the shape checks of the other tests break compilation."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
