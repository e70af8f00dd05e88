"""Names of published ConST-CL checkpoints (tensorflow/models), both directions.

A checkpoint lists variables by the attributes that lead to them. Kernels of convolutions lie as
(frames, rows, columns, inputs, outputs) and those of linear maps as (inputs, outputs):

    encoder.stem_norm.weight               <->  backbone/_stem_bn/gamma
    encoder.stages.2.0.norm1.running_mean  <->  backbone/_blocks/res_4/cell_0/_norm1/moving_mean
    local_stage.0.spatial_conv.weight      <->  backbone/_res_5_1_layers/cell_0/_spatial_conv/kernel
    global_head.9.bias                     <->  model/layer_with_weights-1/_layers/9/bias
    decoder.projection.weight              <->  model/layer_with_weights-2/_projection_layer/kernel
"""

from collections.abc import Mapping

from torch import Tensor, nn

from mimlib.weights.files import rename

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # of every name, where a checkpoint is listed as it is
STEPS = "num_batches_tracked"  # of a norm
PREFIXES = {  # ours -> published
    "encoder.stem_conv.": "backbone/_stem_conv/",
    "encoder.stem_norm.": "backbone/_stem_bn/",
    "encoder.stages.0.": "backbone/_blocks/res_2/cell_",
    "encoder.stages.1.": "backbone/_blocks/res_3/cell_",
    "encoder.stages.2.": "backbone/_blocks/res_4/cell_",
    "encoder.stages.3.": "backbone/_blocks/res_5/cell_",
    "local_stage.": "backbone/_res_5_1_layers/cell_",
    "global_head.": "model/layer_with_weights-1/_layers/",
    "decoder.layers.": "model/layer_with_weights-2/_attention_decoder/_layers/",
    "decoder.": "model/layer_with_weights-2/",
}
PARTS = {  # ours -> published, between prefix and leaf
    **{f"{kind}_conv": f"_{kind}_conv" for kind in ("temporal", "spatial", "expand", "shortcut")},
    **{f"norm{i}": f"_norm{i}" for i in range(4)},
    **{name: f"layer_{name}" for name in ("q", "k", "v", "norm")},
    **{f"fc{i}": f"ffn{i}" for i in (1, 2)},
    "units": "_mha_units",
    "spatial_code": "_spatial_mlp",
    "temporal_code": "_temporal_mlp",
    "projection": "_projection_layer",
}
LEAVES = {  # published -> ours
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def counters(model: nn.Module) -> list[str]:
    """Return the names of what TensorFlow does not keep: how often each norm was updated."""
    return [name for name in model.state_dict() if name.endswith(STEPS)]


def is_published(content: Mapping) -> bool:
    """Whether this is a checkpoint of ConST-CL or a part of one."""
    return any(name.removesuffix(SUFFIX).endswith("/kernel") for name in content)


def our_names(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published checkpoint, or a part of one, into the state of a ConSTCL."""
    return {our_name(name): turned(tensor, False) for name, tensor in content.items()}


def our_name(name: str) -> str:
    """Translate the published name of a variable."""
    path, _, leaf = name.removesuffix(SUFFIX).rpartition("/")
    begun = rename(f"{path}/", {published: ours for ours, published in PREFIXES.items()})
    ours = {published: own for own, published in PARTS.items()}
    parts = begun.replace("/", ".").rstrip(".").split(".")
    return ".".join([*(ours.get(part, part) for part in parts), LEAVES[leaf]])


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state of a ConSTCL, or gradients by its names, into published variables."""
    return {
        published_name(name, of_norm=state[weight_of(name)].ndim == 1): turned(tensor, True)
        for name, tensor in state.items()
        if not name.endswith(STEPS)
    }


def weight_of(name: str) -> str:
    """Return the name of the weight that lies beside a parameter."""
    return f"{name.rpartition('.')[0]}.weight"


def published_name(name: str, of_norm: bool) -> str:
    """Translate the name of a parameter or statistic, of a norm or of another layer."""
    module, _, leaf = name.rpartition(".")
    parts = rename(f"{module}.", PREFIXES).replace(".", "/").rstrip("/").split("/")
    leaves = [published for published, ours in LEAVES.items() if ours == leaf]
    return "/".join([*(PARTS.get(part, part) for part in parts), leaves[-1 if of_norm else 0]])


def turned(tensor: Tensor, to_published: bool) -> Tensor:
    """Turn a kernel from one order of axes into the other; leave vectors as they are."""
    if tensor.ndim == 5:
        return tensor.permute(2, 3, 4, 1, 0) if to_published else tensor.permute(4, 3, 0, 1, 2)
    return tensor.T if tensor.ndim == 2 else tensor
