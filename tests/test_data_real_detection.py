"""Real COCO files, where there are any: MIMLIB_REALDATA names the folder."""

import pytest
import torch
from real_data import sample

from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.masks import unpack_masks
from mimlib.data.objects.views import tight_boxes

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def subset(**options):
    return CocoConfig(
        root=str(sample("coco_subset")),
        images="images/train2017",
        annotations="annotations/panoptic_train2017.json",
        **options,
    ).build()


def test_panoptic_coco():
    coco = subset(size=256)
    assert len(coco) == 75 and len(coco.category_ids) == 80
    assert (coco.category_ids[0], coco.category_ids[79]) == (1, 90)
    batch = coco.first(8)
    assert batch.images.shape == (8, 3, 256, 256) and batch.masks.shape[2:] == (256, 32)
    seen = batch.labels >= 0
    gaps = (tight_boxes(unpack_masks(batch.masks[seen], 256)) - batch.boxes[seen]).abs()
    assert gaps.max() < 1.5, "boxes fit their masks after resizing"
    examples = [coco.read(i) for i in range(len(coco))]
    (empty,) = [each for each in examples if each.image_id == 250]
    assert len(empty.objects.labels) == 0 and empty.image.shape[0] == 3
    assert len(subset(size=256, skip_empty=True)) < 75
    assert sum(each.objects.crowd.sum() for each in examples) > 0


def test_boxes_are_those_of_the_detection_labels():
    """Most panoptic segments are the instances, cut where another one lies in front of them."""
    coco, root = subset(size=256), sample("coco_subset")
    close = total = 0
    for index in range(30):
        image, objects, image_id = coco.read(index)
        path = root / f"yolo_object_detection/train2017/{image_id:012d}.txt"
        lines = path.read_text().split("\n") if path.exists() else []
        height, width = image.shape[1:]
        for label, x, y, w, h in (map(float, line.split()) for line in lines if line):
            box = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            box = box * torch.tensor([width, height, width, height])
            same = objects.boxes[objects.labels == int(label)]
            close += bool(((same - box).abs().amax(dim=1) < 4).any()) if len(same) else 0
            total += 1
    assert total > 100 and close > 0.6 * total, (close, total)


def test_panoptic_and_detection_format_agree():
    root = sample("coco_panoptic_api_sample")
    both = [
        CocoConfig(root=str(root), images="input_images", annotations=name, size=256).build()
        for name in ("panoptic_examples.json", "panoptic_coco_detection_format.json")
    ]
    known = [{e.image_id: e.objects for e in map(c.read, range(len(c)))} for c in both]
    for image_id in (142238, 439180):
        ours, theirs = (objects[image_id] for objects in known)
        names = [[c.class_names[label] for label in o.labels] for c, o in zip(both, (ours, theirs))]
        things = [name in both[0].class_names for name in names[1]]
        assert names[0] == [n for n, thing in zip(names[1], things) if thing]
        assert torch.equal(ours.masks, theirs.masks[torch.tensor(things)])
        assert torch.equal(ours.boxes, theirs.boxes[torch.tensor(things)])
        assert torch.equal(ours.crowd, theirs.crowd[torch.tensor(things)])
        assert torch.equal(ours.areas, theirs.areas[torch.tensor(things)])
