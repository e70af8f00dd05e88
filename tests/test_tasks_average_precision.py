"""Average precision: perfect answers get 1, and the number is the one COCO's own tool gives."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from coco_files import CATEGORIES, annotation, rectangle, runs, write_images, write_instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from mimlib.data.objects.coco import CocoConfig
from mimlib.data.objects.masks import coco_results, unpack_masks
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.evaluation.average_precision import AveragePrecisionConfig
from mimlib.tasks.detection import Detections, postprocess
from mimlib.tasks.heads.instance_masks import crop_masks

CPU = torch.device("cpu")
MEASURES = ("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large")
PERFECT = {f"{kind}_{m}": 1.0 for kind in ("box", "mask") for m in MEASURES[:5]}
SIZE = 64


class Oracle(nn.Module):
    """A detector that looks into the batches it is asked about; `change` spoils its answers."""

    def __init__(self, source, change=None):
        super().__init__()
        self.batches, self.change = source.once(3), change or (lambda found, index: found)
        self.count, self.num_classes = 0, 90

    def detect(self, images):
        batch = next(self.batches)
        assert torch.equal(batch.images[: len(images)], images) and not self.training
        found = []
        for boxes, labels, masks, crowd in zip(batch.boxes, batch.labels, batch.masks, batch.crowd):
            kept = (labels >= 0) & ~crowd
            whole = unpack_masks(masks[kept], images.shape[-1])
            inside = crop_masks(whole, boxes[kept], torch.arange(int(kept.sum())), 28)
            scores = torch.linspace(0.9, 0.5, int(kept.sum()))
            each = Detections(boxes[kept], labels[kept], scores, inside)
            found.append(self.change(each, self.count))
            self.count += 1
        return found[: len(images)]


def measure(config, change=None, **options):
    evaluation = AveragePrecisionConfig(source=config, batch_size=3, **options).build()
    return evaluation.run(Oracle(config.build(), change), CPU)


def write(root, sides=(48, 64), more=()):
    """Five images of 48 x 64 pixels, one empty, one with a crowd."""
    given = [
        annotation(1, 1, 17, (4, 6, 30, 20), rectangle(4, 6, 34, 26)),
        annotation(2, 1, 3, (40, 20, 20, 24), rectangle(40, 20, 60, 44)),
        annotation(3, 2, 90, (10, 10, 40, 30), rectangle(10, 10, 50, 40)),
        annotation(4, 4, 17, (0, 0, 64, 48), rectangle(0, 0, 64, 48)),
        annotation(5, 5, 3, (8, 30, 16, 16), rectangle(8, 30, 24, 46)),
    ]
    mask = np.zeros(sides, dtype=bool)
    mask[4:28, 30:60] = True
    given += [annotation(6, 5, 3, (30, 4, 30, 24), runs(mask), iscrowd=1), *more]
    path = write_instances(root, given, image_ids=())
    content = json.loads(path.read_text())
    content["images"] = write_images(root / "train2017", range(1, 6), sides)
    path.write_text(json.dumps(content))
    return CocoConfig(root=str(root), size=SIZE), path


def test_perfect_answers_are_perfect(tmp_path):
    config, _ = write(tmp_path)
    assert measure(config) == pytest.approx(PERFECT)
    world = WorldDetectionConfig(count=5, size=32, smallest=20)
    found = measure(world)
    assert set(found) == {name for name in PERFECT if "medium" not in name}
    assert min(found.values()) > 0.98, "masks of 28 cells on large objects"


def test_answers_are_compared_at_the_stored_size(tmp_path):
    """The network sees 64 pixels of images of 96 x 128: what it finds is laid out on those."""
    config, path = write(tmp_path)
    content = json.loads(path.read_text())
    content["images"] = write_images(tmp_path / "train2017", range(1, 6), (96, 128))
    for each in content["annotations"][:5]:
        each["bbox"] = [2 * side for side in each["bbox"]]
        each["segmentation"] = [[2 * side for side in each["segmentation"][0]]]
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    found = measure(config)
    assert set(found) == set(PERFECT), "the areas are those of the file, not doubled"
    assert min(found.values()) == pytest.approx(1.0)


def wrong_class(found, index):
    return found._replace(labels=(found.labels + 1) % 3)


def test_what_is_wrong_costs(tmp_path):
    config, _ = write(tmp_path)
    assert max(measure(config, wrong_class).values()) == 0

    def shifted(found, index):
        return found._replace(boxes=found.boxes + torch.tensor([4.0, 0, 4, 0]))

    scores = measure(config, shifted)
    assert scores["box_ap_50"] == 1 and scores["box_ap_75"] < 1 and scores["box_ap"] < 0.8

    def hollow(found, index):
        return found._replace(masks=found.masks * 0)

    scores = measure(config, hollow)
    assert scores["box_ap"] == 1 and scores["mask_ap"] == 0


def invented(found, index, image, box, score=0.99):
    """Add one more cat to the answer for one image."""
    if index != image:
        return found
    more = Detections(torch.tensor([box]), torch.tensor([1]), torch.tensor([score]),
                      torch.ones(1, 28, 28))  # fmt: skip
    return Detections(*(torch.cat(fields) for fields in zip(more, found)))


def test_images_without_objects_count_as_negatives(tmp_path):
    config, _ = write(tmp_path)
    scores = measure(config, lambda f, i: invented(f, i, 2, [5.0, 5, 30, 30]))
    assert scores["box_ap"] < 0.95 and scores["mask_ap"] < 0.95


def test_answers_inside_a_crowd_count_neither_way(tmp_path):
    config, path = write(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][-1]["category_id"] = 17  # a crowd of cats
    path.write_text(json.dumps(content))
    inside = [32.0, 6, 50, 20]
    assert measure(config, lambda f, i: invented(f, i, 4, inside)) == pytest.approx(PERFECT)
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    assert measure(config, lambda f, i: invented(f, i, 4, inside))["box_ap"] < 0.95


def noisy(found, index):
    """Answers of all qualities, and some too many."""
    draw = torch.Generator().manual_seed(index)
    boxes = found.boxes.repeat(4, 1)
    boxes = boxes + torch.randn(boxes.shape, generator=draw).cumsum(0)
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 4)
    masks = found.masks.repeat(4, 1, 1) * (torch.rand(len(boxes), 28, 1, generator=draw) > 0.05)
    scores = torch.rand(len(boxes), generator=draw)
    return Detections(boxes, found.labels.repeat(4), scores, masks)


def test_the_number_is_the_one_coco_gives(tmp_path):
    """The same answers, written as COCO's result file and measured by pycocotools alone.

    Also where boxes reach beyond the image or have no width.
    """
    odd = [
        annotation(7, 2, 17, (-9, 30, 40, 30), rectangle(0, 30, 31, 48)),
        annotation(8, 4, 3, (20, 10, 0, 12), rectangle(20, 10, 21, 22)),
    ]
    config, path = write(tmp_path, more=odd)
    ours = measure(config, noisy)
    source, results = config.build(), []
    oracle = Oracle(config.build(), noisy).eval()
    for batch in source.once(3):
        rows = zip(oracle.detect(batch.images), batch.image_ids.tolist())
        for found, image_id in rows:
            located = postprocess(found, (48, 64))
            results += coco_results(image_id, *located, source.category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        answers = truth.loadRes(json.loads(json.dumps(results)))
        for kind, name in (("bbox", "box"), ("segm", "mask")):
            official = COCOeval(truth, answers, kind)
            official.evaluate()
            official.accumulate()
            official.summarize()
            expected = dict(zip(MEASURES, official.stats))
            assert 0.1 < expected["ap"] < 0.95
            for measure_name in MEASURES[:3]:
                assert ours[f"{name}_{measure_name}"] == expected[measure_name]
    assert len(CATEGORIES) == 3


def test_only_the_first_images_are_measured_if_asked(tmp_path):
    config, _ = write(tmp_path)
    spoil = lambda found, index: wrong_class(found, index) if index >= 2 else found  # noqa: E731
    assert measure(config, spoil, num_images=2) == pytest.approx(PERFECT)
    assert measure(config, spoil)["box_ap"] < 0.9
    with pytest.raises(ValueError, match="num_images is -1; expected 0 <= num_images"):
        AveragePrecisionConfig(source=config, num_images=-1)


def test_nothing_to_find_is_refused(tmp_path):
    path = write_instances(tmp_path, [])
    assert path.exists()
    config = CocoConfig(root=str(tmp_path), size=SIZE)
    with pytest.raises(ValueError, match="none of the held-out images has an object"):
        measure(config)
