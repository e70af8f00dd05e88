"""What the stored numbers of SelfPatch's label propagation hold, by mimlib; see test_parity.py."""

from math import isqrt

import torch
from einops import rearrange
from torch.nn.functional import normalize, one_hot

from mimlib.evaluation.propagation import PropagationConfig, blocks, propagate_soft, read_out
from mimlib.layers.positions import resize_table

NUDGE = 0.1  # of DINO's position tables, see ViTConfig.position_nudge


def propagation_outputs(golden):
    """Everything a file of label propagation stores."""
    inputs = golden.inputs
    with golden.arguments() as given:
        (h, w), classes = given.take("token_grid"), given.take("classes")
        stride, native = given.take("patch_size"), tuple(given.take("native_size"))
        radius = given.take("neighbourhood_radius")
        given.take("feature_dim")
        config = PropagationConfig(
            context=given.take("n_last_frames"), neighbors=given.take("topk"),
            temperature=given.take("temperature", 0.1), tile=3,
            radius=radius or max(h, w),  # as official: 0 does not restrict anything
        )  # fmt: skip
        resized = position_tables(given.take("position_table", {}), inputs)
    maps = normalize(rearrange(inputs["features"], "t (h w) d -> t h w d", h=h), dim=-1)
    first = one_hot(inputs["first_labels"].long(), classes).to(maps.dtype)  # [h, w, M]
    soft = list(propagate_soft(maps, first, config))
    decided = [read_out(labels, stride, native) for labels in soft]
    return resized | {
        "neighbourhood_mask": neighbourhood(h, w, config),
        "first_segmentation": rearrange(first, "h w m -> 1 m h w"),
        "soft_maps": rearrange(torch.stack(soft), "t h w m -> t m h w"),
        "label_maps": torch.stack(decided).to(torch.uint8),
    }


def position_tables(facts, inputs):
    """The learned table, made for other images."""
    patch, out = facts.get("patch", 16), {}
    for height, width in facts.get("sizes", ()):
        table = inputs["pos_embed"][0]
        old, new = (isqrt(len(table)),) * 2, (height // patch, width // patch)
        out[f"pos_embed_for_{height}x{width}"] = resize_table(table, old, new, NUDGE)[None]
    return out


def neighbourhood(h, w, config):
    """Which sources (columns) may serve which targets (rows), put together from the blocks."""
    near = torch.zeros(h, w, h, w, dtype=torch.uint8)
    for row, around_row, far_row in blocks(h, config, near.device):
        for column, around_column, far_column in blocks(w, config, near.device):
            far = far_row[:, None, :, None] | far_column[None, :, None, :]
            near[row, column, around_row, around_column] = (~far).to(torch.uint8)
    return rearrange(near, "r c y x -> (r c) (y x)")
