"""Pictures of videos: which object is where, frame by frame."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mimlib.figures.detection import TINT
from mimlib.figures.grids import rows
from mimlib.figures.style import Picture, bright
from mimlib.figures.truth import palette


def followed(frames: Tensor, masks: Mapping[str, Tensor], size: float = 1.3) -> Picture:
    """Draw the same frames once for each way to follow objects: a color for each object.

    Args:
        frames: [T, 3, H, W], uint8 or float in [0, 1].
        masks: title of the row ("truth", "pixels") -> object ids [T, H, W], 0 for none.
        size: side of a frame in inches.
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
