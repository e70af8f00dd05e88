"""COCO's annotation files: every way to write a mask, and every way to write it wrongly."""

import json

import numpy as np
import pytest
import torch
from coco_files import (
    HEIGHT,
    WIDTH,
    annotation,
    rectangle,
    runs,
    write_images,
    write_instances,
    write_panoptic,
)
from pycocotools import mask as coco_mask

from mimlib.data.objects import coco as coco_module
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.masks import coco_results, read_runs
from mimlib.data.objects.views import Objects, clip_objects

INSIDE = (4, 6, 10, 8)  # left, top, width, height


def square(left=4, top=6, right=14, bottom=14):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def source(root, annotations, **options):
    write_instances(root, annotations)
    return CocoConfig(root=str(root), size=32, **options).build()


def only(root, **changes) -> Objects:
    """The objects of the one image that one annotation with changes makes, for training."""
    given = annotation(1, 5, 3, INSIDE, rectangle(4, 6, 14, 14)) | changes
    return clip_objects(source(root, [given]).read(0).objects)


def truth(coco, index=0) -> Objects:
    """The objects of an image as the file has them."""
    return coco.read(index).objects


def test_images_come_in_the_order_of_their_ids_and_labels_without_gaps(tmp_path):
    given = [annotation(n, 7, c, INSIDE, rectangle(4, 6, 14, 14)) for n, c in ((1, 90), (2, 17))]
    coco = source(tmp_path, given)
    assert [coco.read(i).image_id for i in range(len(coco))] == [5, 7]
    assert coco.category_ids == (3, 17, 90) and coco.class_names == ("car", "cat", "toothbrush")
    assert truth(coco, 1).labels.tolist() == [2, 1]
    assert [coco.category_ids[label] for label in truth(coco, 1).labels] == [90, 17]
    assert coco.read(0).image.shape == (3, HEIGHT, WIDTH)


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_mask(tmp_path):
    compressed = coco_mask.encode(np.asfortranarray(square().astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode()
    kinds = (rectangle(4, 6, 14, 14), runs(square()), compressed)
    for number, segmentation in enumerate(kinds):
        objects = only(tmp_path / str(number), segmentation=segmentation)
        assert torch.equal(objects.masks[0], torch.from_numpy(square()))
        assert objects.boxes.tolist() == [[4, 6, 14, 14]] and objects.areas.tolist() == [80]


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_read_as_pycocotools_writes_them(seed):
    mask = np.random.default_rng(seed).random((60, 70)) < (0.5, 0.02, 0.98, 0.0)[seed]
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert read_runs(compressed) == read_runs(compressed.decode()) == runs(mask)["counts"]


def test_parts_of_one_object_and_overlapping_objects(tmp_path):
    parts = rectangle(0, 0, 4, 4) + rectangle(10, 10, 20, 20)
    given = [
        annotation(1, 5, 3, (0, 0, 20, 20), parts),
        annotation(2, 5, 3, (2, 2, 10, 10), rectangle(2, 2, 12, 12)),
    ]
    masks = truth(source(tmp_path, given)).masks
    assert masks.sum(dim=(1, 2)).tolist() == [116, 100] and (masks[0] & masks[1]).sum() == 8


def test_boxes_are_clipped_to_the_image_and_empty_ones_left_out(tmp_path):
    boxes = {
        "out on the left": ((-10, 6, 14, 8), [0, 6, 4, 14]),
        "out at the bottom right": ((20, 20, 100, 100), [20, 20, WIDTH, HEIGHT]),
        "outside": ((40, 6, 10, 8), None),
        "no width": ((4, 6, 0, 8), None),
    }
    for number, (given, expected) in enumerate(boxes.values()):
        objects = only(tmp_path / str(number), bbox=list(given))
        assert objects.boxes.tolist() == ([expected] if expected else [])
        assert objects.masks.shape == (len(objects.labels), HEIGHT, WIDTH)
        coco = CocoConfig(root=str(tmp_path / str(number)), size=32).build()
        (kept,) = truth(coco).boxes.tolist()
        left, top, width, height = given
        assert kept == [left, top, left + width, top + height], "the metric wants what is written"


def test_crowds_are_marked(tmp_path):
    assert only(tmp_path, iscrowd=1, segmentation=runs(square())).crowd.tolist() == [True]


NO_MASK = (None, [], [[]], [[1, 1, 5, 5]])


def test_objects_without_a_mask_are_refused_or_get_their_box(tmp_path):
    for number, segmentation in enumerate(NO_MASK):
        root = tmp_path / str(number)
        with pytest.raises(ValueError, match="annotation 1 of image 5 has no mask.*missing_masks"):
            only(root, segmentation=segmentation)
        objects = truth(CocoConfig(root=str(root), size=32, missing_masks="box").build())
        assert torch.equal(objects.masks[0], torch.from_numpy(square()))
    boxes_only = annotation(1, 5, 3, INSIDE, None)
    del boxes_only["segmentation"]
    coco = source(tmp_path / "boxes", [boxes_only], missing_masks="box")
    batch = next(coco.batches(0, 2, seed=0))
    assert sorted(batch.labels.flatten().tolist()) == [-1, 0], "trained with, not left out"


def test_parts_of_too_few_corners_cover_nothing(tmp_path):
    polygons = [[1, 1, 5, 5], *rectangle(4, 6, 14, 14)]
    assert torch.equal(only(tmp_path, segmentation=polygons).masks[0], torch.from_numpy(square()))
    assert only(tmp_path / "out", segmentation=rectangle(50, 50, 60, 60)).masks.sum() == 0


def test_images_without_objects_are_negatives_or_left_out(tmp_path):
    coco = source(tmp_path, [annotation(1, 7, 3, INSIDE, rectangle(4, 6, 14, 14))])
    assert len(coco) == 2 and truth(coco).masks.shape == (0, HEIGHT, WIDTH)
    batch = coco.first(2)
    assert batch.labels.tolist() == [[-1], [0]] and batch.boxes.shape == (2, 1, 4)
    assert len(CocoConfig(root=str(tmp_path), size=32, skip_empty=True).build()) == 1
    crowd = [annotation(1, 7, 3, INSIDE, runs(square()), iscrowd=1)]
    with pytest.raises(ValueError, match="lists no image with objects"):
        source(tmp_path, crowd, skip_empty=True)
    nothing = source(tmp_path, []).first(2)
    assert nothing.labels.shape == (2, 0) and nothing.masks.shape == (2, 0, 32, 4)


@pytest.mark.parametrize("changes,message", [
    ({"segmentation": runs(np.zeros((HEIGHT, WIDTH + 1)))}, r"24, 33\).*image 5 \(24, 32\)"),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 2]}}, "5 pixels in all"),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0d"}}, "pixels in all"),
    ({"segmentation": {"counts": [3]}}, "'size'"),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [768, -10, 10]}}, "pixels in all"),
    ({"segmentation": 7}, "annotation 1 of image 5 is no list of polygons"),
    ({"segmentation": [[1, 1, 9, 1, 9]]}, "polygon of an odd count"),
    ({"segmentation": rectangle(4, 6, float("nan"), 14)}, "not finite"),
    ({"bbox": [4, 6, 10, -8]}, "last two 0 or more"),
    ({"bbox": [4, float("nan"), 10, 8]}, "expected four finite"),
    ({"area": float("nan")}, "annotation 1 has the area nan"),
    ({"area": -3}, "annotation 1 has the area -3"),
    ({"image_id": 99}, "annotation 1 is of image 99, which is not among its 2 images"),
    ({"image_id": "5"}, "annotation 1 is of image '5', which is not among its 2 images"),
    ({"id": "a"}, r"ids of 1 annotations are no whole numbers: \['a'\]"),
    ({"bbox": [1, 2, 3]}, "expected four finite numbers"),
    ({"category_id": 4}, "category 4, which is not among its 3"),
])  # fmt: skip
def test_broken_annotations_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        only(tmp_path, **changes)


def test_an_image_of_another_size_than_its_annotations_is_refused(tmp_path):
    coco = source(tmp_path, [])
    write_images(tmp_path / "train2017", [5], sides=(HEIGHT, WIDTH + 2))
    with pytest.raises(ValueError, match=r"000000000005.png has \(24, 34\) pixels.*\(24, 32\)"):
        coco.first(2)
    (tmp_path / "train2017" / "000000000005.png").unlink()
    with pytest.raises(ValueError, match="cannot read .*000000000005.png"):
        coco.first(1)


def test_files_that_are_no_annotations_are_refused(tmp_path):
    config = CocoConfig(root=str(tmp_path), size=32)
    with pytest.raises(ValueError, match="cannot read .*instances_train2017.json.*README"):
        config.build()
    path = write_instances(tmp_path, [])
    content = json.loads(path.read_text())
    del content["categories"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lacks categories"):
        config.build()
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot read"):
        config.build()
    for section, field in (("images", "height"), ("images", "file_name"), ("annotations", "id")):
        given = [annotation(1, 5, 3, INSIDE, rectangle(4, 6, 14, 14))]
        path = write_instances(tmp_path, given)
        content = json.loads(path.read_text())
        del content[section][0][field]
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"an image or an annotation lacks '{field}'"):
            config.build()
    write_instances(tmp_path, [], image_ids=())
    with pytest.raises(ValueError, match="lists no image$"):
        config.build()


@pytest.mark.parametrize("section,ids,message", [
    ("images", ["0005", "0007"], r"ids of 2 images are no whole numbers: \['0005', '0007'\]"),
    ("images", [5, 5], r"1 ids of images occur more than once: \[5\]"),
    ("images", [5, 7.0], r"ids of 1 images are no whole numbers: \[7.0\]"),
    ("annotations", [2, 2], r"1 ids of annotations occur more than once: \[2\]"),
    ("categories", [3, 3, 17], r"1 ids of categories occur more than once: \[3\]"),
    ("categories", ["a", "b", "c"], "ids of 3 categories are no whole numbers"),
])  # fmt: skip
def test_ids_that_do_not_tell_apart_are_refused(tmp_path, section, ids, message):
    given = [annotation(n, 5, 3, INSIDE, rectangle(4, 6, 14, 14)) for n in (1, 2)]
    path = write_instances(tmp_path, given)
    content = json.loads(path.read_text())
    for row, each in zip(content[section], ids, strict=True):
        row["id"] = each
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as refused:
        CocoConfig(root=str(tmp_path), size=32).build()
    assert str(path) in str(refused.value)


def segments(*rows):
    return [{"id": i, "category_id": c, "iscrowd": w, "area": 1, "bbox": []} for i, c, w in rows]


def test_things_of_panoptic_pictures_are_objects(tmp_path):
    ids = np.zeros((HEIGHT, WIDTH), dtype=int)
    ids[2:8, 3:9], ids[10:20, 10:30], ids[20:] = 300, 70_000, 5
    write_panoptic(tmp_path, ids, segments((300, 17, 0), (70_000, 3, 1), (5, 90, 0), (6, 3, 0)))
    path = "annotations/panoptic_train2017.json"
    coco = CocoConfig(root=str(tmp_path), annotations=path, size=32).build()
    objects = truth(coco)
    assert coco.class_names == ("car", "cat"), "toothbrushes are no things here"
    assert objects.labels.tolist() == [1, 0] and objects.crowd.tolist() == [False, True]
    assert objects.boxes.tolist() == [[3, 2, 9, 8], [10, 10, 30, 20]]
    assert torch.equal(objects.masks[0], torch.from_numpy(ids == 300))
    write_panoptic(tmp_path, ids[:, 1:], segments((300, 17, 0)))
    with pytest.raises(ValueError, match=r"panoptic file 5.png has \(24, 31\).*\(24, 32\)"):
        coco.read(0)


def test_results_are_what_coco_takes(tmp_path):
    coco = source(tmp_path, [annotation(1, 5, 90, INSIDE, rectangle(4, 6, 14, 14))])
    known = truth(coco)
    (entry,) = coco_results(
        5, known.boxes, known.labels, torch.tensor([0.5]), known.masks, coco.category_ids
    )
    assert entry["category_id"] == 90 and entry["bbox"] == list(INSIDE) and entry["score"] == 0.5
    assert (coco_mask.decode(entry["segmentation"]) == square()).all()
    assert json.loads(json.dumps(entry)) == entry
    none = [torch.zeros(0, *shape) for shape in ((4,), (), (), (HEIGHT, WIDTH))]
    assert coco_results(5, *none, coco.category_ids) == []


def test_workers_give_the_same_batches(tmp_path):
    given = [annotation(1, 5, 3, INSIDE, rectangle(4, 6, 14, 14))]
    batches = [next(source(tmp_path, given, workers=w).batches(0, 2, seed=1)) for w in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(batches[0][:-1], batches[1][:-1]))


def test_what_is_measured_is_read_once_and_carries_what_is_true(tmp_path, monkeypatch):
    given = [annotation(1, 5, 17, (-2.5, 6, 12, 8), rectangle(0, 6, 9, 14), area=71.25)]
    coco, read = source(tmp_path, given), []
    record, decode = coco.record, coco_module.decode_mask
    monkeypatch.setattr(coco, "record", lambda index: read.append(index) or record(index))
    monkeypatch.setattr(coco_module, "decode_mask", lambda *a: read.append("mask") or decode(*a))
    (batch,) = coco.once(2)
    assert read == [0, "mask", 1]
    ((entry,), nothing) = batch.truth
    assert nothing == [] and entry["category_id"] == 1 and entry["iscrowd"] == 0
    assert entry["bbox"] == [-2.5, 6, 12, 8] and entry["area"] == 71.25
    assert (coco_mask.decode(entry["segmentation"]) == square(0, 6, 9, 14)).all()


def test_a_set_is_known_by_its_files_and_not_by_how_we_keep_them(tmp_path, monkeypatch):
    given = [annotation(1, 5, 3, INSIDE, rectangle(4, 6, 14, 14))]
    known = source(tmp_path, given).identity()
    with monkeypatch.context() as changed:
        changed.setattr("mimlib.data.objects.coco.pickle.dumps", lambda record: b"another way")
        assert source(tmp_path, given).identity() == known
    assert source(tmp_path, [given[0] | {"iscrowd": 1}]).identity() != known
