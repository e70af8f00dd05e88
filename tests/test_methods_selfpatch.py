"""What is special about SelfPatch: where gradients go, what the teacher sees, the centres."""

from dataclasses import replace

import pytest
import torch
from siamese_cases import (
    CROPS,
    HYBRID,
    PATCHES,
    PLAIN,
    SELFPATCH,
    WITH_CLASS,
    build,
    draw_views,
    trained,
)

from mimlib.encoders.vit import vit_config
from mimlib.layers.positions import resize_table
from mimlib.layers.views.multicrop import MultiCropConfig, MultiCropViews
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import encode_crops


@pytest.fixture
def method():
    return build("selfpatch")


@pytest.fixture
def views(method):
    return draw_views(method)


def reached(method):
    """The parameters of the student that have a gradient other than 0."""
    return {
        n.removeprefix("student.")
        for n, p in trained(method).items()
        if p.grad is not None and p.grad.abs().max() > 0
    }


def of_patches(method, views):
    """The loss of patches alone."""
    pairs = [
        method.represent(network, views.by_size(), network is method.teacher)[1]
        for network in (method.student, method.teacher)
    ]
    return method.objectives["patches"].within_crops(method.both_heads("patches"), *pairs)[0]


def test_the_loss_of_patches_does_not_train_the_aggregator(method, views):
    of_patches(method, views).backward()
    names = {n.removeprefix("student.") for n in trained(method)}
    expected = {n for n in names if n.startswith(("encoder.", "heads.patches."))}
    assert reached(method) == expected and "encoder.norm.weight" in expected


def test_the_loss_of_images_trains_all_but_the_head_of_patches(method, views):
    alone, state = build("selfpatch-no-patches"), method.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    torch.testing.assert_close(alone(views).loss, method(views).terms["image"])
    method(views).loss.sub(method.config.patch_weight * of_patches(method, views)).backward()
    touched = {n for n in reached(method) if not n.startswith("heads.patches.")}
    names = {n.removeprefix("student.") for n in trained(method)}
    assert touched == {n for n in names if not n.startswith("heads.patches.")}


def test_the_total_is_weighed(method, views):
    output = method(views)
    torch.testing.assert_close(output.terms["patches"], of_patches(method, views).detach())
    total = output.terms["image"] + 0.1 * output.terms["patches"]
    torch.testing.assert_close(output.loss.detach(), total)


def test_images_do_not_know_whether_patches_are_summed_up(method, views):
    found = [method.represent(method.teacher, views, each)[0] for each in (True, False)]
    torch.testing.assert_close(*found)


def test_the_centres_are_means_over_all_crops(method, views):
    for objective in method.objectives.values():
        objective.center.zero_()
    with torch.no_grad():
        method.after_step(method(views).state, 0.5)
        described = method.represent(build("selfpatch").teacher, views, True)
    heads = build("selfpatch").teacher.heads
    images = heads["image"](described[0]).flatten(0, 1)
    patches = torch.cat([heads["patches"](patch).flatten(0, 2) for patch in described[1]])
    assert len(images) == 2 * 5 and len(patches) == 2 * (2 * 16 + 3 * 9)
    for name, logits in (("image", images), ("patches", patches)):
        torch.testing.assert_close(method.objectives[name].center, 0.1 * logits.mean(0))


@pytest.mark.parametrize("name", ["selfpatch", "selfpatch-hybrid", "selfpatch-no-neighbours"])
def test_sizes_described_together_are_described_apart(name):
    method = build(name).eval()
    views = draw_views(method)
    images, patches = method.represent(method.teacher, views, True)
    apart = [method.represent(method.teacher, views[i : i + 1], True) for i in (0, 1)]
    torch.testing.assert_close(images, torch.cat([each[0] for each in apart]))
    for found, (_, (expected,)) in zip(patches, apart, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_query_is_not_among_its_own_positives(method, views):
    (found,) = encode_crops(method.teacher.encoder, views[:1])
    chosen = method.positives(found.raw, found.grid)
    assert (chosen.index != torch.arange(16)[:, None]).all() and chosen.index.shape == (4, 16, 4)


def test_without_aggregation_the_target_is_the_teachers_own_token(views):
    method = build("selfpatch-no-neighbours")
    encoded = encode_crops(method.teacher.encoder, views)
    _, patches = method.represent(method.teacher, views, True)
    for each, found in zip(encoded, patches, strict=True):
        torch.testing.assert_close(found.flatten(0, 1), each.tokens)


@pytest.mark.parametrize("sizes,wrap", [((40, 24), True), ((48, 8), False), ((24, 16), False)])
def test_grids_other_than_the_papers(sizes, wrap):
    crops = MultiCropConfig(global_size=sizes[0], local_size=sizes[1], num_local=2)
    method = build("selfpatch", crops=crops, wrap=wrap)
    assert method(draw_views(method)).loss.isfinite()


@pytest.mark.parametrize("window,k", [(0, 8), (5, 2), (3, 8)])
def test_other_neighbourhoods(window, k):
    crops = replace(CROPS, global_size=40, local_size=40)
    method = build("selfpatch", crops=crops, window=window, k=k)
    assert method(draw_views(method)).loss.isfinite()


@pytest.mark.parametrize("changes,message", [
    ({"encoder": WITH_CLASS}, "give its encoder class_token=False"),
    ({"crops": replace(CROPS, local_size=16)}, "grid of 2 x 2 meets itself"),
    ({"crops": replace(CROPS, local_size=20)}, "crops of 20 pixels are not a multiple"),
    ({"k": 9}, "k is 9, but 8 patches are near"),
    ({"window": 2}, "window is 2; choose an odd side"),
    ({"patch_weight": -1.0}, "patch_weight is -1.0; expected 0 <= patch_weight"),
    ({"encoder": HYBRID, "aggregator_heads": 5}, "width 24 does not divide into 5 heads"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SelfPatchConfig(**SELFPATCH | changes)
    assert SelfPatchConfig(**SELFPATCH).patches == PATCHES and not PLAIN.class_token


@pytest.mark.parametrize("size,total,encoder,aggregator", [
    ("Ti", 34_541_696, 5_523_648, 890_304),
    ("S", 54_128_384, 21_664_128, 3_550_080),
    ("B", 130_460_672, 85_795_584, 14_178_048),
])  # fmt: skip
def test_parameters_are_as_official(size, total, encoder, aggregator):
    """Official counts: the final norm is the aggregator's, prototypes have fixed lengths."""
    vit = vit_config(size, 16, 224, class_token=False, learned_positions=True)
    with torch.device("meta"):
        student = SelfPatchConfig(encoder=vit).build().student
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in student.named_children()
    }
    norm = 2 * vit.width
    assert counts["encoder"] - norm == encoder and counts["aggregator"] + norm == aggregator
    assert sum(counts.values()) + 65_536 + 4_096 == total


def test_positions_of_small_crops_are_resized_as_official():
    table = 0.02 * torch.randn(196, 8, generator=torch.Generator().manual_seed(0))
    plain, nudged = (resize_table(table, (14, 14), (6, 6), nudge) for nudge in (0.0, 0.1))
    assert plain.shape == nudged.shape == (36, 8)
    assert (plain - nudged).abs().max() > 1e-3
    encoder = replace(PLAIN, image_size=112).build()
    with torch.no_grad():
        encoder.pos_embed.normal_()
        found = encoder.embed(torch.zeros(1, 36, 192), (6, 6)) - encoder.patch_embed.proj.bias
    expected = resize_table(encoder.pos_embed[0], (14, 14), (6, 6), 0.1)
    torch.testing.assert_close(found[0], expected.detach())


def test_two_images_can_be_learned_by_heart():
    """The student says what a teacher says that stands still."""
    method = build("selfpatch", momentum=1.0, freeze=0.0)
    views = draw_views(method)
    views = MultiCropViews(*(crops[:, :1] for crops in views))
    optimizer = torch.optim.AdamW(trained(method).values(), lr=1e-3, fused=True)
    first = method(views)
    for _ in range(60):
        optimizer.zero_grad()
        output = method(views)
        output.loss.backward()
        optimizer.step()
    for name, term in first.terms.items():
        assert output.terms[name] < term - 0.1, name
