"""The stored numbers of the regions of ConST-CL and of its decoder; see parity_constcl.py."""

import torch
from einops import rearrange
from parity_constcl_encoder import doubled, first, last, load_part

from mimlib.decoders.context import UNIT_NORM_EPS, ContextDecoderConfig, Unit, context_frames
from mimlib.layers.regions import (
    RandomBoxConfig,
    align_regions,
    key_frame,
    make_boxes,
    normalize_length,
    pool_regions,
)
from mimlib.weights.constcl import our_names, published_names
from mimlib.weights.files import part_of


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
    normalized = normalize_length(maps, dim=1)
    regions = pool_regions(key_frame(normalized), boxes)
    loss = (regions * inputs["cotangent.regions"]).sum()
    tiny = inputs["tiny_vectors"].clone().requires_grad_()
    small = normalize_length(tiny)
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
    voxels = normalize_length(maps, dim=1)
    regions = pool_regions(key_frame(voxels), xyxy(inputs["instances_position"][:, frame]))
    memory = decoder.remember(voxels)
    (a, b), (of_a, of_b) = regions.chunk(2), memory.chunk(2)
    vectors = {"inst_a": a, "inst_b": b, "inst_a2b": decoder(a, of_b), "inst_b2a": decoder(b, of_a)}
    loss = sum((vectors[n] * inputs[f"cotangent.{n}"]).sum() for n in vectors)
    loss.backward()
    grid = (decoder.config.frames, *maps.shape[-2:])
    masks = dict(zip(("masks_a", "masks_b"), inputs["instances_mask"][:, frame].chunk(2)))
    out = vectors | masks | {"loss": loss, "grad.features": features.grad}
    out |= {
        "position_code": decoder.encode_positions(maps.new_empty(grid)),
        "memory": memory.unflatten(1, grid),
    }
    out |= decoder_gradients(decoder, "", DECODER)
    return {f"reconstructor.{n}": t for n, t in out.items()}
