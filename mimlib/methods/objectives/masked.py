"""The arithmetic of the objectives: targets, losses, and pictures of predictions; in float32."""

from jaxtyping import Bool, Float
from torch import Tensor

from mimlib.layers.masking import gather_tokens, scatter_tokens
from mimlib.layers.patches import denormalize, grid_of, patchify, unpatchify
from mimlib.protocol import PatchMask

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
    centred = patches - mean
    # Two plain passes: Tensor.var over short rows takes several times as long on a CPU.
    variance = centred.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    std = (variance + TARGET_EPS).sqrt()  # [B, K, 1]
    return centred / std, mean, std


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


def masked_target(
    patches: Float[Tensor, "B N pixels"], mask: PatchMask, normalize_target: bool
) -> Float[Tensor, "B M pixels"]:
    """Return what the masked patches should be: their pixels, or those standardised."""
    masked = gather_tokens(patches, mask.masked)  # [B, M, P*P*3]
    return normalize_patches(masked)[0] if normalize_target else masked


def paint(
    images: Float[Tensor, "B 3 H W"],
    mask: PatchMask,
    prediction: Float[Tensor, "B M pixels"],
    patch_size: int,
    borrow_statistics: bool,
) -> Float[Tensor, "B 3 H W"]:
    """Paint pictures: visible patches as they are, masked patches as predicted.

    Args:
        images: ImageNet-normalised.
        mask: which patches were predicted.
        prediction: [B, M, P*P*3].
        patch_size: P, in pixels.
        borrow_statistics: give each predicted patch the mean and standard deviation of the true
            one; for predictions of normalised targets.

    Returns:
        RGB in [0, 1].
    """
    patches, prediction = patchify(images, patch_size), prediction.float()
    if borrow_statistics:
        _, mean, std = normalize_patches(gather_tokens(patches, mask.masked))
        prediction = prediction * std + mean
    painted = scatter_tokens(patches, mask.masked, prediction)
    return denormalize(unpatchify(painted, patch_size, grid_of(images, patch_size))).clamp(0, 1)
