"""Pictures of what was found in images and videos, beside what is true.

Class maps, boxes and masks, and objects followed from frame to frame.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from mimlib.figures.grids import rows
from mimlib.figures.style import (
    GRAY,
    Picture,
    bright,
    canvas,
    frame,
    name_colors,
    show_image,
    styled,
)
from mimlib.figures.truth import palette

NUM_COLORS = 16  # that can be told apart
TINT = 0.55  # how much of its color a mask gives a pixel


class Shown(NamedTuple):
    """Objects of one image, on that image."""

    boxes: Tensor  # [R, 4] (x1, y1, x2, y2) in pixels, right and bottom exclusive
    labels: Tensor  # [R] indices of the class names
    masks: Tensor  # [R, H, W] bool
    scores: Tensor | None = None  # [R]; None: this is the truth


@styled
def objects(
    axes: Axes, image: Tensor, shown: Shown, names: Sequence[str], title: str = "objects"
) -> None:
    """Draw the boxes and masks of objects on an image, a color for each class.

    The first objects lie on top, the surest if they are sorted.
    """
    colors = palette(len(names))
    tinted = bright(image)
    order = range(len(shown.labels) - 1, -1, -1)
    for row in order:
        color = torch.from_numpy(colors[int(shown.labels[row])]).float()
        mask = shown.masks[row].cpu()
        tinted[:, mask] = (1 - TINT) * tinted[:, mask] + TINT * color[:, None]
    show_image(axes, tinted, title)
    for row in order:
        left, top, *_ = box = shown.boxes[row].tolist()
        frame(axes, box, colors[int(shown.labels[row])], width=1.3)
        if shown.scores is not None:
            axes.text(
                left, top - 0.5, f"{float(shown.scores[row]):.1f}", fontsize=5, color="white",
                va="top", clip_on=True,
                bbox={"facecolor": "black", "alpha": 0.6, "pad": 0.4, "linewidth": 0},
            )  # fmt: skip


@styled
def detections(
    images: Tensor | Sequence[Tensor],
    truth: Sequence[Shown],
    found: Sequence[Shown],
    names: Sequence[str],
    size: float = 1.7,
) -> Picture:
    """Draw images in two rows, with what is true above and what is found below, and a legend.

    Args:
        images: [n, 3, H, W] or a list of [3, H, W].
        truth: the objects of each image.
        found: what a detector says of each image, with scores.
        names: of the classes.
        size: side of an image in inches.
    """
    picture, axes = canvas(2, len(images), size, size * 1.1)
    for column, (image, *both) in enumerate(zip(images, truth, found, strict=True)):
        for axis, shown, title in zip(axes[:, column], both, ("true", "found")):
            objects(axis, image, shown, names, title)
    colors = palette(len(names))
    seen = sorted({int(label) for shown in (*truth, *found) for label in shown.labels})
    if seen:
        name_colors(picture, names, colors, seen, loc="outside right center")
    return picture


@styled
def class_maps(
    images: Tensor, maps: Mapping[str, Tensor], names: Sequence[str], size: float = 1.3
) -> Picture:
    """Draw a row of images, below it a row of each kind of class map, and a legend.

    Class maps are row title ("truth", "prediction") -> class ids [n, H, W], below 0 gray.
    A class has one color in all maps. If there are more than 16 classes, the 16 that are seen most
    have colors of their own and a place in the legend; others use those colors again.
    """
    ids = torch.cat([m.flatten().cpu() for m in maps.values()])
    counts = torch.bincount(ids[ids >= 0], minlength=len(names))
    order = torch.argsort(counts, descending=True, stable=True)
    shown = sorted(i for i in order[:NUM_COLORS].tolist() if counts[i])
    rank = torch.arange(len(names))
    if len(names) > NUM_COLORS:
        rank[order] = torch.arange(len(names))
    colors = np.float32(palette(len(names))[rank])  # [G, 3]
    paint = torch.from_numpy(np.float32([*colors, to_rgb(GRAY)]))  # the last one is that of -1
    painted = {title: paint[m.cpu().clamp(min=-1)].permute(0, 3, 1, 2) for title, m in maps.items()}
    picture = rows({"image": images.cpu(), **painted}, size)
    beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "fontsize": 7}
    name_colors(picture, names, colors, shown, **beside)
    return picture


def followed(frames: Tensor, masks: Mapping[str, Tensor], size: float = 1.3) -> Picture:
    """Draw the same frames once for each way to follow objects: a color for each object.

    Masks are title of the row ("truth", "pixels") -> object ids [T, H, W], 0 for none.
    """
    plain = bright(frames)
    count = 1 + max(int(ids.max()) for ids in masks.values())
    colors = torch.from_numpy(palette(count)).float()  # the first one stays unused
    tinted = {}
    for title, ids in masks.items():
        ids = ids.cpu().long()
        paint = colors[ids].movedim(-1, 1)  # [T, 3, H, W]
        shown = (1 - TINT) * plain + TINT * paint
        tinted[title] = torch.where(ids[:, None] > 0, shown, plain)
    return rows(tinted, size)
