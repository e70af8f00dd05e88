"""ConST-CL and what is left of it without regions, without context, without a second branch."""

from dataclasses import replace

import pytest
import torch
from one_graph import assert_one_graph
from two_ranks import in_two_ranks

from mimlib.data.batches import ClipPairBatch
from mimlib.decoders.context import ContextDecoderConfig
from mimlib.encoders.r3d import R3DConfig
from mimlib.layers.regions import RandomBoxConfig
from mimlib.methods.constcl import ConSTCLConfig
from mimlib.protocol import Output
from mimlib.training.config import TrainConfig
from mimlib.training.optimizer import parameter_groups, set_rate
from mimlib.training.profile import count_flops
from mimlib.training.sharding import shard_in_place
from mimlib.training.trainer import Trainer

DECODER = ContextDecoderConfig(frames=3, width=8, depth=2, units=2)
TINY = {
    "encoder": R3DConfig(
        widths=(4, 6), depths=(1, 1), kernels=(1, 3), strides=(1, 2), stem_width=8
    ),
    "decoder": DECODER, "boxes": RandomBoxConfig(num_boxes=3), "hidden": 16, "hidden_layers": 2,
    "outputs": 8, "local_weight": 0.5,
}  # fmt: skip
CASES = {
    "constcl": {},
    "shared": {"branches": "shared"},
    "no context": {"decoder": replace(DECODER, frames=0)},
    "locked boxes": {"boxes": RandomBoxConfig(num_boxes=3, locked=True)},
    "cvrl": {"local_weight": 0.0},
}
IN_RANKS = ("constcl", "no context", "cvrl")


def build(name="constcl", **changes):
    """The method of a case, always with the same weights."""
    torch.manual_seed(0)
    return ConSTCLConfig(**TINY | CASES[name] | changes).build()


def clips(batch=4, size=(6, 32, 40), seed=0, **boxes):
    draw = torch.Generator().manual_seed(seed)
    shape = (2, batch, 3, *size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    return ClipPairBatch(*noise, **boxes)


def draw_views(method, batch=4, seed=0):
    return method.sample_views(clips(batch), torch.Generator().manual_seed(seed))


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
    assert set(output.terms) == ({"global"} if name == "cvrl" else {"global", "local"})
    local = 0.5 * output.terms.get("local", torch.tensor(0.0))
    torch.testing.assert_close(output.loss.detach(), output.terms["global"] + local)
    assert not any(term.requires_grad for term in output.terms.values())
    assert (method.local_stage is None) == (name in ("shared", "cvrl"))
    assert (method.decoder is None) == (name == "cvrl")


def test_equal_views_make_equal_outputs_and_change_no_state(method, views):
    before = {n: t.clone() for n, t in method.state_dict().items()}
    assert torch.equal(method(views).loss, method(views).loss)
    kept = {n for n in before if "running_" not in n and "num_batches" not in n}
    assert all(torch.equal(before[n], method.state_dict()[n]) for n in kept)


def test_views_depend_on_the_generator_alone(method, views):
    torch.manual_seed(99)
    same, other = draw_views(method), draw_views(method, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(views, same))
    assert not torch.equal(views.boxes_a, other.boxes_a)
    assert not torch.equal(views.boxes_a, views.boxes_b) and views.valid_a.all()
    assert views.clip_a.min() == -1 and views.clip_b.max() == 1


def test_every_parameter_learns(method, views):
    method(views).loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        ignored = name.endswith(".k.bias")  # by the softmax
        assert ignored or parameter.grad.abs().max() > 0, name
    assert parameter_groups(method, layer_decay=0.5)[0]["rate_scale"] == 0.5**3


def test_the_loss_is_computed_in_float32(method, views):
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(views).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, method(views).loss, rtol=0.1, atol=0)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in method.parameters())


def test_both_clips_are_treated_alike(method, views):
    swapped = type(views)(*(views[i] for i in (1, 0, 3, 2, 5, 4)))
    torch.testing.assert_close(method.eval()(swapped).loss, method(views).loss)


@pytest.mark.parametrize("name", ["constcl", "shared"])
def test_what_each_loss_reaches(name):
    method = build(name)
    views = draw_views(method)
    parts = {"global": method.encoder.stages[1], "local": method.local_stage}
    both = torch.cat([views.clip_a, views.clip_b])
    shared, last = method.encoder(both, levels=(-2, -1)).levels
    method.embed(last).sum().backward(retain_graph=True)
    assert parts["global"][0].norm1.weight.grad is not None
    if name == "constcl":
        assert parts["local"][0].norm1.weight.grad is None
    method.zero_grad(set_to_none=True)
    method.contrast_both(*method.decode(method.local_maps(shared, last), views), views).backward()
    reached = [
        part is not None and part[0].norm1.weight.grad is not None for part in parts.values()
    ]
    assert reached == ([False, True] if name == "constcl" else [True, False])
    assert method.encoder.stem_conv.weight.grad.any()


def test_regions_are_decoded_in_the_other_clip():
    method = build()
    views = draw_views(method)
    maps = torch.randn(8, 24, 3, 4, 5)
    regions, decoded = method.decode(maps, views)
    assert regions.shape == decoded.shape == (8, 3, 24)
    changed = maps.clone()
    changed[5] += 1  # clip b of video 1
    where = [
        (a != b).any(dim=(1, 2)) for a, b in zip((regions, decoded), method.decode(changed, views))
    ]
    assert where[0].nonzero().flatten().tolist() == [5]
    assert where[1].nonzero().flatten().tolist() == [1, 5]


def test_boxes_of_the_batch():
    method = build(boxes=None)
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 32.0], [10.0, 8.0, 20.0, 16.0], [0.0, 0.0, 0.0, 0.0]]])
    batch = clips(boxes_a=boxes.repeat(4, 1, 1), boxes_b=boxes.flip(1).repeat(4, 1, 1))
    views = method.sample_views(batch, torch.Generator())
    expected = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(views.boxes_a[2], expected)
    assert views.valid_a[0].tolist() == [True, True, False]
    assert views.valid_b[0].tolist() == [False, True, True]
    assert method(views).loss.isfinite()
    with pytest.raises(ValueError, match="the batch has no boxes; give it some, or set boxes"):
        method.sample_views(clips(), torch.Generator())


@pytest.mark.parametrize("changes,message", [
    ({"local_weight": -1.0}, r"local_weight is -1.0; expected 0 <= local_weight"),
    ({"outputs": 0}, "outputs is 0; expected 0 < outputs"),
    ({"global_temperature": 0.0}, "global_temperature is 0.0"),
    ({"encoder": R3DConfig(widths=(4,), depths=(1,), kernels=(1,), strides=(1,))},
     r"widths \(4,\), one stage, which leaves nothing to share; give it two stages or more"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_four_videos_can_be_told_apart():
    method = build()
    views = draw_views(method)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    first = method(views)
    for _ in range(40):
        optimizer.zero_grad()
        output = method(views)
        output.loss.backward()
        optimizer.step()
    assert output.terms["global"] < first.terms["global"] / 5
    assert output.terms["local"] < first.terms["local"] / 2


class Clips:
    """A source of the same clips for ever."""

    def batches(self, start, batch_size, seed, rank=0, num_ranks=1):
        while True:
            yield clips(batch_size)

    def identity(self):
        return "noise"


def train(out, steps):
    """Train up to some step of five, going on with what is stored."""
    method = build()
    config = TrainConfig(
        steps=5, batch_size=4, base_rate=0.1, schedule="whole_cosine", warmup_steps=2,
        precision="float32", device="cpu",
    )  # fmt: skip
    trainer = Trainer(method, Clips(), config, out=out, progress=False)
    trainer.restore()
    trainer.method.train()
    for step in range(trainer.step, steps):
        set_rate(trainer.optimizer, config.rate(step, 1), config.decay(step))
        trainer.train_step(clips(4), step)
        trainer.step = step + 1
    trainer.save()
    return method.state_dict()


def test_three_steps_and_two_are_five(tmp_path):
    whole = train(tmp_path / "whole", 5)
    train(tmp_path / "parts", 3)
    resumed = train(tmp_path / "parts", 5)
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)
    assert whole["encoder.stem_norm.num_batches_tracked"] == 5


def test_operations_are_counted_on_shapes():
    method = build()
    more = count_flops(method, draw_views(method, batch=8))
    assert more > 1.9 * count_flops(method, draw_views(method, batch=4)) > 0


def find(rank):
    """One of two ranks: the mean gradient of both halves of every case, by DDP and by FSDP2."""
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for name in IN_RANKS:
        method = build(name)
        views = draw_views(method)
        mine = type(views)(*(each[2 * rank : 2 * rank + 2] for each in views))
        parallel = DistributedDataParallel(method)  # which refuses parameters without a gradient
        parallel(mine).loss.backward()
        found[name] = torch.cat([p.grad.flatten() for p in method.parameters()])
        sharded = shard_in_place(build(name), torch.device("cpu"))
        sharded(mine).loss.backward()
        whole = [p.grad.full_tensor().flatten() for p in sharded.parameters()]
        found[f"{name}, sharded"] = torch.cat(whole)
    return found


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path):
    """Negatives and batch statistics are those of all ranks."""
    first, second = in_two_ranks(find, tmp_path)
    for name in IN_RANKS:
        method = build(name)
        method(draw_views(method)).loss.backward()
        whole = torch.cat([p.grad.flatten() for p in method.parameters()])
        for way in (name, f"{name}, sharded"):
            assert torch.equal(first[way], second[way]), way
            assert (first[way] - whole).norm() < 1e-4 * whole.norm(), way


COMPILE = """
import sys
from one_graph import compare
from test_methods_constcl import build, draw_views
for name in sys.argv[1:]:
    method = build(name)
    compare(name, method, draw_views, method.parameters())
"""


@pytest.mark.slow
def test_forward_compiles_to_one_graph():
    assert_one_graph(COMPILE, "constcl", "no context")
