"""Golden files: found, read argument by argument, compared; see golden/README.md."""

import json
import re
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from mimlib.layers.masking import gather_tokens
from mimlib.layers.patches import unpatchify
from mimlib.weights import load_official

VIT = {  # official argument: ours
    "embed_dim": "width", "depth": "depth", "num_heads": "heads", "patch_size": "patch_size",
    "img_size": "image_size", "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias",
    "layer_norm_eps": "norm_eps", "drop_path_rate": "drop_path",
}  # fmt: skip
DECODER = {
    "decoder_embed_dim": "decoder_width", "decoder_depth": "decoder_depth",
    "decoder_num_heads": "decoder_heads", "decoder_mlp_ratio": "decoder_mlp_ratio",
}  # fmt: skip
NO_DROPOUT = {"qk_scale": None, "drop_rate": 0.0, "attn_drop_rate": 0.0, "in_chans": 3}
REAL = ("mlp_ratio", "decoder_mlp_ratio", "norm_eps", "drop_path")
FAMILIES = ("pred", "target")  # outputs that come in several forms, told apart by their shapes
UNKNOWN_IS_INFINITE = ("flow_gt", "disparity_gt")


class Refused(ValueError):
    """A file asks for something that mimlib has no counterpart for."""


class Arguments(AbstractContextManager):
    """The official arguments of a file; those that nobody has read when it ends are refused."""

    def __init__(self, where, values):
        self.where = where
        self.left = {n: v for n, v in values.items() if not n.endswith("_note")}

    def __exit__(self, kind, error, trace):
        if isinstance(error, ValueError) and not isinstance(error, Refused):
            raise Refused(f"{self.where}: {error}") from error
        if error is None and self.left:
            names = ", ".join(f"{name} = {value!r}" for name, value in self.left.items())
            raise Refused(f"{self.where}: mimlib has no counterpart for {names}")

    def part(self, name):
        """The arguments of one part of the network."""
        return Arguments(f"{self.where}, {name}", self.left.pop(name))

    def take(self, name, default=None):
        """One argument."""
        return self.left.pop(name, default)

    def read(self, table):
        """Our names and their values, of the official arguments of a table that the file has."""
        found = {ours: self.left.pop(n) for n, ours in table.items() if n in self.left}
        for name, value in found.items():
            if name in REAL:
                found[name] = float(value)
            elif name in ("image_size", "patch_size") and isinstance(value, list):
                if len(set(value)) > 1:
                    raise Refused(f"{self.where}: {name} = {value!r}; mimlib knows squares alone")
                found[name] = value[0]
        return found

    def expect(self, **known):
        """Use up arguments that mimlib has one value for."""
        for name, value in known.items():
            given = self.left.pop(name, value)
            if given != value:
                raise Refused(f"{self.where}: {name} = {given!r}; mimlib knows {value!r} alone")


class Golden:
    """One file: what the JSON says, parameters, inputs and outputs."""

    def __init__(self, path):
        self.name, self.facts = path.stem, json.loads(path.with_suffix(".json").read_text())
        tensors = load_file(path)
        self.state, self.inputs, self.outputs = (
            {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(f"{kind}.")}
            for kind in ("state", "input", "output")
        )
        for name, tensor in (self.inputs | self.outputs).items():
            assert name in UNKNOWN_IS_INFINITE or tensor.isfinite().all(), f"{path}: {name}"

    def arguments(self):
        """The arguments of the official constructor."""
        return Arguments(f"{self.name}.json", self.facts["constructor"])

    @property
    def tolerance(self):
        """The largest difference that is allowed."""
        told = self.facts.get("tolerance", 1e-5)
        return told["value"] if isinstance(told, dict) else told


def find(folder):
    """The files of a folder that hold tensors, and those that are JSON alone, by name."""
    tensors = {path.stem: path for path in sorted(Path(folder).glob("*.safetensors"))}
    tables = {path.stem: path for path in sorted(Path(folder).glob("*.json"))}
    ours = (name for name in tables if name not in tensors and not name.startswith("digest_"))
    return tensors, {name: tables[name] for name in ours}


def difference(value, reference, scale=0.0):
    """Largest difference over the largest reference value, or scale; exact for integers."""
    assert value.shape == reference.shape, (tuple(value.shape), tuple(reference.shape))
    exact, value, reference = not reference.is_floating_point(), value.double(), reference.double()
    if exact:
        return float(not torch.equal(value, reference))
    scale = scale or float(reference.abs().max()) or 1.0
    return float((value - reference).abs().max()) / scale


def compare(values, golden):
    """Differences that are too large, and outputs that nobody computes; both by name.

    An output in another form than ours is compared with every form of its family that has its
    shape. One whose name nobody knows may still be something we compute under another name.
    """
    wrong, unknown = {}, []
    for name, reference in golden.outputs.items():
        family = next((each for each in FAMILIES if name.startswith(each)), "")
        if name in values and values[name].shape == reference.shape:
            alike = [values[name]]
        else:
            alike = [
                value
                for ours, value in values.items()
                if value.shape == reference.shape and ours.startswith(family)
            ]
        scale = noise_scale(values, name)
        found = min((difference(value, reference, scale) for value in alike), default=torch.inf)
        if found <= golden.tolerance:
            continue
        if name in values or family and alike:
            wrong[name] = found
        else:
            unknown.append(f"{name} {list(reference.shape)}")
    return wrong, unknown


def noise_scale(values, name):
    """What to measure the gradient of a key's bias by: softmax ignores it, so it is noise."""
    keys = re.search(r"grad.*(k|projk)\.bias$", name)
    return float(values[f"{name[:-4]}weight"].abs().max()) if keys and name in values else 0.0


def load(config, state):
    """A model with the file's parameters, of their number type; nothing dropped, nothing left."""
    model = config.build().to(next(iter(state.values())).dtype).eval()
    assert load_official(model, state) == {}
    return model


def both_kinds(config, state):
    """The model with a normalised target and with pixels as its target."""
    return {
        "norm_pix": load(replace(config, normalize_target=True), state),
        "raw_pix": load(replace(config, normalize_target=False), state),
    }


def losses(models, views, told, official):
    """Losses and gradients of both kinds; a file of one kind may leave it out of the names.

    Args:
        models: from `both_kinds`.
        views: what they see.
        told: the official `norm_pix_loss`, or words when the file holds both.
        official: turns a name and a gradient into the official ones.
    """
    out = {}
    for kind, model in models.items():
        output = model(views)
        output.loss.backward()
        named = official({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        ours = {f"loss_{kind}": output.loss.detach()}
        ours |= {f"grad_{kind}.{name}": gradient for name, gradient in named.items()}
        out |= ours
        if told is (kind == "norm_pix"):
            out |= {name.replace(f"_{kind}", "", 1): value for name, value in ours.items()}
    return out, output.prediction


def alone(inputs, layers):
    """Layers on tokens of their own, `<layer>_on_<input>`, for the inputs that there are."""
    return {
        f"{name}_on_{source}": layer(inputs[source])
        for source, named in layers.items()
        for name, layer in named.items()
        if source in inputs
    }


def numbered(blocks, prefix=""):
    """Blocks by the names that the files give them."""
    return {f"{prefix}block{i}": block for i, block in enumerate(blocks)}


def forms(name, whole, mask, config, rows=None):
    """Patches as they are, of the masked places, and as images."""
    masked = gather_tokens(whole, mask.masked)
    image = unpatchify(whole, config.encoder.patch_size, config.encoder.grid)
    out = {name: whole, f"{name} image": image, f"{name} masked": masked}
    if rows is not None:
        out |= {f"{name}_row_index": rows, f"{name}_rows": whole[:, rows]}
    return out | {f"{name} of all": masked.flatten(0, 1)}
