"""Segmentation from files: five layouts, crops, whole images, what is missing or does not fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.batches import DenseBatch
from mimlib.data.dense.segmentation import NUM_CLASSES, SegmentationFilesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
SHAPE = (20, 28)
SPLITS = {"ade20k": "training", "voc": "train", "folders": "",
          "coco_semantic": "train2017", "coco_panoptic": "train2017"}  # fmt: skip
PLACES = {
    "ade20k": ("images/training/{}.jpg", "annotations/training/{}.png"),
    "voc": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    "folders": ("images/{}.png", "labels/{}.png"),
    "coco_semantic": ("images/train2017/{}.jpg", "semantic_masks/train2017/{}.png"),
    "coco_panoptic": ("train2017/{}.jpg", "annotations/panoptic_train2017/{}.png"),
}
# What stands for no class, for the first class and for the second.
STORED = {"ade20k": (0, 1, 2), "voc": (255, 0, 1), "folders": (255, 0, 1),
          "coco_semantic": (0, 1, 2), "coco_panoptic": (0, 900, 70_000)}  # fmt: skip


def write(root, layout, names=("a", "b", "c"), shape=SHAPE):
    """The right half is bright and of the second class, the top row of none."""
    entries = []
    for name in names:
        image, labels = (root / place.format(name) for place in PLACES[layout])
        for path in (image, labels):
            path.parent.mkdir(parents=True, exist_ok=True)
        right = np.arange(shape[1]) >= shape[1] // 2
        pixels = np.where(right, 200, 20).astype(np.uint8)
        pixels = np.broadcast_to(pixels[None, :, None], (*shape, 3))
        Image.fromarray(np.ascontiguousarray(pixels)).save(image, quality=100, subsampling=0)
        none, first, second = STORED[layout]
        stored = np.where(right, second, first) * np.ones(shape, dtype=np.int64)
        stored[0] = none
        if layout == "coco_panoptic":
            stored = np.stack([stored % 256, stored // 256 % 256, stored // 65536], axis=-1)
            segments = [{"id": first, "category_id": 1}, {"id": second, "category_id": 2}]
            entries.append({"file_name": f"{name}.png", "segments_info": segments})
        picture = Image.fromarray(stored.astype(np.uint8))
        if layout == "voc":
            picture.putpalette([7 * i % 256 for i in range(768)])
        picture.save(labels)
    if layout == "voc":
        (root / "ImageSets/Segmentation").mkdir(parents=True)
        (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[:2]) + "\n")
    if layout == "coco_panoptic":
        text = json.dumps({"annotations": entries})
        (root / "annotations/panoptic_train2017.json").write_text(text)


def config(root, layout, **changes):
    own = {"num_classes": 2} if layout == "folders" else {}
    values = {"root": str(root), "layout": layout, "split": SPLITS[layout], "size": 16}
    return SegmentationFilesConfig(**values | own | changes)


@pytest.mark.parametrize("layout", PLACES)
def test_layouts(tmp_path, layout):
    write(tmp_path, layout)
    source = config(tmp_path, layout, distort=False).build()
    assert len(source) == (2 if layout == "voc" else 3)
    whole = source.first(2)
    assert isinstance(whole, DenseBatch)
    assert whole.images.shape == (2, 3, *SHAPE) and whole.images.dtype == torch.uint8
    assert whole.target.shape == whole.valid.shape == (2, *SHAPE)
    assert whole.target.dtype == torch.int64 and whole.valid.dtype == torch.bool
    assert not whole.valid[:, 0].any() and whole.valid[:, 1:].all()
    crops = next(source.batches(0, 12, seed=0))
    assert crops.images.shape == (12, 3, 16, 16)
    for batch in (whole, crops):
        assert set(batch.target[batch.valid].tolist()) == {0, 1}
        sure = (batch.images[:, 0] < 40) | (batch.images[:, 0] > 180)
        sure &= batch.valid
        assert sure.float().mean() > 0.4
        assert torch.equal((batch.images[:, 0] > 100)[sure], (batch.target == 1)[sure])
    assert torch.equal(next(source.batches(0, 12, seed=0)).images, crops.images)
    assert not torch.equal(next(source.batches(1, 12, seed=0)).images, crops.images)


def test_colors_do_not_move_labels(tmp_path):
    write(tmp_path, "ade20k")
    plain, distorted = (
        next(config(tmp_path, "ade20k", distort=d).build().batches(0, 20, seed=0))
        for d in (False, True)
    )
    assert torch.equal(plain.target, distorted.target)
    assert torch.equal(plain.valid, distorted.valid)
    assert not torch.equal(plain.images, distorted.images)


def test_coco_images_may_lie_in_a_folder_of_images(tmp_path):
    write(tmp_path, "coco_panoptic")
    (tmp_path / "images").mkdir()
    (tmp_path / "train2017").rename(tmp_path / "images/train2017")
    assert len(config(tmp_path, "coco_panoptic").build()) == 3


def test_a_list_chooses_from_folders(tmp_path):
    write(tmp_path, "folders")
    (tmp_path / "half.txt").write_text("c\na\n")
    source = config(tmp_path, "folders", split="half").build()
    assert [source.files.paths(i)[1] for i in range(2)] == [
        str(tmp_path / f"labels/{name}.png") for name in "ca"
    ]
    with pytest.raises(ValueError, match=r"cannot read .*other.txt"):
        config(tmp_path, "folders", split="other").build()


def test_whole_images_of_different_sizes_come_one_at_a_time(tmp_path):
    write(tmp_path, "folders", names=("a", "b"))
    write(tmp_path, "folders", names=("c",), shape=(24, 20))
    source = config(tmp_path, "folders").build()
    sizes = [tuple(batch.images.shape[-2:]) for batch in source.once(1)]
    assert sizes == [SHAPE, SHAPE, (24, 20)]
    with pytest.raises(ValueError, match=r"\(20, 28\), \(24, 20\).* make no batch; ask for one"):
        source.first(3)
    assert next(source.batches(0, 6, seed=0)).images.shape == (6, 3, 16, 16)


def test_an_image_without_any_class_is_an_image_without_truth(tmp_path):
    write(tmp_path, "ade20k", names=("a",))
    Image.new("L", SHAPE[::-1]).save(tmp_path / "annotations/training/a.png")
    source = config(tmp_path, "ade20k").build()
    assert not source.first(1).valid.any()
    assert not next(source.batches(0, 4, seed=0)).valid.any()


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing in the layout 'ade20k', split 'training'"):
        config(tmp_path, "ade20k").build()
    write(tmp_path, "ade20k")
    Image.new("RGB", (10, 10)).save(tmp_path / "images/training/b.jpg")
    source = config(tmp_path, "ade20k").build()
    with pytest.raises(ValueError, match=r"different sizes .b.jpg \(10, 10\), b.png \(20, 28\)"):
        list(source.once(1))
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "annotations/training/a.png")
    with pytest.raises(ValueError, match="a.png holds colors .mode RGB."):
        source.first(1)
    (tmp_path / "images/training/a.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read .*a.jpg"):
        source.first(1)
    (tmp_path / "images/training/c.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 6 files .*missing: .*images/training/c.jpg"):
        config(tmp_path, "ade20k").build()


def test_unknown_numbers_of_folders_are_refused_with_their_file(tmp_path):
    write(tmp_path, "folders")
    source = config(tmp_path, "folders", num_classes=1).build()
    with pytest.raises(ValueError, match=r"a.png holds the numbers \[1\].*from 0, 255"):
        source.first(1)


@pytest.mark.parametrize("layout,number", [("folders", 0), ("folders", 256), ("voc", 21)])
def test_the_number_of_classes_is_for_folders(layout, number):
    with pytest.raises(ValueError, match=f"num_classes is {number} for the layout '{layout}'"):
        SegmentationFilesConfig(root=".", layout=layout, size=16, num_classes=number)


def test_the_layouts_know_their_classes():
    assert NUM_CLASSES == {"ade20k": 150, "voc": 21, "coco_semantic": 133, "coco_panoptic": 133}


def test_workers_give_the_same_batches(tmp_path):
    write(tmp_path, "voc")
    alone, helped = (
        next(config(tmp_path, "voc", workers=w).build().batches(2, 4, seed=1)) for w in (0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, helped))
