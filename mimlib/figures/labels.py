"""Pictures of what was found in images: class maps, the true ones beside the predicted ones."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from torch import Tensor

from mimlib.figures.grids import rows
from mimlib.figures.style import GREY, Picture, styled
from mimlib.figures.truth import palette

NUM_COLORS = 16  # that can be told apart


@styled
def class_maps(
    images: Tensor, maps: Mapping[str, Tensor], names: Sequence[str], size: float = 1.3
) -> Picture:
    """Draw a row of images, below it a row of each kind of class map, and a legend.

    A class has one colour in all maps. If there are more than 16 classes, the 16 that are seen most
    have colours of their own and a place in the legend; others use those colours again.

    Args:
        images: [n, 3, H, W], uint8 or float in [0, 1].
        maps: row title ("truth", "prediction") -> class ids [n, H, W]; below 0: grey, no class.
        names: of the classes.
        size: side of an image in inches.
    """
    ids = torch.cat([m.flatten().cpu() for m in maps.values()])
    counts = torch.bincount(ids[ids >= 0], minlength=len(names))
    order = torch.argsort(counts, descending=True, stable=True)
    shown = sorted(i for i in order[:NUM_COLORS].tolist() if counts[i])
    rank = torch.arange(len(names))
    if len(names) > NUM_COLORS:
        rank[order] = torch.arange(len(names))
    colors = torch.from_numpy(palette(len(names)))[rank].float()  # [G, 3]
    paint = torch.cat([colors, torch.tensor([to_rgb(GREY)])])  # the last one is that of -1
    painted = {title: paint[m.cpu().clamp(min=-1)].permute(0, 3, 1, 2) for title, m in maps.items()}
    picture = rows({"image": images.cpu(), **painted}, size)
    handles = [Patch(color=colors[i].tolist(), label=names[i]) for i in shown]
    picture.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, handlelength=1
    )
    return picture
