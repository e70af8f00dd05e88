"""COCO's files of boxes and masks: instances_*.json, and panoptic_*.json with its PNGs.

Category ids have gaps (COCO's 80 run from 1 to 90). Labels are their ranks, from 0 without gaps;
`category_ids` leads back. Masks are polygons or run lengths (RLE), read by pycocotools, which the
metric uses, too.

Letters: R objects of one image, H and W its sides in pixels.
"""

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimlib.data.files.pictures import read_image, read_segments
from mimlib.data.objects.annotations import Annotated, Annotations, Record, read_annotations
from mimlib.data.objects.masks import check_size, decode_mask, sides_of
from mimlib.data.objects.source import DetectionSource
from mimlib.data.objects.views import LargeScaleJitter, Objects, tight_boxes


@dataclass(frozen=True, kw_only=True)
class CocoConfig(LargeScaleJitter):
    """A data set in COCO's form; for the panoptic form the things of its segments are the objects.

    COCO 2017 as it is unpacked: root "data/coco", the rest as it is here.
    """

    root: str  # path of the data set
    images: str = "train2017"  # folder of the images, below root
    annotations: str = "annotations/instances_train2017.json"  # below root; PNGs in .../NAME/
    skip_empty: bool = False  # leave out images without objects, as official training does
    workers: int = 0  # decoding processes

    def build(self) -> "CocoObjects":
        """Read the annotations.

        Raises:
            ValueError: if they are missing, no JSON in this form, or name no image.
        """
        path = Path(os.path.expanduser(self.root)) / self.annotations
        found = read_annotations(path)
        if self.skip_empty:
            kept = [r for r in found.records if not all(each.crowd for each in r.objects)]
            found = found._replace(records=kept)
        if not found.records:
            raise ValueError(f"{path} lists no image{' with objects' * self.skip_empty}")
        return CocoObjects(self, path, found)


class CocoObjects(DetectionSource):
    """The images of an annotation file, in the order of their ids, decoded as they are needed.

    What the file says is kept in one array of bytes: a hundred thousand images' lists and dicts
    would be copied into every worker process.
    """

    def __init__(
        self,
        config: CocoConfig,
        path: Path,
        annotations: Annotations,
    ):
        self.augmentation, self.workers, self.path = config, config.workers, path
        self.folder = Path(os.path.expanduser(config.root)) / config.images
        records, self.category_ids, self.class_names = annotations
        self._ids = np.array([record.image_id for record in records])
        packed = [pickle.dumps(record) for record in records]
        self._ends = np.cumsum([len(each) for each in packed])
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ids)

    def record(self, index: int) -> Record:
        """Return what the file says of an image."""
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())

    def image(self, index: int) -> Tensor:
        """Read an image, [3, H, W] uint8.

        Raises:
            ValueError: if it cannot be read, or has another size than the annotations say.
        """
        record = self.record(index)
        image = read_image(self.folder / record.image_file)
        check_size(record, f"the file {record.image_file}", tuple(image.shape[1:]))
        return image

    def objects(self, index: int) -> Objects:
        """Decode the masks of an image; boxes are clipped to it, those that are empty left out.

        Raises:
            ValueError: if a mask cannot be read or has another size than the image.
        """
        whole = self.annotated(index)
        height, width = whole.masks.shape[1:]
        boxes = whole.boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return Objects(*(field[kept] for field in whole._replace(boxes=boxes)))

    def annotated(self, index: int) -> Objects:
        """Return the objects of an image as the file has them.

        Raises:
            ValueError: if a mask cannot be read or has another size than the image.
        """
        record = self.record(index)
        if record.panoptic_file:
            return _panoptic_objects(record, self.path.with_suffix("") / record.panoptic_file)
        masks = [decode_mask(each, record) for each in record.objects]
        masks = torch.stack(masks) if masks else torch.zeros(0, *sides_of(record), dtype=torch.bool)
        return _objects(record.objects, torch.tensor([each.box for each in record.objects]), masks)

    def image_id(self, index: int) -> int:
        """Return the id the file gives an image."""
        return int(self._ids[index])

    def truth(self, image_id: int) -> Objects:
        """Return the objects of the image of that id, for the metric: as the file has them."""
        return self.annotated(int(np.searchsorted(self._ids, image_id)))


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
    areas = torch.tensor([each.area for each in rows])
    if (areas < 0).any():
        areas = torch.where(areas < 0, masks.sum(dim=(1, 2)), areas)
    return Objects(
        boxes=boxes.float().reshape(-1, 4),
        labels=torch.tensor([each.label for each in rows], dtype=torch.int64),
        masks=masks,
        crowd=torch.tensor([each.crowd for each in rows], dtype=torch.bool),
        areas=areas,
    )
