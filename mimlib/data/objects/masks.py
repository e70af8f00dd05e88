"""Masks of objects: polygons, run lengths and packed bits, both ways."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from pycocotools import mask as coco_mask
from torch import Tensor

from mimlib.data.objects.annotations import LEAST_POLYGON, Annotated, Record


def decode_mask(annotated: Annotated, record: Record) -> Tensor:
    """Decode polygons or run lengths to [H, W] bool; ValueError if broken or of another size."""
    height, width, given = record.height, record.width, annotated.segmentation
    what = f"the mask of annotation {annotated.annotation_id}"
    try:
        if isinstance(given, list):
            polygons = [polygon for polygon in given if len(polygon) >= LEAST_POLYGON]
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        else:
            check_size(record, what, tuple(given["size"]))
            counts = given["counts"]
            counts = counts if isinstance(counts, list) else read_runs(counts)
            # pycocotools leaves what is missing to chance
            if sum(counts) != height * width or min(counts, default=0) < 0:
                raise ValueError(f"its runs have {sum(counts)} pixels in all")
            runs = coco_mask.frPyObjects({**given, "counts": counts}, height, width)
        return torch.from_numpy(coco_mask.decode(runs)).bool()
    except (TypeError, KeyError, IndexError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{what} of image {record.image_id} is no list of polygons and no run lengths of its "
            f"{height} x {width} pixels: {error}"
        ) from error


def read_runs(compressed: str | bytes) -> list[int]:
    """Read the lengths of runs, zeros first, from the letters that COCO writes them in.

    As official: a number is a row of letters of 5 bits each, the lowest first, a sixth bit saying
    that there are more and the highest that of the sign; from the fourth number on it is the
    difference to the one before the last.
    """
    letters = compressed.encode() if isinstance(compressed, str) else compressed
    counts: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = letter - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        value -= (1 << shift) if bits & 0x10 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Write masks [R, H, W] bool as compressed run lengths, ready for JSON."""
    columns = np.asfortranarray(rearrange(masks.cpu().numpy().astype(np.uint8), "r h w -> h w r"))
    return [
        {"size": runs["size"], "counts": runs["counts"].decode("ascii")}
        for runs in coco_mask.encode(columns)
    ]


def pack_masks(masks: Tensor) -> Tensor:
    """Pack masks [..., H, W] bool into bits, [..., H, W / 8] uint8, rounded up."""
    return torch.from_numpy(np.packbits(masks.numpy(), axis=-1))


def unpack_masks(packed: Tensor, width: int) -> Tensor:
    """Return the masks [..., H, W] bool of that width in pixels, on the device they are on."""
    bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> bits) & 1).flatten(-2)[..., :width].bool()


def coco_results(
    image_id: int,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor,
    masks: Tensor,
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Write what was found in an image as COCO's servers and tools take it, ready for JSON.

    Boxes are [R, 4] xyxy in pixels of the image as it is stored, labels [R] from 0 without gaps,
    scores [R] in [0, 1], masks [R, H, W] bool. The image is called as in its annotations, and
    `category_ids` are those of labels 0, 1, ... (`CocoObjects.category_ids`).
    """
    rows = zip(boxes.tolist(), labels.tolist(), scores.tolist(), encode_masks(masks))
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
            "segmentation": runs,
        }
        for (left, top, right, bottom), label, score, runs in rows
    ]


def check_size(record: Record, what: str, got: tuple[int, ...]) -> None:
    """Refuse a picture or mask of another size than its image, naming both."""
    if got != (record.height, record.width):
        raise ValueError(
            f"{what} has {got} pixels (height, width), image {record.image_id} "
            f"{record.height, record.width}; masks and images must have one size"
        )
