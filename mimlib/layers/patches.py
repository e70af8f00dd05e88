"""Pixels cut into square patches, and patches turned into tokens.

Letters: B images, C channels (3), H and W pixels, P patch side, h and w the grid, N = h*w patches,
K any list of patches, D token width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

# ImageNet statistics of RGB in [0, 1]; every method here is fed with pixels normalised by them.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
SLACK = 0.01  # by which floats may leave [0, 1]: rounding, and bicubic crops that overshoot


def normalize(
    images: UInt8[Tensor, "*B 3 H W"] | Float[Tensor, "*B 3 H W"],
) -> Float[Tensor, "*B 3 H W"]:
    """Subtract the ImageNet mean of RGB, uint8 in [0, 255] or float in [0, 1]; divide by its std.

    ValueError if the third last axis is not that of three colors, or (on the CPU, where looking
    makes nothing wait) if floats are not in [0, 1] or not finite.
    """
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(
            f"images of the shape {tuple(images.shape)} have no axis of three colors in the third "
            "last place; expected [..., 3, height, width]: move the axis of the colors there"
        )
    if images.is_floating_point() and images.is_cpu and not torch.compiler.is_compiling():
        low, high = images.aminmax() if images.numel() else (images.new_zeros(()),) * 2
        if not bool(low >= -SLACK) or not bool(high <= 1 + SLACK):
            raise ValueError(
                f"images of floats run from {float(low):g} to {float(high):g}; expected 0 to 1: "
                "divide pixels of 0 to 255 by 255, or leave them uint8"
            )
    unit = 1.0 if images.is_floating_point() else 255.0
    # One channel at a time: constants as tensors would be copied to the device, with a wait.
    channels = [
        channel * (1 / (unit * std)) - mean / std
        for channel, mean, std in zip(images.unbind(-3), IMAGE_MEAN, IMAGE_STD)
    ]
    return torch.stack(channels, dim=-3)


def denormalize(normalized: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """Undo `normalize`: float RGB, in [0, 1] if the pixels came from an image."""
    parts = zip(normalized.unbind(-3), IMAGE_MEAN, IMAGE_STD)
    return torch.stack([channel * std + mean for channel, mean, std in parts], dim=-3)


def grid_of(images: Shaped[Tensor, "*B H W"], patch_size: int) -> tuple[int, int]:
    """Count an image's patches, (rows h, columns w); ValueError if a side is no multiple of P."""
    for side in images.shape[-2:]:
        if side % patch_size or not side:
            below = side // patch_size * patch_size
            sizes = f"{below} or {below + patch_size}" if below else str(patch_size)
            raise ValueError(
                f"image side {side} is not a multiple of the patch side {patch_size}; "
                f"resize to {sizes}"
            )
    return images.shape[-2] // patch_size, images.shape[-1] // patch_size


def patchify(images: Shaped[Tensor, "B C H W"], patch_size: int) -> Shaped[Tensor, "B N pixels"]:
    """Cut images into patches, row by row.

    Inside a patch the order is row, column, channel: entry (y * P + x) * C + c of the patch at
    row r and column s is pixel [c, r * P + y, s * P + x]. Sides as for `grid_of`.
    """
    grid_of(images, patch_size)
    return rearrange(
        images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size
    )  # [B, N, P*P*C]


def unpatchify(
    patches: Shaped[Tensor, "B N pixels"], patch_size: int, grid: tuple[int, int]
) -> Shaped[Tensor, "B C H W"]:
    """Put patches of a grid (h, w) back into images; the exact inverse of `patchify`."""
    h, w = grid
    return rearrange(
        patches, "b (h w) (p q c) -> b c (h p) (w q)", h=h, w=w, p=patch_size, q=patch_size
    )  # [B, C, H, W]


class PatchEmbed(nn.Module):
    """A linear map from the pixels of a patch to a token.

    ViT, section 3.1, equation 1. The weight is kept as that of a convolution with kernel = stride
    = P, as in published checkpoints, and applied as one matrix product to the given patches alone.
    """

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)
        # as official: Xavier on the flattened kernel; the bias keeps the convolution's default.
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))

    def forward(self, patches: Float[Tensor, "B K pixels"]) -> Float[Tensor, "B K D"]:
        """Embed patches [B, K, P*P*3] in the pixel order of `patchify`."""
        weight = rearrange(self.proj.weight, "d c p q -> d (p q c)")  # [D, P*P*3]
        return F.linear(patches, weight, self.proj.bias)
