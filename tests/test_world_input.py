"""Wrong requests: what was got, what was expected, what to do; before anything is rendered."""

import numpy as np
import pytest
import torch

from mimlib import world
from mimlib.world.sets import provide as sets
from mimlib.world.sets.recipes import MAX_ROUNDS, fill_group
from mimlib.world.sets.views import Views

WRONG = {
    "level": (world.views, {"level": "papper"}, "'papper'.*easy, textured, paper, hard, clip"),
    "level of pairs": (world.pairs, {"level": "clip"}, "'clip'.*easy, textured, paper, hard$"),
    "truth": (world.views, {"truth": ("image", "deepth")}, "'deepth'.*image, depth, normals"),
    "truth of pairs": (world.pairs, {"truth": ("tracks",)}, "'tracks'.*flow, covisible"),
    "truth of clips": (world.clips, {"truth": "covisible"}, "'covisible'.*flow, tracks"),
    "no truth": (world.views, {"truth": ()}, "truth.*name some of image, depth"),
    "label by name": (world.views, {"truth": ("label",), "aim": "object"}, "'label'"),
    "aim": (world.views, {"aim": "sky"}, "'sky'.*room, object"),
    "no items": (world.views, {"count": 0}, "count 0.*at least 1"),
    "fewer than none": (world.pairs, {"count": -3}, "count -3.*at least 1"),
    "too small": (world.views, {"size": 7}, "size is 7; expected 8 <= size <= 1024"),
    "nothing": (world.clips, {"size": 0}, "size is 0; expected 8 <= size"),
    "negative": (world.pairs, {"size": -64}, "size is -64; expected 8 <= size"),
    "too large": (world.views, {"size": 2048}, "size is 2048.*size <= 1024; .*pixels"),
    "one frame": (world.clips, {"frames": 1}, "frames is 1; expected 2 <= frames <= 256"),
    "too many frames": (world.clips, {"frames": 257}, "frames is 257.*frames <= 256"),
    "no workers": (world.views, {"workers": 0}, "0 workers.*1 or more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_refused_at_once(case, monkeypatch, tmp_path):
    monkeypatch.setenv("MIMLIB_CACHE", str(tmp_path / "cache"))
    for name in ("render_here", "render_with_workers"):
        monkeypatch.setattr(sets, name, lambda *_: pytest.fail("rendered all the same"))
    make, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make(**{"count": 2, "size": 16} | options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("size", [8, 13, 33])
def test_odd_and_smallest_sizes_work(size):
    truth = ("image", "depth", "boxes", "keypoints")
    found = world.views(2, size, truth=truth, cache=False)
    assert found["image"].shape == (2, 3, size, size)
    assert found["depth"].shape == (2, size, size)
    assert world.pairs(1, size, truth=("flow",), cache=False)["flow"].shape == (1, size, size, 2)
    assert world.clips(1, 2, size, truth="tracks", cache=False)["tracks"].shape == (1, 2, 128, 2)


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 10**30])
def test_any_integer_is_a_seed(seed):
    assert world.views(1, 8, seed=seed, cache=False)["image"].any()


def test_integers_of_numpy_are_integers(monkeypatch, tmp_path):
    monkeypatch.setenv("MIMLIB_CACHE", str(tmp_path / "cache"))
    expected = world.views(1, 8, seed=3)["image"]
    for cache in (True, False):
        found = world.views(np.int64(1), np.int32(8), seed=np.int64(3), cache=cache)["image"]
        assert torch.equal(found, expected)
    with pytest.raises(TypeError, match="float.*integer"):
        world.views(1, 8, seed=3.0)


def test_a_kind_named_twice_comes_once():
    assert list(world.views(1, 8, truth=("depth", "depth"), cache=False)) == ["depth"]


def test_a_group_that_cannot_be_filled_says_so():
    rounds = []

    def attempt(count):
        rounds.append(count)
        good = torch.zeros(count, dtype=torch.bool)
        good[0] = len(rounds) == 1
        return Views(torch.ones(count), torch.ones(count), torch.ones(count)), good

    with pytest.raises(RuntimeError, match="only 1 of 5 toys in 1000 rounds"):
        fill_group(5, attempt, "toys")
    assert len(rounds) == MAX_ROUNDS


def test_a_group_keeps_the_good_ones_in_order():
    drawn = iter(range(100))

    def attempt(count):
        values = torch.tensor([next(drawn) for _ in range(count)])
        return Views(values, values, values), values % 3 == 0

    items = fill_group(6, attempt, "toys")
    assert items.label.tolist() == [0, 3, 6, 9, 12, 15]
