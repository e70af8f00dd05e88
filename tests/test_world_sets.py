"""Sets: the same bytes for the same seed, however long, chunked, split or interrupted."""

import hashlib
import warnings

import psutil
import pytest
import torch

from mimlib import world
from mimlib.world.sets import workers
from mimlib.world.sets.clips import ClipsRecipe
from mimlib.world.sets.pairs import PairsRecipe
from mimlib.world.sets.views import ViewsRecipe
from mimlib.world.sets.workers import chunk_size, count_workers, render_here, split_jobs

TRUTH = ("image", "depth", "instances", "boxes", "keypoints")
MAKERS = {
    "views": lambda count=6, **options: world.views(count, 16, cache=False, **options),
    "pairs": lambda count=3, **options: world.pairs(count, 16, cache=False, **options),
    "stereo": lambda count=3, **options: world.stereo(count, 16, cache=False, **options),
    "clips": lambda count=2, **options: world.clips(count, 3, 16, cache=False, **options),
}


def fingerprint(fields):
    digest = hashlib.sha256()
    for name, tensor in fields.items():
        digest.update(name.encode() + str(tensor.dtype).encode() + str(tensor.shape).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("maker", MAKERS)
def test_the_same_seed_gives_the_same_bytes(maker):
    make = MAKERS[maker]
    first = make(truth=TRUTH, seed=4)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert fingerprint(make(truth=TRUTH, seed=4)) == fingerprint(first)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    other = make(truth=TRUTH, seed=5)
    assert fingerprint(other) != fingerprint(first)
    image = next(name for name in first if name.startswith("image"))
    same = (first[image] == other[image]).flatten(1).all(1)
    assert not same.any(), "items of another seed are other items"


def test_views_of_objects_are_the_same_too():
    def make():
        return world.views(3, 16, aim="object", cache=False, truth=TRUTH)

    assert fingerprint(make()) == fingerprint(make())


@pytest.mark.parametrize("maker", MAKERS)
def test_items_of_a_set_differ(maker):
    images = next(iter(MAKERS[maker]().values())).flatten(1)
    assert len(images.unique(dim=0)) == len(images)


@pytest.mark.parametrize(("maker", "longer"), [("views", 70), ("pairs", 34), ("clips", 9)])
def test_a_shorter_set_is_the_beginning_of_a_longer_one(maker, longer):
    """Counts on both sides of a group's end."""
    make = MAKERS[maker]
    whole, few = make(longer, truth=TRUTH), make(truth=TRUTH)
    for name, tensor in few.items():
        assert torch.equal(tensor, whole[name][: len(tensor)]), name


def test_what_else_is_asked_for_changes_nothing():
    alone = MAKERS["views"](truth="image")
    together = MAKERS["views"](truth=("depth", "image", "camera"))
    assert list(alone) == ["image"] and list(together)[:2] == ["depth", "image"]
    assert torch.equal(alone["image"], together["image"])


def test_the_process_around_changes_nothing():
    """Threads, autocast, gradients and matmul precision are the caller's, and stay so."""
    expected = fingerprint(MAKERS["pairs"](truth=TRUTH))
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
            found = MAKERS["pairs"](truth=TRUTH)
            assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
    assert fingerprint(found) == expected
    assert not any(tensor.requires_grad for tensor in found.values())


def test_chunks_of_any_size_give_the_same_images(monkeypatch):
    recipe = ViewsRecipe(seed=0, size=16, level="paper", aim="room")
    kinds = ("image", "depth", "instances")
    assert chunk_size(recipe, None) == recipe.group_size
    whole = render_here(recipe, 0, 16, kinds)
    for pixels, step in ((256, 1), (1024, 4)):
        monkeypatch.setattr(workers, "CPU_PIXELS", pixels)
        assert chunk_size(recipe, None) == step
        parts = render_here(recipe, 0, 16, kinds)
        assert torch.equal(parts["instances"]["instances"], whole["instances"]["instances"])
        difference = parts["image"]["image"].int() - whole["image"]["image"].int()
        assert (difference != 0).float().mean() < 1e-3  # sines round by the length of a row
        assert (parts["depth"]["depth"] - whole["depth"]["depth"]).abs().max() < 1e-4


def test_chunks_stay_small_on_the_cpu():
    """Temporaries must fit the cache of the processor: about 64 thousand pixels a call."""
    sizes = {
        size: chunk_size(ViewsRecipe(seed=0, size=size, level="paper", aim="room"), None)
        for size in (8, 64, 128, 224, 1024)
    }
    assert sizes == {8: 64, 64: 16, 128: 4, 224: 1, 1024: 1}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_jobs_cover_every_item_once(count, processes):
    recipe = PairsRecipe(seed=0, size=16, level="paper")
    jobs = split_jobs(recipe, count, ("image",), processes)
    covered = [
        item
        for job in jobs
        for item in range(job.first * recipe.group_size, job.first * recipe.group_size + job.count)
    ]
    assert covered == list(range(count))
    assert len(jobs) <= processes and all(job.count > 0 for job in jobs)


def test_small_sets_start_no_processes(monkeypatch):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert count_workers(100, None) == 1
    assert count_workers(10_000, None) == 4
    assert count_workers(10, 3) == 3


def test_processes_render_the_same_bytes():
    """Two processes, sets that end in the middle of a group, progress up to the end."""
    told = []
    split = MAKERS["clips"](9, truth=TRUTH, workers=2, progress=lambda *state: told.append(state))
    assert fingerprint(split) == fingerprint(MAKERS["clips"](9, truth=TRUTH, workers=1))
    done = [state[0] for state in told]
    assert done == sorted(done) and all(count == 9 for _, count in told)


def test_failing_processes_cost_time_only(monkeypatch):
    monkeypatch.setattr(workers, "WORKER", "import no.such.module")
    with pytest.warns(UserWarning, match="(?s)one process.*No module named 'no'"):
        found = MAKERS["views"](70, workers=2)
    assert fingerprint(found) == fingerprint(MAKERS["views"](70, workers=1))


def test_an_interrupted_set_leaves_no_processes():
    children = set(psutil.Process().children())

    def interrupt(done, count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MAKERS["views"](130, workers=2, progress=interrupt)
    assert set(psutil.Process().children()) <= children


def test_progress_in_one_process():
    told = []
    MAKERS["views"](70, progress=lambda *state: told.append(state))
    assert told[-1] == (70, 70)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_results_can_be_written_to():
    found = MAKERS["views"]()
    found["image"][0] = 0
    assert MAKERS["views"]()["image"][0].any()


def test_sets_never_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClipsRecipe(seed=0, size=16, frames=2)
        for make in MAKERS.values():
            make(truth=TRUTH)


def test_an_object_that_is_seldom_seen_well_is_waited_for():
    """One view in fifteen aimed at a lamp is good: 60 rounds were too few for this group."""
    recipe = ViewsRecipe(seed=600_000, size=16, level="paper", aim="object")
    views = recipe.draw(1)
    assert len(views.label) == recipe.group_size and (views.label >= 0).all()
