"""Names of published SelfPatch files (alinlab/SelfPatch), both directions.

A training file holds `student` (names begin with `module.`), `teacher`, and the centers in
`dino_loss`; a file may also hold one network, or its `backbone` alone. The norm after the encoder
is the aggregation head's:

    teacher.encoder.blocks.0.norm1.bias        <->   teacher: backbone.blocks.0.norm1.bias
    teacher.encoder.norm.bias                  <->   teacher: ca_head.norm.bias
    teacher.aggregator.blocks.0.attn.q.bias    <->   teacher: ca_head.cls_blocks.0.attn.q.bias
    teacher.heads.patches.mlp.0.bias           <->   teacher: p_head.mlp.0.bias
    objectives.patches.center                  <->   dino_loss: patch_center
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mimlib.weights.files import rename

NETWORKS = ("student", "teacher")
PARTS = {  # ours -> published
    "encoder.norm.": "ca_head.norm.",
    "encoder.": "backbone.",
    "aggregator.cls_token": "ca_head.cls_token",
    "aggregator.blocks.": "ca_head.cls_blocks.",
    "heads.image.": "c_head.",
    "heads.patches.": "p_head.",
}
CENTERS = {  # ours -> published, and its shape
    "objectives.image.center": ("center", (1, 1, -1)),
    "objectives.patches.center": ("patch_center", (1, -1)),
}
# The last layers are weight-normalised: a direction and a length for each row, which is always 1.
DIRECTION, LENGTH = "last_layer.weight_v", "last_layer.weight_g"
NEW_NAMES = {  # of torch's parametrization -> as published
    "last_layer.parametrizations.weight.original1": DIRECTION,
    "last_layer.parametrizations.weight.original0": LENGTH,
}


def is_published(content: Mapping) -> bool:
    """Whether this is a file of SelfPatch or one of its networks."""
    names = content.keys()
    return "teacher" in names or any("backbone.blocks." in name for name in names)


def our_names(content: Mapping) -> dict[str, Tensor]:
    """Translate a published file into the state of a SelfPatch.

    One network alone stands for both, and a file without centers leaves them out. ValueError if a
    last layer has rows of another length than 1.
    """
    state = {}
    for network in NETWORKS:
        found = content.get(network, content.get("teacher", content.get("student", content)))
        state |= {f"{network}.{name}": tensor for name, tensor in _our_network(found).items()}
    centers = content.get("dino_loss", {})
    for ours, (published, _) in CENTERS.items():
        if published in centers:
            state[ours] = centers[published].flatten()
    return state


def _our_network(network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in network.items():
        name = name.removeprefix("module.")
        for new, published in NEW_NAMES.items():
            name = name.replace(new, published)
        if name.endswith(LENGTH):
            if not torch.all(tensor == 1):
                raise ValueError(f"{name} has rows of other lengths than 1, which is not supported")
            continue
        name = name.replace(DIRECTION, "last_layer.weight")
        state[rename(name, {published: ours for ours, published in PARTS.items()})] = tensor
    return state


def published_names(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Translate the state of a SelfPatch into the entries of a training file."""
    content: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}, "dino_loss": {}}
    for name, tensor in state.items():
        if name in CENTERS:
            published, shape = CENTERS[name]
            content["dino_loss"][published] = tensor.reshape(shape)
            continue
        network, _, name = name.partition(".")
        published = "module." * (network == "student") + published_name(name)
        content[network][published] = tensor
        if published.endswith(DIRECTION):
            length = torch.ones(len(tensor), 1, dtype=tensor.dtype)
            content[network][published.replace(DIRECTION, LENGTH)] = length
    return content


def published_name(name: str) -> str:
    """Translate the name of a parameter of one network."""
    return rename(name, PARTS).replace("last_layer.weight", DIRECTION)
