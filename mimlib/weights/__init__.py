"""Published checkpoints and ours: names, both directions, and loading parts from a file.

One adapter per way of naming: `mae` (and ConvMAE), `croco`, `selfpatch`, `constcl`. Each translates
a file into the state of our method (`our_names`), and back (`published_names`). `dpt` does so for
the dense head of CroCo's stereo and flow models.

Published files of MAE hold the weights under the key `model`, in three kinds: the whole model of
pre-training (254 tensors for ViT-B), the encoder alone (150), and fine-tuned networks, which have
`fc_norm` and `head` in place of `norm`. Those of CroCo hold the whole model, and beside it
`croco_kwargs`. The released ConvMAE holds an encoder, perhaps without its final `norm`. Those of
ConST-CL are TensorFlow's: whoever has it lists their variables by name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mimlib.decoders.pair import PairDecoder
from mimlib.encoders.convvit import ConvViT
from mimlib.encoders.r3d import R3D
from mimlib.encoders.vit import ViT
from mimlib.methods.autoencoder import Autoencoder
from mimlib.methods.constcl import ConSTCL
from mimlib.methods.croco import CroCo
from mimlib.methods.selfpatch import SelfPatch
from mimlib.protocol import Encoder, Trainable
from mimlib.weights import constcl, croco, mae, selfpatch
from mimlib.weights.files import copy_weights, part_of, read_weights, strip

FINAL_NORM = ("norm.weight", "norm.bias")
# What published files hold beside the encoder: the decoder, and the head of a fine-tuned network.
FUSION = ("stage1_output_decode.", "stage2_output_decode.")  # of ConvMAE
BRANCHES = ("local_stage.", "global_head.")  # of ConST-CL
BESIDE_ENCODER = ("mask_token", "decoder", "fc_norm.", "head.", *FUSION, *BRANCHES)


Known = Autoencoder | CroCo | SelfPatch | ConSTCL | ViT | ConvViT | R3D


def load_official(model: Known, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy published weights into a pre-training model or into an encoder.

    Args:
        model: an MAE, a ConvMAE, a CroCo, a SelfPatch or a ConSTCL, which take a whole pre-training
            model, or an encoder, which takes its part of any of the kinds of file (the teacher's,
            where there are two, and the global branch's); its image size may differ.
        state_dict: published names to tensors, or a file's content, which holds them below.

    Returns:
        The tensors that were not used: for an encoder the decoder, or `fc_norm` and `head`, for
        whoever builds a classifier. Empty for a whole model.

    Raises:
        ValueError: naming all missing, unexpected and mis-shaped entries.
    """
    state = _our_names(state_dict)
    if isinstance(model, ViT | ConvViT | R3D):
        return _copy_encoder(model, _encoder_part(state), "the given weights")
    if isinstance(model, Autoencoder):
        own = model.encoder.state_dict().keys()
        state = {f"encoder.{name}" if name in own else name: t for name, t in state.items()}
    may_miss = [*selfpatch.CENTERS, *constcl.counters(model)]
    copy_weights(model, state, "the given weights", may_miss)
    return {}


def to_official(model: Known) -> dict:
    """Return the weights of a pre-training model or an encoder under their published names.

    A ViT alone gets those of MAE. Of a SelfPatch these are the entries of a training file.
    """
    if isinstance(model, R3D):
        state = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
        return constcl.published_names(state)
    kinds = {SelfPatch: selfpatch, CroCo: croco, ConSTCL: constcl}
    adapter = next((a for kind, a in kinds.items() if isinstance(model, kind)), mae)
    return adapter.published_names(model.state_dict())


def load_encoder(encoder: Encoder, path: str | Path) -> None:
    """Copy the encoder found in a file into one of the same shape; its image size may differ.

    The file is a checkpoint of ours (any method or task), a published one, or a .safetensors file;
    ValueError if it is not readable as weights, or does not fit the encoder.
    """
    _copy_encoder(encoder, _encoder_part(_stored(path)), path)


def load_decoder(decoder: PairDecoder, path: str | Path) -> None:
    """Copy the decoder of a CroCo found in a file, for stereo and flow; see `load_encoder`."""
    _copy_part(decoder, part_of(_stored(path), "decoder."), path)


def load_pretrained(method: Trainable, path: str | Path) -> None:
    """Copy the encoder found in a file, and the decoder where file and method have one for pairs.

    A student begins as its teacher does. ValueError as in `load_encoder`.
    """
    stored = _stored(path)
    _copy_encoder(method.encoder, _encoder_part(stored), path)
    if student := getattr(method, "student", None):
        _copy_encoder(student.encoder, _encoder_part(stored), path)
    decoder, found = getattr(method, "decoder", None), part_of(stored, "decoder.")
    if isinstance(decoder, PairDecoder) and found:
        _copy_part(decoder, found, path)


def _stored(path: str | Path) -> dict[str, Tensor]:
    """Read a file's weights under our names."""
    return _our_names(read_weights(Path(path)))


def _our_names(content: Mapping) -> dict[str, Tensor]:
    """Translate what a file holds; names that no adapter knows are ours, or MAE's."""
    state = content.get("model", content)
    adapter = next((a for a in (constcl, selfpatch, croco) if a.is_published(state)), mae)
    return adapter.our_names(state)


def _encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick what belongs to the encoder, and what follows it in files of one flat list."""
    return part_of(state, "teacher.encoder.") or strip("encoder.", state)


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
    may_lack_norm = "fc_norm.weight" in unused or not getattr(encoder.config, "class_token", False)
    may_miss = [*windows, *constcl.counters(encoder)]
    _copy_part(encoder, state, source, [*may_miss, *(FINAL_NORM if may_lack_norm else ())])
    return unused


def _copy_part(
    part: Encoder | PairDecoder,
    state: dict[str, Tensor],
    source: str | Path,
    may_miss: Sequence[str] = (),
) -> None:
    """Copy weights into an encoder or a decoder, with its positions resized."""
    if "pos_embed" in state and hasattr(part, "fit_positions"):
        state["pos_embed"] = part.fit_positions(state["pos_embed"])
    copy_weights(part, state, source, may_miss)
