"""ConvMAE on whole maps, in the paper's order: the readable reference of the stages on cells.

Nothing is skipped: hidden positions are computed, multiplied by 0 before each depthwise
convolution, and thrown away at the end.
"""

import torch.nn.functional as F

from mimlib.layers.cells import as_tokens, pick_cells


def pointwise(linear, maps):
    """A linear map as the 1 x 1 convolution it is in the official code."""
    return F.conv2d(maps, linear.weight[..., None, None], linear.bias)


def channel_norm(norm, maps):
    """LayerNorm over channels."""
    return norm(maps.movedim(1, -1)).movedim(-1, 1)


def conv_block(block, maps, keep=None):
    """One block on maps [B, C, H, W]; keep [B, 1, H, W] is 1 where something is visible."""
    values = pointwise(block.conv1, channel_norm(block.norm1, maps))
    values = values if keep is None else keep * values
    weight = block.attn.weight
    mixed = F.conv2d(values, weight, block.attn.bias, padding="same", groups=len(weight))
    maps = maps + pointwise(block.conv2, mixed)
    hidden = F.gelu(pointwise(block.mlp.fc1, channel_norm(block.norm2, maps)))
    return maps + pointwise(block.mlp.fc2, hidden)


def enter(entry, maps):
    """Convolution, LayerNorm over channels, GELU."""
    maps = F.conv2d(maps, entry.proj.weight, entry.proj.bias, stride=entry.proj.stride)
    return F.gelu(channel_norm(entry.norm, maps))


def conv_stages(encoder, images, keep=None):
    """The maps of stages 1 and 2; keep [B, 1, h, w] is 1 for visible cells."""
    maps, outputs = images, []
    for entry, blocks in (
        (encoder.patch_embed1, encoder.blocks1),
        (encoder.patch_embed2, encoder.blocks2),
    ):
        maps = enter(entry, maps)
        for block in blocks:
            up = None if keep is None else F.interpolate(keep, size=maps.shape[-2:])  # nearest
            maps = conv_block(block, maps, up)
        outputs.append(maps)
    return outputs


def last_entry(encoder, maps):
    """Tokens [B, N, D] of the last stage before their positions."""
    return encoder.patch_embed4(enter(encoder.patch_embed3, maps).flatten(2).transpose(1, 2))


def visible_tokens(maps, mask, layout):
    """Of maps of all positions, those of the visible cells, nested."""
    return pick_cells(as_tokens(maps, layout), mask.visible, layout)


def stages(encoder, images, keep, mask):
    """What ConvViT.stages returns, with everything computed everywhere up to the last stage."""
    maps = conv_stages(encoder, images, keep)
    layouts = encoder.config.layouts
    tokens = last_entry(encoder, maps[1]) + encoder.pos_embed
    tokens = pick_cells(tokens, mask.visible, (1, 1))
    for block in encoder.blocks3:
        tokens = block(tokens)
    return *(visible_tokens(m, mask, layout) for m, layout in zip(maps, layouts)), tokens
