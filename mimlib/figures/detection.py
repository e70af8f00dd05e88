"""Pictures of detections: boxes and masks over images, what is true beside what is found."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from torch import Tensor

from mimlib.figures.style import Picture, bright, canvas, frame, show_image, styled
from mimlib.figures.truth import palette

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

    Args:
        axes: where to draw.
        image: [3, H, W], uint8 or float in [0, 1].
        shown: the objects; the first ones lie on top, the surest if they are sorted.
        names: of the classes.
        title: above the picture.
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
        picture.legend(
            handles=[Patch(color=colors[i], label=names[i]) for i in seen],
            loc="outside right center", handlelength=1,
        )  # fmt: skip
    return picture
