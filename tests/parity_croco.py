"""What the stored numbers of CroCo hold, computed by mimlib; see test_parity.py."""

import torch

from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.layers.rope import rotary_table, rotate
from mimlib.methods.croco import CroCoViews
from mimlib.methods.objectives.masked import masked_mse, normalize_patches
from mimlib.weights import load_official
from mimlib.weights.croco import CROCO_PARTS, official_croco_config

NOT_MODEL_FACTS = ("qkv_bias", "layer_norm_eps", "in_chans", "norm_pix_loss", "rope_base")


def croco_outputs(facts, state, inputs):
    """Everything the CroCo fixtures store, computed by mimlib, in the official token order."""
    given = facts["constructor"]
    assert given["qkv_bias"] and given["layer_norm_eps"] == 1e-6 and given["in_chans"] == 3
    assert given.get("rope_base", 100.0) == 100.0
    kwargs = {name: value for name, value in given.items() if name not in NOT_MODEL_FACTS}
    config = official_croco_config(kwargs)
    models = {"norm_pix": config.build(), "raw_pix": raw(config).build()}
    for model in models.values():
        assert load_official(model, state) == {}
    model = models["norm_pix"]
    mask = mask_from_noise(-inputs["noise"].argsort(dim=1), config.num_masked)
    assert torch.equal(as_bool(mask), inputs["mask"])
    views = CroCoViews(inputs["img1"], inputs["img2"], mask)
    with torch.no_grad():
        out = token_maps(model, views) | single_layers(model, inputs)
    for kind, model in models.items():
        output = model(views)
        output.loss.backward()
        out[f"loss_{kind}"] = output.loss.detach()
        for name, parameter in model.named_parameters():
            out[f"grad_{kind}.{official(name)}"] = parameter.grad
    masked_prediction = gather_tokens(out["pred"], mask.masked)
    scale = masked_prediction.abs().max()
    assert (output.prediction - masked_prediction).abs().max() < 1e-6 * scale, (
        "the short last block"
    )
    return out


def raw(config):
    """The same model with pixels as they are as its target."""
    return type(config)(encoder=config.encoder, decoder=config.decoder,
                        mask_ratio=config.mask_ratio, normalize_target=False)  # fmt: skip


def official(name):
    """The published name of a parameter."""
    for ours, published in CROCO_PARTS.items():
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name


def token_maps(model, views):
    """Tokens after every step, each image on its own, those of the decoder in raster order."""
    mask, grid = views.mask, model.config.encoder.grid
    patches = [patchify(image, model.patch_size) for image in views[:2]]
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    out = {"positions": places, "enc1_positions": places[mask.visible], "target": patches[0]}
    tokens = model.encoder.embed(patches[0], grid, mask)
    for i, block in enumerate(model.encoder.blocks):
        tokens = block(tokens, turns=model.encoder.turns(grid, mask))
        out[f"enc1_block.{i}"] = tokens
    out["enc1"], out["enc2"] = model.encode(*patches, mask, grid)
    tokens, order = model.fill_in(out["enc1"], mask)
    raster = order.argsort(dim=1)
    memory = model.decoder.embed(out["enc2"])
    tokens, memory, turns = model.decoder.locate(tokens, memory, grid, order)
    out["decoder_input"] = gather_tokens(tokens, raster)
    for i, block in enumerate(model.decoder.blocks):
        tokens, memory = block(tokens, memory, *turns)
        out[f"decoder_block.{i}"] = gather_tokens(tokens, raster)
    out["dec_tokens"] = model.decoder.norm(out[f"decoder_block.{i}"])
    out["pred"] = model.decoder_pred(out["dec_tokens"])
    target = normalize_patches(patches[0])[0]
    out["loss_norm_pix_all_patches"] = masked_mse(out["pred"], target)
    return out


def single_layers(model, inputs):
    """One block, one norm, one rotation, on tokens of their own."""
    encoder, decoder = model.encoder, model.decoder

    def turns(places, part):
        """Rows of a table large enough for these places."""
        if not encoder.config.rotary:
            return None
        side = int(places.max()) + 1
        width = part.attn.proj.weight.shape[0] // part.attn.heads
        return rotary_table((side, side), width)[places[..., 0] * side + places[..., 1]]

    block, cross = encoder.blocks[0], decoder.blocks[0]
    x, y = inputs["crossblock_x"], inputs["crossblock_y"]
    places = turns(inputs["crossblock_xpos"], cross), turns(inputs["crossblock_ypos"], cross)
    after, memory = cross(x, y, *places)
    assert memory is y, "the memory goes on unchanged"
    small = inputs["block_tokens"]
    out = {
        "crossblock": after,
        "block0_on_block_tokens": block(small, turns=turns(inputs["block_positions"], block)),
        "enc_norm_on_block_tokens": encoder.norm(small),
        "dec_norm_on_crossblock_y": decoder.norm(y),
    }
    if "rope_q" in inputs:
        out["rope_q"] = rotate(inputs["rope_q"], turns(inputs["rope_positions"], block))
    return out
