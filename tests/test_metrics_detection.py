"""Average precision equals COCOeval's on files that it reads itself, with ties and odd images."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mimlib.metrics.detection import KINDS, MEASURES, average_precision

SIDE, IMAGES, CLASSES = 200, 12, 4
SIDES = (8, 20, 32, 64, 96, 120)  # small, medium, large, and just between them


def rectangle(left, top, width, height, filled=1.0):
    """A box, and a mask of its upper rows."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[top : top + round(filled * height), left : left + width] = 1
    runs = coco_mask.encode(mask)
    return {
        "bbox": [left, top, width, height],
        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
    }


def random_scenes(seed, num_objects=7):
    """Objects and answers of whole pixels and few scores: overlaps at thresholds, ties."""
    draw = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(0 if image % 5 == 0 else num_objects):
            width, height = (int(side) for side in draw.choice(SIDES, 2))
            left, top = (int(draw.integers(SIDE - side + 1)) for side in (width, height))
            category = int(draw.integers(CLASSES)) if seed % 2 else int(draw.integers(2, CLASSES))
            about = {"image_id": image, "category_id": category}
            known = rectangle(left, top, width, height)
            crowd = int(draw.random() < 0.1)
            truth.append({**about, **known, "area": width * height, "iscrowd": crowd})
            for _ in range(int(draw.integers(3))):
                shrunk = max(1, round(width * draw.choice([1, 0.95, 0.9, 0.75, 0.5, 0.3])))
                score = float(draw.choice([0.25, 0.5, 0.5, 0.75]))
                answer = rectangle(left, top, shrunk, height, draw.choice([1, 0.9, 0.75, 0.5]))
                found.append({**about, **answer, "score": score})
        lost = rectangle(*(int(n) for n in draw.integers(1, 60, 4)))
        found.append({"image_id": image, "category_id": int(draw.integers(CLASSES)), **lost,
                      "score": 0.5})  # fmt: skip
    return truth, found


def official(path, truth, found):
    """What pycocotools makes of the file of a data set and the file of a method's results."""
    images = [{"id": n, "height": SIDE, "width": SIDE} for n in range(1, IMAGES + 1)]
    content = {
        "images": images,
        "categories": [{"id": n, "name": str(n)} for n in range(CLASSES + 1)],
        "annotations": [{**row, "id": n} for n, row in enumerate(truth, 1)],
    }
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        data, stats = COCO(str(path)), {}
        for kind, name in KINDS.items():
            rows = [{k: v for k, v in r.items() if k != "bbox" or kind == "bbox"} for r in found]
            results = path.with_name(f"{kind}.json")
            results.write_text(json.dumps(rows))
            measured = COCOeval(data, data.loadRes(str(results)), kind)
            measured.evaluate()
            measured.accumulate()
            measured.summarize()
            stats |= {f"{name}_{m}": float(v) for m, v in zip(MEASURES, measured.stats)}
    return stats


@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_numbers_are_cocos(tmp_path, seed):
    truth, found = random_scenes(seed)
    ours = average_precision(truth, found, IMAGES)
    assert len(ours) == 12 and ours == official(tmp_path / "a.json", truth, found)
    assert len({round(value, 3) for value in ours.values()}) > 8, "no trivial case"


def test_overlaps_are_compared_as_coco_compares_them(tmp_path):
    """5 objects, 3 of the surest right, then 15 wrong: recall 0.6 falls between float32's 0.6s."""
    truth = [
        {**rectangle(12 * n, 4, 8, 8), "image_id": 1, "category_id": 0, "area": 64, "iscrowd": 0}
        for n in range(5)
    ]
    right = [rectangle(12 * n, 4, 8, 8) for n in range(5)]
    wrong = [rectangle(12 * n, 100, 8, 8) for n in range(15)]
    rows = enumerate(right[:3] + wrong + right[3:])
    found = [{**r, "image_id": 1, "category_id": 0, "score": 0.9 - n / 100} for n, r in rows]
    ours = average_precision(truth, found, IMAGES)
    theirs = official(tmp_path / "a.json", truth, found)
    assert ours == {name: value for name, value in theirs.items() if value >= 0}
    assert set(ours) == {f"{k}_{m}" for k in ("box", "mask") for m in MEASURES[:4]}, "sizes there"


def test_without_answers_all_is_0_and_without_objects_there_is_no_number():
    truth, found = random_scenes(1)
    assert set(average_precision(truth, [], IMAGES).values()) == {0.0}
    crowds = [{**row, "iscrowd": 1} for row in truth]
    for nothing in ([], crowds):
        with pytest.raises(ValueError, match="nothing was counted"):
            average_precision(nothing, found, IMAGES)
