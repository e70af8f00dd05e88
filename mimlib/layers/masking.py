"""Masks: which patches are shown, which are hidden, and how tokens are picked and put back.

Letters: B images, N patches of one image, V visible and M masked (V + M = N), D token width.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from mimlib.protocol import PatchMask


def random_mask(
    batch: int, num_patches: int, num_masked: int, generator: torch.Generator
) -> PatchMask:
    """Hide a uniformly random set of M = `num_masked` of N patches in each image.

    MAE, section 3 "Masking": sampling without replacement, uniform over the grid. The patches
    with the smallest noise stay visible. A count, not a ratio: papers round differently, see
    MAEConfig.num_masked. The device of the generator is that of the result.

    Raises:
        ValueError: if num_masked is outside [0, num_patches].
    """
    if not 0 <= num_masked <= num_patches:
        raise ValueError(
            f"cannot hide {num_masked} of {num_patches} patches; "
            f"choose a count from 0 to {num_patches}"
        )
    noise = torch.rand(batch, num_patches, generator=generator, device=generator.device)
    return mask_from_noise(noise, num_masked)


def mask_from_noise(noise: Shaped[Tensor, "B N"], num_masked: int) -> PatchMask:
    """Hide the `num_masked` patches with the largest noise in each image."""
    return _show_first(noise.argsort(dim=1), noise.shape[1] - num_masked)


def complementary_masks(
    batch: int, num_patches: int, num_visible: int, generator: torch.Generator
) -> PatchMask:
    """Split the patches of each image into random groups; each mask shows one of them.

    FastConvMAE (Alpha-VL/FastConvMAE): every patch is visible in exactly one mask. Groups have V =
    `num_visible` of N patches; masks are of N / V * B images: first the first group of all.
    ValueError if the groups do not come out even.
    """
    if not num_visible or num_patches % num_visible:
        raise ValueError(
            f"{num_patches} patches do not split into groups of {num_visible}; choose a count of "
            "visible patches that divides them"
        )
    noise = torch.rand(batch, num_patches, generator=generator, device=generator.device)
    order = noise.argsort(dim=1)  # [B, N]
    # Rolled by whole groups, so that each group comes first once.
    groups = [order.roll(-first, dims=1) for first in range(0, num_patches, num_visible)]
    return _show_first(torch.cat(groups), num_visible)  # [B * N / V, N]


def _show_first(order: Int[Tensor, "B N"], num_visible: int) -> PatchMask:
    visible, masked = order[:, :num_visible], order[:, num_visible:]  # [B, V], [B, M]
    return PatchMask(visible.sort(dim=1).values, masked.sort(dim=1).values)


def mask_from_bool(hidden: Bool[Tensor, "B N"]) -> PatchMask:
    """Turn a painted mask (True = hidden) into indices; ValueError if unequally many are hidden."""
    counts = hidden.sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"the images hide {counts} patches; hide equally many in every image of a batch"
        )
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)  # [B, N] visible first, ascending
    num_visible = hidden.shape[1] - (counts[0] if counts else 0)
    return PatchMask(order[:, :num_visible], order[:, num_visible:])


def as_bool(mask: PatchMask) -> Bool[Tensor, "B N"]:
    """Write a mask as one flag per patch, True = masked."""
    batch, num_masked = mask.masked.shape
    num_patches = mask.visible.shape[1] + num_masked
    hidden = torch.zeros(batch, num_patches, dtype=torch.bool, device=mask.masked.device)
    return hidden.scatter(1, mask.masked, True)  # [B, N]


def gather_tokens(
    tokens: Shaped[Tensor, "B N D"], index: Int[Tensor, "B K"]
) -> Shaped[Tensor, "B K D"]:
    """Pick tokens by their place: result[b, k] = tokens[b, index[b, k]]."""
    batch, num_tokens, _ = tokens.shape
    first = torch.arange(batch, device=index.device) * num_tokens  # [B]
    rows = rearrange(index + first[:, None], "b k -> (b k)")
    # Whole rows are copied: several times faster on a CPU than torch.gather with a wide index.
    picked = rearrange(tokens, "b n d -> (b n) d").index_select(0, rows)
    return rearrange(picked, "(b k) d -> b k d", b=batch)  # [B, K, D]


def scatter_tokens(
    tokens: Shaped[Tensor, "B N D"], index: Int[Tensor, "B K"], values: Shaped[Tensor, "B K D"]
) -> Shaped[Tensor, "B N D"]:
    """Put values in their places: a copy of `tokens` with result[b, index[b, k]] = values[b, k]."""
    wide = index[:, :, None].expand(values.shape)  # [B, K, D]
    return tokens.scatter(1, wide, values)
