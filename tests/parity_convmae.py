"""What the stored numbers of ConvMAE hold, computed by mimlib; see test_parity.py."""

from itertools import pairwise

import convmae_dense
import torch
from parity_files import DECODER, NO_DROPOUT, Refused, alone, difference, numbered
from parity_mae import autoencoder_outputs

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.layers.cells import Places
from mimlib.layers.masking import as_bool, gather_tokens
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.weights.mae import POINTWISE

HYBRID = {
    "embed_dim": "widths", "depth": "depths", "num_heads": "heads", "mlp_ratio": "mlp_ratios",
    "patch_size": "entries", "qkv_bias": "qkv_bias", "depthwise_kernel": "kernel",
    "drop_path_rate": "drop_path",
}  # fmt: skip
CONVOLUTIONS = "stage entries and conv blocks"  # whose epsilon is not an argument


def convmae_outputs(golden):
    """Everything a file of ConvMAE stores, computed by mimlib, in the official order."""
    with golden.arguments() as given:
        given.expect(**NO_DROPOUT)
        told = given.take("norm_pix_loss", False)
        shape = {n: tuple(v) if isinstance(v, list) else v for n, v in given.read(HYBRID).items()}
        sizes, epsilons = given.take("img_size"), given.take("layer_norm_eps", 1e-6)
        for side, (size, next_size) in zip(shape["entries"], pairwise(sizes)):
            if size != side * next_size:
                raise Refused(
                    f"{given.where}: img_size = {sizes!r} with entries {shape['entries']}"
                )
        if isinstance(epsilons, dict):
            with given.__class__(f"{given.where}, layer_norm_eps", epsilons) as parts:
                parts.expect(**{CONVOLUTIONS: 1e-5})
                epsilons = parts.left.popitem()[1]
        encoder = ConvViTConfig(**shape, image_size=sizes[0], norm_eps=epsilons)
        decoder = {"decoder_mlp_ratio": float(shape["mlp_ratios"][0])} | given.read(DECODER)
        mask_ratio = golden.facts.get("mask_ratio", given.take("mask_ratio", 0.75))
        config = ConvMAEConfig(encoder=encoder, mask_ratio=mask_ratio, **decoder)
    return autoencoder_outputs(golden, config, told, encoder_maps, published)


def published(named):
    """Linear maps of positions as the 1 x 1 convolutions they are in the official code."""
    named = {name.removeprefix("encoder."): tensor for name, tensor in named.items()}
    return {n: t[..., None, None] if POINTWISE.match(n) else t for n, t in named.items()}


def encoder_maps(model, views, patches, shuffled, inputs):
    """Maps and tokens after every stage; visible tokens shuffled as official.

    The official stages are maps of all positions, see convmae_dense.py; ours must be in them.
    """
    images, mask = views
    encoder, grid = model.encoder, model.config.encoder.grid
    keep = (~as_bool(mask)).to(images.dtype).view(-1, 1, *grid)
    maps = convmae_dense.conv_stages(encoder, images, keep)
    stages = encoder.stages(patches, grid, mask)
    for dense, tokens, layout in zip(maps, stages, model.config.encoder.layouts):
        seen = convmae_dense.visible_tokens(dense, mask, layout)
        assert difference(tokens, seen) < 1e-5, "the visible cells alone"
    out = {
        "stage1": maps[0],
        "stage2": maps[1],
        "stage3_tokens_before_positions": convmae_dense.last_entry(encoder, maps[1]),
        "stage3_last_block": gather_tokens(stages[-1], shuffled),
        "fused_before_norm": gather_tokens(model.fuse(*stages), shuffled),
    }
    if "conv_block_map" in inputs:
        out |= conv_blocks(encoder.blocks1[0], inputs["conv_block_map"], inputs["conv_block_keep"])
    layers = {"block_tokens": {**numbered(encoder.blocks3), "norm": encoder.norm}}
    return out | alone(inputs, layers)


def conv_blocks(block, maps, keep):
    """One block of convolutions on a map of its own, with and without a mask."""
    masked, sides = convmae_dense.conv_block(block, maps, keep), tuple(maps.shape[-2:])
    tokens, rows = maps.flatten(2).transpose(1, 2), torch.arange(maps[:, 0].numel())
    plain = block(tokens, Places(rows, sides)).transpose(1, 2).unflatten(2, sides)
    for image, seen in enumerate(keep.flatten(1) > 0):
        ours = block(tokens[image : image + 1, seen], Places(seen.nonzero().flatten(), sides))
        assert difference(ours[0], masked[image].flatten(1).T[seen]) < 1e-5
    return {"conv_block_with_mask": masked, "conv_block_without_mask": plain}
