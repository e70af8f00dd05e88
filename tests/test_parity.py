"""Numerical parity with the official implementations, on stored inputs and outputs.

MIMLIB_GOLDEN names another folder in the format of tests/golden/README.md.
"""

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity_convmae import convmae_outputs
from parity_croco import croco_outputs
from parity_downstream import downstream_croco_outputs
from parity_propagation import propagation_outputs
from parity_selfpatch import selfpatch_outputs
from safetensors.torch import load_file
from torch import nn

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import as_bool, gather_tokens, mask_from_noise
from mimlib.layers.patches import patchify
from mimlib.layers.positions import resize_table
from mimlib.methods.mae import MAEConfig, MAEViews
from mimlib.weights import load_official

OWN_FOLDER = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("MIMLIB_GOLDEN", OWN_FOLDER))


def split_by(prefix, tensors):
    """The tensors whose names start with `prefix.`, without it."""
    return {
        n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")
    }


def difference(value, reference):
    """Largest difference over the largest reference value; exact for integers."""
    assert value.shape == reference.shape, (tuple(value.shape), tuple(reference.shape))
    if not reference.is_floating_point():
        return float(not torch.equal(value, reference))
    worst = (value.double() - reference.double()).abs().max()
    return float(worst / reference.double().abs().max())


def rows_at(tokens, index):
    """Reorder patch tokens, keeping the class token in front."""
    return torch.cat([tokens[:, :1], gather_tokens(tokens[:, 1:], index)], dim=1)


def mae_outputs(facts, state, inputs):
    """Everything the `mae` fixture stores, computed by mimlib, in the official token order."""
    given = facts["constructor"]
    assert given["mlp_ratio"] == given["decoder_mlp_ratio"] == 4.0 and given["qkv_bias"]
    encoder = ViTConfig(
        width=given["embed_dim"], depth=given["depth"], heads=given["num_heads"],
        patch_size=given["patch_size"], image_size=given["img_size"],
    )  # fmt: skip
    models = {
        kind: MAEConfig(
            encoder=encoder,
            decoder_width=given["decoder_embed_dim"],
            decoder_depth=given["decoder_depth"],
            decoder_heads=given["decoder_num_heads"],
            mask_ratio=facts["mask_ratio"],
            normalize_target=kind == "norm_pix",
        ).build()
        for kind in ("norm_pix", "raw_pix")
    }
    for model in models.values():
        load_official(model, state)
    model = models["norm_pix"]
    mask = mask_from_noise(inputs["noise"], model.config.num_masked)
    views = MAEViews(inputs["images"], mask)
    shuffle = inputs["noise"].argsort(dim=1)
    shuffled = torch.searchsorted(mask.visible, shuffle[:, : mask.visible.shape[1]].contiguous())
    with torch.no_grad():
        out = mae_token_maps(model, views, shuffled)
        small, small_decoder = inputs["block_tokens"], inputs["decoder_block_tokens"]
        out["block0_on_block_tokens"] = model.encoder.blocks[0](small)
        out["norm_on_block_tokens"] = model.encoder.norm(small)
        out["decoder_block0_on_decoder_block_tokens"] = model.decoder_blocks[0](small_decoder)
        out["decoder_norm_on_decoder_block_tokens"] = model.decoder_norm(small_decoder)
    out["mask"] = as_bool(mask).float()
    out["ids_keep"] = mask.visible.gather(1, shuffled)
    out["ids_restore"] = shuffle.argsort(dim=1)
    for kind, model in models.items():
        output = model(views)
        output.loss.backward()
        out[f"loss_{kind}"] = output.loss.detach()
        for name, parameter in model.named_parameters():
            out[f"grad_{kind}.{name.removeprefix('encoder.')}"] = parameter.grad
    masked_prediction = gather_tokens(out["pred"], mask.masked)
    assert difference(output.prediction, masked_prediction) < 1e-6, "the short last block differs"
    return out


def mae_token_maps(model, views, shuffled):
    """Tokens after every step; visible ones shuffled as official, the decoder's in raster order."""
    images, mask = views
    grid, patches = model.config.encoder.grid, patchify(images, model.patch_size)
    tokens = model.encoder.embed(patches, grid, mask)
    out = {
        "patch_embed": model.encoder.patch_embed(patches),
        "encoder_input": rows_at(tokens, shuffled),
    }
    for i, block in enumerate(model.encoder.blocks):
        tokens = block(tokens)
        out[f"encoder_block.{i}"] = rows_at(tokens, shuffled)
    memory = model.encode(patches, mask, grid)
    out["latent"], out["latent_sorted"] = rows_at(memory, shuffled), memory
    raster = torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1)
    tokens = model.fill_in(memory, mask, grid)
    out["decoder_input"] = rows_at(tokens, raster)
    for i, block in enumerate(model.decoder_blocks):
        tokens = block(tokens)
        out[f"decoder_block.{i}"] = rows_at(tokens, raster)
    out["pred"] = model.decoder_pred(model.decoder_norm(rows_at(tokens, raster)))[:, 1:]
    return out


def downstream_mae_outputs(facts, state, inputs):
    """What the fine-tuning network computes, from the features our encoder gives."""
    given = facts["constructor"]
    encoder = ViTConfig(
        width=given["embed_dim"], depth=given["depth"], heads=given["num_heads"],
        patch_size=given["patch_size"], image_size=given["img_size"], learned_positions=True,
    ).build()  # fmt: skip
    unused = load_official(encoder, state)
    assert set(unused) == {f"{m}.{p}" for m in ("fc_norm", "head") for p in ("weight", "bias")}
    norm = nn.LayerNorm(encoder.width, eps=1e-6)
    norm.load_state_dict(split_by("fc_norm", unused))
    with torch.no_grad():
        features = encoder(inputs["images"], levels=(-1,))
        pooled = norm(features.levels[0].mean(dim=(2, 3)))
    out = {"features_global_pool": pooled, "features_class_token": features.class_token}
    for kind in ("global_pool", "class_token"):
        weight, bias = unused["head.weight"], unused["head.bias"]
        out[f"logits_{kind}"] = F.linear(out[f"features_{kind}"], weight, bias)
    side = facts["position_table"]["grid"]
    for new in facts["position_table"]["new"]:
        table = resize_table(inputs["pos_table"][0], (side, side), (new, new))
        out[f"pos_table_resized_to_{new}"] = table[None]
    return out


METHODS = {
    "mae": mae_outputs,
    "downstream_mae": downstream_mae_outputs,
    "convmae": convmae_outputs,
    "croco_v1": croco_outputs,
    "croco_v2": croco_outputs,
    "downstream_croco": downstream_croco_outputs,
    "selfpatch": selfpatch_outputs,
    "downstream_selfpatch": propagation_outputs,
}
UNKNOWN_IS_INFINITE = ("input.flow_gt", "input.disparity_gt")
FIXTURES = {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


@pytest.fixture(scope="module", params=[name for name in FIXTURES if name in METHODS])
def fixture(request):
    path = FIXTURES[request.param]
    facts = json.loads(path.with_suffix(".json").read_text())
    tensors = load_file(path)
    numbers = [t for n, t in tensors.items() if n not in UNKNOWN_IS_INFINITE]
    assert all(t.isfinite().all() for t in numbers if t.is_floating_point())
    values = METHODS[request.param](facts, split_by("state", tensors), split_by("input", tensors))
    return facts, values, split_by("output", tensors)


def test_every_stored_output_is_reproduced(fixture):
    facts, values, references = fixture
    assert references and set(references) == set(facts["outputs"])
    uncomputed = set(references) - set(values)
    assert not uncomputed, f"stored but not compared: {sorted(uncomputed)}"
    found = {name: difference(values[name], references[name]) for name in references}
    wrong = {name: d for name, d in found.items() if not d <= facts["tolerance"]["value"]}
    assert not wrong, f"differ by more than {facts['tolerance']['value']}: {wrong}"


def test_the_comparison_can_fail(fixture):
    _, values, references = fixture
    for name, reference in references.items():
        if reference.is_floating_point():
            assert difference(values[name] * (1 + 2e-5), reference) > 1e-5
        else:
            assert difference(values[name] + 1, reference) > 0


def test_the_folder_holds_what_we_have():
    assert FIXTURES, f"{FOLDER} holds no fixtures"
    assert set(METHODS) <= set(FIXTURES) or "MIMLIB_GOLDEN" in os.environ
    missing = sorted(set(FIXTURES) - set(METHODS))
    if missing:
        warnings.warn(f"fixtures of methods not in mimlib yet: {', '.join(missing)}", stacklevel=1)


def test_layer_numbers_give_the_official_rates():
    facts = json.loads((OWN_FOLDER / "mae_lr_decay_vit_base_patch16_0.65.json").read_text())
    decay, layers = facts["layer_decay"], 12
    with torch.device("meta"):
        encoder = ViTConfig(
            width=768, depth=layers, heads=12, patch_size=16, image_size=224,
            learned_positions=True,
        ).build()  # fmt: skip
    table = facts["table"]
    names = [name for name, _ in encoder.named_parameters()]
    # The fine-tuning network has fc_norm and head where the encoder has norm.
    assert set(table) - set(names) == {
        "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert set(names) - set(table) == {"norm.weight", "norm.bias"}
    for name in set(names) & set(table):
        scale = decay ** (layers + 1 - encoder.layer_of(name))
        assert scale == pytest.approx(table[name]["lr_scale"], rel=1e-12), name
    assert decay ** (layers + 1 - encoder.layer_of("norm.weight")) == 1.0
