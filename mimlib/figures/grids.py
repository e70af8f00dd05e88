"""Pictures made of images: rows and grids, masks, reconstructions, attention."""

import itertools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mimlib.figures.style import (
    ASKING,
    COLORS,
    DIVERGING,
    GRAY,
    SEQUENTIAL,
    Picture,
    canvas,
    frame_patch,
    lit,
    show_image,
    styled,
)
from mimlib.layers.patches import patchify, unpatchify


@styled
def images(
    items: Tensor | Sequence[Tensor],
    titles: Sequence[str] = (),
    columns: int = 6,
    size: float = 1.5,
) -> Picture:
    """Draw images in rows.

    Args:
        items: [n, 3, H, W] or a list of [3, H, W] of any sizes; uint8, or float in [0, 1].
        titles: one per image, or none.
        columns: images in a row.
        size: side of an image in inches.
    """
    items = list(items)
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    picture, axes = canvas(rows, columns, size, size * (1.15 if titles else 1.0))
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (axis, image) in enumerate(zip(axes.flat, items)):
        show_image(axis, image, titles[index] if titles else "")
    return picture


@styled
def rows(named: Mapping[str, Tensor], size: float = 1.3) -> Picture:
    """Draw rows of images, title -> [n, 3, H, W] with one n: input, masked, reconstructions."""
    first = next(iter(named.values()))
    columns, height = len(first), size * first.shape[2] / first.shape[3]
    picture = Picture(figsize=(columns * size, len(named) * height))
    gaps = {"wspace": 0.05, "hspace": 0.05, "left": 0, "right": 1, "bottom": 0, "top": 1}
    axes = picture.subplots(len(named), columns, squeeze=False, gridspec_kw=gaps)
    for line, (name, row) in zip(axes, named.items()):
        for axis, image in zip(line, row, strict=True):
            show_image(axis, image)
        beside = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        line[0].text(-0.06, 0.5, name, fontsize=9, **beside)
    return picture


def hide(pictures: Tensor, hidden: Tensor, patch_size: int, color: str = GRAY) -> Tensor:
    """Paint the hidden patches of images in one color.

    Args:
        pictures: [B, 3, H, W], uint8 or float in [0, 1].
        hidden: [B, N] bool, True = painted over.
        patch_size: P, in pixels.
        color: hexadecimal.
    """
    cover = torch.tensor([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    cover = cover / 255 if pictures.is_floating_point() else cover
    grid = (pictures.shape[2] // patch_size, pictures.shape[3] // patch_size)
    patches = patchify(pictures, patch_size)
    paint = cover.to(patches).repeat(patch_size * patch_size)
    covered = torch.where(hidden[:, :, None].to(patches.device), paint, patches)
    return unpatchify(covered, patch_size, grid)


@styled
def patch_grid(image: Tensor, patch_size: int, size: float = 0.5) -> Picture:
    """Draw an image [3, H, W] cut into its patches, with the number of each patch."""
    h, w = image.shape[1] // patch_size, image.shape[2] // patch_size
    picture = Picture(figsize=(w * size, h * size), layout="none")
    axes = picture.subplots(h, w, gridspec_kw={"wspace": 0.12, "hspace": 0.12}, squeeze=False)
    pieces = patchify(image[None], patch_size)[0]
    for index, (axis, piece) in enumerate(zip(axes.flat, pieces)):
        show_image(axis, rearrange(piece, "(p q c) -> c p q", p=patch_size, q=patch_size))
        axis.text(
            0.04, 0.96, str(index), transform=axis.transAxes, va="top", fontsize=6, color="white",
            bbox={"facecolor": "black", "alpha": 0.55, "pad": 0.6, "linewidth": 0},
        )  # fmt: skip
    return picture


@styled
def positions(table: Tensor, grid: tuple[int, int], queries: Sequence[int]) -> Picture:
    """Draw a position table [N, D], N = h * w, and how like each place is to some places.

    The latter is the cosine similarity of the patches in `queries` to all others.
    """
    unit = F.normalize(table.float(), dim=1)
    picture, axes = canvas(1, 1 + len(queries), 2.1, 2.1)
    first = axes[0, 0]
    first.imshow(table.numpy(), cmap=DIVERGING, aspect="auto", vmin=-1, vmax=1)
    first.set(xlabel="channel", ylabel="patch", title="table")
    first.grid(False)
    alike = unit @ unit[list(queries)].T  # [N, queries]
    for axis, query, like in zip(axes[0, 1:], queries, alike.T):
        like = rearrange(like, "(h w) -> h w", h=grid[0])
        drawn = axis.imshow(like.numpy(), cmap=SEQUENTIAL, vmin=float(alike.min()), vmax=1)
        row, column = divmod(query, grid[1])
        axis.plot(column, row, "x", color=COLORS[5], markersize=7, markeredgewidth=2)
        axis.set(title=f"patch {query}", xlabel="column", ylabel="row")
        axis.grid(False)
    picture.colorbar(drawn, ax=axes[0, -1], label="cosine similarity")
    return picture


@styled
def attention_rows(
    image: Tensor,
    named: Mapping[str, Mapping[int, Tensor]],
    patch_size: int,
    size: float = 1.7,
) -> Picture:
    """Draw where the same patches look in several networks, or before and after: a row of each.

    These are title of the row -> patch -> [h, w], weights that sum to at most 1.
    """
    columns = 1 + max(map(len, named.values()))
    picture, axes = canvas(len(named), columns, size, size * 1.12)
    for line, (name, maps) in zip(axes, named.items()):
        show_image(line[0], image, name or "query patches")
        for (query, weights), axis, color in zip(maps.items(), line[1:], itertools.cycle(ASKING)):
            for framed in (line[0], axis):
                frame_patch(framed, query, weights.shape[1], patch_size, color)
            show_image(axis, lit(image, weights, patch_size), f"patch {query}")
    return picture
