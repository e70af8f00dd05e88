"""Prediction for images of any size by a network that wants the size it was trained with.

The image is covered with overlapping windows. Where windows overlap, predictions are averaged. Of
two images the same window is cut, so that what moves further than the window cannot be found, and
those predictions count more whose own scale is small.

Letters: B images, C channels, R windows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # two images -> prediction, raw scale


class Confidence(NamedTuple):
    """How much a window's prediction counts, given its raw scale c.

    exp(-2 beta (sigmoid(c / softness) - 1/2)), or exp(-beta c) without softness.
    """

    beta: float
    softness: float | None = None

    def weight(self, raw_scale: Tensor) -> Tensor:
        """Return the weights, of the shape of c."""
        if self.softness is None:
            return torch.exp(-self.beta * raw_scale)
        return torch.exp(-2 * self.beta * (torch.sigmoid(raw_scale / self.softness) - 0.5))


FLOW_CONFIDENCE = Confidence(10.0, 5.0)  # as official
STEREO_CONFIDENCE = Confidence(15.0, 3.0)  # as official; Confidence(3.0) for ETH3D


def window_offsets(side: int, window: int, overlap: float) -> list[int]:
    """Return where windows start along a side: evenly spaced, overlapping at least as asked.

    There are 1 + ceil((side - window) / ((1 - overlap) window)) of them.
    Raises ValueError if the window is larger than the side, or the overlap not in [0, 1).
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} is out of range; expected 0 <= overlap < 1")
    if not 1 <= window <= side:
        raise ValueError(f"a window of {window} pixels does not fit into a side of {side}")
    count = 1 + math.ceil((side - window) / ((1 - overlap) * window))
    return np.linspace(0, side - window, count).round().astype(int).tolist()


def predict_tiled(
    predict: Predict,
    image_1: Tensor,
    image_2: Tensor,
    window: tuple[int, int],
    overlap: float,
    confidence: Confidence,
) -> tuple[Tensor, Tensor]:
    """Predict window by window and average. Smaller images are enlarged to the window first.

    # differs from official: the factor of the enlargement is the larger one of both sides' (the
    # official code compares the window's height with the image's width), and the scale channel
    # comes back at the size of the images, like the prediction.

    Args:
        predict: network for two images [R * B, 3, *window]; returns displacements in pixels
            [R * B, C, *window], x before y, and raw scales [R * B, *window].
        image_1: [B, 3, H, W] normalised.
        image_2: of the same size, else a ValueError.
        window: (height, width) of a tile.
        overlap: least share of a window that the next one covers, too.
        confidence: how much a prediction counts.

    Returns:
        The prediction [B, C, H, W] and the averaged raw scale [B, H, W].
    """
    if image_1.shape != image_2.shape:
        raise ValueError(
            f"image 1 has shape {tuple(image_1.shape)}, image 2 {tuple(image_2.shape)}; tiling "
            "cuts the same windows from both: resize or crop them to one size"
        )
    size = (image_1.shape[-2], image_1.shape[-1])
    factor = max(need / side for need, side in zip(window, size))
    if factor > 1:
        large = [max(need, round(side * factor)) for need, side in zip(window, size)]
        image_1, image_2 = (interpolate(i, large, mode="bicubic") for i in (image_1, image_2))

    def with_scale(*tiles: Tensor) -> Tensor:
        prediction, raw_scale = predict(*tiles)
        return torch.cat([prediction, raw_scale[:, None]], dim=1)

    pair, weigh = (image_1, image_2), lambda both: confidence.weight(both[:, -1:])
    averages = average_windows(with_scale, pair, window, overlap, weigh)
    prediction, raw_scale = averages[:, :-1], averages[:, -1]
    if factor > 1:
        shrink = torch.tensor([side / big for side, big in zip(size, large)]).flip(0)  # x, y
        shrink = shrink[: prediction.shape[1], None, None].to(prediction)
        prediction = interpolate(prediction, size=size, mode="bicubic") * shrink
        raw_scale = interpolate(raw_scale[:, None], size=size, mode="bicubic")[:, 0]
    return prediction, raw_scale


def average_windows(
    predict: Callable[..., Tensor],
    images: tuple[Tensor, ...],
    window: tuple[int, int],
    overlap: float,
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "B C H W"]:
    """Predict window by window and average; all windows of a row of them are one batch.

    Args:
        predict: network for [R * B, 3, *window] of each of the images; returns [R * B, C, *window].
        images: [B, 3, H, W] normalised, of one size, not smaller than a window.
        window: (height, width).
        overlap: least share of a window that the next one covers, too.
        weigh: how much what is predicted counts, [R * B, 1, *window]; None: all alike.
    """
    height, width = images[0].shape[-2:]
    tops = window_offsets(height, window[0], overlap)
    lefts = window_offsets(width, window[1], overlap)
    count, sums = len(images[0]), None
    for top in tops:
        rows = slice(top, top + window[0])
        tiles = (
            torch.cat([image[..., rows, left : left + window[1]] for left in lefts])
            for image in images
        )
        parts = predict(*tiles)  # [R * B, C, *window]
        weights = torch.ones_like(parts[:, :1]) if weigh is None else weigh(parts)
        weighted = parts if weigh is None else parts * weights
        parts = torch.cat([weighted, weights], dim=1)  # [R * B, C + 1, *window]
        if sums is None:
            sums = parts.new_zeros(count, parts.shape[1], height, width)
        for left, part in zip(lefts, parts.split(count)):
            sums[..., rows, left : left + window[1]] += part
    return sums[:, :-1] / sums[:, -1:]
