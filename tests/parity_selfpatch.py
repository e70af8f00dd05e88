"""What the stored numbers of SelfPatch hold, computed by mimlib; see test_parity.py."""

import torch
from einops import rearrange

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.neighbours import nearest_neighbours, neighbour_table
from mimlib.layers.projection import PrototypeHead
from mimlib.layers.views.multicrop import MultiCropConfig, MultiCropViews
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig
from mimlib.methods.siamese import encode_crops
from mimlib.weights import load_official
from mimlib.weights.selfpatch import published_name

GRIDS = {"196": (14, 14), "36": (6, 6)}
KINDS = ("global", "local")


def selfpatch_config(facts):
    """The method that the file describes."""
    backbone, head = facts["constructor"]["backbone"], facts["constructor"]["projection_heads"]
    aggregation, loss = facts["constructor"]["aggregation_head"], facts["loss"]
    assert not backbone["final_norm"] and not backbone["class_token"] and backbone["qkv_bias"]
    assert head["norm_last_layer"] and not head["use_bn"] and head["nlayers"] == 3
    encoder = ViTConfig(
        width=backbone["embed_dim"], depth=backbone["depth"], heads=backbone["num_heads"],
        patch_size=backbone["patch_size"], image_size=backbone["img_size"][0],
        class_token=False, learned_positions=True, position_nudge=0.1,
    )  # fmt: skip
    images, patches = (
        DistillationConfig(
            prototypes=head[f"{level}_out_dim"], hidden=head["hidden_dim"],
            bottleneck=head["bottleneck_dim"], student_temperature=loss["student_temp"],
            teacher_temperature=loss["teacher_temp_at_that_epoch"],
            centre_momentum=loss["center_momentum"],
        )
        for level in ("image", "patch")
    )  # fmt: skip
    crops = MultiCropConfig(
        global_size=facts["global_size"], local_size=facts["local_size"],
        num_local=facts["local_crops"],
    )  # fmt: skip
    return SelfPatchConfig(
        encoder=encoder, crops=crops, image=images, patches=patches,
        patch_weight=loss["patch_loss_weight"], window=aggregation["window"], k=aggregation["k"],
        aggregator_heads=aggregation["num_heads"], aggregator_depth=aggregation["blocks"],
    )  # fmt: skip


def selfpatch_outputs(facts, state, inputs):
    """Everything the `selfpatch` fixture stores."""
    method = selfpatch_config(facts).build()
    content = {
        network: {
            n.removeprefix(f"{network}."): t for n, t in state.items() if n.startswith(network)
        }
        for network in ("student", "teacher")
    }
    content["dino_loss"] = {name: inputs[name] for name in ("center", "patch_center")}
    assert load_official(method, content) == {}
    views = MultiCropViews(inputs["global_crops"][:, None], inputs["local_crops"][:, None])
    with torch.no_grad():
        out = tables() | read_outs(method, views) | head_alone(method, inputs)
    output = method(views)
    output.loss.backward()
    for name, parameter in method.student.named_parameters():
        out[f"grad.{published_name(name)}"] = parameter.grad
    out |= {"loss": output.loss.detach(), "loss_cls": output.terms["image"]}
    out["loss_patch"] = output.terms["patches"]
    with torch.no_grad():
        method.after_step(output.state, 0.0)
    out["center_after"] = method.objectives["image"].centre[None, None]
    out["patch_center_after"] = method.objectives["patches"].centre[None]
    return out | loss_alone(facts, method.config.image, inputs)


def tables():
    """Who is near whom."""
    return {
        f"neighbour_table_{name}": neighbour_table(grid, 3)[0].sort(dim=1).values
        for name, grid in GRIDS.items()
    }


def read_outs(method, views):
    """Tokens, choices, vectors and logits of every crop, on its own axis."""
    out = {}
    for name in ("student", "teacher"):
        network = getattr(method, name)
        encoded = encode_crops(network.encoder, views)
        images, patches = method.describe(network, views, name == "teacher")
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
    for name, grid in GRIDS.items():
        tokens = inputs[f"head_tokens_{name}"]
        chosen = nearest_neighbours(tokens, grid, config.k, config.window)
        images, (patches,) = network.aggregator([tokens], [chosen])
        out[f"head_selected_{name}"] = chosen.index.sort(dim=2).values
        out[f"head_teacher_{name}"] = norm(torch.cat([images[:, None], patches], dim=1))
    images, _ = network.aggregator([tokens])
    out["head_student_36"] = norm(torch.cat([images[:, None], tokens], dim=1))
    return out


def loss_alone(facts, config, inputs):
    """The losses of given logits: heads that change nothing, as many dimensions as classes."""
    given = facts["loss_only"]
    logits = {
        name: inputs[f"loss_only.{name}"].clone().requires_grad_(name.startswith("student"))
        for name in (f"{n}_{level}_{kind}" for n in ("student", "teacher")
                     for level in ("cls", "patch") for kind in KINDS)
    }  # fmt: skip
    parts = {
        name: rearrange(tensor, "(v b) n g -> v b n g", b=given["batch"])
        for name, tensor in logits.items()
    }
    objectives = []
    for prototypes, centre in (
        (given["out_dim"], "center"),
        (given["out_dim_selfpatch"], "patch_center"),
    ):
        objective = type(config)(prototypes=prototypes).build()
        objective.centre.copy_(inputs[f"loss_only.{centre}"].flatten())
        objectives.append(objective)
    heads = (Given(), Given())
    whole = [
        torch.cat([parts[f"{n}_cls_{kind}"][:, :, 0] for kind in KINDS])
        for n in ("student", "teacher")
    ]
    pairs = [[parts[f"{n}_patch_{kind}"] for kind in KINDS] for n in ("student", "teacher")]
    image, mean = objectives[0].between_crops(heads, *whole, given["global_crops"])
    patch, patch_mean = objectives[1].within_crops(heads, *pairs)
    loss = image + facts["loss"]["patch_loss_weight"] * patch
    loss.backward()
    out = {"loss": loss, "loss_cls": image, "loss_patch": patch}
    for objective, seen in zip(objectives, (mean, patch_mean)):
        objective.follow(seen)
    out["center_after"] = objectives[0].centre[None, None]
    out["patch_center_after"] = objectives[1].centre[None]
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
