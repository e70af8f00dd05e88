"""What the stored numbers of MAE and its fine-tuning hold, by mimlib; see test_parity.py."""

import re
from math import isqrt

import torch
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

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.layers.positions import resize_table
from mimlib.methods.autoencoder import MAEViews
from mimlib.methods.mae import MAEConfig
from mimlib.methods.objectives.masked import normalize_patches
from mimlib.tasks.classification import ClassifierConfig
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
        given.take("global_pool")
        num_classes = given.take("num_classes", 1000)
        encoder = ViTConfig(**given.read(VIT), learned_positions=True)
    out = {}
    for pool, kind in (("mean", "global_pool"), ("class_token", "class_token")):
        task = ClassifierConfig(encoder=encoder, num_classes=num_classes, pool=pool).build()
        task.to(inputs["images"].dtype).eval()
        rest = load_official(task.encoder, golden.state)
        missing, unexpected = task.load_state_dict(rest, strict=False)
        if any(not name.startswith("encoder.") for name in missing):
            continue  # a file of the other mode alone
        assert pool == "class_token" or not unexpected
        with torch.no_grad():
            features = task.features(inputs["images"])
            out |= {f"features_{kind}": features, f"logits_{kind}": task.head(features)}
    for name in golden.outputs:
        if new := re.fullmatch(r"pos_table_resized_to_(\d+)(?:x(\d+))?", name):
            table, sides = inputs["pos_table"][0], [int(side) for side in new.groups(new[1])]
            old = (isqrt(len(table)),) * 2
            out[name] = resize_table(table, old, tuple(sides))[None]
    return out
