"""Pairs from files: layouts, order, what is missing, sizes; lists of crops; RGB-D sequences."""

import itertools
import json

import numpy as np
import pytest
import torch
from number_files import write_depth_png
from PIL import Image

from mimlib.data.files.numbers import Dense
from mimlib.data.pairs.crops import CropListConfig, cut_box, read_crop_list
from mimlib.data.pairs.files import PairFolderConfig, find_pairs
from mimlib.data.pairs.rgbd import RGBDPairsConfig, find_sequences

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def write(path, value, size=(32, 32)):
    """Write an image whose red is the column, green the row, blue a value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, dtype=np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(size[1]) * 4, np.arange(size[0])[:, None] * 4
    Image.fromarray(pixels).save(path)


def write_pairs(folder, count=10, ending="png", size=(32, 32)):
    for index in range(count):
        for view in (1, 2):
            name = f"{index:08d}_{view}.{ending}"
            write(folder / "ab"[index % 2] / name, 10 * index + view, size)


def blue(view):
    return view[:, 2, 0, 0].tolist()


def test_pairs_are_found_by_their_names(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "a" / "notes_1.txt").write_text("no image")
    write(tmp_path / "a" / "alone.png", 0)
    source = PairFolderConfig(root=str(tmp_path), size=28, jitter=0.0).build()
    assert len(source) == 10
    first, second = source.first(10)
    assert first.shape == second.shape == (10, 3, 28, 28)
    assert blue(first) == [1, 21, 41, 61, 81, 11, 31, 51, 71, 91]
    assert blue(second) == [value + 1 for value in blue(first)]
    batch = next(source.batches(0, 60, seed=0))
    assert torch.equal(batch.image_1[:, 2] + 1, batch.image_2[:, 2])
    corners = [view[:, :2, 0, 0] // 4 for view in batch]
    assert not torch.equal(*corners)
    assert all(corner.amin() == 0 and corner.amax() == 4 for corner in corners)


def test_colors_are_jittered_each_view_for_itself(tmp_path):
    write_pairs(tmp_path)
    source = PairFolderConfig(root=str(tmp_path), size=32).build()
    means = [view.float().mean((1, 2, 3)) for view in next(source.batches(0, 10, seed=0))]
    assert (means[0] - means[1]).abs().min() > 0.5


def test_workers_change_nothing(tmp_path):
    write_pairs(tmp_path)
    batches = [
        list(itertools.islice(
            PairFolderConfig(root=str(tmp_path), size=28, workers=w).build().batches(1, 4, 0), 3
        ))
        for w in (0, 1)
    ]  # fmt: skip
    for one, two in zip(*batches):
        assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_a_list_of_pairs_is_obeyed(tmp_path):
    write_pairs(tmp_path)
    lines = ["# the first one turned round", "a/00000000_2.png a/00000000_1.png"]
    (tmp_path / "pairs.txt").write_text("\n".join([*lines, "", "b/00000001_1.png alone.png"]))
    write(tmp_path / "alone.png", 99)
    first, second = PairFolderConfig(root=str(tmp_path), size=28).build().first(2)
    assert blue(first) == [2, 11] and blue(second) == [1, 99]
    (tmp_path / "pairs.txt").write_text("a/00000000_2.png\n")
    with pytest.raises(ValueError, match="line 1: expected the paths of two images"):
        find_pairs(str(tmp_path))


def describe(folder, keys):
    view = {"positions": [[0, 0, 0]] * 2, "orientations": [[1, 0, 0, 0]] * 2}
    content = {"scene": "hm3d/x", "multiviews": {key: view for key in keys}}
    (folder / "metadata.json").write_text(json.dumps(content))


def test_metadata_of_the_habitat_generator_is_obeyed(tmp_path):
    write_pairs(tmp_path, ending="jpeg")
    describe(tmp_path / "a", ["00000004", "00000000"])
    describe(tmp_path / "b", ["00000001"])
    pairs = find_pairs(str(tmp_path))
    names = ["a/00000000", "a/00000004", "b/00000001"]
    assert pairs == [(f"{name}_1.jpeg", f"{name}_2.jpeg") for name in names]
    describe(tmp_path / "a", ["00000004", "00000012"])
    (tmp_path / "b" / "metadata.json").write_text('{"multiviews": {}}')
    with pytest.raises(ValueError, match="2 of 4 files .*a/00000012_1.jpeg.*finish"):
        PairFolderConfig(root=str(tmp_path), size=28).build()
    (tmp_path / "b" / "metadata.json").write_text("{}")
    with pytest.raises(
        ValueError, match="cannot read .*b/metadata.json as metadata of CroCo's generator"
    ):
        find_pairs(str(tmp_path))


def test_a_missing_second_image_is_named(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "a" / "00000002_2.png").unlink()
    with pytest.raises(ValueError, match="1 of 20 files .*a/00000002_2.png"):
        PairFolderConfig(root=str(tmp_path), size=28).build()


def test_folders_without_pairs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds nothing to pair: expected NAME_1.jpeg"):
        PairFolderConfig(root=str(tmp_path), size=28).build()
    with pytest.raises(ValueError, match="there is no folder"):
        PairFolderConfig(root=str(tmp_path / "x"), size=28).build()


def test_an_unreadable_image_takes_its_pair_out(tmp_path):
    write_pairs(tmp_path, count=20)
    (tmp_path / "a" / "00000004_2.png").write_bytes(b"broken")
    source = PairFolderConfig(root=str(tmp_path), size=28, jitter=0.0).build()
    with pytest.warns(UserWarning, match="1 unreadable images skipped"):
        first, second = next(source.batches(0, 20, seed=0))
    assert torch.equal(first[:, 2, 0, 0] + 1, second[:, 2, 0, 0])
    assert sorted(blue(first)).count(61) == 2  # the next pair stands in for it
    with pytest.raises(ValueError, match="cannot read .*00000004_2.png.* nothing can stand in"):
        next(source.once(20))


def test_images_of_any_size_become_the_stored_square(tmp_path):
    write(tmp_path / "x_1.png", 7, (40, 64))
    write(tmp_path / "x_2.png", 8, (16, 9))
    batch = next(PairFolderConfig(root=str(tmp_path), size=28).build().batches(0, 4, seed=0))
    assert batch.image_1.shape == batch.image_2.shape == (4, 3, 28, 28)


CROPS = """# image_1, image_2, rotation
one.png, two.png, 0
0, 32, 0, 32, 8, 24, 4, 20
two.png, one.png, 90
4, 12, 6, 14, 0, 40, 0, 40
"""


@pytest.fixture
def crops(tmp_path):
    for number, name in enumerate(("one", "two")):
        write(tmp_path / "photos" / f"{name}.png", 50 * number, (48, 64))
    (tmp_path / "crops.txt").write_text(CROPS)
    return CropListConfig(
        root=str(tmp_path / "photos"), crops=str(tmp_path / "crops.txt"), size=14, jitter=0.0
    )


def test_crop_lists_are_read_in_the_order_left_right_top_bottom(crops):
    first, second = read_crop_list(crops.crops)
    assert first[:3] == ("one.png", "two.png", 0)
    assert (first.box_1, first.box_2) == ((0, 0, 32, 32), (8, 4, 24, 20))
    assert (second.image_1, second.rotation, second.box_1) == ("two.png", 90, (4, 6, 12, 14))


def test_crops_come_out_of_their_arrays_as_they_went_in(crops):
    listed = list(read_crop_list(crops.crops))
    source, above = crops.build(), f"{crops.root}/"
    found = [source.crop(index) for index in range(len(source))]
    found = [
        c._replace(image_1=c.image_1.removeprefix(above), image_2=c.image_2.removeprefix(above))
        for c in found
    ]
    assert found == listed
    assert len(source.files) == 2  # many crops share their images


def test_crops_are_cut_resized_and_turned(crops):
    source = crops.build()
    assert len(source) == 2 and crops.stored_size == 16
    (one, two), turned = (source.read(index) for index in (0, 1))
    assert one.shape == two.shape == (3, 16, 16)
    assert torch.equal(two[0], torch.arange(8, 24, dtype=torch.uint8).expand(16, 16) * 4)
    assert (two[1, :, 0] == torch.arange(4, 20) * 4).all()
    assert (one[0, 0].int().diff() > 0).all()
    assert (turned[1][0, :, 0].int().diff() < 0).all()  # a quarter turn to the left: columns go up
    assert next(source.batches(0, 4, seed=0)).image_2.shape == (4, 3, 14, 14)


@pytest.mark.parametrize(("rotation", "quarters"), [(0, 0), (60, 0), (-60, 0), (61, 1), (-90, 3),
                                                    (180, 2), (269, 3)])  # fmt: skip
def test_small_rotations_are_none(crops, tmp_path, rotation, quarters):
    boxes = "0, 9, 0, 9, 0, 16, 0, 16"
    (tmp_path / "crops.txt").write_text(f"one.png, two.png, {rotation}\n{boxes}\n")
    _, second = crops.build().read(0)
    upright = cut_box(str(tmp_path / "photos" / "two.png"), (0, 0, 16, 16), 16)
    assert torch.equal(second, torch.rot90(upright, quarters, (1, 2)))


@pytest.mark.parametrize("content", ["0, 1, 0, 1, 0, 1, 0, 1", "a, b, 0\n1, 2", "a, b, north"])
def test_broken_crop_lists_are_named(crops, tmp_path, content):
    (tmp_path / "crops.txt").write_text(content)
    with pytest.raises(ValueError, match=r"crops.txt, line \d: expected"):
        crops.build()


def test_crop_lists_without_crops_or_images(crops, tmp_path):
    (tmp_path / "crops.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds nothing that .*crops.txt lists"):
        crops.build()
    (tmp_path / "crops.txt").write_text("one.png, gone.png, 0\n0, 9, 0, 9, 0, 9, 0, 9\n")
    with pytest.raises(ValueError, match="1 of 2 files .*gone.png"):
        crops.build()


def write_frame(folder, index, x):
    """A camera x metres to the side before a wall 2 m away, 32 x 24 pixels of 60 degrees."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"frame-{index:06d}"
    write(stem.with_suffix(".color.png"), index, (24, 32))
    depth = Dense(torch.full((24, 32, 1), 2.0), torch.ones(24, 32, dtype=torch.bool))
    write_depth_png(stem.with_suffix(".depth.png"), depth)
    pose = np.eye(4)
    pose[0, 3] = x
    np.savetxt(stem.with_suffix(".pose.txt"), pose)


@pytest.fixture
def scene(tmp_path):
    for index, x in enumerate((0.0, 0.3, 5.0)):
        write_frame(tmp_path / "seq-01", index, x)
        write_frame(tmp_path / "seq-02", index, x + 0.1)
    focal = 16 / np.tan(np.deg2rad(30))
    for sequence in ("seq-01", "seq-02"):
        camera = np.array([[focal, 0, 16], [0, focal, 12], [0, 0, 1]])
        np.savetxt(tmp_path / sequence / "camera-intrinsics.txt", camera)
    return tmp_path


def test_frames_that_see_the_same_are_paired(scene, monkeypatch):
    monkeypatch.setattr("mimlib.data.pairs.rgbd.TREE_STEP", 1)
    monkeypatch.setattr("mimlib.data.pairs.rgbd.QUERY_STEP", 1)
    monkeypatch.setattr("mimlib.data.pairs.covisibility.RADIUS", 0.05)
    config = RGBDPairsConfig(root=str(scene), size=20, jitter=0.0)
    source = config.build()
    first, second = source.first(4)
    assert blue(first) == [0, 1, 0, 1] and blue(second) == [1, 0, 1, 0]
    (sequence, _) = find_sequences(str(scene))
    width = 2 * 2 * np.tan(np.deg2rad(30))
    for _, _, share in config.mine(sequence):
        assert share == pytest.approx(1 - 0.3 / width, abs=0.06)
    with pytest.raises(ValueError, match="nothing to pair by a co-visibility within"):
        RGBDPairsConfig(root=str(scene), size=20, covisibility=(0.97, 1.0)).build()


def test_frames_with_little_depth_are_not_paired(scene):
    nothing = Dense(torch.ones(24, 32, 1), torch.arange(32).expand(24, 32) < 20)
    write_depth_png(scene / "seq-01" / "frame-000001.depth.png", nothing)
    write_depth_png(scene / "seq-02" / "frame-000001.depth.png", nothing)
    with pytest.raises(ValueError, match="nothing to pair by a co-visibility"):
        RGBDPairsConfig(root=str(scene), size=20).build()


def test_unreadable_depth_and_unknown_poses_are_named(scene):
    path = scene / "seq-01" / "frame-000000.depth.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(ValueError, match="frame-000000.depth.png"):
        RGBDPairsConfig(root=str(scene), size=20).build()
    path.write_bytes(whole)
    np.savetxt(scene / "seq-01" / "frame-000000.pose.txt", np.full((4, 4), -np.inf))
    with pytest.raises(ValueError, match="frame-000000.pose.txt .*leave out frames"):
        RGBDPairsConfig(root=str(scene), size=20).build()


def test_folders_without_frames_and_wrong_ranges_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no RGB-D frames"):
        RGBDPairsConfig(root=str(tmp_path), size=20).build()
    with pytest.raises(ValueError, match=r"covisibility is \(0.9, 0.5\)"):
        RGBDPairsConfig(root=".", size=20, covisibility=(0.9, 0.5))
