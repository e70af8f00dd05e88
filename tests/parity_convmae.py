"""What the stored numbers of ConvMAE hold, computed by mimlib; see test_parity.py."""

from dataclasses import replace

import convmae_dense
import torch

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.layers.cells import Places
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.methods.autoencoder import MAEViews
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.weights import POINTWISE, load_official


def convmae_outputs(facts, state, inputs):
    """Everything the `convmae` fixture stores, computed by mimlib, in the official order."""
    given = facts["constructor"]
    assert given["decoder_mlp_ratio"] == 4 and given["qkv_bias"] and given["in_chans"] == 3
    encoder = ConvViTConfig(
        widths=tuple(given["embed_dim"]), depths=tuple(given["depth"]), heads=given["num_heads"],
        mlp_ratios=tuple(given["mlp_ratio"]), entries=tuple(given["patch_size"]),
        image_size=given["img_size"][0], kernel=given["depthwise_kernel"],
    )  # fmt: skip
    config = ConvMAEConfig(
        encoder=encoder, decoder_width=given["decoder_embed_dim"],
        decoder_depth=given["decoder_depth"], decoder_heads=given["decoder_num_heads"],
        mask_ratio=facts["mask_ratio"],
    )  # fmt: skip
    models = {
        "norm_pix": config.build(),
        "raw_pix": replace(config, normalize_target=False).build(),
    }
    for model in models.values():
        assert load_official(model, state) == {}
    model = models["norm_pix"]
    mask = mask_from_noise(inputs["noise"], config.num_masked)
    views = MAEViews(inputs["images"], mask)
    shuffle = inputs["noise"].argsort(dim=1)
    num_visible = config.num_visible
    shuffled = torch.searchsorted(mask.visible, shuffle[:, :num_visible].contiguous())
    with torch.no_grad():
        out = token_maps(model, views, shuffled) | single_layers(model, inputs)
    out["mask"] = as_bool(mask).float()
    out["ids_keep"] = mask.visible.gather(1, shuffled)
    out["ids_restore"] = shuffle.argsort(dim=1)
    for kind, model in models.items():
        output = model(views)
        output.loss.backward()
        out[f"loss_{kind}"] = output.loss.detach()
        for name, parameter in model.named_parameters():
            name = name.removeprefix("encoder.")
            gradient = parameter.grad
            out[f"grad_{kind}.{name}"] = gradient
            if POINTWISE.match(name):
                out[f"grad_{kind}.{name}"] = gradient[..., None, None]
    return out


def token_maps(model, views, shuffled):
    """Tokens after every step; visible ones shuffled as official, the decoder's in raster order.

    The official stages are maps of all positions, see convmae_dense.py; ours must be in them.
    """
    images, mask = views
    encoder, grid = model.encoder, model.config.encoder.grid
    patches = patchify(images, model.patch_size)
    keep = (~as_bool(mask)).float().view(-1, 1, *grid)
    maps = convmae_dense.conv_stages(encoder, images, keep)
    out = {
        "stage1": maps[0],
        "stage2": maps[1],
        "stage3_tokens_before_positions": convmae_dense.last_entry(encoder, maps[1]),
    }
    stages = encoder.stages(patches, grid, mask)
    for dense, tokens, layout in zip(maps, stages, model.config.encoder.layouts):
        seen = convmae_dense.visible_tokens(dense, mask, layout)
        assert (seen - tokens).abs().max() < 1e-5 * seen.abs().max(), "the visible cells alone"
    out["stage3_last_block"] = gather_tokens(stages[-1], shuffled)
    out["fused_before_norm"] = gather_tokens(model.fuse(*stages), shuffled)
    memory = model.encode(patches, mask, grid)
    out["latent"], out["latent_sorted"] = gather_tokens(memory, shuffled), memory
    tokens = model.fill_in(memory, mask, grid)
    raster = torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1)
    out["decoder_input"] = gather_tokens(tokens, raster)
    for i, block in enumerate(model.decoder_blocks):
        tokens = block(tokens)
        out[f"decoder_block.{i}"] = gather_tokens(tokens, raster)
    prediction = model.decoder_pred(model.decoder_norm(gather_tokens(tokens, raster)))
    rows = torch.arange(0, prediction.shape[1], 7)
    return out | {"pred_row_index": rows, "pred_rows": prediction[:, rows]}


def single_layers(model, inputs):
    """One block, one norm, on tokens of their own."""
    encoder, small = model.encoder, inputs["decoder_block_tokens"]
    maps, keep = inputs["conv_block_map"], inputs["conv_block_keep"]
    block = encoder.blocks1[0]
    masked, height, width = convmae_dense.conv_block(block, maps, keep), *maps.shape[-2:]
    tokens = maps.flatten(2).transpose(1, 2)
    rows = torch.arange(len(maps) * height * width)
    plain = (
        block(tokens, Places(rows, (height, width))).transpose(1, 2).unflatten(2, (height, width))
    )
    shown = keep.flatten(1) > 0
    for image, seen in enumerate(shown):
        places = Places(seen.nonzero().flatten(), (height, width))
        ours = block(tokens[image : image + 1, seen], places)
        theirs = masked[image].flatten(1).T[seen]
        assert (ours[0] - theirs).abs().max() < 1e-5 * theirs.abs().max()
    return {
        "conv_block_with_mask": masked,
        "conv_block_without_mask": plain,
        "block0_on_block_tokens": encoder.blocks3[0](inputs["block_tokens"]),
        "norm_on_block_tokens": encoder.norm(inputs["block_tokens"]),
        "decoder_block0_on_decoder_block_tokens": model.decoder_blocks[0](small),
        "decoder_norm_on_decoder_block_tokens": model.decoder_norm(small),
    }
