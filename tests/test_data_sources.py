import itertools
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib import world
from mimlib.data.batches import DenseBatch, ImageBatch, LabelBatch, StretchedBatch
from mimlib.data.images.configs import ImageFolderConfig, PhotosConfig, WorldImagesConfig

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

RENDERED_VIEWS = world.views


def fake_views(count, size=64, level="paper", seed=0, truth=("image",), aim="room", cache=True):
    """What world.views returns, without rendering: column ramps that differ in one channel."""
    image = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    image[:, 0] = torch.arange(size) * 2
    image[:, 2] = torch.arange(count)[:, None, None]
    views = {"image": image}
    if "depth" in truth:
        views["depth"] = (image[:, 0].float() + 1) / 10
        views["depth"][:, 0] = 0
    if "classes" in truth:
        views["classes"] = image[:, 2].long()
    if aim == "object":
        views["label"] = torch.arange(count) % 7
    return views


@pytest.fixture(autouse=True)
def fake_world(monkeypatch):
    monkeypatch.setattr(world, "views", fake_views, raising=False)


def write(path, color, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side + 4, 3), color, dtype=np.uint8)
    pixels[:, : side // 2, 0] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 10 images; image i is of gray i, and half red."""
    for index in range(20):
        write(tmp_path / "set" / "train" / "ab"[index // 10] / f"{index:02d}.png", index)
        write(tmp_path / "set" / "val" / "b" / f"{index:02d}.png", index)
    return tmp_path / "set"


KINDS = ["world", "depth", "photos", "folder", "workers"]


@pytest.fixture(params=KINDS)
def source(request, folder):
    config = {
        "world": WorldImagesConfig(count=20, size=32),
        "depth": WorldImagesConfig(count=20, size=32, target="depth"),
        "photos": PhotosConfig(size=32),
        "folder": ImageFolderConfig(root=str(folder), split="train", size=32, labels=True),
        "workers": ImageFolderConfig(root=str(folder), split="train", size=32, workers=2),
    }[request.param]
    return config.build()


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_batches_are_uint8_and_full(source):
    for batch in take(source.batches(0, 8, seed=0), 3):
        assert batch.images.shape == (8, 3, 32, 32)
        assert batch.images.dtype == torch.uint8
        assert all(len(part) == 8 for part in batch)


def test_a_batch_depends_on_its_step_alone(source):
    straight = take(source.batches(0, 8, seed=1), 5)
    resumed = take(source.batches(3, 8, seed=1), 2)
    assert_equal(straight[3], resumed[0])
    assert_equal(straight[4], resumed[1])


def test_two_ranks_of_four_see_what_one_of_eight_sees(source):
    whole = take(source.batches(2, 8, seed=0), 2)
    ranks = [take(source.batches(2, 4, seed=0, rank=rank, num_ranks=2), 2) for rank in (0, 1)]
    for step in (0, 1):
        halves = (torch.cat(parts) for parts in zip(ranks[0][step], ranks[1][step]))
        assert_equal(whole[step], halves)


def test_seeds_and_epochs_give_different_batches(source):
    size = len(source)
    first, second = take(source.batches(0, size, seed=0), 2)
    other = next(source.batches(0, size, seed=1))
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)


def test_first_is_not_augmented_and_always_the_same(source):
    batch = source.first(5)
    assert_equal(batch, source.first(5))
    assert batch.images.shape == (5, 3, 32, 32)
    with pytest.raises(ValueError, match="of a set of"):
        source.first(len(source) + 1)


def test_once_gives_every_image_once(source):
    batches = list(source.once(8))
    assert sum(len(batch.images) for batch in batches) == len(source)
    whole = source.first(len(source))
    assert_equal(whole, (torch.cat(parts) for parts in zip(*batches)))


def test_global_random_state_is_neither_used_nor_changed(source):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    batch = next(source.batches(0, 8, seed=0))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert_equal(batch, next(source.batches(0, 8, seed=0)))


def test_wrong_requests_fail_at_once(source):
    with pytest.raises(ValueError, match="expected step >= 0"):
        source.batches(0, 4, seed=0, rank=2, num_ranks=2)


def test_the_real_world_serves_every_target(monkeypatch, tmp_path):
    monkeypatch.setattr(world, "views", RENDERED_VIEWS)
    monkeypatch.setenv("MIMLIB_CACHE", str(tmp_path))
    dense = [WorldImagesConfig(count=2, size=32, target=kind) for kind in ("depth", "classes")]
    for config in dense:
        batch = next(config.build().batches(0, 4, seed=0))
        assert batch.target.shape == (4, 32, 32)
        assert batch.valid.all()
    label = WorldImagesConfig(count=2, size=32, target="label", aim="object").build().first(2)
    assert all(0 <= index < len(world.CLASSES) for index in label.labels.tolist())


def test_an_epoch_shows_every_image_once():
    source = WorldImagesConfig(count=20, size=32).build()
    images = torch.cat([batch.images for batch in take(source.batches(0, 5, seed=0), 4)])
    assert images[:, 2].amax((1, 2)).sort().values.tolist() == list(range(20))


def test_without_crop_and_flip_images_are_handed_out_as_they_are():
    source = WorldImagesConfig(count=6, size=16, crop_scale=(1.0, 1.0), flip=False).build()
    images = next(source.batches(0, 6, seed=0)).images
    order = images[:, 2, 0, 0].long()
    assert torch.equal(images, source.first(6).images[order])


def test_labels_stay_with_their_images():
    config = WorldImagesConfig(count=20, size=32, target="label", aim="object")
    batch = next(config.build().batches(0, 20, seed=0))
    assert isinstance(batch, LabelBatch)
    assert batch.labels.dtype == torch.int64
    assert torch.equal(batch.labels, batch.images[:, 2, 0, 0].long() % 7)


def test_depth_is_cropped_and_flipped_with_its_image_and_not_scaled():
    batch = next(
        WorldImagesConfig(count=20, size=32, target="depth").build().batches(0, 20, seed=0)
    )
    assert isinstance(batch, DenseBatch)
    assert batch.target.dtype == torch.float32
    assert batch.valid.dtype == torch.bool
    expected = (batch.images[:, 0].float() + 1) / 10
    assert (batch.target - expected)[batch.valid].abs().max() <= 0.31  # a pixel is worth 0.2
    assert torch.equal(batch.valid, batch.target > 0)
    assert 0 < batch.valid.float().mean() < 1
    descending = batch.target[:, -1, 0] > batch.target[:, -1, -1]
    assert 0 < descending.sum() < 20  # some are mirrored


def test_class_maps_are_integers():
    config = WorldImagesConfig(count=20, size=32, target="classes")
    batch = next(config.build().batches(0, 20, seed=0))
    assert batch.target.dtype == torch.int64
    assert torch.equal(batch.target, batch.images[:, 2].long())
    assert batch.valid.all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0, "size": 32}, "count is 0; expected 0 < count"),
        ({"count": 1, "size": -1}, "size is -1; expected 0 < size"),
        ({"count": 1, "size": 8, "target": "label"}, "needs aim='object'"),
        ({"count": 1, "size": 8, "workers": -1}, "workers is -1; expected 0 <= workers"),
    ],
)
def test_wrong_world_configs_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        WorldImagesConfig(**wrong)


def test_workers_change_nothing(folder):
    alone = ImageFolderConfig(root=str(folder), size=32)
    together = ImageFolderConfig(root=str(folder), size=32, workers=2)
    ours = take(alone.build().batches(1, 6, seed=0), 6)
    theirs = take(together.build().batches(1, 6, seed=0), 6)
    for a, b in zip(ours, theirs):
        assert_equal(a, b)


def test_folder_without_labels_gives_images(folder):
    batch = next(ImageFolderConfig(root=str(folder), size=32).build().batches(0, 4, seed=0))
    assert isinstance(batch, ImageBatch)


def test_whole_images_come_with_the_shapes_they_had(tmp_path):
    """With workers, on ranks, and where another image stands in; not where nothing is stretched."""
    for index in range(12):
        write(tmp_path / f"{index:02d}.png", index, side=12 + index)
    whole = {"root": str(tmp_path), "size": 32, "crop_scale": (1.0, 1.0), "flip": False}
    source = ImageFolderConfig(**whole).build()
    (batch,) = take(source.batches(3, 12, seed=0), 1)
    assert isinstance(batch, StretchedBatch) and batch.stretched_from.dtype == torch.int64
    sides = batch.images[:, 1, 0, -1].long() + 12
    assert torch.equal(batch.stretched_from, torch.stack([sides, sides + 4], dim=1))
    ranks = [ImageFolderConfig(**whole, workers=2).build().batches(3, 6, 0, r, 2) for r in (0, 1)]
    parts = [next(each) for each in ranks]
    assert_equal(batch, [torch.cat(both) for both in zip(*parts)])
    for plain in (source.first(3), next(source.once(3))):
        assert isinstance(plain, ImageBatch), "squares are cut out of the middle"
    for index in range(12, 24):
        write(tmp_path / f"{index:02d}.png", index, side=12 + index)
    (tmp_path / "04.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 unreadable"):
        again = next(ImageFolderConfig(**whole).build().batches(0, 24, seed=0))
    assert again.stretched_from[:, 0].sort().values.tolist() == [*range(12, 16), 17, *range(17, 36)]


def test_photographs_that_are_stretched_say_so_and_worlds_are_square():
    photos = next(PhotosConfig(size=32, crop_scale=(1.0, 1.0)).build().batches(0, 4, seed=0))
    assert isinstance(photos, StretchedBatch) and (photos.stretched_from >= 32).all()
    assert isinstance(next(PhotosConfig(size=32).build().batches(0, 4, seed=0)), ImageBatch)
    rooms = WorldImagesConfig(count=6, size=16, crop_scale=(1.0, 1.0)).build()
    assert isinstance(next(rooms.batches(0, 4, seed=0)), ImageBatch)


def test_folder_labels_are_those_of_train_in_every_split(folder):
    train = ImageFolderConfig(root=str(folder), split="train", size=32, labels=True).build()
    assert train.first(4).labels.tolist() == [0, 0, 1, 1]
    gray = [batch.images[:, 1, 0, -1] for batch in train.once(7)]
    labels = [batch.labels for batch in train.once(7)]
    assert torch.equal(torch.cat(labels), (torch.cat(gray) >= 10).long())
    val = ImageFolderConfig(root=str(folder), split="val", size=32, labels=True).build()
    assert val.first(3).labels.tolist() == [1, 1, 1]  # b is class 1 though it is alone in val


def test_validation_images_without_class_folders_are_explained(folder):
    write(folder / "val" / "stray.png", 3)
    with pytest.raises(ValueError, match=r"no known class.*data/README\.md"):
        ImageFolderConfig(root=str(folder), split="val", size=32, labels=True).build()


def test_missing_folder_is_only_met_when_built(tmp_path):
    config = ImageFolderConfig(root=str(tmp_path / "imagenet"), split="train", size=224)
    with pytest.raises(ValueError, match=r"no folder .*imagenet/train; data/README\.md"):
        config.build()


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_wrong_evaluation_share_is_refused(share):
    with pytest.raises(ValueError, match="evaluation_share"):
        ImageFolderConfig(root=".", size=32, evaluation_share=share)


def spoil(folder, indices):
    for index in indices:
        (folder / "train" / "ab"[index // 10] / f"{index:02d}.png").write_bytes(b"broken")


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_replaced_counted_and_named_once(folder, workers):
    spoil(folder, [4, 19])
    config = ImageFolderConfig(
        root=str(folder), split="train", size=32, labels=True, workers=workers
    )
    source = config.build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = take(source.batches(0, 20, seed=0), 3)
    told = [str(w.message) for w in caught if "unreadable" in str(w.message)]
    assert len(told) == 1
    assert "2 unreadable images skipped, 2 so far of 20" in told[0]
    assert "04.png" in told[0]
    assert "19.png" in told[0]
    assert len(source.unreadable) == 2
    shown = sorted(batches[0].images[:, 1, 0, 0].tolist())
    assert shown == sorted([*range(4), 5, *range(5, 19), 0])  # 5 for 4, and 0 for 19
    labels = (batches[0].images[:, 1, 0, 0] >= 10).long()
    assert torch.equal(batches[0].labels, labels)
    assert_equal(batches[2], next(config.build().batches(2, 20, seed=0)))


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_images_stop_with_their_names(folder, workers):
    spoil(folder, [1, 2, 3])
    source = ImageFolderConfig(root=str(folder), split="train", size=32, workers=workers).build()
    with pytest.raises(ValueError, match=r"(?s)3 images in .*cannot be read.*0[123]\.png"):
        take(source.batches(0, 20, seed=0), 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_nothing_but_bad_images_stops(folder, workers):
    spoil(folder, range(20))
    source = ImageFolderConfig(root=str(folder), split="train", size=32, workers=workers).build()
    with pytest.raises(ValueError, match="20 images in .*cannot be read"):
        take(source.batches(0, 4, seed=0), 1)


def test_one_bad_image_of_many_is_not_too_many_in_the_first_batch(tmp_path):
    for index in range(60):
        write(tmp_path / f"{index:02d}.png", index, side=4)
    (tmp_path / "30.png").write_bytes(b"")
    source = ImageFolderConfig(root=str(tmp_path), size=8).build()
    with pytest.warns(UserWarning, match="1 unreadable images skipped"):
        take(source.batches(0, 4, seed=0), 15)


def test_images_of_any_shape_become_square(tmp_path):
    for index, shape in enumerate([(1, 1), (1, 50), (50, 1), (3, 200), (40, 30)]):
        Image.new("RGB", shape, (9, 9, 9)).save(tmp_path / f"{index}.png")
    source = ImageFolderConfig(root=str(tmp_path), size=16).build()
    for batch in [*take(source.batches(0, 5, seed=0), 5), source.first(5)]:
        assert (batch.images == 9).all()
