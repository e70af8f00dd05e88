"""Pictures of two views: where one looks in the other, matches, displacements as colors."""

import itertools
import math
from collections.abc import Mapping

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from torch import Tensor

from mimlib.figures.style import (
    ASKING,
    SEQUENTIAL,
    Picture,
    canvas,
    frame_patch,
    hold,
    lit,
    show_image,
    styled,
)


@styled
def looks(
    image_1: Tensor,
    image_2: Tensor,
    maps: Mapping[int, Tensor],
    patch_size: int,
    true: Mapping[int, Tensor] | None = None,
    size: float = 1.7,
) -> Picture:
    """Draw where patches of image 1 look in image 2: image 2 as bright as the attention.

    Args:
        image_1: [3, H, W]; the asking patches are framed.
        image_2: [3, H, W].
        maps: patch of image 1 -> [h, w], weights over image 2.
        patch_size: P, in pixels.
        true: patch -> (x, y) in pixels of image 2, ringed: where its center really is.
        size: side of an image in inches.
    """
    picture, axes = canvas(1, 2 + len(maps), size, size * 1.12)
    show_image(axes[0, 0], image_1, "image 1")
    show_image(axes[0, 1], image_2, "image 2")
    for (query, weights), axis, color in zip(maps.items(), axes[0, 2:], itertools.cycle(ASKING)):
        frame_patch(axes[0, 0], query, weights.shape[1], patch_size, color)
        show_image(axis, lit(image_2, weights, patch_size), f"from patch {query}")
        for ringed in (axis, axes[0, 1]) if true is not None else ():
            _ring(ringed, true[query], color)
    return picture


@styled
def matches(
    image_1: Tensor, image_2: Tensor, asked: Tensor, found: Tensor, true: Tensor, size: float = 2.5
) -> Picture:
    """Draw what was found in image 2 for points of image 1, and by how much it is wrong.

    In image 2 a ring is the true place, a dot what was found, the line between them the error.

    Args:
        image_1: [3, H, W].
        image_2: [3, H, W].
        asked: [Q, 2] (x, y) in pixels of image 1.
        found: [Q, 2] in pixels of image 2.
        true: [Q, 2] likewise.
        size: side of an image in inches.
    """
    picture, axes = canvas(1, 2, size * image_1.shape[2] / image_1.shape[1], size * 1.08)
    show_image(axes[0, 0], image_1, "image 1: asked")
    show_image(axes[0, 1], image_2, "image 2: true (ring), found (dot)")
    places = zip(asked.tolist(), found.tolist(), true.tolist(), strict=True)
    for (start, end, goal), color in zip(places, itertools.cycle(ASKING)):
        dot = {"marker": "o", "markersize": 5, "color": color, "markeredgecolor": "black"}
        axes[0, 0].plot(start[0] - 0.5, start[1] - 0.5, markeredgewidth=0.6, **dot)
        line = [end[0] - 0.5, goal[0] - 0.5], [end[1] - 0.5, goal[1] - 0.5]
        axes[0, 1].plot(*line, color=color, linewidth=1.2)
        axes[0, 1].plot(line[0][0], line[1][0], markeredgewidth=0.6, **dot)
        _ring(axes[0, 1], goal, color)
    for axis, image in zip(axes[0], (image_1, image_2)):  # dots at a border must not move it
        hold(axis, image)
    return picture


def colored(values: Tensor, low: float, high: float, valid: Tensor | None = None) -> Tensor:
    """Turn amounts [n, H, W] (depth, disparity, confidence) into images [n, 3, H, W] for `rows`.

    Args:
        values: any unit.
        low: the amount that is darkest.
        high: the amount that is brightest.
        valid: [n, H, W] bool; the rest is left white.
    """
    share = ((values.detach().cpu().float() - low) / (high - low)).clamp(0, 1)
    return _painted(matplotlib.colormaps[SEQUENTIAL](share.numpy())[..., :3], valid)


def flow_colors(motion: Tensor, longest: float, valid: Tensor | None = None) -> Tensor:
    """Turn displacements [n, H, W, 2] (dx, dy) into images [n, 3, H, W]: hue says where to.

    White stands still; the color is full at `longest` pixels and beyond. See `flow_wheel`.
    """
    dx, dy = motion.detach().cpu().double().unbind(-1)
    angle = torch.atan2(dy, dx) / (2 * math.pi) % 1.0
    length = (dx.square() + dy.square()).sqrt() / longest
    hsv = torch.stack([angle, length.clamp(0, 1), torch.ones_like(angle)], dim=-1)
    return _painted(hsv_to_rgb(hsv.numpy()), valid)


def flow_wheel(side: int) -> Tensor:
    """Return the key of `flow_colors` as an image [3, side, side]: each place shows its own way."""
    line = torch.arange(side) + 0.5 - side / 2
    dy, dx = torch.meshgrid(line, line, indexing="ij")
    inside = (dx.square() + dy.square()).sqrt() <= side / 2
    return flow_colors(torch.stack([dx, dy], dim=-1)[None], side / 2, inside[None])[0]


def _painted(colors: np.ndarray, valid: Tensor | None) -> Tensor:
    """Return colors [n, H, W, 3] as images [n, 3, H, W], white where they are not valid."""
    shown = torch.from_numpy(colors).float()
    if valid is not None:
        shown = torch.where(valid.cpu()[..., None], shown, 1.0)
    return shown.movedim(-1, 1)


def _ring(axis: Axes, place: "Tensor | list[float]", color: str) -> None:
    """Ring a point (x, y), pixel centers at +0.5."""
    x, y = (float(value) - 0.5 for value in place)
    axis.plot(x, y, "o", markersize=10, markerfacecolor="none", markeredgecolor="black", mew=2.6)
    axis.plot(x, y, "o", markersize=10, markerfacecolor="none", markeredgecolor=color, mew=1.5)
