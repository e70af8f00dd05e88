"""Golden files without tensors: schedules, groups of parameters, names and shapes."""

import re
from math import isqrt

import pytest
import torch

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.views.multicrop import MultiCropConfig
from mimlib.methods.constcl import ConSTCLConfig
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.methods.mae import MAEConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.tasks.classification import ClassifierConfig
from mimlib.training.config import TrainConfig
from mimlib.training.optimizer import parameter_groups
from mimlib.training.schedules import scheduled
from mimlib.weights import to_official

POOLS = {"global_pool": "mean", "class_token": "class_token"}


def rates(name, facts):
    """Learning rates of MAE, of a whole optimizer and of groups with a scale."""
    for case in facts["cases"]:
        for value in case["values"]:
            shape = case["epochs"], case["peak_lr"], case["warmup_epochs"], case["min_lr"]
            rate = scheduled(value["epoch"], *shape)
            assert rate == pytest.approx(value["lr"], rel=1e-12, abs=1e-18), name
            scaled = [rate * (1.0 if s is None else s) for s in case["group_lr_scales"]]
            assert scaled == pytest.approx(value["group_lrs"], rel=1e-12, abs=1e-18), name


def cosines(name, facts):
    """Rate, weight decay and momentum of SelfPatch along the steps.

    # differs from official: a warm-up of n steps reaches the peak at step n, not at step n - 1.
    """
    for case in facts["cases"]:
        per_epoch = case["steps_per_epoch"]
        warm, steps = case["warmup_epochs"] * per_epoch, case["epochs"] * per_epoch
        assert case["start"] == 0, f"{name}: a warm-up from {case['start']} is not known"
        for step, value in case["values"]:
            ours = step * warm / max(1, warm - 1) if step < warm else step
            found = scheduled(ours, steps, case["base"], warm, case["final"])
            assert found == pytest.approx(value, rel=1e-9, abs=1e-18), (name, case["what"], step)


def whole_cosines(name, facts):
    """Rates of ConST-CL, which are told in float32; 40.96 is of a batch of 1024."""
    for schedule in facts["schedules"].values():
        steps = schedule["train_steps"]
        shape = {"steps": steps, "warmup_steps": 2500, "schedule": "whole_cosine"}
        config = TrainConfig(batch_size=1024, base_rate=40.96 / 4, **shape)
        found = [config.rate(step, 1) for step in schedule["step"]]
        assert found == pytest.approx(schedule["learning_rate"], rel=1e-6, abs=1e-5), name


def layer_decay(name, facts):
    """Scale of the rate and weight decay of every parameter that is fine-tuned, of any depth."""
    table, pool = facts["table"], POOLS[facts.get("mode", "global_pool")]
    depth = 1 + max(int(n.split(".")[1]) for n in table if n.startswith("blocks."))
    encoder = ViTConfig(
        width=4, depth=depth, heads=1, patch_size=1, image_size=1, learned_positions=True
    )
    task = ClassifierConfig(encoder=encoder, num_classes=2, pool=pool).build()
    exempt = facts["names_without_weight_decay"]
    groups = parameter_groups(task, facts["weight_decay"], facts["layer_decay"], exempt)
    ours = {
        n.removeprefix("encoder."): (group["rate_scale"], group["weight_decay"])
        for group in groups
        for n in group["names"]
    }
    assert ours.keys() == table.keys(), name
    for parameter, row in table.items():
        expected = pytest.approx(row["lr_scale"], rel=1e-12), row["weight_decay"]
        assert ours[parameter] == expected, (name, parameter)
    assert len(groups) == facts.get("groups", len(groups)), name


def names_and_shapes(name, shapes):
    """Every tensor of a published model, of any size: what its shapes say is built and named."""
    if not (build := next((make for key, make in BUILD.items() if key in shapes), None)):
        pytest.skip(f"{name}: mimlib does not have this model yet")
    with torch.device("meta"):
        state = to_official(build(shapes).build())
    assert {n: list(t.shape) for n, t in state.get("teacher", state).items()} == shapes, name


def constcl_names(name, facts):
    """Every variable of the published ConST-CL, and how large its parts are."""
    with torch.device("meta"):
        method = ConSTCLConfig().build()
    shapes = {n: list(t.shape) for n, t in to_official(method).items()}
    assert shapes == facts["checkpoint"], name
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in method.named_children()}
    told = facts["trainable"]
    assert sum(sizes.values()) == told["total"], name
    assert sizes["encoder"] == told["one_branch"] == told["y_backbone"] - told["second_res5"], name
    heads = [sizes[part] for part in ("local_stage", "global_head", "decoder")]
    assert heads == [told[n] for n in ("second_res5", "global_head", "local_head")], name


def count(shapes, prefix):
    """How many blocks, or linear maps, have names that begin like this."""
    return len({n.split(".")[prefix.count(".")] for n in shapes if re.match(prefix + r"\d", n)})


def vit(shapes, embed="patch_embed.", blocks="blocks.", **more):
    """The Vision Transformer of these shapes; heads do not show in them."""
    width, _, patch, _ = shapes[f"{embed}proj.weight"]
    size = {"width": width, "depth": count(shapes, blocks), "heads": 1, "patch_size": patch}
    size |= {"mlp_ratio": shapes[f"{blocks}0.mlp.fc1.weight"][0] / width}
    return size | {"qkv_bias": f"{blocks}0.attn.qkv.bias" in shapes} | more


def decoder(shapes):
    """The decoder of MAE and ConvMAE."""
    width, _ = shapes["decoder_embed.weight"]
    size = {"decoder_width": width, "decoder_depth": count(shapes, "decoder_blocks.")}
    ratio = shapes["decoder_blocks.0.mlp.fc1.weight"][0] / width
    return size | {"decoder_heads": 1, "decoder_mlp_ratio": ratio}


def mae(shapes):
    """MAE of these shapes."""
    side = isqrt(shapes["pos_embed"][1] - 1)
    size = vit(shapes)
    encoder = ViTConfig(**size, image_size=side * size["patch_size"])
    return MAEConfig(encoder=encoder, **decoder(shapes))


def convmae(shapes):
    """ConvMAE of these shapes."""
    entries = [shapes[f"patch_embed{i}.proj.weight"] for i in (1, 2, 3)]
    depths = tuple(count(shapes, f"blocks{i}.") for i in (1, 2, 3))
    names = [f"blocks{i}.0.mlp.fc1.weight" for i in (1, 2, 3)]
    ratios = tuple(shapes[n][0] / shapes[n][1] for n in names)
    encoder = ConvViTConfig(
        widths=tuple(e[0] for e in entries), depths=depths, heads=1, mlp_ratios=ratios,
        entries=tuple(e[2] for e in entries), image_size=16 * isqrt(shapes["pos_embed"][1]),
        qkv_bias="blocks3.0.attn.qkv.bias" in shapes,
    )  # fmt: skip
    return ConvMAEConfig(encoder=encoder, **decoder(shapes))


def croco(shapes):
    """CroCo of these shapes."""
    size, has_tables = vit(shapes, blocks="enc_blocks."), "enc_pos_embed" in shapes
    side = isqrt(shapes["enc_pos_embed"][0]) if has_tables else 14
    encoder = ViTConfig(
        **size, image_size=side * size["patch_size"], class_token=False, rotary=not has_tables
    )
    decoder = PairDecoderConfig(
        width=shapes["decoder_embed.weight"][0], depth=count(shapes, "dec_blocks."), heads=1,
        norm_memory="dec_blocks.0.norm_y.weight" in shapes,
    )  # fmt: skip
    return CroCoConfig(encoder=encoder, decoder=decoder)


def selfpatch(shapes):
    """One network of SelfPatch of these shapes."""
    size = vit(shapes, "backbone.patch_embed.", "backbone.blocks.", class_token=False)
    crops = {"global_size": 14 * size["patch_size"], "local_size": 6 * size["patch_size"]}
    objectives = {
        name: DistillationConfig(
            prototypes=shapes[f"{head}.last_layer.weight_v"][0],
            bottleneck=shapes[f"{head}.last_layer.weight_v"][1],
            hidden=shapes[f"{head}.mlp.0.weight"][0], layers=count(shapes, f"{head}.mlp."),
        )
        for name, head in (("image", "c_head"), ("patches", "p_head"))
    }  # fmt: skip
    encoder = ViTConfig(**size, image_size=crops["global_size"], learned_positions=True)
    return SelfPatchConfig(encoder=encoder, crops=MultiCropConfig(**crops), **objectives)


BUILD = {  # a name that no other model has: its description
    "patch_embed1.proj.weight": convmae,
    "enc_norm.weight": croco,
    "backbone.pos_embed": selfpatch,
    "decoder_pred.weight": mae,
}
TABLES = {  # what a file says it holds
    "MAE layer-wise learning-rate decay": layer_decay,
    "MAE learning-rate schedule": rates,
    "SelfPatch schedules": cosines,
    "constcl_lr_schedule": whole_cosines,
    "keys_constcl_r3d50": constcl_names,
}


def check_table(name, facts):
    """Compare what a file holds; one that names no method lists the tensors of a model."""
    if "method" in facts and facts["method"] not in TABLES:
        pytest.skip(f"{name}: mimlib has nothing to compare with {facts['method']!r} yet")
    TABLES.get(facts.get("method"), names_and_shapes)(name, facts)
