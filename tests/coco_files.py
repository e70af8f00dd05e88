"""Small data sets in COCO's form, as tests write them."""

import json

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
CATEGORIES = [  # ids with gaps, not in order
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
    {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
]


def rectangle(left, top, right, bottom):
    """A polygon, as COCO writes them."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Uncompressed run lengths, column by column, beginning with the zeros."""
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *edges.tolist(), flat.size]
    counts = [int(b - a) for a, b in zip(bounds[:-1], bounds[1:])]
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation(number, image_id, category_id, box, segmentation, **more):
    return {
        "id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box),
        "segmentation": segmentation, "area": box[2] * box[3], "iscrowd": 0, **more,
    }  # fmt: skip


def write_images(folder, image_ids, sides=(HEIGHT, WIDTH)):
    """Write pictures whose red is the column and whose green is the row, times 4."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: sides[0], : sides[1]]
    pixels = np.stack([columns * 4, rows * 4, 0 * rows], axis=-1).astype(np.uint8)
    listed = []
    for image_id in image_ids:
        name = f"{image_id:012d}.png"
        Image.fromarray(pixels).save(folder / name)
        listed.append(
            {"id": image_id, "file_name": name, "height": sides[0], "width": sides[1]}
        )  # fmt: skip
    return listed


def write_instances(root, annotations, image_ids=(7, 5), name="train2017", **changes):
    """Write images and instances_NAME.json below a folder."""
    images = write_images(root / name, image_ids)
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_panoptic(root, ids, segments, name="train2017", image_id=5):
    """Write one image and its panoptic segments: ids [H, W] and what the segments are."""
    images = write_images(root / name, [image_id])
    picture = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    folder = root / "annotations" / f"panoptic_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / "5.png")
    categories = [{**c, "isthing": int(c["id"] != 90)} for c in CATEGORIES]
    content = {
        "images": images, "categories": categories,
        "annotations": [{"image_id": image_id, "file_name": "5.png", "segments_info": segments}],
    }  # fmt: skip
    (root / "annotations" / f"panoptic_{name}.json").write_text(json.dumps(content))
