"""The stored numbers of the encoder of ConST-CL; see parity_constcl.py."""

import torch
from einops import rearrange

from mimlib.encoders.r3d import R3DConfig
from mimlib.weights.constcl import counters, our_names, published_names
from mimlib.weights.files import copy_weights, part_of

SHAPE = {  # of R3D: official argument: ours
    "widths": "widths", "blocks": "depths", "spatial_strides": "strides",
    "expansion": "expansion", "stem_channels": "stem_width",
}  # fmt: skip
KNOWN = {
    "bn_momentum_keras": 0.9, "bn_momentum_pytorch": 0.1, "bn_epsilon": 1e-5, "use_sync_bn": True,
    "self_gating": False, "se_ratio": 0.0, "stochastic_depth": 0.0,
    "max_pool_kernel": [1, 3, 3], "max_pool_stride": [1, 2, 2],
}  # fmt: skip


def doubled(tensors):
    """The same tensors, real ones in float64."""
    return {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}


def first(maps):
    """Channels first."""
    return rearrange(maps, "b t h w c -> b c t h w")


def last(maps):
    """Channels last."""
    return rearrange(maps, "b c ... -> b ... c")


def r3d_config(given):
    """The encoder that a file describes."""
    given.expect(**KNOWN)
    given.expect(temporal_strides=[1] * len(given.left["widths"]))
    kernels = [set(frames) for frames in given.take("temporal_kernels").values()]
    assert all(len(each) == 1 for each in kernels), f"{given.where}: {kernels}"
    (frames, *sides), (slower, *across) = given.take("stem_kernel"), given.take("stem_stride")
    shape = {n: tuple(v) if isinstance(v, list) else v for n, v in given.read(SHAPE).items()}
    return R3DConfig(
        **shape, kernels=tuple(each.pop() for each in kernels),
        stem_kernel=(frames, *set(sides)), stem_stride=(slower, *set(across)),
    )  # fmt: skip


def load_part(module, state, prefix):
    """Copy the part of a state that belongs to a module."""
    copy_weights(module, part_of(state, prefix), "the file", counters(module))
    return module


def branches(config, state):
    """The encoder with the global branch, and the last stage of the local one."""
    stages = {"encoder.": config.build(), "local_stage.": config.build_stage(-1)}
    return [load_part(module.double(), state, prefix) for prefix, module in stages.items()]


def backbone_outputs(golden):
    """Maps, gradients and running statistics of the two-branched encoder."""
    with golden.arguments() as given:
        config = r3d_config(given)
    state = our_names({f"backbone/{n}": t for n, t in doubled(golden.state).items()})
    inputs, out = doubled(golden.inputs), {}
    for name in ("clips", "odd_clips"):
        both = branches(config, state)
        for mode, training in (("eval", False), ("train", True)):
            for part in both:
                part.train(training)
            found = stages(*both, first(inputs[name]))
            out |= {f"{mode}.{name}.{n}": last(t) for n, t in found.items()}
        out |= {f"train.{name}.{n}": t for n, t in updated(both, state, found).items()}
    return out | backbone_gradients(branches(config, state), inputs) | norms_alone(both, inputs)


def stages(encoder, local_stage, clips):
    """Everything on the way, of both branches."""
    stem = encoder.stem_conv(clips)
    *maps, res4, res5 = encoder(clips, levels=tuple(range(encoder.num_levels))).levels
    maps = dict(zip(("res2", "res3", "res4", "res5"), (*maps, res4, res5)))
    if not encoder.training:
        pooled = encoder.pool(encoder.stem_norm(stem).relu())
        maps["stem_conv_channels_0_3"] = stem[:, :4]
        maps["max_pool_channels_0_15"] = pooled[:, :16]
        maps["res_3_cell_0_alone"] = encoder.stages[1][0](maps["res2"])
    return maps | {"res5_1": local_stage(res4), "stem": stem}


def statistics(both):
    """State of both branches under published names."""
    encoder, local_stage = both
    state = {f"encoder.{n}": t for n, t in encoder.state_dict().items()}
    state |= {f"local_stage.{n}": t for n, t in local_stage.state_dict().items()}
    return {n.removeprefix("backbone/"): t.clone() for n, t in published_names(state).items()}


def updated(both, before, found):
    """Running statistics after a step, with the variance that synchronized norms keep, too.

    # differs from official: there it is not Bessel's; there are as many values as in the map.
    """
    named = {n: t for n, t in statistics(both).items() if "moving" in n}
    out = {f"updated.{n}": t for n, t in named.items()}
    name, stem = "_stem_bn/moving_variance", found["stem"]
    out[f"updated_without_sync.{name}"] = named[name]
    out[f"updated.{name}"] = biased(
        named[name], before["encoder.stem_norm.running_var"], stem[:, 0].numel()
    )
    return out


def biased(after, before, count):
    """A running variance as if the one it last moved to were not Bessel's."""
    kept = 0.9 * before
    return kept + (after - kept) * (count - 1) / count


def backbone_gradients(both, inputs):
    """Gradients of a weighted sum of both branches, and of the local one alone."""
    encoder, local_stage = both
    encoder.train(), local_stage.train()
    clips = first(inputs["clips"]).requires_grad_()
    res4, res5 = encoder(clips, levels=(2, 3)).levels
    local = (last(local_stage(res4)) * inputs["cotangent.res5_1"]).sum()
    whole = local + (last(res5) * inputs["cotangent.res5"]).sum()
    named = {f"encoder.{n}": p for n, p in encoder.named_parameters()}
    out = {"loss_branch_5_1_only": local.detach(), "loss_both": whole.detach()}
    for kind, loss in (("grad_branch_5_1_only", local), ("grad", whole)):
        reached = named | {f"local_stage.{n}": p for n, p in local_stage.named_parameters()}
        found = torch.autograd.grad(
            loss, [clips, *reached.values()], retain_graph=True, allow_unused=True
        )
        gradients = {n: g for n, g in zip(reached, found[1:]) if g is not None}
        unused = reached.keys() - gradients.keys()
        assert kind == "grad" and not unused or {n[:17] for n in unused} == {"encoder.stages.3."}
        gradients = published_names(gradients)
        out |= {f"{kind}.{n.removeprefix('backbone/')}": g for n, g in gradients.items()}
    return out | {"grad.clips": rearrange(found[0], "b c t h w -> b t h w c")}


def norms_alone(both, inputs):
    """Two norms on maps so small that their epsilon shows."""
    encoder, _ = both
    norms = {
        "norm1_of_res_2_cell_0_on_small_map": (encoder.stages[0][0].norm1, "small_map"),
        "stem_bn_on_small_map_64": (encoder.stem_norm, "small_map_64"),
    }
    return {n: last(norm(first(inputs[name]))) for n, (norm, name) in norms.items()}
