"""Published checkpoints and ours: names, both directions, and loading an encoder from a file.

Inside an encoder our names are the published ones, so a name of MAE (facebookresearch/mae) is ours
without the leading `encoder.`:

    encoder.blocks.0.attn.qkv.weight   <->   blocks.0.attn.qkv.weight
    decoder_blocks.0.norm1.bias        <->   decoder_blocks.0.norm1.bias

Three kinds of published file hold them under the key `model`: the whole pre-training model (254
tensors for ViT-B), the encoder alone (150), and fine-tuned networks, which have `fc_norm` and
`head` in place of `norm`.
"""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mimlib.encoders.vit import ViT
from mimlib.methods.mae import MAE
from mimlib.protocol import Encoder

PREFIX = "encoder."
FINAL_NORM = ("norm.weight", "norm.bias")
# What published files hold beside the encoder: the decoder, and the head of a fine-tuned network.
BESIDE_ENCODER = ("mask_token", "decoder_", "fc_norm.", "head.")
UNREADABLE = (
    "{} is not readable as weights ({}); expected a checkpoint of torch.save or a .safetensors "
    "file, whole"
)


def load_official(model: MAE | ViT, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy published weights into a pre-training model or into an encoder.

    Args:
        model: an MAE, which takes a whole pre-training model, or a ViT, which takes the encoder
            part of any of the three kinds of file; its image size may differ.
        state_dict: published names to tensors, or a file's content with the key `model`.

    Returns:
        The tensors that were not used: for a ViT the decoder, or `fc_norm` and `head`, for whoever
        builds a classifier. Empty for an MAE.

    Raises:
        ValueError: naming all missing, unexpected and mis-shaped entries.
    """
    state = _unwrap(state_dict)
    if isinstance(model, ViT):
        return _copy_encoder(model, state, "the given weights")
    own = model.encoder.state_dict().keys()
    state = {PREFIX + name if name in own else name: t for name, t in state.items()}
    _copy(model, state, "the given weights")
    return {}


def to_official(model: MAE | ViT) -> dict[str, Tensor]:
    """Return the weights of a pre-training model or an encoder under their published names."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in model.state_dict().items()}


def load_encoder(encoder: Encoder, path: str | Path) -> None:
    """Copy the encoder found in a file into `encoder`.

    Args:
        encoder: of the same shape as the stored one; its image size may differ.
        path: a checkpoint of ours (any method or task), a published one, or a .safetensors file.

    Raises:
        ValueError: if the file is not readable as weights, or does not fit the encoder.
    """
    state = _unwrap(_read(Path(path)))
    inside = {n.removeprefix(PREFIX): t for n, t in state.items() if n.startswith(PREFIX)}
    _copy_encoder(encoder, inside or state, path)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} holds more than tensors and plain values (training files of the official "
                "MAE hold their command line); if you trust it, open it once with "
                "torch.load(path, weights_only=False) and save its 'model' entry alone"
            ) from error
        raise ValueError(UNREADABLE.format(path, error)) from error
    except (RuntimeError, KeyError, EOFError, ValueError, SafetensorError) as error:
        raise ValueError(UNREADABLE.format(path, error)) from error
    if not isinstance(content, Mapping):
        raise ValueError(UNREADABLE.format(path, f"it holds a {type(content).__name__}"))
    return content


def _unwrap(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return state_dict.get("model", state_dict)


def _copy_encoder(
    encoder: Encoder, state: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """Copy the encoder's part of published weights; return the rest."""
    unused = {name: t for name, t in state.items() if name.startswith(BESIDE_ENCODER)}
    state = {name: t for name, t in state.items() if name not in unused}
    if isinstance(encoder, ViT) and "pos_embed" in state:
        state["pos_embed"] = encoder.fit_positions(state["pos_embed"])
    _copy(encoder, state, source, may_miss=FINAL_NORM if "fc_norm.weight" in unused else ())
    return unused


def _copy(
    model: MAE | Encoder,
    state: Mapping[str, Tensor],
    source: str | Path,
    may_miss: Iterable[str] = (),
) -> None:
    """Copy tensors of our names, all or none of them."""
    own = model.state_dict()
    problems = {
        "missing": [n for n in own if n not in state and n not in set(may_miss)],
        "unexpected": [n for n in state if n not in own],
        "of another shape": [
            f"{n} {tuple(state[n].shape)}, expected {tuple(own[n].shape)}"
            for n in own
            if n in state and state[n].shape != own[n].shape
        ],
    }
    if any(problems.values()):
        lines = [
            f"  {len(found)} {kind}: {_shorten(found)}" for kind, found in problems.items() if found
        ]
        raise ValueError(
            f"{source} do not fit {type(model).__name__}:\n" + "\n".join(lines) + "\n"
            "check size, patch size, class token and which part of the network the file holds"
        )
    model.load_state_dict(state, strict=False)


def _shorten(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
