"""COCO's files of boxes and masks: instances_*.json, and panoptic_*.json with its PNGs.

Labels are ranks of category ids, which `category_ids` leads back to. Masks are polygons or run
lengths (RLE), read by pycocotools, which the metric uses, too.

Letters: R objects of one image, H and W its sides in pixels.
"""

import hashlib
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimlib.data.files.listing import Listing
from mimlib.data.files.pictures import read_image, read_segments
from mimlib.data.files.source import FileSource
from mimlib.data.objects.annotations import (
    Annotated,
    Annotations,
    MissingMasks,
    Record,
    read_annotations,
)
from mimlib.data.objects.masks import check_size, decode_mask
from mimlib.data.objects.views import (
    DetectionSource,
    Example,
    LargeScaleJitter,
    Objects,
    tight_boxes,
)
from mimlib.data.source import fingerprint


@dataclass(frozen=True, kw_only=True)
class CocoConfig(LargeScaleJitter):
    """A data set in COCO's form; for the panoptic form the things of its segments are the objects.

    COCO 2017 as it is unpacked: root "data/coco", the rest as it is here.
    """

    root: str  # path of the data set
    images: str = "train2017"  # folder of the images, below root
    annotations: str = "annotations/instances_train2017.json"  # below root; PNGs in .../NAME/
    skip_empty: bool = False  # leave out images without objects, as official training does
    missing_masks: MissingMasks = "refuse"  # box: such objects get their whole box; box AP counts
    workers: int = 0  # decoding processes

    def build(self) -> "CocoObjects":
        """Read the annotations; ValueError if they name no image, and see `read_annotations`."""
        path = Path(os.path.expanduser(self.root)) / self.annotations
        found = read_annotations(path, self.missing_masks)
        if self.skip_empty:
            kept = [r for r in found.records if not all(each.crowd for each in r.objects)]
            found = found._replace(records=kept)
        if not found.records:
            raise ValueError(f"{path} lists no image{' with objects' * self.skip_empty}")
        return CocoObjects(self, path, found)


class CocoObjects(DetectionSource, FileSource):
    """The images of an annotation file, in the order of their ids, decoded as they are needed.

    What the file says is kept in one array of bytes: a hundred thousand images' lists and dicts
    would be copied into every worker process.
    """

    def __init__(self, config: CocoConfig, path: Path, annotations: Annotations):
        records, self.category_ids, self.class_names = annotations
        folder = Path(os.path.expanduser(config.root)) / config.images
        files = Listing(folder, ([record.image_file] for record in records))
        super().__init__(files.check(f"{path} lists them"), config)
        self.annotations_path = path
        packed = [pickle.dumps(record) for record in records]
        self._ends = np.cumsum([len(each) for each in packed])
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def identity(self) -> str:
        """Return a hash of the images' files and of the annotation file."""
        with open(self.annotations_path, "rb") as file:
            annotations = hashlib.file_digest(file, "blake2b").hexdigest()
        return fingerprint(len(self), np.array([self.files.identity(), annotations]))

    def record(self, index: int) -> Record:
        """Return what the file says of an image."""
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())

    def read(self, index: int) -> Example:
        """Read an image and decode its masks, once; their sizes are what the annotations say."""
        record = self.record(index)
        image = read_image(self.path(index))
        check_size(record, f"the file {record.image_file}", tuple(image.shape[1:]))
        if record.panoptic_file:
            folder = self.annotations_path.with_suffix("")
            objects = _panoptic_objects(record, folder / record.panoptic_file)
        else:
            masks = torch.zeros(len(record.objects), *image.shape[1:], dtype=torch.bool)
            for mask, each in zip(masks, record.objects):
                mask.copy_(decode_mask(each, record))
            boxes = torch.tensor([each.box for each in record.objects], dtype=torch.float64)
            objects = _objects(record.objects, boxes, masks)
        return Example(image, objects, record.image_id)


def _panoptic_objects(record: Record, path: Path) -> Objects:
    """Take the objects from the picture of segment ids."""
    ids = torch.from_numpy(read_segments(path))  # [H, W]
    check_size(record, f"the panoptic file {record.panoptic_file}", tuple(ids.shape))
    names = torch.tensor([each.segmentation for each in record.objects], dtype=torch.int64)
    masks = ids == names[:, None, None]  # [R, H, W]
    seen = masks.any(dim=2).any(dim=1)
    rows = [each for each, is_seen in zip(record.objects, seen.tolist()) if is_seen]
    return _objects(rows, tight_boxes(masks[seen]), masks[seen])


def _objects(rows: Sequence[Annotated], boxes: Tensor, masks: Tensor) -> Objects:
    areas = [int(m.sum()) if r.area is None else r.area for r, m in zip(rows, masks)]
    return Objects(
        boxes=boxes.reshape(-1, 4),
        labels=torch.tensor([each.label for each in rows], dtype=torch.int64),
        masks=masks,
        crowd=torch.tensor([each.crowd for each in rows], dtype=torch.bool),
        areas=torch.tensor(areas, dtype=torch.float64),
    )
