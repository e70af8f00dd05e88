"""Pictures of ground truth: what the world knows about every pixel, object and joint."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from torch import Tensor

from mimlib.figures.style import (
    ASKING,
    COLORS,
    SEQUENTIAL,
    Picture,
    bright,
    canvas,
    frame,
    hold,
    name_colors,
    pixels,
    show_image,
    styled,
)

SMALL_BOX = 0.008  # part of the image below which a box gets no label
PALE = 0.45  # how far the second round of colors is mixed with white


def palette(count: int) -> np.ndarray:
    """Return `count` colors [count, 3] in [0, 1]; after the first eight paler ones, then again."""
    base = np.array([to_rgb(color) for color in COLORS])
    both = np.concatenate([base, base + (1 - base) * PALE])
    return both[np.arange(count) % len(both)]


@styled
def photo(axes: Axes, image: Tensor, title: str = "image") -> None:
    """Draw an image [3, H, W]."""
    show_image(axes, image, title)


@styled
def depth(axes: Axes, meters: Tensor, title: str = "depth") -> None:
    """Draw metric depth [H, W] with its scale."""
    drawn = show_image(axes, meters, title, cmap=SEQUENTIAL)
    beside = axes.inset_axes((1.04, 0.1, 0.05, 0.8))
    axes.figure.colorbar(drawn, cax=beside, label="metres")


@styled
def normals(axes: Axes, directions: Tensor, title: str = "normals") -> None:
    """Draw unit normals [3, H, W] as colors: (x, y, z) from -1..1 to red, green, blue."""
    show_image(axes, (directions + 1) / 2, title)


@styled
def instances(axes: Axes, ids: Tensor, title: str = "instances") -> None:
    """Draw instance ids [H, W], a color each; ids are names, not amounts."""
    ids = ids.cpu()
    present, compact = torch.unique(ids, return_inverse=True)
    colors = palette(len(present))
    show_image(axes, torch.from_numpy(colors[compact.numpy()]).permute(2, 0, 1), title)


@styled
def classes(axes: Axes, ids: Tensor, names: Sequence[str], title: str = "classes") -> None:
    """Draw class ids [H, W] with a legend of the classes that are seen."""
    colors = palette(len(names))
    ends = {"vmin": -0.5, "vmax": len(names) - 0.5}
    show_image(axes, ids, title, cmap=ListedColormap(colors), interpolation="nearest", **ends)
    seen = [int(i) for i in torch.unique(ids.cpu()) if 0 <= int(i) < len(names)]
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "fontsize": 7}
    name_colors(axes, names, colors, seen, **beside)


@styled
def boxes(
    axes: Axes, image: Tensor, corners: Tensor, labels: Sequence[str] = (), title: str = "boxes"
) -> None:
    """Draw boxes [R, 4] (x1, y1, x2, y2 in pixels, right and bottom exclusive) on an image."""
    show_image(axes, image, title)
    for index, (left, top, right, bottom) in enumerate(corners.tolist()):
        color = COLORS[index % 7]
        frame(axes, (left, top, right, bottom), color, width=1.6)
        large = (right - left) * (bottom - top) > SMALL_BOX * image.shape[1] * image.shape[2]
        if labels and large:
            axes.text(
                left, bottom - 2, labels[index], fontsize=6, color="black", clip_on=True,
                bbox={"facecolor": color, "alpha": 0.75, "pad": 0.8, "linewidth": 0},
            )  # fmt: skip


@styled
def keypoints(
    axes: Axes,
    image: Tensor,
    points: Tensor,
    visible: Tensor,
    bones: Sequence[tuple[int, int]] = (),
    title: str = "keypoints",
) -> None:
    """Draw people's joints [R, J, 2], (x, y) in pixels, and the lines between pairs of them.

    They are filled where `visible` [R, J], hollow where hidden.
    """
    show_image(axes, image, title)
    for joints, seen, color in zip(points.cpu(), visible.cpu().bool(), itertools.cycle(ASKING)):
        for start, end in bones:
            x, y = joints[[start, end]].T - 0.5
            axes.plot(x, y, color=color, linewidth=1.2)
        x, y = joints.T - 0.5
        axes.scatter(x[seen], y[seen], s=14, color=color, edgecolors="black", linewidths=0.5)
        axes.scatter(x[~seen], y[~seen], s=12, facecolors="none", edgecolors=color, linewidths=0.8)
    hold(axes, image)


@styled
def flow(
    axes: Axes, image: Tensor, motion: Tensor, visible: Tensor, title: str = "flow", step: int = 8
) -> None:
    """Draw optical flow [H, W, 2] (dx, dy in pixels) as arrows where `visible` [H, W]."""
    show_image(axes, image, title)
    height, width = motion.shape[:2]
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    arrows, seen = motion.cpu().numpy()[y, x], visible.cpu().numpy()[y, x].astype(bool)
    axes.quiver(
        x[seen], y[seen], arrows[seen][:, 0], arrows[seen][:, 1], color=COLORS[1], angles="xy",
        scale_units="xy", scale=1, width=0.008,
    )  # fmt: skip
    hold(axes, image)


@styled
def from_above(
    axes: Axes, image: Tensor, meters: Tensor, intrinsics: Tensor, title: str = "from above"
) -> None:
    """Draw what the camera sees as a floor plan, by lifting every pixel to its depth [H, W].

    `intrinsics` [3, 3] are in pixels, x right and z forward.
    """
    height, width = meters.shape
    center = torch.arange(width) + 0.5
    x = meters.cpu() * (center - intrinsics[0, 2].cpu()) / intrinsics[0, 0].cpu()  # [H, W] m
    colors = pixels(bright(image)).reshape(height * width, 3)
    axes.scatter(x.flatten(), meters.cpu().flatten(), s=1, c=colors, linewidths=0)
    axes.plot(0, 0, "v", color=COLORS[5])
    axes.set_axis_on()
    axes.set(xlabel="metres", ylabel="metres", title=title, aspect="equal")


@styled
def seen_in_both(axes: Axes, image: Tensor, visible: Tensor, title: str = "co-visible") -> None:
    """Dim the pixels of an image that the other view does not see (`visible` [H, W] False)."""
    shown = bright(image)
    show_image(axes, torch.where(visible.cpu().bool(), shown, 0.25 * shown + 0.1), title)


@styled
def tracks(
    axes: Axes, image: Tensor, paths: Tensor, visible: Tensor, instance: Tensor, title: str = ""
) -> None:
    """Draw paths of points [T, Q, 2], (x, y) in pixels, on the last of their frames.

    Points are filled where in sight (`visible` [Q] in that frame), hollow where hidden; those of
    one `instance` [Q] share a color.
    """
    show_image(axes, image, title)
    _, compact = torch.unique(instance.cpu(), return_inverse=True)
    colors = palette(int(compact.max()) + 1)[compact.numpy()]
    x, y = (paths.cpu() - 0.5).unbind(-1)  # [T, Q]
    for index, color in enumerate(colors):
        axes.plot(x[:, index], y[:, index], color=color, linewidth=0.9, alpha=0.8)
    seen = visible.cpu().bool().numpy()
    last = {"x": x[-1].numpy(), "y": y[-1].numpy()}
    axes.scatter(last["x"][seen], last["y"][seen], s=9, c=colors[seen], linewidths=0)
    axes.scatter(
        last["x"][~seen], last["y"][~seen], s=9, facecolors="none", edgecolors=colors[~seen],
        linewidths=0.6,
    )  # fmt: skip
    hold(axes, image)


@styled
def panels(
    count: int, columns: int = 4, size: float = 2.1, legends: bool = True
) -> tuple[Picture, np.ndarray]:
    """Return a picture and `count` empty axes for the functions of this file.

    Args:
        count: number of axes.
        columns: axes in a row.
        size: height of an axis in inches.
        legends: leave room to the right of the axes.
    """
    columns = min(columns, count)
    picture, axes = canvas(-(-count // columns), columns, size * (1.25 if legends else 0.98), size)
    for axis in axes.flat:
        axis.set_axis_off()
    return picture, axes.ravel()[:count]
