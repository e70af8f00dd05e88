"""Losses that let a network say how far off it may be: the Laplacian of CroCo-Stereo and -Flow.

A pixel's displacement is taken as Laplacian around the prediction, with a scale s that the network
predicts, too. The negative log-likelihood is e / s + log s + log 2, where e is the absolute error
summed over channels; the constant is dropped. The kinds differ in how the raw channel c becomes s.

Letters: B images, C channels.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ScaleKind = Literal["unbounded", "bounded", "bounded_2"]
BOUNDED = (0.25, 4.0)  # as official: smallest and largest scale in pixels, CroCo-Flow
BOUNDED_2 = (3.0, 3.0)  # as official: log s lies in -a ... a, and c is divided by b, CroCo-Stereo


def log_scale(raw: Tensor, kind: ScaleKind) -> Tensor:
    """Turn the raw channel c into log s (CroCo v2, section 4, and its released code).

    unbounded (ETH3D): c. bounded_2 (stereo): 2 a (sigmoid(c / b) - 1/2).
    bounded (flow): log(a + (b - a) sigmoid(c)).
    """
    if kind == "unbounded":
        return raw
    if kind == "bounded_2":
        a, b = BOUNDED_2
        return 2 * a * (torch.sigmoid(raw / b) - 0.5)
    a, b = BOUNDED
    return torch.log(a + (b - a) * torch.sigmoid(raw))


def laplacian_loss(
    prediction: Float[Tensor, "B H W C"],
    raw_scale: Float[Tensor, "B H W"],
    target: Float[Tensor, "B H W C"],
    valid: Bool[Tensor, "B H W"],
    kind: ScaleKind,
) -> Float[Tensor, ""]:
    """Return the mean of e / s + log s over the valid pixels of the batch; 0 if there are none.

    Prediction and target are flow or disparity in pixels; the target is not read elsewhere.
    """
    known = torch.where(valid[..., None], target, 0.0)
    error = (prediction.float() - known).abs().sum(-1)  # [B, H, W]
    log_s = log_scale(raw_scale.float(), kind)
    loss = error * torch.exp(-log_s) + log_s
    return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp(min=1)
