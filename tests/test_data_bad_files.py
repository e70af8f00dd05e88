"""One contract of all sources of files: what is missing, torn, or no image at all.

Training replaces what cannot be read by the next readable item, names it and stops at too many;
a missing file is found when the source is built; what is measured is never replaced.
"""

import itertools
import json
import warnings

import number_files
import numpy as np
import pytest
import torch
from coco_files import CATEGORIES, annotation, rectangle, write_images
from PIL import Image

from mimlib.data.dense.depth import DepthFilesConfig
from mimlib.data.dense.segmentation import SegmentationFilesConfig
from mimlib.data.files.numbers import Dense
from mimlib.data.files.source import REPLACEMENTS
from mimlib.data.images.configs import ImageFolderConfig
from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.mixture import MixtureConfig, Part
from mimlib.data.objects.coco import CocoConfig
from mimlib.data.pairs.crops import CropListConfig
from mimlib.data.pairs.files import PairFolderConfig
from mimlib.data.pairs.homography import HomographyPairsConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
COUNT, SHAPE = 40, (24, 32)
FIELD = {"images": "images", "pairs": "image_1"}


def picture(path, index):
    """A picture of one color, which tells it from the others through any crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SHAPE, 3), 5 * index, dtype=np.uint8)).save(path)
    return path


def gray(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_folder(root):
    return [picture(root / f"{index:03d}.png", index) for index in range(COUNT)]


def folder(root):
    return write_folder(root), ImageFolderConfig(root=str(root), size=16)


def homographies(root):
    images = ImageFolderConfig(root=str(root), size=24)
    return write_folder(root), HomographyPairsConfig(images=images, size=16, jitter=0.0)


def pairs(root):
    files = [picture(root / f"{index:03d}_2.png", index) for index in range(COUNT)]
    for index in range(COUNT):
        picture(root / f"{index:03d}_1.png", index)
    return files, PairFolderConfig(root=str(root), size=16, jitter=0.0)


def crops(root):
    files = write_folder(root)
    lines = [f"{f.name}, {f.name}, 0\n0, 24, 0, 24, 0, 24, 0, 24\n" for f in files]
    (root / "crops.txt").write_text("".join(lines))
    return files, CropListConfig(root=str(root), crops=str(root / "crops.txt"), size=16, jitter=0.0)


def matching(root, layout="flying_chairs"):
    truth = Dense(torch.zeros(*SHAPE, 2), torch.ones(SHAPE, dtype=torch.bool))
    files = []
    for index in range(COUNT):
        stem = f"{index + 1:05d}"
        files += [picture(root / f"data/{stem}_img1.ppm", index)]
        picture(root / f"data/{stem}_img2.ppm", index)
        number_files.write_flo(root / f"data/{stem}_flow.flo", truth)
    return files, MatchingFilesConfig(root=str(root), layout=layout, size=(16, 16), jitter=0.0)


def truths(root):
    """The ground truth is what breaks."""
    files, config = matching(root)
    return [path.with_name(path.name.replace("img1.ppm", "flow.flo")) for path in files], config


def depth(root):
    files = [picture(root / f"rgb/{index:03d}.png", index) for index in range(COUNT)]
    for file in files:
        gray(root / "depth" / file.name, np.full(SHAPE, 1000, dtype=np.uint16))
    return files, DepthFilesConfig(root=str(root), layout="nyuv2", size=16)


def segmentation(root):
    for index in range(COUNT):
        picture(root / f"images/{index:03d}.png", index)
        gray(root / f"labels/{index:03d}.png", np.zeros(SHAPE, dtype=np.uint8))
    files = [root / f"labels/{index:03d}.png" for index in range(COUNT)]
    return files, SegmentationFilesConfig(
        root=str(root), layout="folders", num_classes=2, size=16, distort=False, scale=(1.0, 1.0)
    )


def coco(root):
    ids = list(range(1, COUNT + 1))
    listed = write_images(root / "train2017", ids, SHAPE)
    files = [picture(root / "train2017" / each["file_name"], i) for i, each in enumerate(listed)]
    objects = [annotation(i, i, 17, (2, 2, 20, 18), rectangle(2, 2, 22, 20)) for i in ids]
    content = {"images": listed, "annotations": objects, "categories": CATEGORIES}
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return files, CocoConfig(root=str(root), size=16, scale=(1.0, 1.0))


def mixture(root):
    files, config = pairs(root)
    return files, MixtureConfig(parts=(Part(pairs=config),))


KINDS = {
    each.__name__: each
    for each in (
        *(folder, homographies, pairs, crops, matching, truths, depth, segmentation, coco),
        mixture,
    )
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
WAYS = {
    "empty": lambda path: path.write_bytes(b""),
    "no image": lambda path: path.write_text("<html>404</html>"),
    "torn": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}


def spoil(path, way="no image"):
    WAYS[way](path)


def shown(batch):
    """Which items a batch shows: their color, from the middle (crops may be padded)."""
    images = batch[0]
    middle = images[:, 0, images.shape[2] // 4, images.shape[3] // 4]
    return (middle.float() / 5).round().int().tolist()


def taken(source, start=0, batches=1, size=COUNT):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(itertools.islice(source.batches(start, size, seed=0), batches))
    return found, [str(w.message) for w in caught if "unreadable" in str(w.message)]


@kinds
@pytest.mark.parametrize("way", ["empty", "no image", "torn"])
def test_bad_files_are_replaced_counted_and_named(tmp_path, kind, way):
    files, config = kind(tmp_path)
    clean, told = taken(config.build())
    assert not told
    spoil(files[7], way)
    source = config.build()
    (batch,), told = taken(source)
    before, after = shown(clean[0]), shown(batch)
    assert sorted(before) == list(range(COUNT))
    assert after == [8 if index == 7 else index for index in before]
    assert len(told) == 1 and "1 unreadable images skipped, 1 so far" in told[0]
    assert files[7].name[:3] in told[0]
    again, told = taken(source, start=1)
    assert not told, "each is named once"
    (alone,), _ = taken(config.build(), start=1)
    assert all(torch.equal(a, b) for a, b in zip(again[0], alone) if isinstance(a, torch.Tensor)), (
        "of its step alone"
    )


@kinds
def test_too_many_bad_files_stop_with_their_names(tmp_path, kind):
    files, config = kind(tmp_path)
    for path in files[3:8]:  # of 40: more than a tenth
        spoil(path)
    with pytest.raises(ValueError, match=r"(?s)5 images in .* cannot be read, too many.*remove or"):
        taken(config.build())


@kinds
def test_many_bad_files_in_a_row_stop_at_once(tmp_path, kind):
    files, config = kind(tmp_path)
    for path in files:
        spoil(path)
    with pytest.raises(ValueError, match=f"{REPLACEMENTS} images in .* cannot be read, too many"):
        taken(config.build(), size=1)


@kinds
def test_nothing_stands_in_where_the_set_is_measured(tmp_path, kind):
    files, config = kind(tmp_path)
    spoil(files[7])
    source = config.build()
    with pytest.raises(ValueError, match=r"cannot|no \.flo file") as caught:
        list(source.once(1))
    assert files[7].name[:5] in str(caught.value) and "nothing can stand in" in str(caught.value)
    with pytest.raises(ValueError, match="nothing can stand in"):
        source.first(COUNT)
    assert shown(source.first(1)) == [0]


@pytest.mark.parametrize("kind", [pairs, crops, matching, depth, segmentation, coco])
def test_missing_files_are_found_when_the_source_is_built(tmp_path, kind):
    files, config = kind(tmp_path)
    gone = files[7]
    if kind is segmentation:  # what is missing is found by what is there: the image
        gone = tmp_path / "images/007.png"
    gone.unlink()
    with pytest.raises(ValueError, match=rf"(?s)missing.*{gone.name[:3]}|no image rgb/007"):
        config.build()


def test_a_link_to_nowhere_is_read_around_like_a_broken_file(tmp_path):
    files, config = folder(tmp_path)
    files[7].unlink()
    files[7].symlink_to(tmp_path / "nowhere.png")
    source = config.build()
    assert f"{COUNT} " in source.identity()
    with pytest.warns(UserWarning, match="1 unreadable images skipped"):
        next(source.batches(0, COUNT, 0))


@kinds
def test_a_set_is_known_by_its_content_and_not_by_its_place(tmp_path, kind):
    (tmp_path / "a").mkdir()
    files, config = kind(tmp_path / "a")
    same = config.build().identity()
    assert same == config.build().identity() and f"{COUNT} " in same
    (tmp_path / "b").mkdir()
    _, elsewhere = kind(tmp_path / "b")
    assert elsewhere.build().identity() == same
    files[7].write_bytes(files[7].read_bytes() + b"more")
    assert config.build().identity() != same
    if kind in (folder, homographies):
        files[7].rename(files[7].with_name("zzz.png"))
        assert config.build().identity() not in (same, elsewhere.build().identity())
