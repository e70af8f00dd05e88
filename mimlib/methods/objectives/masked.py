"""Masked image modelling: targets, losses, and pictures of predictions; in float32.

What MAE, ConvMAE and CroCo have in common. Letters: B images, N patches, V visible, M masked, K any
of them, P patch side.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mimlib.encoders import EncoderConfig
from mimlib.layers.masking import as_bool, gather_tokens, scatter_tokens
from mimlib.layers.patches import denormalize, grid_of, patchify, unpatchify
from mimlib.protocol import Output, PatchMask, Trainable

Patches = Float[Tensor, "B N pixels"]  # all of an image, cut into squares
Hidden = Float[Tensor, "B M pixels"]
Grid = tuple[int, int]  # h, w
TARGET_EPS = 1e-6  # as official: inside the root, so that a flat patch has an all-zero target


def normalize_patches(
    patches: Float[Tensor, "B K pixels"],
) -> tuple[Float[Tensor, "B K pixels"], Float[Tensor, "B K 1"], Float[Tensor, "B K 1"]]:
    """Standardise each patch by its own statistics, over all its pixels and channels.

    MAE, section 4.1 "Reconstruction target": (x - mean) / sqrt(var + 1e-6), where var divides by
    P*P*3 - 1.

    Returns:
        The normalised patches, their means and their standard deviations; x = normalised * std +
        mean puts them back.
    """
    patches = patches.float()
    mean = patches.mean(dim=-1, keepdim=True)  # [B, K, 1]
    centered = patches - mean
    # Two plain passes: Tensor.var over short rows takes several times as long on a CPU.
    variance = centered.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    std = (variance + TARGET_EPS).sqrt()  # [B, K, 1]
    return centered / std, mean, std


def masked_mse(
    prediction: Float[Tensor, "B K pixels"],
    target: Float[Tensor, "B K pixels"],
    mask: Bool[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """Average the squared error over the pixels of the masked patches of the whole batch.

    MAE, section 3 "Reconstruction target". An image that hides more patches weighs more.

    Args:
        prediction: [B, K, P*P*3].
        target: [B, K, P*P*3].
        mask: True = counted; None when only masked patches are given.
    """
    error = (prediction.float() - target.float()).square().mean(dim=-1)  # [B, K]
    if mask is None:
        return error.mean()
    return (error * mask).sum() / mask.sum()


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(ABC):
    """What is hidden of an image, and what is predicted of it."""

    encoder: EncoderConfig
    mask_ratio: float  # part of the patches that is hidden
    normalize_target: bool = True  # predict each patch standardised by itself

    def __post_init__(self):
        if not 0.0 < self.mask_ratio < 1.0 or not 0 < self.num_masked < self.num_patches:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} hides {self.num_masked} of {self.num_patches} "
                "patches; choose a ratio that leaves at least one visible and one masked"
            )

    @abstractmethod
    def count_masked(self, num_patches: int) -> int:
        """Turn the ratio into a count as the paper's code does."""

    @property
    def num_patches(self) -> int:
        """N at the configured image size."""
        return self.encoder.num_patches

    @property
    def num_masked(self) -> int:
        """M at the configured image size."""
        return self.count_masked(self.num_patches)

    @property
    def num_visible(self) -> int:
        """V at the configured image size."""
        return self.num_patches - self.num_masked


class MaskedMethod(Trainable):
    """Predicts the hidden patches of an image, which is the first of its views."""

    config: MaskedConfig
    patch_size: int

    def target(self, patches: Patches, mask: PatchMask) -> Hidden:
        """Return what the masked patches should be: their pixels, or those standardised."""
        masked = gather_tokens(patches, mask.masked)  # [B, M, P*P*3]
        return normalize_patches(masked)[0] if self.config.normalize_target else masked

    def score(self, prediction: Hidden, patches: Patches, mask: PatchMask, name: str) -> Output:
        """Compare what is predicted of the masked patches to the target; `name` is the loss's."""
        target = self.target(patches, mask)
        loss = masked_mse(prediction, target)
        return Output(loss, {name: loss.detach()}, prediction.detach(), target, as_bool(mask))

    @torch.no_grad()
    def reconstruct(self, views: tuple, borrow_statistics: bool = True) -> Float[Tensor, "B 3 H W"]:
        """Paint pictures: visible patches as they are, masked patches as predicted.

        Args:
            views: the images, ImageNet-normalised, and their masks.
            borrow_statistics: when the target is normalised, the prediction knows neither the
                brightness nor the contrast of a patch. True borrows both from the true patch,
                which makes pictures look better than the prediction is; False uses mean 0 and
                standard deviation 1 in normalised pixels.

        Returns:
            RGB in [0, 1].
        """
        images, mask, prediction = views[0], views.mask, self(views).prediction.float()
        prediction = prediction[:, -mask.masked.shape[1] :]  # of visible ones, too, they come first
        patches = patchify(images, self.patch_size)
        if self.config.normalize_target and borrow_statistics:
            _, mean, std = normalize_patches(gather_tokens(patches, mask.masked))
            prediction = prediction * std + mean
        painted = scatter_tokens(patches, mask.masked, prediction)
        grid = grid_of(images, self.patch_size)
        return denormalize(unpatchify(painted, self.patch_size, grid)).clamp(0, 1)
