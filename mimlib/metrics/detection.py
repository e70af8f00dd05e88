"""Average precision of boxes and masks, as COCO defines it; pycocotools computes it."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

KINDS = {"bbox": "box", "segm": "mask"}  # pycocotools' names -> ours
MEASURES = ("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large")  # in its order


def average_precision(
    truth: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], num_images: int
) -> dict[str, float]:
    """Compare what was found with what is true.

    box_ap and mask_ap are means over overlaps of 0.5 to 0.95 and all classes; ap_50 and ap_75 are
    those of one overlap; ap_small (to 32^2 pixels), ap_medium (to 96^2) and ap_large count objects
    of a size alone, and are left out where there is none. What is found in a crowd counts neither
    way. Of masks the size is that of the mask (as detectron2: with boxes beside them, pycocotools
    would take the size of those).

    Args:
        truth: a row for each object: image_id, category_id, bbox (left, top, width, height), area,
            iscrowd, segmentation (run lengths).
        found: likewise, with a score in place of area and iscrowd.
        num_images: images that were looked at, whose ids are 1 to num_images.

    Raises:
        ValueError: if there is no object in any image.
    """
    categories = sorted({row["category_id"] for row in truth})
    measured = {}
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        known = COCO()
        known.dataset = {
            # Sides are asked for and, of run lengths, not used.
            "images": [{"id": n, "height": 0, "width": 0} for n in range(1, num_images + 1)],
            "categories": [{"id": category} for category in categories],
            "annotations": [{**row, "id": number} for number, row in enumerate(truth, start=1)],
        }
        known.createIndex()
        for kind, name in KINDS.items():
            left_out = {"bbox"} if kind == "segm" else {"segmentation"}
            rows = [{k: v for k, v in row.items() if k not in left_out} for row in found]
            official = COCOeval(known, known.loadRes(rows) if rows else COCO(), kind)
            official.evaluate()
            official.accumulate()
            official.summarize()
            for measure, value in zip(MEASURES, official.stats):
                measured[f"{name}_{measure}"] = float(value)
    if measured["box_ap"] < 0:  # as pycocotools says that nothing was to be found
        raise ValueError("nothing was counted: none of the held-out images has an object")
    return {name: value for name, value in measured.items() if value >= 0}
