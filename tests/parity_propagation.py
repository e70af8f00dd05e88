"""What the stored numbers of SelfPatch's label propagation hold, by mimlib; see test_parity.py."""

import torch
from einops import rearrange
from torch.nn.functional import normalize, one_hot

from mimlib.evaluation.propagation import PropagationConfig, blocks, carry, read_out
from mimlib.layers.positions import resize_table

SIDE, GRID = 16, (14, 14)  # patch and grid that the position table belongs to
NUDGE = 0.1  # of DINO's position tables, see ViTConfig.position_nudge


def propagation_outputs(facts, state, inputs):
    """What the `downstream_selfpatch` fixture stores."""
    given = facts["constructor"]
    h, w = given["token_grid"]
    config = PropagationConfig(
        context=given["n_last_frames"], radius=given["neighbourhood_radius"],
        neighbours=given["topk"], temperature=given["temperature"], tile=3,
    )  # fmt: skip
    maps = normalize(rearrange(inputs["features"], "t (h w) d -> t h w d", h=h), dim=-1)
    first = one_hot(inputs["first_labels"], given["classes"]).float()  # [h, w, M]
    soft = list(carry(maps, first, config))
    native = tuple(given["native_size"])
    decided = [read_out(labels, given["patch_size"], native) for labels in soft]
    table = inputs["pos_embed"][0]
    resized = {
        f"pos_embed_for_{height}x{width}": resize_table(
            table, GRID, (height // SIDE, width // SIDE), NUDGE
        )[None]
        for height, width in given["position_table"]["sizes"]
    }
    return resized | {
        "neighbourhood_mask": neighbourhood(h, w, config),
        "first_segmentation": rearrange(first, "h w m -> 1 m h w"),
        "soft_maps": rearrange(torch.stack(soft), "t h w m -> t m h w"),
        "label_maps": torch.stack(decided).to(torch.uint8),
    }


def neighbourhood(h, w, config):
    """Which sources (columns) may serve which targets (rows), put together from the blocks."""
    near = torch.zeros(h, w, h, w, dtype=torch.uint8)
    for row, around_row, far_row in blocks(h, config, near.device):
        for column, around_column, far_column in blocks(w, config, near.device):
            far = far_row[:, None, :, None] | far_column[None, :, None, :]
            near[row, column, around_row, around_column] = (~far).to(torch.uint8)
    return rearrange(near, "r c y x -> (r c) (y x)")
