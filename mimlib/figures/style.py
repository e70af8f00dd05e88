"""One look for every picture of the course, readable for color-blind people."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

# Okabe and Ito's eight colors, black last.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
GRAY = "#8C8C8C"  # numbers of a paper, patches that are hidden
SEQUENTIAL = "cividis"  # amounts from low to high
DIVERGING = "PuOr"  # amounts around zero
ASKING = tuple(COLORS[i] for i in (1, 4, 3, 6, 2))  # all of them show on photographs
DARKEST = 0.3  # brightness where a patch does not look at all
DPI = 120
RULES = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
}
P = ParamSpec("P")
R = TypeVar("R")


class Picture(Figure):
    """A figure that shows itself as PNG when it is the last value of a notebook cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(RULES):
            self.savefig(
                buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None}
            )
        return _smaller(buffer)


def _smaller(png: io.BytesIO) -> bytes:
    """Store a picture with a palette of 256 colors, the nearest ones merged: half the bytes."""
    with Image.open(png) as image:
        buffer = io.BytesIO()
        rgb = image.convert("RGB")
        exact = rgb.getcolors(256) is not None
        how = Image.Quantize.MEDIANCUT if exact else Image.Quantize.FASTOCTREE
        few = rgb.quantize(256, how, dither=Image.Dither.NONE)
        few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under the rules of the house and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def _inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(RULES):
            return draw(*args, **kwargs)

    return _inside


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Picture, np.ndarray]:
    """Return a picture with a grid of axes, always [rows, columns]; sizes in inches an axis."""
    picture = Picture(figsize=(columns * width, rows * height), layout="constrained")
    axes = picture.subplots(rows, columns, squeeze=False)
    return picture, axes


def show_image(axes: Axes, image: Tensor, title: str = "", **how) -> AxesImage:
    """Draw one image without axes: [3, H, W] uint8 or float in [0, 1], or [H, W] with a map."""
    axes.set_title(title)
    axes.set_axis_off()
    return axes.imshow(pixels(image), **how)


def name_colors(
    of: Axes | Picture, names: Sequence[str], colors: np.ndarray, seen: Sequence[int], **how
) -> None:
    """Add a legend of the classes `seen` to an axis or a picture."""
    handles = [Patch(color=colors[index], label=names[index]) for index in seen]
    of.legend(handles=handles, handlelength=1, **how)


def pixels(image: Tensor) -> np.ndarray:
    """Return an image as matplotlib wants it: [H, W, 3] or [H, W], on the CPU."""
    image = torch.as_tensor(image).detach().cpu()
    if image.dtype == torch.bfloat16:
        image = image.float()
    if image.ndim == 3:
        image = image.permute(1, 2, 0)
        image = image.clamp(0, 1) if image.is_floating_point() else image
    return image.numpy()


def bright(image: Tensor) -> Tensor:
    """Return an image, uint8 or float in [0, 1], as float32 in [0, 1] on the CPU."""
    return image.cpu().float() / (1 if image.is_floating_point() else 255)


def lit(image: Tensor, weights: Tensor, patch_size: int) -> Tensor:
    """Return an image [3, H, W] as bright as the root of the attention that its patches get.

    Weights are [h, w]; by the root weak attention is seen, too.
    """
    weights = weights.detach().float().cpu().sqrt().numpy()
    light = np.kron(weights / weights.max(), np.ones((patch_size, patch_size)))  # [H, W]
    return bright(image) * torch.from_numpy(DARKEST + (1 - DARKEST) * light)


def frame(axes: Axes, box: Sequence[float], color: object, width: float = 2) -> None:
    """Frame a box (x1, y1, x2, y2) in pixels, right and bottom exclusive."""
    left, top, right, bottom = box
    how = {"fill": False, "edgecolor": color, "linewidth": width}
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **how))


def frame_patch(axes: Axes, query: int, columns: int, patch_size: int, color: str) -> None:
    """Frame patch number `query` of a grid with so many columns."""
    top, left = (patch_size * place for place in divmod(query, columns))
    frame(axes, (left, top, left + patch_size, top + patch_size), color)


def hold(axes: Axes, image: Tensor) -> None:
    """Keep an axis at the borders of its image, whatever is drawn there."""
    height, width = image.shape[-2:]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
