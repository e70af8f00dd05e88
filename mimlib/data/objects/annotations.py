"""What COCO's JSON files say of images and their objects, as records of ours.

Category ids have gaps (COCO's 80 run from 1 to 90). Labels are their ranks, from 0 without gaps.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SECTIONS = ("images", "annotations", "categories")


class Annotated(NamedTuple):
    """What a file says of one object."""

    annotation_id: int
    label: int  # from 0 without gaps
    crowd: bool
    box: tuple[float, float, float, float]  # xyxy in pixels, may lie outside the image
    area: float  # pixels; below 0: not said
    segmentation: Any  # polygons, run lengths, or the id of a panoptic segment


class Record(NamedTuple):
    """What a file says of one image."""

    image_id: int
    image_file: str
    height: int  # pixels
    width: int
    panoptic_file: str  # "" where the masks stand in the JSON
    objects: tuple[Annotated, ...]


class Annotations(NamedTuple):
    """What a file says."""

    records: list[Record]  # in the order of the image ids
    category_ids: tuple[int, ...]  # of labels 0, 1, ...
    class_names: tuple[str, ...]


def read_annotations(path: Path) -> Annotations:
    """Read instances_*.json, or the things of panoptic_*.json.

    Annotations of images that are not listed are left out.

    Raises:
        ValueError: if the file is missing, no JSON in this form, or names an unknown category.
    """
    content = _read_json(path)
    things = sorted(
        (category for category in content["categories"] if category.get("isthing", 1)),
        key=lambda category: category["id"],
    )
    category_ids = tuple(category["id"] for category in things)
    names = tuple(str(category.get("name", category["id"])) for category in things)
    try:
        records = _records(content, category_ids, path)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: an image or an annotation lacks {error}") from error
    return Annotations(records, category_ids, names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read {path}: {error}; data/README.md says what goes where"
        ) from error
    missing = [s for s in SECTIONS if not isinstance(content, dict) or s not in content]
    if missing:
        raise ValueError(f"{path} is no annotation file of COCO: it lacks {', '.join(missing)}")
    return content


def _records(content: Mapping[str, Any], category_ids: tuple[int, ...], path: Path) -> list[Record]:
    """Sort the annotations by image."""
    number = {category_id: label for label, category_id in enumerate(category_ids)}
    known = {category["id"] for category in content["categories"]}
    objects: dict[int, list[Annotated]] = {image["id"]: [] for image in content["images"]}
    pictures: dict[int, str] = {}
    for annotation in content["annotations"]:
        image_id = annotation["image_id"]
        if "segments_info" in annotation:
            pictures[image_id] = annotation["file_name"]
        for part in annotation.get("segments_info", [annotation]):
            if part["category_id"] not in known:
                raise ValueError(
                    f"{path} has an annotation {part.get('id')} of category "
                    f"{part['category_id']}, which is not among its {len(known)} categories"
                )
            if part["category_id"] in number and image_id in objects:
                objects[image_id].append(_annotated(part, number[part["category_id"]], path))
    images = sorted(content["images"], key=lambda image: image["id"])
    return [
        Record(
            image_id=image["id"],
            image_file=image["file_name"],
            height=image["height"],
            width=image["width"],
            panoptic_file=pictures.get(image["id"], ""),
            objects=tuple(objects[image["id"]]),
        )
        for image in images
    ]


def _annotated(part: Mapping[str, Any], label: int, path: Path) -> Annotated:
    try:  # the boxes of segments are those of their pixels
        left, top, width, height = map(float, part["bbox"] if "image_id" in part else (0, 0, 0, 0))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: annotation {part.get('id')} has the box {part.get('bbox')}; expected four "
            "numbers, left, top, width and height"
        ) from error
    return Annotated(
        annotation_id=part["id"],
        label=label,
        crowd=bool(part.get("iscrowd", 0)),
        box=(left, top, left + width, top + height),
        area=float(part.get("area", -1)),
        segmentation=part.get("segmentation", part["id"]),
    )
