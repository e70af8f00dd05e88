"""What the stored numbers of CroCo hold, computed by mimlib; see test_parity.py."""

from dataclasses import replace

import torch
from parity_files import Refused, alone, both_kinds, difference, forms, losses, numbered

from mimlib.layers.attention import Sight
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.layers.rope import rotary_table, rotate
from mimlib.methods.croco import CroCoViews
from mimlib.methods.objectives.masked import masked_mse, normalize_patches
from mimlib.weights.croco import PARTS, official_croco_config

CROCO = (
    "img_size", "patch_size", "mask_ratio", "enc_embed_dim", "enc_depth", "enc_num_heads",
    "dec_embed_dim", "dec_depth", "dec_num_heads", "mlp_ratio", "norm_im2_in_dec", "pos_embed",
)  # fmt: skip


def croco_outputs(golden):
    """Everything a file of CroCo stores, computed by mimlib, in the official token order."""
    inputs = golden.inputs
    with golden.arguments() as given:
        given.expect(in_chans=3)
        told = given.take("norm_pix_loss", False)
        more = given.read({"qkv_bias": "qkv_bias", "layer_norm_eps": "norm_eps"})
        base = given.take("rope_base")
        config = official_croco_config(given.read({name: name for name in CROCO}))
        if base not in (None, config.encoder.rotary_base):
            raise Refused(f"{given.where}: rope_base = {base!r} is not that of pos_embed")
    config = replace(config, encoder=replace(config.encoder, **more))
    models = both_kinds(config, golden.state)
    model = models["norm_pix"]
    mask = mask_from_noise(-inputs["noise"].argsort(dim=1), config.num_masked)
    assert torch.equal(as_bool(mask), inputs.get("mask", as_bool(mask)).bool())
    views = CroCoViews(inputs["img1"], inputs["img2"], mask)
    with torch.no_grad():
        out = {"mask": as_bool(mask)} | token_maps(model, views) | single_layers(model, inputs)
    out |= forms("pred", out["pred"], mask, config, golden.outputs.get("pred_row_index"))
    found, prediction = losses(models, views, told, published)
    assert difference(prediction, out["pred masked"]) < 1e-6, "the short last block differs"
    return out | found


def published(named):
    """The official names."""
    for ours, theirs in PARTS.items():
        named = {
            theirs + name.removeprefix(ours) if name.startswith(ours) else name: tensor
            for name, tensor in named.items()
        }
    return named


def token_maps(model, views):
    """Tokens after every step, each image on its own, those of the decoder in raster order."""
    mask, grid = views.mask, model.config.encoder.grid
    patches = [patchify(image, model.patch_size) for image in views[:2]]
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    out = {"positions": places, "enc1_positions": places[mask.visible]}
    for image, (content, seen) in enumerate(zip(patches, (mask, None)), start=1):
        tokens = model.encoder.embed(content, grid, seen)
        for i, block in enumerate(model.encoder.blocks):
            tokens = block(tokens, sight=Sight(model.encoder.rope(grid, seen)))
            out[f"enc{image}_block.{i}"] = tokens
    out["enc1"], out["enc2"] = model.encode(*patches, mask, grid)
    tokens, order = model.fill_in(out["enc1"], mask)
    raster = order.argsort(dim=1)
    memory = model.decoder.embed(out["enc2"])
    tokens, memory, sight = model.decoder.add_positions(tokens, memory, grid, order)
    out |= {"decoder_input": gather_tokens(tokens, raster), "decoder_memory": memory}
    for i, block in enumerate(model.decoder.blocks):
        tokens, memory = block(tokens, memory, sight=sight)
        out[f"decoder_block.{i}"] = gather_tokens(tokens, raster)
    out["dec_tokens"] = model.decoder.norm(out[f"decoder_block.{i}"])
    out["pred"] = model.decoder_pred(out["dec_tokens"])
    normalized = normalize_patches(patches[0])[0]
    for kind, target in (("norm_pix", normalized), ("raw_pix", patches[0])):
        out[f"loss_{kind}_all_patches"] = masked_mse(out["pred"], target)
        out |= forms(f"target_{kind}", target, mask, model.config)
    return out | forms("target", patches[0], mask, model.config)


def single_layers(model, inputs):
    """One block, one norm, one rotation, on tokens of their own."""
    encoder, decoder = model.encoder, model.decoder

    def rows(name, part):
        """Rows of a table large enough for these places."""
        if not encoder.config.rotary:
            return None
        places, width = inputs[name], part.attn.proj.weight.shape[0] // part.attn.heads
        side = int(places.max()) + 1
        table = rotary_table((side, side), width, base=encoder.config.rotary_base)
        return table[places[..., 0] * side + places[..., 1]]

    out, block, cross = {}, encoder.blocks[0], decoder.blocks[0]
    if "crossblock_x" in inputs:
        y, places = inputs["crossblock_y"], ("crossblock_xpos", "crossblock_ypos")
        sight = Sight(*(rows(name, cross) for name in places))
        out["crossblock"], memory = cross(inputs["crossblock_x"], y, sight=sight)
        assert memory is y, "the memory goes on unchanged"
    if "block_tokens" in inputs:
        sight = Sight(rows("block_positions", block))
        for name, each in numbered(encoder.blocks).items():
            out[f"{name}_on_block_tokens"] = each(inputs["block_tokens"], sight=sight)
    if "rope_q" in inputs:
        out["rope_q"] = rotate(inputs["rope_q"], rows("rope_positions", block))
    norms = {"enc_norm": encoder.norm}, {"dec_norm": decoder.norm}
    return out | alone(inputs, {"block_tokens": norms[0], "crossblock_y": norms[1]})
