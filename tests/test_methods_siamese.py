"""What holds for every student and teacher: purity, gradients, centres, ranks, resuming."""

import math
from pathlib import Path

import pytest
import torch
from one_graph import assert_one_graph
from siamese_cases import (
    CASES,
    DISTILLED,
    IMAGES,
    SWIN,
    build,
    configure,
    draw_views,
    gradients,
    images,
    rows_of,
    trained,
)
from two_ranks import in_two_ranks

from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.protocol import Output
from mimlib.training.config import TrainConfig
from mimlib.training.optimizer import parameter_groups
from mimlib.training.trainer import Trainer


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def method(name):
    return build(name)


@pytest.fixture
def views(method):
    return draw_views(method)


def test_output_has_the_promised_parts(name, method, views):
    output = method(views)
    assert isinstance(output, Output) and output.loss.requires_grad and output.loss.isfinite()
    expected = {"image"} | ({"patches"} if "patches" in method.objectives else set())
    assert set(output.terms) == expected
    weight = getattr(method.config, "patch_weight", 0.0)
    total = output.terms["image"] + weight * output.terms.get("patches", 0.0)
    torch.testing.assert_close(output.loss.detach(), total)
    kept = {n for n in expected if hasattr(method.objectives[n], "center")}
    assert set(output.state) == kept
    assert not any(t.requires_grad for t in (*output.terms.values(), *output.state.values()))


def test_equal_views_make_equal_outputs_and_change_no_state(method, views):
    before = {n: t.clone() for n, t in method.state_dict().items()}
    assert torch.equal(method(views).loss, method(views).loss)
    after = method.state_dict()
    kept = {n for n in before if "running_" not in n and "num_batches" not in n}
    assert all(torch.equal(before[n], after[n]) for n in kept)


def test_views_depend_on_the_generator_alone(method, views):
    torch.manual_seed(99)
    same, other = draw_views(method), draw_views(method, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(views, same))
    assert not torch.equal(views.global_crops, other.global_crops)


def test_the_student_alone_learns_and_all_of_it(method, views):
    method(views).loss.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher."):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_loss_is_computed_in_float32(name, method, views):
    with torch.autocast("cpu", torch.bfloat16):
        output = method(views)
    assert output.loss.dtype == torch.float32
    assert all(t.dtype == torch.float32 for t in output.state.values())
    # Statistics of a batch of four crops enlarge what bfloat16 rounds.
    rtol = 0.05 if name in DISTILLED else 0.1
    torch.testing.assert_close(output.loss, method(views).loss, rtol=rtol, atol=0)
    output.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in trained(method).values())


@pytest.mark.parametrize("name", DISTILLED)
def test_two_halves_accumulate_to_the_whole(name):
    method = build(name)
    views = draw_views(method, batch=4)
    halves = [rows_of(views, slice(0, 2)), rows_of(views, slice(2, None))]
    torch.testing.assert_close(
        gradients(method, halves), gradients(method, [views]), rtol=1e-4, atol=5e-7
    )
    states = [method(part).state for part in halves]
    for key, whole in method(views).state.items():
        mean = torch.stack([state[key] for state in states]).mean(dim=0)
        torch.testing.assert_close(mean, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum,progress,share", [
    (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.996, 0.0, 0.004), (0.996, 0.5, 0.002),
])  # fmt: skip
def test_the_teacher_follows(momentum, progress, share):
    method = build("selfpatch", momentum=momentum, freeze=0.0)
    before = {n: p.clone() for n, p in method.teacher.named_parameters()}
    student = dict(method.student.named_parameters())
    with torch.no_grad():
        method.after_step({}, progress)
    for n, p in method.teacher.named_parameters():
        torch.testing.assert_close(p, before[n] + share * (student[n] - before[n]))
    if share in (0.0, 1.0):
        exact = before if share == 0 else student
        assert all(torch.equal(p, exact[n]) for n, p in method.teacher.named_parameters())


def test_prototypes_stand_still_for_the_first_epoch():
    torch.manual_seed(0)
    method = configure("selfpatch", freeze=0.1, momentum=0.9).build()
    views, start = draw_views(method), {n: p.clone() for n, p in trained(method).items()}
    optimizer = torch.optim.AdamW(trained(method).values(), lr=1e-2)
    last = [n for n in start if "last_layer" in n]
    for progress, moved in ((0.0, False), (0.05, False), (0.1, True)):
        optimizer.zero_grad()
        method(views).loss.backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step({}, progress)
        for n, parameter in trained(method).items():
            expected = moved if n in last else True
            assert torch.equal(parameter, start[n]) != expected, n
    assert len(last) == 2


def test_the_teacher_begins_as_the_student():
    method = configure("selfpatch").build()
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[n], teacher[n]) for n in student)
    assert method.encoder is method.teacher.encoder


def test_stochastic_depth_is_the_students_alone():
    config = configure("selfpatch", encoder=CASES["selfpatch"][1]["encoder"])
    from dataclasses import replace

    method = replace(config, encoder=replace(config.encoder, drop_path=0.5)).build()
    rates = [
        [block.drop_path.rate for block in network.encoder.blocks]
        for network in (method.student, method.teacher)
    ]
    assert rates == [[0.0, 0.5], [0.0, 0.0]]


class Crops:
    """A source of the same images for ever, split over ranks."""

    def batches(self, start, batch_size, seed, rank=0, num_ranks=1):
        whole = images(batch_size * num_ranks).images
        part = whole[rank * batch_size : (rank + 1) * batch_size]
        while True:
            yield images()._replace(images=part)


def train(name, out, steps, **changes):
    torch.manual_seed(0)
    method = configure(name).build()
    config = TrainConfig(
        steps=5, batch_size=4, base_rate=0.1, precision="float32", device="cpu", **changes
    )
    trainer = Trainer(method, Crops(), config, out=out, progress=False)
    trainer.restore()
    trainer.method.train()
    batches = Crops().batches(0, 4, 0)
    for step in range(trainer.step, steps):
        from mimlib.training.optimizer import set_rate

        set_rate(trainer.optimizer, config.rate(step, 1), config.decay(step))
        _, state = trainer.train_step(next(batches), step)
        with torch.no_grad():
            method.after_step(state, step / 5)
        trainer.step = step + 1
    trainer.save()
    return method.state_dict()


@pytest.mark.parametrize("name", ["selfpatch", "selfpatch-moby"])
def test_three_steps_and_two_are_five(name, tmp_path):
    whole = train(name, tmp_path / "whole", 5)
    train(name, tmp_path / "parts", 3)
    resumed = train(name, tmp_path / "parts", 5)
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)
    if name == "selfpatch":
        assert whole["objectives.patches.center"].abs().max() > 0
    teacher, student = (whole[f"{n}.encoder.norm.bias"] for n in ("teacher", "student"))
    assert not torch.equal(teacher, student) and teacher.abs().max() > 0


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def find(rank):
    """One of two ranks: the mean gradient of both halves, by DDP and by FSDP2, of every method."""
    from mimlib.training.parallel import wrap
    from mimlib.training.sharding import shard_in_place

    found = {}
    for name in CASES:
        method = build(name)
        views = draw_views(method, batch=4)
        mine = rows_of(views, slice(2 * rank, 2 * rank + 2))
        parallel = wrap(method, torch.device("cpu"))
        parallel(mine).loss.backward()
        method.zero_grad()
        parallel(mine).loss.backward()  # it would complain of parameters without a gradient
        found[name] = flat(p.grad for p in trained(method).values())
        cut = shard_in_place(build(name), torch.device("cpu"))
        out_of_pieces = cut(mine)
        out_of_pieces.loss.backward()
        with torch.no_grad():
            cut.after_step(out_of_pieces.state, 0.5)
        found[f"{name}, cut"] = flat(p.grad.full_tensor() for p in trained(cut).values())
        found[f"{name}, teacher"] = flat(p.full_tensor() for p in cut.teacher.parameters())
    return found


def test_two_ranks_are_one(tmp_path):
    """Contrastive methods too: negatives and batch statistics are those of all ranks."""
    first, second = in_two_ranks(find, tmp_path)
    for name in CASES:
        method = build(name)
        whole = gradients(method, [draw_views(method, batch=4)])
        for kind in (name, f"{name}, cut"):
            assert torch.equal(first[kind], second[kind]), kind
            # Statistics of a few crops enlarge rounding where a true gradient is 0.
            assert (first[kind] - whole).norm() < 1e-4 * whole.norm(), kind
        with torch.no_grad():
            method.after_step({}, 0.5)
        torch.testing.assert_close(first[f"{name}, teacher"], flat(method.teacher.parameters()))


COMPILE = """
import sys
from dataclasses import replace
from one_graph import compare
from siamese_cases import build, configure, draw_views, trained
for name in sys.argv[1:]:
    method = build(name, encoder=replace(configure(name).encoder, depth=1))
    compare(name, method, draw_views, trained(method).values())
"""


@pytest.mark.slow
def test_forward_compiles_to_one_graph():
    assert_one_graph(COMPILE, "dino", "selfpatch", "selfpatch-moby")


@pytest.mark.parametrize("changes,message", [
    ({"momentum": 1.5}, "momentum is 1.5"),
    ({"freeze": -1.0}, "freeze is -1.0"),
    ({"image": DistillationConfig(center="crop")}, "leaves nothing of the logits of a whole"),
    ({"encoder": SWIN, "crops": None}, None),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    if message is None:
        from mimlib.layers.views.multicrop import MultiCropConfig

        changes = {"encoder": SWIN, "crops": MultiCropConfig(global_size=36)}
        message = "crops of 36 pixels are not a multiple of the encoder's stride 8"
    with pytest.raises(ValueError, match=message):
        configure("dino", **changes)


def test_momentum_rises_along_half_a_cosine():
    """As the official schedule: of 2000 steps, 0.996 at the first, nearly 1 at the last."""
    import json

    facts = json.loads((Path(__file__).parent / "golden/selfpatch_schedules.json").read_text())
    (case,) = (case for case in facts["cases"] if case["what"] == "teacher momentum")
    method = build("dino", momentum=case["base"], freeze=0.0)
    norm = method.teacher.encoder.norm
    for step, momentum in case["values"]:
        with torch.no_grad():
            norm.bias.zero_()
            method.student.encoder.norm.bias.fill_(1.0)
            method.after_step({}, step / case["length"])
        assert math.isclose(norm.bias[0], 1 - momentum, rel_tol=1e-5, abs_tol=1e-9)


def test_an_objective_of_one_prototype_is_one_class():
    method = build("dino", image=DistillationConfig(prototypes=1, hidden=4, bottleneck=4))
    assert method(draw_views(method)).loss == 0.0 and IMAGES.prototypes > 1


@pytest.mark.parametrize("name", ["dino", "dino-swin", "selfpatch-hybrid"])
def test_layers_of_the_student_learn_at_rates_of_their_own(name):
    method = build(name)
    scales = {
        name: group["rate_scale"]
        for group in parameter_groups(method, layer_decay=0.5)
        for name in group["names"]
    }
    top = method.student.encoder.num_layers + 1
    for inner, _ in method.student.encoder.named_parameters():
        layer = method.student.encoder.layer_of(inner)
        assert scales.get(f"student.encoder.{inner}", 0.5 ** (top - layer)) == 0.5 ** (top - layer)
    assert min(scales.values()) == 0.5**top, "embeddings are slowest"
    assert {scale for n, scale in scales.items() if ".heads." in n} == {1.0}
