"""What the stored numbers of MAE and its fine-tuning hold, by mimlib; see test_parity.py."""

import re
from math import isqrt

import torch
import torch.nn.functional as F
from parity_files import (
    DECODER,
    NO_DROPOUT,
    VIT,
    alone,
    both_kinds,
    difference,
    forms,
    losses,
    numbered,
)
from torch import nn

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.layers.positions import resize_table
from mimlib.methods.autoencoder import MAEViews
from mimlib.methods.mae import MAEConfig
from mimlib.methods.objectives.masked import normalize_patches
from mimlib.weights import load_official


def rows_at(tokens, index):
    """Reorder patch tokens, keeping the class token in front where there is one."""
    first = tokens.shape[1] - index.shape[1] if tokens.shape[1] > index.shape[1] else 0
    return torch.cat([tokens[:, :first], gather_tokens(tokens[:, first:], index)], dim=1)


def mae_outputs(golden):
    """Everything a file of MAE stores, computed by mimlib, in the official token order."""
    with golden.arguments() as given:
        given.expect(**NO_DROPOUT)
        told = given.take("norm_pix_loss", False)
        shape, decoder = given.read(VIT), given.read(DECODER)
        decoder.setdefault("decoder_mlp_ratio", shape.get("mlp_ratio", 4.0))
        mask_ratio = golden.facts.get("mask_ratio", given.take("mask_ratio", 0.75))
        config = MAEConfig(encoder=ViTConfig(**shape), mask_ratio=mask_ratio, **decoder)
    return autoencoder_outputs(golden, config, told, encoder_maps, published)


def autoencoder_outputs(golden, config, told, encoder_maps, official):
    """What files of MAE and ConvMAE have in common: all but the maps of the encoder."""
    inputs, models = golden.inputs, both_kinds(config, golden.state)
    model = models["norm_pix"]
    mask = mask_from_noise(inputs["noise"], config.num_masked)
    views = MAEViews(inputs["images"], mask)
    shuffle = inputs["noise"].argsort(dim=1)
    shuffled = torch.searchsorted(mask.visible, shuffle[:, : config.num_visible].contiguous())
    with torch.no_grad():
        patches, grid = patchify(views.images, model.patch_size), config.encoder.grid
        memory = model.encode(patches, mask, grid)
        out = encoder_maps(model, views, patches, shuffled, inputs)
        out |= {"latent": rows_at(memory, shuffled), "latent_sorted": memory}
        out |= decoder_maps(model, model.fill_in(memory, mask, grid), mask)
        blocks, last = numbered(model.decoder_blocks, "decoder_"), model.decoder_norm
        out |= alone(inputs, {"decoder_block_tokens": {**blocks, "decoder_norm": last}})
    rows = golden.outputs.get("pred_row_index")
    out |= forms("pred", out["pred"], mask, config, rows)
    out |= forms("target", patches, mask, config)
    out |= forms("target_norm_pix", normalize_patches(patches)[0], mask, config)
    out |= {"mask": as_bool(mask).float(), "ids_restore": shuffle.argsort(dim=1)}
    out |= {"ids_keep": mask.visible.gather(1, shuffled), "ids_shuffle": shuffle}
    found, prediction = losses(models, views, told, official)
    assert difference(prediction, out["pred masked"]) < 1e-6, "the short last block differs"
    return out | found


def published(named):
    """The official names."""
    return {name.removeprefix("encoder."): tensor for name, tensor in named.items()}


def encoder_maps(model, views, patches, shuffled, inputs):
    """Tokens after every step of a ViT, visible ones shuffled as official."""
    encoder, mask = model.encoder, views.mask
    tokens = encoder.embed(patches, model.config.encoder.grid, mask)
    out = {
        "patch_embed": encoder.patch_embed(patches),
        "encoder_input": rows_at(tokens, shuffled),
    }
    for i, block in enumerate(encoder.blocks):
        tokens = block(tokens)
        out[f"encoder_block.{i}"] = rows_at(tokens, shuffled)
    layers = {"block_tokens": {**numbered(encoder.blocks), "norm": encoder.norm}}
    return out | alone(inputs, layers)


def decoder_maps(model, tokens, mask):
    """Tokens after every step of the decoder in raster order."""
    raster = torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1)
    out = {"decoder_input": rows_at(tokens, raster)}
    for i, block in enumerate(model.decoder_blocks):
        tokens = block(tokens)
        out[f"decoder_block.{i}"] = rows_at(tokens, raster)
    out["dec_tokens"] = model.decoder_norm(rows_at(tokens, raster))
    prediction = model.decoder_pred(out["dec_tokens"])
    return out | {"pred": prediction[:, -mask.visible.shape[1] - mask.masked.shape[1] :]}


def fine_tuning_outputs(golden):
    """What the fine-tuning network computes, from the features our encoder gives."""
    inputs = golden.inputs
    with golden.arguments() as given:
        given.expect(**NO_DROPOUT)
        given.take("num_classes"), given.take("global_pool")
        encoder = ViTConfig(**given.read(VIT), learned_positions=True).build().eval()
    unused = load_official(encoder, golden.state)
    assert set(unused) <= {f"{m}.{p}" for m in ("fc_norm", "head") for p in ("weight", "bias")}
    out = {}
    with torch.no_grad():
        features = encoder(inputs["images"], levels=(-1,))
        out["features_class_token"] = features.class_token
        if "fc_norm.weight" in unused:
            norm = nn.LayerNorm(encoder.width, eps=encoder.config.norm_eps)
            norm.load_state_dict({n: unused[f"fc_norm.{n}"] for n in ("weight", "bias")})
            out["features_global_pool"] = norm(features.levels[0].mean(dim=(2, 3)))
    for name, value in list(out.items()):
        logits = F.linear(value, unused["head.weight"], unused["head.bias"])
        out[name.replace("features", "logits")] = logits
    for name in golden.outputs:
        if new := re.fullmatch(r"pos_table_resized_to_(\d+)(?:x(\d+))?", name):
            table, sides = inputs["pos_table"][0], [int(side) for side in new.groups(new[1])]
            old = (isqrt(len(table)),) * 2
            out[name] = resize_table(table, old, tuple(sides))[None]
    return out
