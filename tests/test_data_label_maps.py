"""Label maps: numbering, pixels without a class, files that are none, panoptic files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.dense.label_maps import (
    ADE20K_IDS,
    COCO_IDS,
    UNLABELED,
    VOC_IDS,
    PanopticReader,
    class_table,
    read_label_map,
)
from mimlib.data.files.listing import Listing, find_beside, read_names

ADE20K, VOC, COCO = (
    class_table(ids, ignored)
    for ids, ignored in ((ADE20K_IDS, (0, 255)), (VOC_IDS, (255,)), (COCO_IDS, (0,)))
)


def write(path, values, palette=False, dtype=np.uint8):
    picture = Image.fromarray(np.array(values, dtype=dtype))
    if palette:
        picture = picture.convert("P") if picture.mode != "L" else picture
        picture.putpalette([(37 * i) % 256 for i in range(768)])
        assert picture.mode == "P"
    picture.save(path)
    return path


@pytest.mark.parametrize(
    "table,stored,classes",
    [
        (ADE20K, [[0, 1], [150, 255]], [[-1, 0], [149, -1]]),
        (VOC, [[0, 20], [255, 15]], [[0, 20], [-1, 15]]),
        (COCO, [[0, 1, 90], [13, 92, 200]], [[-1, 0, 79], [11, 80, 132]]),
    ],
)
@pytest.mark.parametrize("palette", [False, True])
def test_numbers_become_classes(tmp_path, table, stored, classes, palette):
    read = read_label_map(write(tmp_path / "map.png", stored, palette), table)
    assert read.dtype == torch.int64 and read.tolist() == classes


def test_sixteen_bits_and_one_bit_are_numbers_too(tmp_path):
    table = class_table(range(1000), (65535,))
    path = write(tmp_path / "map.png", [[999, 65535], [256, 0]], dtype=np.uint16)
    assert read_label_map(path, table).tolist() == [[999, UNLABELED], [256, 0]]
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(path)
    assert read_label_map(path, table).tolist() == [[0, 1]]


@pytest.mark.parametrize("table,number,ranges", [
    (ADE20K, 151, "0 to 150, 255"), (VOC, 21, "0 to 20, 255"), (COCO, 12, "0 to 11, 13 to 25"),
])  # fmt: skip
def test_numbers_of_another_data_set_are_refused(tmp_path, table, number, ranges):
    path = write(tmp_path / "map.png", [[1, number]])
    with pytest.raises(ValueError, match=rf"map.png holds the numbers \[{number}\].*{ranges}"):
        read_label_map(path, table)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colors_in_place_of_numbers_are_refused(tmp_path, mode):
    path = tmp_path / "map.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(ValueError, match=f"map.tif holds colors .mode {mode}.; expected"):
        read_label_map(path, VOC)


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "map.png").write_bytes(b"broken")
    for name in ("map.png", "other.png"):
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            read_label_map(tmp_path / name, VOC)


def test_coco_has_80_things_and_53_kinds_of_stuff():
    assert len(COCO_IDS) == len(set(COCO_IDS)) == 133
    assert sum(i <= 90 for i in COCO_IDS) == 80
    assert list(COCO_IDS) == sorted(COCO_IDS)


def write_panoptic(folder, segments, pixels, name="000.png"):
    """A JSON and its one picture; pixels [H, W] are numbers of segments."""
    (folder / "panoptic").mkdir(exist_ok=True)
    pixels = np.array(pixels)
    colors = np.stack([pixels % 256, pixels // 256 % 256, pixels // 65536], axis=-1)
    Image.fromarray(colors.astype(np.uint8)).save(folder / "panoptic" / name)
    entry = {
        "file_name": name,
        "segments_info": [{"id": i, "category_id": c, "iscrowd": 0} for i, c in segments],
    }
    (folder / "panoptic.json").write_text(json.dumps({"annotations": [entry]}))
    return folder / "panoptic.json", folder / "panoptic" / name


def test_panoptic_segments_become_classes(tmp_path):
    segments = [(70_000, 1), (5, 200), (300, 1)]  # two people
    path, picture = write_panoptic(tmp_path, segments, [[70_000, 5], [300, 0]])
    assert PanopticReader(path)(picture).tolist() == [[0, 132], [0, UNLABELED]]


def test_panoptic_files_that_do_not_fit_are_refused(tmp_path):
    path, picture = write_panoptic(tmp_path, [(5, 1)], [[5, 6], [0, 0]])
    with pytest.raises(ValueError, match=r"holds the segments \[6\], which its JSON does not name"):
        PanopticReader(path)(picture)
    with pytest.raises(ValueError, match="has no entry for 001.png"):
        PanopticReader(path)(picture.with_name("001.png"))
    path, _ = write_panoptic(tmp_path, [(5, 12)], [[5]])
    for wrong in (path, tmp_path / "none.json"):
        with pytest.raises(ValueError, match="cannot read .* as COCO panoptic annotations"):
            PanopticReader(wrong)
    path.write_text("[]")
    with pytest.raises(ValueError, match="as COCO panoptic annotations: TypeError"):
        PanopticReader(path)


def test_images_are_found_beside_their_label_maps(tmp_path):
    for name in ("a/1.png", "a/2.png", "3.png"):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "labels" / name, [[0]])
    for name in ("a/1.jpg", "a/2.webp", "3.png", "unlabeled.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    found = find_beside(tmp_path, "images/*", "labels/*.png")
    assert [image for image, _ in found] == ["images/3.png", "images/a/1.jpg", "images/a/2.webp"]
    assert find_beside(tmp_path, "images/*", "labels/*.png", ["a/2"]) == found[2:]
    named = find_beside(tmp_path, "images/*", "labels/*.png", ["a/1", "unlabeled"])
    with pytest.raises(ValueError, match=r"1 of 4 files .* missing: labels/unlabeled.png"):
        Listing(tmp_path, named).check("")
    (tmp_path / "images/3.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 6 files .* missing: images/3.jpg"):
        Listing(tmp_path, find_beside(tmp_path, "images/*", "labels/*.png")).check("")


def test_lists_of_names(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("2007_000032\n\n2007_000039 1\n2007_000063.jpg\nv1.2\n")
    assert read_names(path) == ["2007_000032", "2007_000039", "2007_000063", "v1.2"]
    path.write_text("night stand\nstreet sign  -1\nmy dog 1.JPG 0 12\nmy dog.png\n1\n")
    assert read_names(path) == ["night stand", "street sign", "my dog 1", "my dog", "1"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="names no image"):
        read_names(path)
    with pytest.raises(ValueError, match="cannot read .*val.txt"):
        read_names(tmp_path / "val.txt")
