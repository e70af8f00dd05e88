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

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mimlib.encoders.convvit import ConvViT
from mimlib.encoders.pair import PairDecoder, PairDecoderConfig
from mimlib.encoders.vit import ViT, ViTConfig
from mimlib.methods.autoencoder import Autoencoder
from mimlib.methods.croco import CroCo, CroCoConfig
from mimlib.methods.selfpatch import SelfPatch
from mimlib.protocol import Encoder, Trainable
from mimlib.weights import selfpatch

FINAL_NORM = ("norm.weight", "norm.bias")
# What published files hold beside the encoder: the decoder, and the head of a fine-tuned network.
FUSION = ("stage1_output_decode.", "stage2_output_decode.")  # of ConvMAE
BESIDE_ENCODER = ("mask_token", "decoder", "fc_norm.", "head.", *FUSION)
POINTWISE = re.compile(r"blocks[12]\.\d+\.(conv[12]|mlp\.fc[12])\.weight")  # linear maps of ours
CROCO_PARTS = {  # ours -> published
    "encoder.patch_embed.": "patch_embed.",
    "encoder.pos_embed": "enc_pos_embed",
    "encoder.blocks.": "enc_blocks.",
    "encoder.norm.": "enc_norm.",
    "decoder.embed.": "decoder_embed.",
    "decoder.pos_embed": "dec_pos_embed",
    "decoder.blocks.": "dec_blocks.",
    "decoder.norm.": "dec_norm.",
    "decoder_pred.": "prediction_head.",
}
CROCO_TABLES = ("encoder.pos_embed", "decoder.pos_embed")  # as official: without a batch axis
ROTARY = re.compile(r"RoPE(\d+(?:\.\d+)?)")  # of CroCo v2: rotary positions of this base
UNREADABLE = (
    "{} is not readable as weights ({}); expected a checkpoint of torch.save or a .safetensors "
    "file, whole"
)


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
    _copy(model, state, "the given weights", selfpatch.CENTRES)
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


def official_croco_config(croco_kwargs: Mapping[str, object] | None = None) -> CroCoConfig:
    """Describe the model of a published CroCo file, from its entry `croco_kwargs`.

    Files without that entry hold CroCo v1, whose values are the defaults.

    Raises:
        ValueError: if the file asks for something that this CroCo does not have.
    """
    given = {
        "img_size": 224, "patch_size": 16, "mask_ratio": 0.9, "enc_embed_dim": 768,
        "enc_depth": 12, "enc_num_heads": 12, "dec_embed_dim": 512, "dec_depth": 8,
        "dec_num_heads": 16, "mlp_ratio": 4, "norm_im2_in_dec": True, "pos_embed": "cosine",
    }  # fmt: skip
    for name, value in (croco_kwargs or {}).items():
        base = ROTARY.fullmatch(str(value))
        if name not in given or (name == "pos_embed" and value != "cosine" and not base):
            known = f"{', '.join(given)}; pos_embed is 'cosine', or 'RoPE100' with any number"
            raise ValueError(f"croco_kwargs has {name}={value!r}; this CroCo has {known}")
        given[name] = value
    base = ROTARY.fullmatch(given["pos_embed"])
    encoder = ViTConfig(
        width=given["enc_embed_dim"], depth=given["enc_depth"], heads=given["enc_num_heads"],
        patch_size=given["patch_size"], image_size=given["img_size"], class_token=False,
        mlp_ratio=float(given["mlp_ratio"]),
        rotary=base is not None, rotary_base=float(base[1]) if base else ViTConfig.rotary_base,
    )  # fmt: skip
    decoder = PairDecoderConfig(
        width=given["dec_embed_dim"], depth=given["dec_depth"], heads=given["dec_num_heads"],
        norm_memory=given["norm_im2_in_dec"],
    )  # fmt: skip
    return CroCoConfig(encoder=encoder, decoder=decoder, mask_ratio=given["mask_ratio"])


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
    _copy(decoder, state, path)


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
    return _our_names(_unwrap(_read(Path(path))))


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
    _copy(encoder, state, source, [*windows, *(FINAL_NORM if may_lack_norm else ())])
    return unused


def _copy(
    model: Autoencoder | CroCo | Encoder | PairDecoder,
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
