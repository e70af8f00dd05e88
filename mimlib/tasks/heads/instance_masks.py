"""Masks of objects: what is true inside a box, what is predicted there, and back on the image.

As in detectron2, both ways are exact to a fraction of a pixel. torchvision's own cut and paste are
off by up to half a pixel at every edge, which costs an object of 8 pixels a fifth of its overlap.

Letters: R boxes, G classes, M side of a mask in cells, C channels of the maps, H and W pixels.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, floor

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, roi_align

NUM_CONVS = 4
THRESHOLD = 0.5  # of the probability that a pixel belongs to the object


class MaskHead(nn.Module):
    """Predict a mask for each class inside a box (Mask R-CNN, section 3)."""

    def __init__(self, pool: MultiScaleRoIAlign, width: int, num_classes: int) -> None:
        """Build the head on maps of C = `width` channels; a mask has twice the cells of `pool`."""
        super().__init__()
        norm = partial(LayerNorm2d, eps=1e-6)
        self.pool = pool
        self.convs = MaskRCNNHeads(width, [width] * NUM_CONVS, 1, norm)
        self.predict = MaskRCNNPredictor(width, width, num_classes)

    def forward(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], sides: list[tuple[int, int]]
    ) -> Float[Tensor, "R G M M"]:
        """Return float32 logits for the boxes of all images, one image after the other."""
        return self.predict(self.convs(self.pool(dict(maps), list(boxes), sides))).float()


def crop_masks(
    masks: Bool[Tensor, "objects H W"],
    boxes: Float[Tensor, "R 4"],
    match: Int[Tensor, " R"],
    side: int,
) -> Float[Tensor, "R M M"]:
    """Sample the masks of the matched objects inside boxes, on M x M points, from 0 to 1."""
    rois = torch.cat([match[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), rois, (side, side), aligned=True)[:, 0]


def mask_loss(
    logits: Float[Tensor, "R G M M"], labels: Int[Tensor, " R"], targets: Float[Tensor, "R M M"]
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of the masks of the true classes; 0 without boxes."""
    if not len(logits):
        return logits.sum()
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return binary_cross_entropy_with_logits(own, targets)


def paste_masks(
    masks: Float[Tensor, "R M M"], boxes: Float[Tensor, "R 4"], sides: tuple[int, int]
) -> Bool[Tensor, "R H W"]:
    """Lay masks that fill their boxes on an image of these sides: where the probability is high."""
    pasted = torch.zeros(len(masks), *sides, dtype=torch.bool, device=masks.device)
    for whole, mask, (left, top, right, bottom) in zip(pasted, masks, boxes.tolist()):
        rows = slice(max(0, floor(top)), max(0, min(sides[0], ceil(bottom))))
        columns = slice(max(0, floor(left)), max(0, min(sides[1], ceil(right))))
        if right <= left or bottom <= top or not whole[rows, columns].numel():
            continue
        y, x = (
            (torch.arange(part.start, part.stop, device=masks.device) + 0.5 - low) / (high - low)
            for part, low, high in ((rows, top, bottom), (columns, left, right))
        )  # pixel centres, from 0 to 1 inside the box
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        values = grid_sample(mask[None, None], 2 * places[None] - 1, align_corners=False)
        whole[rows, columns] = values[0, 0] > THRESHOLD
    return pasted
