"""What COCO's JSON files say of images and their objects, as records of ours.

Category ids have gaps (COCO's 80 run from 1 to 90). Labels are their ranks, from 0 without gaps.
Whatever would make an object vanish, or land on another image, is refused here, by name.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mimlib.data.files.listing import NAMED, WHAT_GOES_WHERE
from mimlib.data.files.reading import reading

SECTIONS = ("images", "annotations", "categories")
LEAST_POLYGON = 6  # numbers: three corners

MissingMasks = Literal["refuse", "box"]


class Annotated(NamedTuple):
    """What a file says of one object."""

    annotation_id: int
    label: int  # from 0 without gaps
    crowd: bool
    box: tuple[float, float, float, float]  # xyxy in pixels, may lie outside the image
    area: float | None  # pixels; None: not said
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


def read_annotations(path: Path, missing_masks: MissingMasks = "refuse") -> Annotations:
    """Read instances_*.json, or the things of panoptic_*.json.

    Objects without a mask are refused, or get their whole box for one. ValueError if the file is
    missing or no JSON in this form; on ids that are no whole numbers or occur twice, images and
    categories that are not listed, and boxes, areas or masks that cannot be.
    """
    content = _read_json(path)
    try:
        for section in SECTIONS:
            _check_ids(section, content[section])
        things = sorted(
            (category for category in content["categories"] if category.get("isthing", 1)),
            key=lambda category: category["id"],
        )
        category_ids = tuple(category["id"] for category in things)
        names = tuple(str(category.get("name", category["id"])) for category in things)
        records = _records(content, category_ids, missing_masks)
    except KeyError as error:
        raise ValueError(f"{path}: an image or an annotation lacks {error}") from error
    except TypeError as error:
        raise ValueError(f"{path} is no annotation file of COCO: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Annotations(records, category_ids, names)


def _read_json(path: Path) -> dict[str, Any]:
    with reading(path, advice=WHAT_GOES_WHERE):
        content = json.loads(path.read_bytes())
    missing = [s for s in SECTIONS if not isinstance(content, dict) or s not in content]
    if missing:
        raise ValueError(f"{path} is no annotation file of COCO: it lacks {', '.join(missing)}")
    return content


def _check_ids(section: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse ids that are no whole numbers, or that two rows share.

    Panoptic annotations, one an image, have the id of that alone.
    """
    ids = [row["image_id" if "segments_info" in row else "id"] for row in rows]
    odd = [each for each in ids if type(each) is not int]
    if odd:
        raise ValueError(
            f"the ids of {len(odd)} {section} are no whole numbers: {odd[:NAMED]!r}; COCO's tools "
            "and results want numbers: renumber them"
        )
    twice = [each for each, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} ids of {section} occur more than once: {twice[:NAMED]}; each row needs "
            "its own"
        )


def _records(
    content: Mapping[str, Any], category_ids: tuple[int, ...], missing_masks: MissingMasks
) -> list[Record]:
    """Sort the annotations by image."""
    number = {category_id: label for label, category_id in enumerate(category_ids)}
    known = {category["id"] for category in content["categories"]}
    objects: dict[int, list[Annotated]] = {image["id"]: [] for image in content["images"]}
    pictures: dict[int, str] = {}
    for annotation in content["annotations"]:
        image_id = annotation["image_id"]
        if image_id not in objects:
            raise ValueError(
                f"annotation {annotation.get('id')} is of image {image_id!r}, which is not among "
                f"its {len(objects)} images; list the image or drop the annotation"
            )
        if "segments_info" in annotation:
            pictures[image_id] = annotation["file_name"]
        for part in annotation.get("segments_info", [annotation]):
            if part["category_id"] not in known:
                raise ValueError(
                    f"annotation {part.get('id')} is of category {part['category_id']!r}, which "
                    f"is not among its {len(known)} categories"
                )
            if part["category_id"] in number:
                label = number[part["category_id"]]
                objects[image_id].append(_annotated(part, label, missing_masks))
    return [
        Record(
            image_id=image["id"],
            image_file=image["file_name"],
            height=image["height"],
            width=image["width"],
            panoptic_file=pictures.get(image["id"], ""),
            objects=tuple(objects[image["id"]]),
        )
        for image in sorted(content["images"], key=lambda image: image["id"])
    ]


def _annotated(part: Mapping[str, Any], label: int, missing_masks: MissingMasks) -> Annotated:
    left = top = width = height = 0.0
    segmentation = part["id"]
    if "image_id" in part:  # the boxes of segments are those of their pixels
        left, top, width, height = _box(part)
        segmentation = part.get("segmentation")
        outline = [left, top, left + width, top, left + width, top + height, left, top + height]
        if _is_missing(part, segmentation) and missing_masks == "box":
            segmentation = [outline]
        elif _is_missing(part, segmentation):
            raise ValueError(
                f"annotation {part['id']} of image {part['image_id']} has no mask: {segmentation!r}"
                "; give it one, drop it, or take the boxes for masks by missing_masks='box'"
            )
    area = part.get("area")
    if area is not None and not 0 <= area < math.inf:
        raise ValueError(f"annotation {part['id']} has the area {area}; expected pixels, 0 or more")
    return Annotated(
        annotation_id=part["id"],
        label=label,
        crowd=bool(part.get("iscrowd", 0)),
        box=(left, top, left + width, top + height),
        area=None if area is None else float(area),
        segmentation=segmentation,
    )


def _box(part: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Read left, top, width and height; boxes without an area are there, and never learned from."""
    try:
        left, top, width, height = map(float, part["bbox"])
        if not math.isfinite(left + top + width + height) or min(width, height) < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"annotation {part.get('id')} has the box {part.get('bbox')}; expected four finite "
            "numbers, left, top, width and height, the last two 0 or more"
        ) from error
    return left, top, width, height


def _is_missing(part: Mapping[str, Any], segmentation: Any) -> bool:
    """Tell whether an object has no mask at all; run lengths are looked at when they are decoded.

    Polygons of fewer than three corners cover nothing beside others that do (as official); those
    with half a corner, or numbers that are not finite, are a ValueError.
    """
    if segmentation is None:
        return True
    if not isinstance(segmentation, list):
        return False
    if any(len(polygon) % 2 for polygon in segmentation) or not math.isfinite(
        sum(map(sum, segmentation))
    ):
        raise ValueError(
            f"annotation {part['id']} of image {part['image_id']} has a polygon of an odd count of "
            "numbers, or of one that is not finite; expected x and y of each corner"
        )
    return not any(len(polygon) >= LEAST_POLYGON for polygon in segmentation)
