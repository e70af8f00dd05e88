"""Published checkpoints and ours: names, both directions, and loading parts from a file.

Inside an encoder our names are the published ones, so a name of MAE (facebookresearch/mae) is ours
without the leading `encoder.`:

    encoder.blocks.0.attn.qkv.weight   <->   blocks.0.attn.qkv.weight
    decoder_blocks.0.norm1.bias        <->   decoder_blocks.0.norm1.bias

CroCo (naver/croco) names its parts otherwise, see CROCO_PARTS, and the same inside them:

    encoder.blocks.0.attn.qkv.weight   <->   enc_blocks.0.attn.qkv.weight
    decoder.blocks.0.norm_y.bias       <->   dec_blocks.0.norm_y.bias

ConvMAE (Alpha-VL/ConvMAE) has MAE's way of naming; its linear maps of positions are 1 x 1
convolutions, see POINTWISE.

The names of SelfPatch (alinlab/SelfPatch) are in weights/selfpatch.py.

Published files of MAE hold them under the key `model`, in three kinds: the whole pre-training model
(254 tensors for ViT-B), the encoder alone (150), and fine-tuned networks, which have `fc_norm` and
`head` in place of `norm`. Those of CroCo hold the whole model, and beside it `croco_kwargs`. The
released ConvMAE holds an encoder, perhaps without its final `norm`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mimlib.decoders.pair import PairDecoder
from mimlib.encoders.convvit import ConvViT
from mimlib.encoders.vit import ViT
from mimlib.methods.autoencoder import Autoencoder
from mimlib.methods.croco import CroCo
from mimlib.methods.selfpatch import SelfPatch
from mimlib.protocol import Encoder, Trainable
from mimlib.weights import selfpatch
from mimlib.weights.croco import CROCO_PARTS, CROCO_TABLES
from mimlib.weights.files import copy_weights, read_weights

FINAL_NORM = ("norm.weight", "norm.bias")
# What published files hold beside the encoder: the decoder, and the head of a fine-tuned network.
FUSION = ("stage1_output_decode.", "stage2_output_decode.")  # of ConvMAE
BESIDE_ENCODER = ("mask_token", "decoder", "fc_norm.", "head.", *FUSION)
POINTWISE = re.compile(r"blocks[12]\.\d+\.(conv[12]|mlp\.fc[12])\.weight")  # linear maps of ours


def load_official(
    model: Autoencoder | CroCo | SelfPatch | ViT | ConvViT, state_dict: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copy published weights into a pre-training model or into an encoder.

    Args:
        model: an MAE, a ConvMAE, a CroCo or a SelfPatch, which take a whole pre-training model, or
            an encoder, which takes its part of any of the kinds of file (the teacher's, where there
            are two); its image size may differ.
        state_dict: published names to tensors, or a file's content, which holds them below.

    Returns:
        The tensors that were not used: for an encoder the decoder, or `fc_norm` and `head`, for
        whoever builds a classifier. Empty for a whole model.

    Raises:
        ValueError: naming all missing, unexpected and mis-shaped entries.
    """
    state = _our_names(_unwrap(state_dict))
    if isinstance(model, ViT | ConvViT):
        return _copy_encoder(model, _encoder_part(state), "the given weights")
    if isinstance(model, Autoencoder):
        own = model.encoder.state_dict().keys()
        state = {f"encoder.{name}" if name in own else name: t for name, t in state.items()}
    copy_weights(model, state, "the given weights", selfpatch.CENTRES)
    return {}


def to_official(model: Autoencoder | CroCo | SelfPatch | ViT | ConvViT) -> dict:
    """Return the weights of a pre-training model or an encoder under their published names.

    A ViT alone gets those of MAE. Of a SelfPatch these are the entries of a training file.
    """
    state = model.state_dict()
    if isinstance(model, SelfPatch):
        return selfpatch.published_names(state)
    if not isinstance(model, CroCo):
        state = _strip("encoder.", state)
        return {n: t[..., None, None] if POINTWISE.match(n) else t for n, t in state.items()}
    return {
        _rename(name, CROCO_PARTS): tensor[0] if name in CROCO_TABLES else tensor
        for name, tensor in state.items()
    }


def load_encoder(encoder: Encoder, path: str | Path) -> None:
    """Copy the encoder found in a file into `encoder`.

    Args:
        encoder: of the same shape as the stored one; its image size may differ.
        path: a checkpoint of ours (any method or task), a published one, or a .safetensors file.

    Raises:
        ValueError: if the file is not readable as weights, or does not fit the encoder.
    """
    _copy_encoder(encoder, _encoder_part(_stored(path)), path)


def load_decoder(decoder: PairDecoder, path: str | Path) -> None:
    """Copy the decoder of a CroCo found in a file into `decoder`, for stereo and flow.

    Args:
        decoder: of the same shape as the stored one; its image size may differ.
        path: a checkpoint of ours (CroCo, stereo, flow), a published one, or a .safetensors file.

    Raises:
        ValueError: if the file is not readable as weights, or does not fit the decoder.
    """
    state = _part("decoder.", _stored(path))
    if "pos_embed" in state:
        state["pos_embed"] = decoder.fit_positions(state["pos_embed"])
    copy_weights(decoder, state, path)


def load_pretrained(method: Trainable, path: str | Path) -> None:
    """Copy the encoder found in a file, and the decoder where file and method have one for pairs.

    A student begins as its teacher does.

    Raises:
        ValueError: if the file is not readable as weights, or does not fit.
    """
    load_encoder(method.encoder, path)
    if student := getattr(method, "student", None):
        load_encoder(student.encoder, path)
    decoder = getattr(method, "decoder", None)
    if isinstance(decoder, PairDecoder) and _part("decoder.", _stored(path)):
        load_decoder(decoder, path)


def _rename(name: str, parts: Mapping[str, str]) -> str:
    """Replace the part a name begins with."""
    for old, new in parts.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of a published CroCo and the shapes of a ConvMAE; others stay."""
    if "enc_norm.weight" not in state:
        return {n: t.flatten(1) if POINTWISE.match(n) else t for n, t in state.items()}
    parts = {published: ours for ours, published in CROCO_PARTS.items()}
    named = {_rename(name, parts): tensor for name, tensor in state.items()}
    return {n: t[None] if n in CROCO_TABLES else t for n, t in named.items()}


def _encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick what belongs to the encoder, and what follows it in files of one flat list."""
    return _part("teacher.encoder.", state) or _strip("encoder.", state)


def _part(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return _strip(prefix, {n: t for n, t in state.items() if n.startswith(prefix)})


def _strip(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _stored(path: str | Path) -> dict[str, Tensor]:
    """Read a file's weights, those of a published CroCo under our names."""
    return _our_names(_unwrap(read_weights(Path(path))))


def _unwrap(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if selfpatch.is_published(state_dict):
        return selfpatch.our_names(state_dict)
    return state_dict.get("model", state_dict)


def _copy_encoder(
    encoder: Encoder, state: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """Copy the encoder's part of published weights; return the rest."""
    unused = {name: t for name, t in state.items() if name.startswith(BESIDE_ENCODER)}
    state = {name: t for name, t in state.items() if name not in unused}
    windows = [name for name in encoder.state_dict() if name.startswith("windows.")]
    if windows and "cls_token" in state:  # windows have no place for it, as in ViTDet
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if isinstance(encoder, ViT | ConvViT) and "pos_embed" in state:
        state["pos_embed"] = encoder.fit_positions(state["pos_embed"])
    may_lack_norm = "fc_norm.weight" in unused or not encoder.config.class_token  # SelfPatch
    copy_weights(encoder, state, source, [*windows, *(FINAL_NORM if may_lack_norm else ())])
    return unused
