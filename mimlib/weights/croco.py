"""Names and settings of published CroCo files (naver/croco), both directions.

Its parts have other names, and the same inside them:

    encoder.blocks.0.attn.qkv.weight   <->   enc_blocks.0.attn.qkv.weight
    decoder.blocks.0.norm_y.bias       <->   dec_blocks.0.norm_y.bias
"""

import re
from collections.abc import Mapping

from torch import Tensor

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.weights.files import rename

PARTS = {  # ours -> published
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
ROTARY = re.compile(r"RoPE(\d+(?:\.\d+)?)")  # of CroCo v2: rotary positions of this base
TABLES = ("encoder.pos_embed", "decoder.pos_embed")  # as official: without a batch axis


def is_published(content: Mapping) -> bool:
    """Whether this is a CroCo under its published names."""
    return "enc_norm.weight" in content


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published file into the state of a CroCo."""
    parts = {published: ours for ours, published in PARTS.items()}
    named = {rename(name, parts): tensor for name, tensor in state.items()}
    return {n: t[None] if n in TABLES else t for n, t in named.items()}


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state of a CroCo."""
    return {rename(n, PARTS): t[0] if n in TABLES else t for n, t in state.items()}


def official_croco_config(croco_kwargs: Mapping[str, object] | None = None) -> CroCoConfig:
    """Describe the model of a published CroCo file, from its entry `croco_kwargs`.

    Files without that entry hold CroCo v1, whose values are the defaults. ValueError if the file
    asks for something that this CroCo does not have.
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
