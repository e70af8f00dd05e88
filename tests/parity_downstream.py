"""What the stored numbers of CroCo-Stereo and -Flow hold, by mimlib; see test_parity.py."""

import re

import torch
from einops import rearrange
from parity_files import Refused

from mimlib.layers.positions import resize_table
from mimlib.metrics.matching import flow_metrics, stereo_metrics
from mimlib.tasks.heads.dpt import DPTHead
from mimlib.tasks.losses.laplacian import laplacian_loss
from mimlib.tasks.tiling import Confidence, predict_tiled, window_offsets
from mimlib.weights.dpt import load_official_head

LAPLACIANS = {  # as the file calls them: ours
    "laplacian": "unbounded", "laplacian_bounded": "bounded", "laplacian_bounded2": "bounded_2",
}  # fmt: skip
MAX_FLOW = 1e4  # of the official bounded loss
FLOW_NAMES = {"EPE": "epe", "bad@1.0": "bad_1", "bad@3.0": "bad_3", "bad@5.0": "bad_5"}
DISPARITY_NAMES = {
    "avgerr": "epe", "rmse": "rmse", "bad@0.5": "bad_0.5", "bad@1.0": "bad_1", "bad@2.0": "bad_2",
    "bad@3.0": "bad_3",
}  # fmt: skip


def downstream_croco_outputs(golden):
    """Everything a file of stereo and flow stores; it may hold some of the parts."""
    inputs, out = golden.inputs, {}
    with golden.arguments() as given:
        if "dpt" in given.left:
            with given.part("dpt") as dpt:
                out |= head_outputs(dpt, golden)
        if "tiling" in given.left:
            with given.part("tiling") as tiling:
                out |= tiled_outputs(tiling, inputs)
        if "position_resize" in given.left:
            with given.part("position_resize") as resize:
                out |= position_tables(resize, inputs)
    for kind, names, metrics in (
        ("flow", FLOW_NAMES, flow_metrics),
        ("disparity", DISPARITY_NAMES, stereo_metrics),
    ):
        if f"{kind}_gt" in inputs:
            out |= loss_outputs(kind, inputs) | metric_outputs(kind, names, metrics, inputs)
    return out


def position_tables(given, inputs):
    """The tables of encoder and decoder, made for other images."""
    side, patch, size = given.take("grid"), given.take("patch"), given.take("size")
    grid = size[0] // patch, size[1] // patch
    tables = {part: inputs[f"{part}_pos_table"] for part in ("enc", "dec") if given.take(part)}
    return {
        f"{part}_pos_table_resized": resize_table(table, (side, side), grid)
        for part, table in tables.items()
    }


def head_outputs(given, golden):
    """The DPT head and its maps on the way; the official file counts fusion blocks from 1."""
    given.expect(output_width_ratio=1, use_bn=False)
    given.take("token_dims")
    h = given.take("image_size")[0] // given.take("patch_size", 16)
    tokens = [golden.inputs[f"dpt_tokens.{hook}"] for hook in given.take("hooks")]
    maps = [rearrange(t, "b (h w) d -> b d h w", h=h) for t in tokens]
    names = ("num_channels", "layer_dims", "feature_dim", "last_dim")
    head = DPTHead([t.shape[-1] for t in tokens], *map(given.take, names))
    head.to(maps[0].dtype)
    load_official_head(head, {n.removeprefix("dpt."): t for n, t in golden.state.items()})
    with torch.no_grad():
        scales = head.scale_maps(maps)
        out = {f"dpt_layer.{i}": scale for i, scale in enumerate(scales)}
        out |= {f"dpt_refine.{i + 1}": fused for i, fused in enumerate(head.fused_maps(scales))}
        # as official: 16 times the grid, whatever a patch is
        out["dpt_prediction"] = head(maps, tuple(16 * side for side in maps[0].shape[-2:]))
    return out


def tiled_outputs(given, inputs):
    """Tiled prediction with the stand-in network that the file describes."""

    def network(image_1, image_2):
        flow = image_1[:, :2] + image_2[:, :2].mean((2, 3), keepdim=True)
        return flow, 0.5 * image_1[:, 2] + 3 * image_2[:, 2].mean((1, 2))[:, None, None]

    for case in given.take("window_offsets", ()):
        assert window_offsets(case["total"], case["window"], case["overlap"]) == case["offsets"]
    mode, crop = given.take("conf_mode"), tuple(given.take("crop"))
    known = re.fullmatch(r"conf_exp(?:sigmoid_([\d.]+)_([\d.]+)|beta([\d.]+))", mode)
    if not known:
        raise Refused(f"{given.where}: conf_mode = {mode!r} is not known")
    confidence = Confidence(*(float(number) for number in known.groups() if number))
    overlap, size = given.take("overlap"), given.take("size")
    given.take("stub_network")
    if size[0] < crop[0] or size[1] < crop[1]:
        return {}  # enlarged by another factor than the official one, see predict_tiled
    images = inputs["tiled_img1"], inputs["tiled_img2"]
    prediction, scale = predict_tiled(network, *images, crop, overlap, confidence)
    return {"tiled_prediction": prediction, "tiled_conf": scale}


def known(kind, inputs):
    """Truth [B, H, W, C] and where it is finite."""
    target = inputs[f"{kind}_gt"].movedim(1, -1)
    return target, target.isfinite().all(-1)


def loss_outputs(kind, inputs):
    """Losses and gradients. The plain L1 is the unbounded one at scale 1, averaged over channels.

    The official bounded loss leaves out vectors of 10,000 pixels and more, for us the task does.
    """
    target, valid = known(kind, inputs)
    short = torch.where(valid[..., None], target, 0.0).norm(dim=-1) < MAX_FLOW
    out = {}
    for name, scale in {"l1": "unbounded", **LAPLACIANS}.items():
        prediction = inputs[f"{kind}_prediction"].movedim(1, -1).clone().requires_grad_()
        raw = inputs[f"{kind}_conf"][:, 0].clone().requires_grad_()
        counted = valid & short if scale == "bounded" else valid
        loss = laplacian_loss(
            prediction, torch.zeros_like(raw) if name == "l1" else raw, target, counted, scale
        )
        loss = loss / prediction.shape[-1] if name == "l1" else loss
        loss.backward()
        out[f"{kind}_{name}"] = loss.detach()
        out[f"{kind}_{name}_grad_prediction"] = prediction.grad.movedim(-1, 1)
        if name != "l1":
            out[f"{kind}_{name}_grad_conf"] = raw.grad[:, None]
    return out


def metric_outputs(kind, names, make, inputs):
    """Metrics: official ones are means over images, in percent where they are shares."""
    target, valid = known(kind, inputs)
    prediction = inputs[f"{kind}_prediction"].movedim(1, -1)
    found = []
    for row in range(len(target)):
        metrics = make()
        metrics.update(prediction[row][valid[row]], target[row][valid[row]])
        found.append(metrics.compute())
    out = {
        f"{kind}_metric.{theirs}": torch.stack([f[ours] for f in found]).mean()
        * (100 if theirs.startswith("bad") else 1)
        for theirs, ours in names.items()
    }
    if kind == "flow":  # not a metric of ours
        error = torch.where(valid[..., None], prediction - target, 0.0).abs().sum((1, 2, 3))
        out["flow_metric.L1err"] = (error / valid.sum((1, 2))).mean()
    return out
