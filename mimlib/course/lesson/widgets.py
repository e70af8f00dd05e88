"""Paint a mask, click a patch: live where a front end listens, a static strip everywhere else.

Every reaction to a click is a plain function of tensors (`paint`, `look_from`), tested as such; the
widgets only draw what they return.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import torch
from einops import rearrange
from torch import Tensor

from mimlib import figures
from mimlib.evaluation.attention import patch_attention
from mimlib.layers.masking import mask_from_bool
from mimlib.layers.patches import grid_of, normalize
from mimlib.methods.autoencoder import Autoencoder, MAEViews
from mimlib.protocol import Encoder

CELL = "24px"  # side of a clickable patch
QUERIES = ((1, 1), (1, 3), (2, 2), (3, 1), (3, 3))  # in quarters of the height and of the width


def is_live() -> bool:
    """Say whether widgets will find a front end.

    MIMLIB_STATIC decides if it is set (1: static, 0: live). Otherwise a kernel is live if a
    notebook server or VS Code started it; nbclient, nbval and papermill leave no such trace.
    """
    asked = os.environ.get("MIMLIB_STATIC")
    if asked is not None:
        return asked == "0"
    return "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ


def paint_mask(
    images: Tensor, model: Autoencoder, hidden: Mapping[str, Tensor] | None = None
) -> "figures.Picture | ipywidgets.Widget":
    """Let the reader choose which patches of the first image are hidden; show what comes of it.

    Args:
        images: [B, 3, H, W] uint8; the first one is painted on.
        model: a trained MAE or ConvMAE.
        hidden: title -> [N] bool, the masks of the static strip; default `patterns(grid)`.

    Returns:
        The strip as a picture, or live: a grid of buttons beside the two images.
    """
    grid = grid_of(images, model.patch_size)
    hidden = hidden or patterns(grid)
    if not is_live():
        return _painted_strip(images[0], model, hidden)
    start = next(iter(hidden.values())).clone()
    return _board(grid, start, lambda chosen: _painted_strip(images[0], model, {"yours": chosen}))


def paint(image: Tensor, hidden: Tensor, model: Autoencoder) -> tuple[Tensor, Tensor]:
    """Return what a model sees and what it makes of it, for a mask painted by hand.

    Args:
        image: [3, H, W] uint8.
        hidden: [N] bool; at least one patch hidden and one visible.
        model: a trained MAE or ConvMAE.

    Returns:
        The masked image and the reconstruction, [3, H, W] each, in [0, 1].
    """
    if hidden.all() or not hidden.any():
        raise ValueError("hide at least one patch and leave at least one visible")
    device = next(model.parameters()).device
    views = MAEViews(normalize(image[None]).to(device), mask_from_bool(hidden[None].to(device)))
    masked = figures.hide(image[None], hidden[None], model.patch_size)[0]
    return masked / 255, model.reconstruct(views)[0].cpu()


def patterns(grid: tuple[int, int]) -> dict[str, Tensor]:
    """Return masks [N] worth comparing: chance, a half, stripes, a chessboard, a hole, a frame."""
    h, w = grid
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    noise = torch.rand(h * w, generator=torch.Generator().manual_seed(0))
    inner = (row >= h // 4) & (row < h - h // 4) & (column >= w // 4) & (column < w - w // 4)
    return {
        "random 75 %": noise >= noise.sort().values[h * w // 4],
        "right half": (column >= w // 2).flatten(),
        "every other row": (row % 2 == 1).flatten(),
        "chessboard": ((row + column) % 2 == 1).flatten(),
        "hole": inner.flatten(),
        "frame": ~inner.flatten(),
    }


def attention_explorer(
    images: Tensor,
    encoder: Encoder | Mapping[str, Encoder],
    queries: Sequence[int] = (),
    block: int = -1,
) -> "figures.Picture | ipywidgets.Widget":
    """Show where a patch of the first image looks; live, click the patch.

    Args:
        images: [B, 3, H, W] uint8; the first one is shown.
        encoder: with `attention_maps`; or several by name ("before", "after"), of one stride, a
            row each.
        queries: patches of the static strip; default five spread over the image.
        block: which block's attention, -1 for the last.
    """
    encoders = encoder if isinstance(encoder, Mapping) else {"": encoder}
    stride = next(iter(encoders.values())).stride
    h, w = grid = grid_of(images, stride)
    queries = queries or [h * r // 4 * w + w * c // 4 for r, c in QUERIES]
    weights = {name: all_attention(images, each, block) for name, each in encoders.items()}

    def _strip(patches: Sequence[int]) -> figures.Picture:
        maps = {
            name: {patch: look_from(each, patch, grid) for patch in patches}
            for name, each in weights.items()
        }
        return figures.attention_rows(images[0], maps, stride)

    def _draw(chosen: Tensor) -> figures.Picture:
        return _strip(chosen.nonzero().flatten().tolist())

    if not is_live():
        return _strip(queries)
    return _board(grid, torch.zeros(h * w, dtype=torch.bool), _draw, single=True)


def all_attention(images: Tensor, encoder: Encoder, block: int = -1) -> Tensor:
    """Return the attention of one block among the patches of the first image, [N, N].

    Mean over heads; the class token's row and column are left out, so rows sum to at most 1.
    """
    return patch_attention(encoder, images[:1], block)[0]


def look_from(weights: Tensor, query: int, grid: tuple[int, int]) -> Tensor:
    """Return where patch `query` looks: [h, w] out of weights [N, N]."""
    if not 0 <= query < len(weights):
        last = len(weights) - 1
        raise ValueError(f"there is no patch {query}; the image has patches 0 to {last}")
    return rearrange(weights[query], "(h w) -> h w", h=grid[0])


def _painted_strip(
    image: Tensor, model: Autoencoder, hidden: Mapping[str, Tensor]
) -> figures.Picture:
    masked, made = zip(*(paint(image, mask, model) for mask in hidden.values()))
    titles = ["image", *hidden, *[""] * (1 + len(hidden))]
    shown = [image / 255, *masked, image / 255, *made]
    return figures.images(shown, titles, columns=1 + len(hidden))


def _board(
    grid: tuple[int, int],
    start: Tensor,
    draw: Callable[[Tensor], figures.Picture],
    single: bool = False,
) -> ipywidgets.Widget:
    """Make a grid of buttons, one per patch, beside a picture that follows them."""
    h, w = grid
    chosen = start.clone()
    picture = ipywidgets.Image(format="png")
    notice = ipywidgets.Label("click a patch")
    cell = ipywidgets.Layout(width=CELL, height=CELL, padding="0px", margin="0px")
    buttons = [ipywidgets.Button(layout=cell, tooltip=f"patch {i}") for i in range(h * w)]

    def _refresh() -> None:
        for button, is_chosen in zip(buttons, chosen.tolist()):
            button.style.button_color = figures.COLORS[0] if is_chosen else "#DDDDDD"
        if not chosen.any():
            return
        try:
            picture.value = draw(chosen)._repr_png_()
            notice.value = ""
        except ValueError as error:
            notice.value = str(error)

    def _click(index: int) -> None:
        if single:
            chosen.zero_()
        chosen[index] = ~chosen[index]
        _refresh()

    for index, button in enumerate(buttons):
        button.on_click(lambda _, index=index: _click(index))
    _refresh()
    layout = ipywidgets.Layout(grid_template_columns=f"repeat({w}, {CELL})", grid_gap="1px")
    board = ipywidgets.GridBox(buttons, layout=layout)
    return ipywidgets.HBox([ipywidgets.VBox([board, notice]), picture])
