"""What the stored numbers of ConST-CL hold, computed by mimlib; see test_parity.py.

Its maps have their channels last, its kernels their outputs, its boxes are (top, left, bottom,
right) in shares of the frame. Everything is computed in float64, as most of the stored numbers.
"""

import torch
from einops import rearrange
from torch.nn import functional

from mimlib.decoders.context import UNIT_NORM_EPS, ContextDecoderConfig, Unit, context_frames
from mimlib.encoders.r3d import R3DConfig
from mimlib.layers.regions import (
    LENGTH_EPS,
    RandomBoxConfig,
    align_regions,
    key_frame,
    make_boxes,
    pool_regions,
)
from mimlib.methods.objectives.clips import (
    clip_logits,
    contrast_clips,
    contrast_regions,
    match_regions,
    region_logits,
)
from mimlib.weights.constcl import our_names, published_names
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
SYNCHRONIZED = ("_stem_bn", "global_head")  # norms whose running variance is not Bessel's


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
    counters = [n for n in module.state_dict() if n.endswith("num_batches_tracked")]
    copy_weights(module, part_of(state, prefix), "the file", counters)
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


def xyxy(boxes):
    """Boxes in our order."""
    return boxes[..., [1, 0, 3, 2]]


def regions_outputs(golden):
    """Looked up in boxes of given maps: inside, tiny and reversed ones; and the vectors of voxels.

    Boxes beyond the frame are left out: what is there differs.
    """
    inputs, out = doubled(golden.inputs), {}
    sides = {f"crop{side}": side for side in golden.facts["crop_sizes"]}
    assert golden.facts["sample_offset"] == 0.5 and golden.facts["crop_size"] == 4
    for name, maps in ((n, inputs[n]) for n in ("map", "map_wide")):
        maps = rearrange(maps, "b h w c -> b c h w")
        for group in ("inside", "small", "reversed"):
            boxes = xyxy(inputs[f"boxes_{group}"]).expand(len(maps), -1, -1)
            crops = {n: align_regions(maps, boxes, side) for n, side in sides.items()}
            if group == "inside":  # a quarter into each bin instead of half
                moved = boxes - (boxes[..., [2, 3, 2, 3]] - boxes[..., [0, 1, 0, 1]]) / 16
                crops["offset_0.25.crop4"] = align_regions(maps, moved, 4)
            out |= {f"{name}.{group}.{n}": t.movedim(2, -1) for n, t in crops.items()}
            out[f"{name}.{group}.pooled4"] = pool_regions(maps, boxes)
    ramp, cells = inputs["ramp"][..., 0][None], xyxy(inputs["ramp_boxes_in_cells"])
    out["ramp.crop4"] = align_regions(ramp, cells / 7, 4).movedim(2, -1)
    out["ramp.pooled4"] = pool_regions(ramp, cells / 7)
    return out | voxel_outputs(inputs)


def voxel_outputs(inputs):
    """Vectors of unit length, and region vectors of maps of such, with their gradients."""
    voxels = inputs["voxels"].clone().requires_grad_()
    maps, boxes = first(voxels), inputs["instances_position"]
    boxes = xyxy(boxes[:, boxes.shape[1] // 2])
    normalized = functional.normalize(maps, dim=1, eps=LENGTH_EPS)
    regions = pool_regions(key_frame(normalized), boxes)
    loss = (regions * inputs["cotangent.regions"]).sum()
    tiny = inputs["tiny_vectors"].clone().requires_grad_()
    small = functional.normalize(tiny, dim=1, eps=LENGTH_EPS)
    (loss + (small * inputs["cotangent.tiny"]).sum()).backward()
    return {
        "voxels.regions": regions, "voxels.loss": loss, "voxels.grad.voxels": voxels.grad,
        "voxels.normalised_key_frame": last(key_frame(normalized)),
        "voxels.regions_without_normalisation": pool_regions(key_frame(maps), boxes),
        "tiny.normalised": small, "tiny.grad": tiny.grad,
    }  # fmt: skip


def boxes_outputs(golden):
    """The released boxes, a family with one parameter, which is where they begin; context frames.

    The start frames of clips are left out, and boxes of other draws.
    """
    config = RandomBoxConfig(locked=True)
    left = xyxy(golden.outputs["graph_boxes"].double())[..., :1].flatten(0, 1)
    boxes = xyxy(make_boxes(left.expand(-1, -1, 4), config))
    out = {"graph_boxes": boxes.unflatten(0, golden.outputs["graph_boxes"].shape[:2])}
    counts = golden.inputs["context_lengths"].tolist()
    for name in (n for n in golden.outputs if n.startswith("context_indices.L")):
        length = int(name.partition("L")[2])
        out[name] = torch.tensor([context_frames(count, length) for count in counts])
    return out


DECODER = "model/layer_with_weights-2/"
LAYERS = f"{DECODER}_attention_decoder/"
UNIT = f"{LAYERS}_layers/0/_mha_units/0/"
HEAD = {  # of the decoder: official argument: ours
    "context_level": "frames", "num_tx_channels": "width", "num_tx_layers": "depth",
    "num_tx_heads": "units",
}  # fmt: skip


def decoder_config(given):
    """The decoder that a file describes, and the width of the encoder before it."""
    given.expect(crop_size=4, sample_offset=0.5, use_bias=True, activation="gelu")
    given.expect(dropout_rate=0.0, layer_norm_epsilon=UNIT_NORM_EPS)
    given.expect(use_positional_embedding=True, normalize_inputs=True)
    return ContextDecoderConfig(**given.read(HEAD)), given.take("num_output_channels")


def decoder_outputs(golden):
    """One unit, the layers alone, and the local head from maps to vectors."""
    with golden.arguments() as given:
        config, width = decoder_config(given)
        given.expect(feature_channels=width)
        channels = given.take("small_unit_channels")
    inputs, decoder = doubled(golden.inputs), config.build(width).double()
    unit = part_of(decoder_state(golden, "small_unit", UNIT), "layers.0.units.0.")
    out = unit_outputs(unit, inputs["small_query"], inputs["small_memory"], channels)
    load_part(decoder.layers, decoder_state(golden, "decoder", LAYERS), "layers.")
    out |= layers_outputs(decoder, inputs)
    load_part(decoder, decoder_state(golden, "reconstructor", DECODER), "")
    return out | head_outputs(decoder, inputs)


def decoder_state(golden, name, place):
    """One of a file's states under our names, as if it lay at that place of a checkpoint."""
    state = part_of(doubled(golden.state), f"{name}/")
    return part_of(our_names({f"{place}{n}": t for n, t in state.items()}), "decoder.")


def unit_outputs(state, queries, memory, channels):
    """One unit with either epsilon."""
    out = {}
    for name, eps in (("1e-12", 1e-12), ("1e-6", 1e-6)):
        unit = Unit(queries.shape[-1], memory.shape[-1], channels, eps).double()
        unit.load_state_dict(state)
        out[f"small_unit.eps_{name}.hidden_states"] = unit(queries, memory)
        out[f"small_unit.eps_{name}.attention_weights"] = unit.weigh(queries, memory)
    return out


def layers_outputs(decoder, inputs):
    """The layers on given queries and memory."""
    queries, given = (inputs[n].clone().requires_grad_() for n in ("query", "memory"))
    memory = given.flatten(1, 3)
    hidden = decoder.decode(queries, memory)
    loss = (hidden * inputs["cotangent.decoder"]).sum()
    loss.backward()
    out = {"hidden_states": hidden, "loss": loss, "grad.query": queries.grad}
    out |= {"grad.memory": given.grad} | decoder_gradients(decoder.layers, "layers.", LAYERS)
    for layer in range(decoder.config.depth):
        for i, weights in enumerate(decoder.attention_maps(queries, memory, layer).unbind(1)):
            out[f"attention.{layer}.{i}"] = weights
    return {f"decoder.{n}": t for n, t in out.items()}


def decoder_gradients(module, prefix, place):
    """Gradients under published names, without what leads to them."""
    named = {f"decoder.{prefix}{n}": p.grad for n, p in module.named_parameters()}
    found = published_names(named).items()
    out = {f"grad.{n.removeprefix(place)}": g.clone() for n, g in found}
    module.zero_grad()
    return out


def head_outputs(decoder, inputs):
    """Region vectors of both views, told from one to the other."""
    features = inputs["features"].clone().requires_grad_()
    maps, frame = first(features), inputs["instances_position"].shape[1] // 2
    voxels = functional.normalize(maps, dim=1, eps=LENGTH_EPS)
    regions = pool_regions(key_frame(voxels), xyxy(inputs["instances_position"][:, frame]))
    memory = decoder.remember(voxels)
    (a, b), (of_a, of_b) = regions.chunk(2), memory.chunk(2)
    vectors = {"inst_a": a, "inst_b": b, "inst_a2b": decoder(a, of_b), "inst_b2a": decoder(b, of_a)}
    loss = sum((vectors[n] * inputs[f"cotangent.{n}"]).sum() for n in vectors)
    loss.backward()
    grid = (decoder.config.frames, *maps.shape[-2:])
    masks = dict(zip(("masks_a", "masks_b"), inputs["instances_mask"][:, frame].chunk(2)))
    out = vectors | masks | {"loss": loss, "grad.features": features.grad}
    out |= {"position_code": decoder.encode_positions(grid), "memory": memory.unflatten(1, grid)}
    out |= decoder_gradients(decoder, "", DECODER)
    return {f"reconstructor.{n}": t for n, t in out.items()}


def global_outputs(golden):
    """The loss between clips, what it says of them and its gradient, of each case."""
    out = {}
    for case in golden.facts["cases"]:
        given = golden.inputs[case["input"]].double().requires_grad_()
        vectors = unit_length(given) if case["normalize_inputs"] else given
        loss = contrast_clips(*vectors.chunk(2), case["temperature"])
        loss.backward()
        found = clip_statistics(*vectors.detach().chunk(2), case["temperature"])
        found |= {"loss": loss, "grad": given.grad}
        out |= {f"{case['name']}.{n}": t for n, t in found.items()}
    return out


def unit_length(vectors):
    """Vectors of length 1."""
    return functional.normalize(vectors, dim=-1, eps=LENGTH_EPS)


def clip_statistics(a, b, temperature):
    """Accuracy and entropy of one direction, among the clips of the other view."""
    logits, own = clip_logits(a, b, temperature)
    logits = logits[:, : len(a)]
    shares = logits.softmax(dim=-1)
    accuracy = (logits.argmax(dim=-1) == own).double().mean()
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum(dim=-1).mean()
    return {"contrastive_accuracy": accuracy, "contrastive_entropy": entropy}


def local_outputs(golden):
    """The loss between regions in both directions, what it says of them and its gradients."""
    out = {}
    for case in golden.facts["cases"]:
        given = part_of(golden.inputs, f"{case['input']}.")
        vectors = {n: t.double().requires_grad_() for n, t in given.items() if "masks" not in n}
        named = {n: unit_length(t) for n, t in vectors.items()}
        found = region_contrast(
            named if case["normalize_inputs"] else vectors, given, case["temperature"]
        )
        found["loss"].backward()
        found |= {f"grad.{n}": t.grad for n, t in vectors.items()}
        out |= {f"{case['name']}.{n}": t for n, t in found.items()}
    return out


def region_contrast(vectors, masks, temperature):
    """Matches, losses and similarities of both directions."""
    a, b = vectors["instances_a"], vectors["instances_b"]
    matches, out, similarities = match_regions(a, b), {}, []
    pairs = (("a2b", b, matches[0], "masks_a"), ("b2a", a, matches[1], "masks_b"))
    for name, targets, match, masked in pairs:
        decoded, valid = vectors[f"instances_{name}"], masks[masked]
        out[f"matches_{name}"] = match
        out[f"loss_{name}"] = contrast_regions(decoded, targets, match, temperature, valid)
        similarities.append(similarity(*region_logits(decoded, targets, match, 1.0), valid))
    out |= {n: sum(each[n] for each in similarities) / 2 for n in similarities[0]}
    return out | {"loss": (out["loss_a2b"] + out["loss_b2a"]) / 2}


def similarity(logits, labels, valid):
    """How similar valid regions are to their matches, and to what they are told from.

    Of matches these are the extremes of the batch, of others the mean of each region's own.
    """
    if not valid.any():
        return {}
    positive = logits.gather(2, labels[..., None])[..., 0][valid]
    others = logits.scatter(2, labels[..., None], -torch.inf)
    negative = others[others.isfinite()].reshape(*valid.shape, -1)[valid]
    out = {f"positive_similarity_{n}": getattr(positive, n)() for n in ("mean", "min", "max")}
    if negative.shape[-1]:
        kinds = {"mean": negative.mean(1), "min": negative.amin(1), "max": negative.amax(1)}
        out |= {f"negative_similarity_{n}": each.mean() for n, each in kinds.items()}
    return out


PARTS = {
    "constcl_backbone": backbone_outputs,
    "constcl_regions": regions_outputs,
    "constcl_boxes": boxes_outputs,
    "constcl_context_decoder": decoder_outputs,
    "constcl_global_loss": global_outputs,
    "constcl_local_loss": local_outputs,
}


def constcl_outputs(golden):
    """Everything that a file of one part of ConST-CL stores."""
    return {n: t.detach() for n, t in PARTS[golden.facts["method"]](golden).items()}
