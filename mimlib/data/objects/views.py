"""Boxes and masks of the objects in an image, and how they move with it.

Large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177, section 3): an image is resized by a
random factor, then cut or padded to a square. Cut first and resized once here, which is the same
up to the pixels at the border and does not resize what is thrown away.

Letters: R objects of one image.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import masks_to_boxes

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.masks import encode_masks, pack_masks
from mimlib.data.order import Request, registers
from mimlib.data.source import IndexedSource
from mimlib.data.transforms.crops import Placement, crop_corners, cut_image, cut_map, pad_corner

VIEW = registers(scale=1, _=19, corner=2, flip=1)  # the rest where `Augmentation` has it
GRAY = 128  # as official: around images that do not fill their square
ROUNDING = 1e-3  # pixels: a box that reaches as little beyond the border is not cut
SMALLEST_SIDE = 1.0  # pixels; objects that become smaller are left out


class Objects(NamedTuple):
    """What is known of the objects in one image, a row each."""

    boxes: Tensor  # [R, 4] floats, xyxy in pixels, right and bottom exclusive
    labels: Tensor  # [R] int64 from 0 without gaps
    masks: Tensor  # [R, H, W] bool
    crowd: Tensor  # [R] bool: many things in one, or too small: neither learned nor counted
    areas: Tensor  # [R] floats, pixels, by which the metric tells small from large


@dataclass(frozen=True, kw_only=True)
class LargeScaleJitter:
    """Random sizes and flips, all that Mask R-CNN is trained with here."""

    size: int  # pixels, side of the squares handed out
    scale: tuple[float, float] = (0.1, 2.0)  # of the image's longer side, relative to the square
    flip: bool = True  # mirror half of the images, at random

    def __post_init__(self):
        check_positive(self, "size")
        check_range(self, "scale", above=0, ordered=True)

    def place(self, draws: np.ndarray | None, height: int, width: int) -> Placement:
        """Choose what is seen of an image of this size; without draws: the whole, as it is."""
        shape, (low, high) = np.array([height, width]), self.scale
        factor = 1.0 if draws is None else low + (high - low) * draws[VIEW.scale]
        ratio = factor * self.size / shape.max()
        seen = np.minimum(shape, np.rint(self.size / ratio).clip(1)).astype(int)
        sides = np.rint(seen * ratio).clip(1, self.size).astype(int)
        corner = [0, 0] if draws is None else crop_corners(draws[VIEW.corner], shape, seen).tolist()
        flip = self.flip and draws is not None and bool(draws[VIEW.flip] < 0.5)
        return Placement((*corner, *seen.tolist()), tuple(sides.tolist()), flip)


def place_image(image: Tensor, placement: Placement, size: int) -> Tensor:
    """Cut, resize and pad an image [3, H, W] uint8 to [3, size, size]."""
    return pad_corner(cut_image(image, placement), size, GRAY)


def place_objects(objects: Objects, placement: Placement, size: int) -> Objects:
    """Move objects as their image is moved; those that are not seen any more are left out.

    Boxes are clipped to the image, those without an area left out. An object that is cut gets the
    box of what is left of its mask.
    """
    objects = clip_objects(objects)
    top, left, cut_height, cut_width = placement.box
    height, width = placement.sides
    masks = cut_map(objects.masks, placement)
    factor = torch.tensor([width / cut_width, height / cut_height]).repeat(2)
    boxes = (objects.boxes - torch.tensor([left, top, left, top])) * factor
    if placement.flip:
        boxes = boxes * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor([width, 0, width, 0])
        boxes = boxes[:, [2, 1, 0, 3]]
    inside = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    seen = masks.any(dim=2).any(dim=1)
    is_cut = seen & ((inside - boxes).abs() > ROUNDING).any(dim=1)
    inside[is_cut] = tight_boxes(masks[is_cut]).to(inside)
    seen &= (inside[:, 2:] - inside[:, :2] >= SMALLEST_SIDE).all(dim=1)
    kept = Objects(inside, objects.labels, masks, objects.crowd, objects.areas * factor[:2].prod())
    kept = Objects(*(field[seen] for field in kept))
    return kept._replace(masks=pad_corner(kept.masks, size, False))


def clip_objects(objects: Objects) -> Objects:
    """Clip boxes to the image; objects without an area there are left out."""
    height, width = objects.masks.shape[1:]
    boxes = objects.boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return Objects(*(field[kept] for field in objects._replace(boxes=boxes)))


def coco_truth(objects: Objects) -> list[dict[str, Any]]:
    """Write the objects of an image as COCO writes its truth, with labels for categories."""
    rows = zip(objects.boxes.tolist(), encode_masks(objects.masks))
    return [
        {
            "category_id": int(objects.labels[row]),
            "bbox": [left, top, right - left, bottom - top],
            "area": float(objects.areas[row]),
            "iscrowd": int(objects.crowd[row]),
            "segmentation": runs,
        }
        for row, ((left, top, right, bottom), runs) in enumerate(rows)
    ]


def tight_boxes(masks: Tensor) -> Tensor:
    """Return the boxes [R, 4] around masks [R, H, W], none of which may be empty."""
    boxes = masks_to_boxes(masks) if len(masks) else torch.zeros(0, 4)
    return boxes + torch.tensor([0.0, 0, 1, 1])  # torchvision counts the last pixel as the edge


def collate(
    images: Sequence[Tensor],
    objects: Sequence[Objects],
    sizes: Sequence[tuple[int, int]],
    image_ids: Sequence[int],
    truth: Sequence[list[dict[str, Any]]] = (),
) -> DetectionBatch:
    """Make a batch of images of one size, rows of objects padded to the largest number."""

    def pad(fields: Iterable[Tensor], value: float) -> Tensor:
        return pad_sequence(list(fields), batch_first=True, padding_value=value)

    return DetectionBatch(
        images=torch.stack(list(images)),
        boxes=pad((each.boxes.float() for each in objects), 0.0),
        labels=pad((each.labels for each in objects), -1),
        masks=pad((pack_masks(each.masks) for each in objects), 0),
        crowd=pad((each.crowd for each in objects), False),
        sizes=torch.tensor(sizes),
        image_ids=torch.tensor(image_ids),
        truth=tuple(truth),
    )


class Example(NamedTuple):
    """An image as it is stored, and what its data set says of it."""

    image: Tensor  # [3, H, W] uint8
    objects: Objects  # boxes may reach beyond the image or be empty
    image_id: int  # name of the image in the data set, a number


class DetectionSource(IndexedSource):
    """Images of any size with the objects in them."""

    augmentation: LargeScaleJitter
    class_names: tuple[str, ...]  # of labels 0, 1, ...

    @abstractmethod
    def read(self, index: int) -> Example:
        """Read an image with all that is known of it."""

    def batch(self, items: list[Example], request: Request) -> DetectionBatch:
        """Cut, resize and pad images with their objects.

        What is not augmented carries the truth for the metric, too.
        """
        draws = request.draws()
        rows = [None] * len(items) if draws is None else draws
        size, images, objects = self.augmentation.size, [], []
        for (image, known, _), numbers in zip(items, rows):
            placement = self.augmentation.place(numbers, *image.shape[1:])
            images.append(place_image(image, placement, size))
            objects.append(place_objects(known, placement, size))
        sizes = [tuple(each.image.shape[1:]) for each in items]
        truth = [coco_truth(each.objects) for each in items] if draws is None else []
        return collate(images, objects, sizes, [each.image_id for each in items], truth)
