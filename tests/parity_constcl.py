"""What the stored numbers of ConST-CL hold, computed by mimlib; see test_parity.py.

Its maps have their channels last, its kernels their outputs, its boxes are (top, left, bottom,
right) in shares of the frame. Everything is computed in float64, as most of the stored numbers.
"""

import torch
from parity_constcl_encoder import (
    backbone_outputs,
    biased,
    doubled,
    first,
    last,
    load_part,
    r3d_config,
)
from parity_constcl_losses import (
    clip_statistics,
    global_outputs,
    local_outputs,
    region_contrast,
)
from parity_constcl_regions import (
    DECODER,
    boxes_outputs,
    decoder_config,
    decoder_outputs,
    regions_outputs,
    xyxy,
)

from mimlib.layers.regions import normalize_length
from mimlib.methods.constcl import ClipViews, ConSTCLConfig
from mimlib.methods.objectives.clips import contrast_clips
from mimlib.weights.constcl import our_names, published_names
from mimlib.weights.files import rename

TREES = {  # variables by the model's attributes: as in a checkpoint
    "global_head/": "model/layer_with_weights-1/",
    "local_head/": DECODER,
}
HEADS = {"num_hidden_layers": "hidden_layers", "num_hidden_channels": "hidden"}
HEADS |= {"num_output_channels": "outputs"}
WEIGHTS = {n: n for n in ("global_temperature", "local_temperature", "local_weight")}


def method_config(golden):
    """The method that a file describes, and the weight of the squares of its kernels."""
    with golden.arguments() as given:
        with given.part("backbone") as backbone:
            encoder = r3d_config(backbone)
        with given.part("local_head") as head:
            decoder, width = decoder_config(head)
        with given.part("losses") as losses:
            losses.expect(normalize_inputs=True, global_weight=1.0)
            weights, decay = losses.read(WEIGHTS), losses.take("l2_weight_decay")
        shape = given.read(HEADS)
    assert width == encoder.width
    return ConSTCLConfig(encoder=encoder, decoder=decoder, **shape, **weights), decay


def method_outputs(golden):
    """The whole method: what it computes on the way, losses, gradients and two steps of SGD."""
    config, decay = method_config(golden)
    inputs, frame = doubled(golden.inputs), golden.inputs["instances_position"].shape[1] // 2
    state = our_names({rename(n, TREES): t for n, t in doubled(golden.state).items()})
    boxes, masks = (inputs[n][:, frame] for n in ("instances_position", "instances_mask"))
    masks = masks.chunk(2)
    views = ClipViews(*first(inputs["image"]).chunk(2), *xyxy(boxes).chunk(2), *masks)

    def fresh():
        return load_part(config.build().double(), state, "")

    out = {f"eval.{n}": t for n, t in on_the_way(fresh().eval(), views).items()}
    found = on_the_way(fresh(), views)
    out |= found | contrasts(found, masks, config) | dict(zip(("masks_a", "masks_b"), masks))
    out |= method_gradients(fresh(), views, decay)
    rate = golden.facts["learning_rate"]
    return out | steps_of_sgd(fresh(), views, decay, rate, golden.facts["steps"])


def on_the_way(method, views):
    """Maps and vectors."""
    clips = torch.cat([views.clip_a, views.clip_b])
    shared, res5 = method.encoder(clips, levels=(-2, -1)).levels
    local, vectors = method.local_maps(shared, res5), method.embed(res5)
    regions, decoded = method.decode(local, views)
    out = {"res4": shared, "res5": res5, "res5_1": local}
    out = {n: last(t) for n, t in out.items()} | {"global_pooled": res5.mean(dim=(2, 3, 4))}
    out |= {"global_embeddings": vectors, "global_vectors_after_l2": normalize_length(vectors)}
    out |= dict(zip(("inst_a", "inst_b"), regions.chunk(2)))
    return out | dict(zip(("inst_a2b", "inst_b2a"), decoded.chunk(2)))


def contrasts(found, masks, config):
    """Both losses and what is logged."""
    a, b = found["global_vectors_after_l2"].chunk(2)
    out = {"loss": contrast_clips(a, b, config.global_temperature)}
    out |= clip_statistics(a, b, config.global_temperature)
    vectors = {f"instances_{n[5:]}": normalize_length(t) for n, t in found.items() if "inst" in n}
    masks = dict(zip(("masks_a", "masks_b"), masks))
    local = region_contrast(vectors, masks, config.local_temperature)
    out = {f"global_loss.{n}": t for n, t in out.items()}
    return out | {f"local_loss.{n}": t for n, t in local.items()}


def squares(method, decay):
    """The penalty of kernels, which mimlib leaves to the optimizer."""
    return decay * sum(p.square().sum() for p in method.parameters() if p.ndim > 1) / 2


def in_tree(tensors):
    """Tensors of a method under the names of the model's attributes."""
    back = {published: tree for tree, published in TREES.items()}
    return {rename(n, back): t for n, t in published_names(tensors).items()}


def method_gradients(method, views, decay):
    """Losses and gradients: of everything, and of the local loss alone."""
    penalty = squares(method, decay)
    total = method(views).loss + penalty
    clips = torch.cat([views.clip_a, views.clip_b])
    local = method.local_maps(*method.encoder(clips, levels=(-2, -1)).levels)
    local = method.contrast_both(*method.decode(local, views), views)
    out, named = (
        {"total_loss": total, "regularization_loss": penalty},
        dict(method.named_parameters()),
    )
    for kind, loss in (("grad", total), ("grad_local_loss", local)):
        found = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
        found = {n: g for n, g in zip(named, found) if g is not None}
        missed = {n.partition(".")[0] for n in named.keys() - found.keys()}
        assert missed == (set() if kind == "grad" else {"encoder", "global_head"})
        out |= {f"{kind}.{n}": g for n, g in in_tree(found).items()}
    return out


def steps_of_sgd(method, views, decay, rate, count):
    """Losses and variables of some steps; the variance of synchronized norms is not Bessel's."""
    out, counts, before = {}, {}, doubled(in_tree(method.state_dict()))
    before = {n: t.clone() for n, t in before.items()}
    norms = {"stem_norm": method.encoder.stem_norm} | dict(method.global_head.named_children())
    names = {"stem_norm": "backbone/_stem_bn"} | {n: f"global_head/_layers/{n}" for n in "147"}
    for n, name in names.items():
        norms[n].register_forward_pre_hook(
            lambda _, given, name=name: counts.update({name: given[0][:, 0].numel()})
        )
    optimizer = torch.optim.SGD(method.parameters(), lr=rate, momentum=0.9)
    for step in range(1, count + 1):
        loss = method(views).loss + squares(method, decay)
        out[f"step_{step}.total_loss"] = loss.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = {n: t.clone() for n, t in in_tree(method.state_dict()).items()}
        for name in (f"{n}/moving_variance" for n in counts if step == 1):
            now[name] = biased(now[name], before[name], counts[name.rpartition("/")[0]])
        out |= {f"after_step_{step}.{n}": t for n, t in now.items()}
    return out


PARTS = {
    "constcl_backbone": backbone_outputs,
    "constcl_regions": regions_outputs,
    "constcl_boxes": boxes_outputs,
    "constcl_context_decoder": decoder_outputs,
    "constcl_global_loss": global_outputs,
    "constcl_local_loss": local_outputs,
    "constcl_train": method_outputs,
}


def constcl_outputs(golden):
    """Everything that a file of one part of ConST-CL stores."""
    return {n: t.detach() for n, t in PARTS[golden.facts["method"]](golden).items()}
