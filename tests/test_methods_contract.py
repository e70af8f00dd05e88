"""What holds for every pre-training method: purity, masks, leaks, gradients, pictures, learning."""

import json
import sys
from pathlib import Path

import pytest
import torch
from method_cases import CASES, PATCH, PLAIN, gradients, rows_of
from one_graph import assert_one_graph
from two_ranks import in_two_ranks

from mimlib.layers.masking import as_bool, gather_tokens, mask_from_bool
from mimlib.layers.patches import denormalize, patchify, unpatchify
from mimlib.methods.objectives.masked import normalize_patches
from mimlib.protocol import Output
from mimlib.training.sharding import shard_in_place

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def model(case):
    return case.build()


@pytest.fixture
def views(case, model):
    return case.draw(model)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (16, 40)])
def test_output_has_the_promised_parts(case, model, size):
    views = case.draw(model, size=size)
    output = model(views)
    num_patches = size[0] * size[1] // PATCH**2
    batch, num_masked = views.mask.masked.shape
    assert isinstance(output, Output) and 0 < num_masked < num_patches
    assert views.mask.visible.shape[1] + num_masked == num_patches
    assert case.image(views).shape == (batch, 3, *size)
    assert output.prediction.shape == output.target.shape == (batch, num_masked, 3 * PATCH**2)
    assert torch.equal(output.mask, as_bool(views.mask))
    assert output.mask.sum() == batch * num_masked
    assert output.loss.shape == () and output.loss.isfinite() and output.loss.requires_grad
    assert not output.prediction.requires_grad
    assert [*output.terms.values()] == [output.loss]
    assert not any(term.requires_grad for term in output.terms.values())


def test_equal_views_make_equal_outputs_and_change_no_state(model, views):
    before = {n: t.clone() for n, t in model.state_dict().items()}
    first, second = model(views), model(views)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.prediction, second.prediction)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_views_depend_on_the_generator_alone(case, model, views):
    torch.manual_seed(99)
    same, other = case.draw(model), case.draw(model, seed=1)
    assert torch.equal(views.mask.masked, same.mask.masked)
    assert not torch.equal(views.mask.masked, other.mask.masked)
    assert case.image(views).dtype == torch.float32


def test_masks_are_sorted_and_complete(views):
    for index in views.mask:
        assert (index.diff(dim=1) > 0).all()
    both = torch.cat(views.mask, dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(16).expand(len(both), -1))


def test_hidden_pixels_change_nothing_at_all(case, model, views):
    """Bitwise, in what is predicted of them; visible ones do change it."""
    hidden = as_bool(views.mask)
    changed = case.replace_pixels(views, hidden)
    assert torch.equal(changed.mask.visible, views.mask.visible)
    before, after = model(views), model(changed)
    assert (before.target - after.target).abs().max() > 0.1, "nothing was changed"
    assert torch.equal(before.prediction, after.prediction)
    seen = model(case.replace_pixels(views, ~hidden))
    assert (before.prediction - seen.prediction).abs().max() > 1e-4
    assert torch.equal(before.target, seen.target)


def test_predictions_get_gradients_from_visible_pixels_only(case, model, views):
    image = case.image(views).clone().requires_grad_()
    prediction = case.predict(model, case.with_image(views, image))
    assert torch.equal(prediction.detach(), model(views).prediction)
    prediction.square().sum().backward()
    reached = patchify(image.grad, PATCH).abs().amax(dim=2) > 0
    assert torch.equal(reached, ~as_bool(views.mask))


def test_every_parameter_learns(model, views):
    model(views).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_every_parameter_of_the_encoder_has_a_depth(model):
    encoder = model.encoder
    found = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert found == set(range(encoder.num_layers + 2))


def test_the_order_of_visible_patches_does_not_change_the_loss(model, views):
    mask = views.mask._replace(visible=views.mask.visible.flip(1))
    torch.testing.assert_close(model(views._replace(mask=mask)).loss, model(views).loss)


def test_two_halves_accumulate_to_the_whole(case, model):
    views = case.draw(model, batch=4)
    half = len(views.mask.visible) // 2
    halves = [rows_of(views, slice(0, half)), rows_of(views, slice(half, None))]
    torch.testing.assert_close(
        gradients(model, halves), gradients(model, [views]), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("normalize_target", [True, False])
def test_the_target(case, normalize_target):
    model = case.build(normalize_target=normalize_target)
    views = case.draw(model)
    masked = gather_tokens(patchify(case.image(views), PATCH), views.mask.masked)
    expected = normalize_patches(masked)[0] if normalize_target else masked
    output = model(views)
    assert torch.equal(output.target, expected)
    error = (output.prediction - expected).square().mean()
    torch.testing.assert_close(output.loss.detach(), error)


def test_the_loss_is_computed_in_float32(model, views):
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(views).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, model(views).loss, rtol=0.02, atol=0)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_pictures_show_visible_pixels_and_predictions(case, model, views):
    original = patchify(denormalize(case.image(views)), PATCH)
    hidden = as_bool(views.mask)
    for borrow in (True, False):
        picture = patchify(model.reconstruct(views, borrow_statistics=borrow), PATCH)
        torch.testing.assert_close(picture[~hidden], original[~hidden], rtol=0, atol=1e-6)
        assert (picture[hidden] - original[hidden]).abs().mean() > 0.01
        assert picture.min() >= 0 and picture.max() <= 1


def test_a_prediction_of_nothing_has_the_mean_of_its_patch(case, model, views):
    with torch.no_grad():
        model.decoder_pred.weight.zero_()
    hidden = as_bool(views.mask)
    grey = patchify(model.reconstruct(views), PATCH)[hidden]
    image = case.image(views)
    mean = patchify(image, PATCH).mean(dim=2, keepdim=True).expand(-1, -1, 3 * PATCH**2)
    expected = patchify(denormalize(unpatchify(mean, PATCH, (4, 4))), PATCH)[hidden]
    torch.testing.assert_close(grey, expected.clamp(0, 1), rtol=0, atol=1e-5)


def test_a_painted_mask_is_taken(case, model, views):
    painted = torch.zeros(1, 16, dtype=torch.bool)
    painted[0, [0, 5, 10]] = True
    one = rows_of(views, slice(0, 1))._replace(mask=mask_from_bool(painted))
    output = model(one)
    assert output.prediction.shape == (1, 3, 3 * PATCH**2)
    assert torch.equal(output.mask, painted)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_mask_must_leave_something_on_both_sides(case, ratio):
    with pytest.raises(ValueError, match=f"mask_ratio {ratio} hides .* patches; choose a ratio"):
        case.build(mask_ratio=ratio)


def test_an_image_of_the_wrong_size_is_refused(case, model):
    with pytest.raises(ValueError, match="image side 36 is not a multiple of the patch side 8"):
        case.draw(model, size=(32, 36))


@pytest.mark.parametrize("name", ["mae", "convmae", "croco-cross"])
def test_two_images_can_be_learned_by_heart(name):
    case = CASES[name]
    model = case.build(**dict(case.wide))
    views = case.draw(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    first = float(model(views).loss.detach())
    for _ in range(200):
        optimizer.zero_grad()
        loss = model(views).loss
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first / 5


@pytest.mark.parametrize("name", ["mae", "convmae", "croco", "selfpatch", "constcl"])
def test_the_stored_digest(name):
    """A refactoring must not move these numbers; tests/golden/update_digest.py rewrites them."""
    sys.path.insert(0, str(GOLDEN))
    try:
        from update_digest import DIGESTS
    finally:
        sys.path.pop(0)
    stored = json.loads((GOLDEN / f"digest_{name}.json").read_text())
    found = DIGESTS[name]()
    assert found["loss"] == pytest.approx(stored["loss"], rel=1e-5)
    assert found["prediction"] == pytest.approx(stored["prediction"], rel=1e-4, abs=1e-5)
    assert found["gradient_norm"] == pytest.approx(stored["gradient_norm"], rel=1e-4)


def find(rank):
    """One of two ranks: the mean gradient of both halves of every method, by DDP and by FSDP2."""
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for name, case in CASES.items():
        method = case.build()
        views = case.draw(method, batch=4)
        half = len(views.mask.visible) // 2
        mine = rows_of(views, slice(rank * half, (rank + 1) * half))
        parallel = DistributedDataParallel(method)  # which refuses parameters without a gradient
        parallel(mine).loss.backward()
        parallel(mine).loss.backward()  # it would complain here
        found[name] = torch.cat([p.grad.flatten() for p in method.parameters()]) / 2
        sharded = shard_in_place(case.build(), torch.device("cpu"))
        sharded(mine).loss.backward()
        whole = [p.grad.full_tensor().flatten() for p in sharded.parameters()]
        found[f"{name}, sharded"] = torch.cat(whole)
    return found


def test_two_ranks_are_one(tmp_path):
    first, second = in_two_ranks(find, tmp_path)
    for name, case in CASES.items():
        method = case.build()
        whole = gradients(method, [case.draw(method, batch=4)])
        for way in (name, f"{name}, sharded"):
            assert torch.equal(first[way], second[way]), way
            torch.testing.assert_close(first[way], whole, rtol=1e-4, atol=1e-7)


COMPILE = """
import sys
from method_cases import CASES
from one_graph import compare
for name in sys.argv[1:]:
    case = CASES[name]
    model = case.build()
    compare(name, model, case.draw, model.parameters(), num_batches=3, rtol=1e-4)
"""


@pytest.mark.slow
def test_forward_compiles_to_one_graph():
    assert_one_graph(COMPILE, *PLAIN)
