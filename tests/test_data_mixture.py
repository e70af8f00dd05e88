"""Several sources as one: how often each is seen, that a step decides all, what does not mix."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.mixture import MixtureConfig, MixtureSource, Part
from mimlib.data.order import EndlessOrder, Request, augmentation_draws
from mimlib.data.pairs.crops import CropListConfig
from mimlib.data.pairs.files import PairFolderConfig
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.pairs.world import MemoryPairs


@dataclass(frozen=True, kw_only=True)
class Plain(PairAugmentation):
    """Pairs of one color each: first, first + 1, ..."""

    count: int
    start: int
    dense: int = 0  # channels of the truth

    def build(self):
        values = torch.arange(self.start, self.start + self.count, dtype=torch.uint8)
        images = values[:, None, None, None].expand(-1, 3, 12, 12).clone()
        images[..., 0, :], images[..., :, 0] = 0, 0  # crops differ
        truth = torch.ones(self.count, 12, 12, self.dense) if self.dense else None
        return MemoryPairs(images, images, self, truth)


def part(start, count, repeats=1, size=8, **changes):
    pairs = Plain(size=size, jitter=0.0, count=count, start=start, **changes)
    return Part(pairs=pairs, repeats=repeats)


@pytest.fixture
def source():
    return MixtureConfig(parts=(part(10, 3, 2), part(50, 1, 5), part(90, 4))).build()


def colors(batch):
    return batch.image_1[:, 0, -1, -1].tolist()


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_every_image_is_seen_as_often_as_asked(source):
    assert len(source) == 3 * 2 + 5 + 4
    seen = Counter(c for batch in take(source.batches(0, 5, seed=0), 6) for c in colors(batch))
    assert seen == {10: 4, 11: 4, 12: 4, 50: 10, **dict.fromkeys(range(90, 94), 2)}


def test_places_run_through_the_parts_in_order(source):
    places = [source.place(index) for index in range(len(source))]
    assert places == [
        *((0, i) for i in (0, 1, 2, 0, 1, 2)), *[(1, 0)] * 5, *((2, i) for i in range(4)),
    ]  # fmt: skip


def test_a_batch_is_what_the_sources_make_of_its_positions(source):
    (batch,) = take(source.batches(3, 6, seed=4), 1)
    request = EndlessOrder(len(source), seed=4).request(3, 6)
    assert request.first == 18
    for row, index in enumerate(request.indices):
        number, own = source.place(index)
        alone = source.sources[number].load(Request(np.array([own]), 18 + row, 4))
        assert torch.equal(batch.image_1[row], alone.image_1[0])
        assert torch.equal(batch.image_2[row], alone.image_2[0])


def test_a_batch_depends_on_its_step_alone(source):
    straight = take(source.batches(0, 4, seed=1), 5)
    for step in (4, 2):
        assert_equal(straight[step], next(source.batches(step, 4, seed=1)))
    other = torch.stack([b.image_1 for b in take(source.batches(0, 4, seed=2), 5)])
    assert not torch.equal(torch.stack([b.image_1 for b in straight]), other)


def test_ranks_split_one_batch(source):
    whole = next(source.batches(2, 6, seed=0))
    parts = [next(source.batches(2, 2, seed=0, rank=rank, num_ranks=3)) for rank in range(3)]
    assert_equal(whole, [torch.cat(fields) for fields in zip(*parts)])


def test_workers_change_nothing():
    parts = (part(10, 3, 2), part(50, 5))
    one, two = (MixtureConfig(parts=parts, workers=n).build() for n in (0, 2))
    for ours, theirs in zip(take(one.batches(1, 4, seed=0), 3), take(two.batches(1, 4, seed=0), 3)):
        assert_equal(ours, theirs)


def test_repeats_of_an_image_are_cut_in_other_places():
    source = MixtureConfig(parts=(part(50, 1, 40),)).build()
    batch = next(source.batches(0, 40, seed=0))
    edges = (batch.image_1[:, 0] == 0).any(-1).sum(-1)
    assert len(edges.unique()) > 1
    draws = augmentation_draws(0, 0, 40)[:, :2]
    expected = np.floor(draws * 5).astype(int)
    found = torch.stack([(batch.image_1[:, 0, :, -1] != 0).all(-1),
                         (batch.image_1[:, 0, -1, :] != 0).all(-1)], dim=1)  # fmt: skip
    assert torch.equal(found, torch.from_numpy(expected > 0))


def test_first_shows_all_parts_and_once_everything(source):
    assert colors(source.first(3)) == [10, 12, 50]
    once = [c for batch in source.once(4) for c in colors(batch)]
    assert once == [*(10, 11, 12) * 2, *[50] * 5, 90, 91, 92, 93]


def test_kinds_and_sizes_that_do_not_mix_are_refused():
    with pytest.raises(ValueError, match=r"sizes \[8, 10\]; expected one"):
        MixtureConfig(parts=(part(0, 3), part(0, 3, size=10)))
    for others in ({"dense": 0}, {"dense": 1}):
        parts = part(0, 3, dense=2), part(0, 3, **others)
        with pytest.raises(ValueError, match="DensePairBatch.*of one kind and size"):
            next(MixtureConfig(parts=parts).build().batches(0, 6, seed=0))


def test_mixtures_of_nothing_are_refused():
    with pytest.raises(ValueError, match="mixture of no parts"):
        MixtureConfig(parts=())
    with pytest.raises(ValueError, match="repeats is 0; expected 0 < repeats; leave the part out"):
        part(0, 3, 0)


@pytest.fixture
def files(tmp_path):
    for number in range(12):
        for view in (1, 2):
            path = tmp_path / f"habitat/{number:02d}_{view}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (number, 0, view)).save(path)
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "photo.png")
    (tmp_path / "crops.txt").write_text("photo.png, photo.png, 0\n0, 16, 0, 16, 8, 24, 8, 24\n")
    return MixtureConfig(root=str(tmp_path), parts=(
        Part(pairs=PairFolderConfig(root="habitat", size=14, jitter=0.0)),
        Part(pairs=CropListConfig(root="", crops="crops.txt", size=14, jitter=0.0), repeats=3),
    ))  # fmt: skip


def test_paths_of_the_parts_are_relative_to_the_root(files):
    source = files.build()
    assert len(source) == 12 + 3 and files.size == 14
    batch = next(source.batches(0, 15, seed=0))
    assert Counter(batch.image_1[:, 0, 0, 0].tolist()) == {**dict.fromkeys(range(12), 1), 200: 3}
    elsewhere = PairFolderConfig(root=str(files.root) + "/habitat", size=14)
    assert len(MixtureConfig(root="/nowhere", parts=(Part(pairs=elsewhere),)).build()) == 12


def test_unreadable_files_are_told_by_their_source(files, tmp_path):
    (tmp_path / "habitat/03_1.png").write_bytes(b"broken")
    source = files.build()
    with pytest.warns(UserWarning, match="1 unreadable images skipped.*\n.*03_1.png"):
        batches = take(source.batches(0, 15, seed=0), 1)
    assert Counter(batches[0].image_1[:, 0, 0, 0].tolist())[4] == 2


def test_long_mixtures_need_no_list():
    class Long(MemoryPairs):
        def __len__(self):
            return 300_000_000

    sources = [Long(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), PairAugmentation(size=4))]
    source = MixtureSource(sources * 2, [40, 1])
    assert source.place(len(source) - 1) == (1, 299_999_999)
    assert source.place(300_000_001) == (0, 1)
