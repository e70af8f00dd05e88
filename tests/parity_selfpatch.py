"""What the stored numbers of SelfPatch hold, computed by mimlib; see test_parity.py."""

from dataclasses import replace
from math import isqrt

import torch
from einops import rearrange
from parity_files import NO_DROPOUT, VIT, Arguments

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.neighbors import nearest_neighbors, neighbor_table
from mimlib.layers.projection import PrototypeHead
from mimlib.layers.views.multicrop import MultiCropConfig, MultiCropViews
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import encode_crops
from mimlib.weights import load_official
from mimlib.weights.selfpatch import published_name

KINDS = ("global", "local")
WHOLE_IMAGE = 14  # of the official window
HEAD = {"hidden_dim": "hidden", "bottleneck_dim": "bottleneck", "nlayers": "layers"}
LOSS = {"student_temp": "student_temperature", "center_momentum": "center_momentum"}
AGGREGATOR = {"num_heads": "aggregator_heads", "blocks": "aggregator_depth", "k": "k"}
CROPS = {"global_size": "global_size", "local_size": "local_size", "local_crops": "num_local"}


def selfpatch_config(golden):
    """The method that a file describes."""
    facts = golden.facts
    with golden.arguments() as given:
        with given.part("backbone") as backbone:
            backbone.expect(**NO_DROPOUT, final_norm=False, class_token=False, num_classes=0)
            # The norm after the encoder is the aggregator's, whose epsilon is not an argument.
            backbone.expect(layer_norm_eps=1e-6)
            shape = {"drop_path": given.take("drop_path_rate", 0.0)} | backbone.read(VIT)
        with given.part("aggregation_head") as head:
            head.expect(mlp_ratio=4.0, qkv_bias=True, layer_norm_eps=1e-6)
            aggregator, window = head.read(AGGREGATOR), head.take("window", 3)
        with given.part("projection_heads") as heads:
            heads.expect(use_bn=False)
            heads.take("norm_last_layer")  # if they learn their lengths: which must be 1 here
            counts = [heads.take(f"{level}_out_dim") for level in ("image", "patch")]
            head = heads.read(HEAD)
    with Arguments(f"{golden.name}.json, loss", facts["loss"]) as loss:
        weight, compared = loss.take("patch_loss_weight", 0.1), comparison(loss)
    return SelfPatchConfig(
        encoder=ViTConfig(**shape, class_token=False, learned_positions=True, position_nudge=0.1),
        crops=MultiCropConfig(**{CROPS[n]: facts[n] for n in CROPS if n in facts}),
        image=DistillationConfig(prototypes=counts[0], **head, **compared),
        patches=DistillationConfig(prototypes=counts[1], **head, **compared),
        patch_weight=weight, window=0 if window == WHOLE_IMAGE else window, **aggregator,
    )  # fmt: skip


def comparison(loss):
    """Temperatures and momentum; the teacher's temperature rises linearly in its first epochs."""
    warm, last = loss.take("warmup_teacher_temp", 0.04), loss.take("teacher_temp", 0.04)
    epoch, epochs = loss.take("epoch_used", 0), loss.take("warmup_teacher_temp_epochs", 0)
    loss.take("epochs"), loss.take("nepochs"), loss.take("ncrops")
    rise = torch.linspace(warm, last, epochs, dtype=torch.float64)
    now = rise[epoch].item() if epoch < epochs else last
    now = loss.take("teacher_temp_at_that_epoch", now)
    return {"teacher_temperature": float(now), **loss.read(LOSS)}


def selfpatch_outputs(golden):
    """Everything a file of SelfPatch stores."""
    inputs, batch = golden.inputs, golden.facts.get("batch", 1)
    method = selfpatch_config(golden).build().to(inputs["center"].dtype).eval()
    content = {
        network: {
            n.removeprefix(f"{network}."): t
            for n, t in golden.state.items()
            if n.startswith(network)
        }
        for network in ("student", "teacher")
    }
    content["dino_loss"] = {name: inputs[name] for name in ("center", "patch_center")}
    assert load_official(method, content) == {}
    crops = (inputs[f"{kind}_crops"].unflatten(0, (-1, batch)) for kind in KINDS)
    views = MultiCropViews(*crops)
    with torch.no_grad():
        out = tables(method, inputs) | read_outs(method, views) | head_alone(method, inputs)
    output = method(views)
    output.loss.backward()
    for name, parameter in method.student.named_parameters():
        if parameter.grad is not None:
            out[f"grad.{published_name(name)}"] = parameter.grad
    out |= {"loss": output.loss.detach(), "loss_cls": output.terms["image"]}
    out["loss_patch"] = output.terms["patches"]
    with torch.no_grad():
        method.after_step(output.state, 0.0)
    out["center_after"] = method.objectives["image"].center[None, None]
    out["patch_center_after"] = method.objectives["patches"].center[None]
    return out | (loss_alone(golden, method.config) if "loss_only" in golden.facts else {})


def tables(method, inputs):
    """Who is near whom, on the grids of crops and of tokens that are given."""
    config = method.config
    sides = {size // config.encoder.patch_size for size in config.crops.sizes}
    sides |= {isqrt(t.shape[1]) for n, t in inputs.items() if n.startswith("head_tokens_")}
    return {
        f"neighbour_table_{side**2}": neighbor_table((side, side), config.window)[0].sort(1).values
        for side in sides
    }


def read_outs(method, views):
    """Tokens, choices, vectors and logits of every crop, on its own axis."""
    out = {}
    for name in ("student", "teacher"):
        network = getattr(method, name)
        encoded = encode_crops(network.encoder, views)
        images, patches = method.represent(network, views, name == "teacher")
        parts = zip(KINDS, encoded, images.split([len(crops) for crops in views]), patches)
        for kind, (raw, _, _, grid), image, patch in parts:
            vectors = {"cls": rearrange(image, "v b d -> (v b) 1 d"), "patch": patch.flatten(0, 1)}
            out[f"{name}_tokens_{kind}"] = raw
            out[f"{name}_cls_{kind}"] = vectors["cls"]
            out[f"{name}_patch_vectors_{kind}"] = vectors["patch"]
            for level, head in (("cls", "image"), ("patch", "patches")):
                out[f"{name}_{level}_logits_{kind}"] = network.heads[head](vectors[level])
            chosen = method.positives(raw, grid)  # the teacher's are stored
            assert chosen.valid.all()
            out[f"selected_patches_{kind}"] = chosen.index.sort(dim=2).values
    return out


def head_alone(method, inputs):
    """The aggregator on tokens of their own."""
    out, network, config = {}, method.teacher, method.config
    norm = network.encoder.norm
    for name, tokens in inputs.items():
        if not name.startswith("head_tokens_"):
            continue
        count, side = name.removeprefix("head_tokens_"), isqrt(tokens.shape[1])
        chosen = nearest_neighbors(tokens, (side, side), config.k, config.window)
        images, (patches,) = network.aggregator([tokens], [chosen])
        out[f"head_selected_{count}"] = chosen.index.sort(dim=2).values
        out[f"head_teacher_{count}"] = norm(torch.cat([images[:, None], patches], dim=1))
        out[f"head_student_{count}"] = norm(torch.cat([images[:, None], tokens], dim=1))
    return out


def loss_alone(golden, config):
    """The losses of given logits: heads that change nothing, as many dimensions as classes."""
    inputs, where = golden.inputs, f"{golden.name}.json, loss_only"
    told = {n: v for n, v in golden.facts["loss"].items() if n != "teacher_temp_at_that_epoch"}
    with Arguments(where, told | golden.facts["loss_only"]) as given:
        batch, num_global = given.take("batch"), given.take("global_crops", 2)
        weight, compared = given.take("patch_loss_weight", 0.1), comparison(given)
        counts = given.take("out_dim"), given.take("out_dim_selfpatch")
        given.take("locals"), given.take("patches")
    logits = {
        name: inputs[f"loss_only.{name}"].clone().requires_grad_(name.startswith("student"))
        for name in (f"{n}_{level}_{kind}" for n in ("student", "teacher")
                     for level in ("cls", "patch") for kind in KINDS)
    }  # fmt: skip
    parts = {
        name: rearrange(tensor, "(v b) n g -> v b n g", b=batch) for name, tensor in logits.items()
    }
    objectives = []
    for count, centre in zip(counts, ("center", "patch_center")):
        objective = replace(config.image, prototypes=count, **compared).build()
        objective.center = inputs[f"loss_only.{centre}"].flatten().clone()
        objectives.append(objective)
    heads = (Given(), Given())
    whole = [
        torch.cat([parts[f"{n}_cls_{kind}"][:, :, 0] for kind in KINDS])
        for n in ("student", "teacher")
    ]
    pairs = [[parts[f"{n}_patch_{kind}"] for kind in KINDS] for n in ("student", "teacher")]
    image, mean = objectives[0].between_crops(heads, *whole, num_global)
    patch, patch_mean = objectives[1].within_crops(heads, *pairs)
    loss = image + weight * patch
    loss.backward()
    out = {"loss": loss, "loss_cls": image, "loss_patch": patch}
    for objective, seen in zip(objectives, (mean, patch_mean)):
        objective.update_center(seen)
    out["center_after"] = objectives[0].center[None, None]
    out["patch_center_after"] = objectives[1].center[None]
    out |= {f"grad_{n}": t.grad for n, t in logits.items() if t.requires_grad}
    return {f"loss_only.{name}": tensor.detach() for name, tensor in out.items()}


class Given(PrototypeHead):
    """A head whose inputs are logits already."""

    def __init__(self):
        super().__init__(1, 1, 1, 1)

    def embed(self, inputs):
        return inputs

    def classify(self, embedded):
        return embedded

    def forward(self, inputs):
        return inputs
