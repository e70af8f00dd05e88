"""Sets on disk: whatever happens to the files, the right set comes back and nothing is lost."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
import time

import pytest
import torch
from psutil import Process
from safetensors import safe_open
from safetensors.torch import save

from mimlib import world
from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.objects.world import WorldDetectionConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.world.rooms.atlas import PER_FAMILY, SIDE
from mimlib.world.sets import cache
from mimlib.world.sets import provide as sets
from mimlib.world.sets.cache import cache_folder, load, read_file, store, write_file

KEY = {"recipe": "Toy", "size": 4, "seed": 0, "truth": "image"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache; the atlas is in memory already."""
    world.default_atlas()
    path = tmp_path / "cache"
    monkeypatch.setenv("MIMLIB_CACHE", str(path))
    cache.warn_unwritable.cache_clear()
    return path


@pytest.fixture
def renderings(monkeypatch):
    """Which kinds were rendered, call by call."""
    calls, render = [], sets.render_here
    monkeypatch.setattr(sets, "render_here", lambda *args: calls.append(args[3]) or render(*args))
    return calls


def toy(count=5):
    values = torch.arange(count * 8, dtype=torch.float32).reshape(count, 2, 4)
    return {"values": values, "flags": values[:, 0, 0] > 3, "ids": values[:, 0].to(torch.uint8)}


def equal(first, second):
    return list(first) == list(second) and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
        for name in first
    )


def make(count=4, **options):
    return world.views(count, 16, truth=("image", "depth", "boxes"), **options)


def test_what_is_stored_comes_back(folder):
    store(KEY, 5, toy())
    assert equal(load(KEY, 5), toy())
    assert equal(load(KEY, 2), {name: field[:2] for name, field in toy().items()})
    assert load(KEY, 6) is None
    for name, other in (("seed", 1), ("size", 8), ("truth", "depth"), ("recipe", "Other")):
        assert load(KEY | {name: other}, 5) is None
    assert [path.suffix for path in folder.iterdir()] == [cache.SUFFIX]


def test_a_set_is_rendered_once(folder, renderings):
    first = make()
    assert renderings == [("image", "depth", "boxes")]
    assert equal(make(), first) and equal(make(2), {n: f[:2] for n, f in first.items()})
    assert len(renderings) == 1, "the second time comes from disk"
    make(4, seed=1)
    world.views(4, 16, "easy", truth="image")
    world.views(4, 24, truth="image")
    assert len(renderings) == 4, "another seed, level or size is another set"
    world.views(4, 16, truth=("depth", "normals"))
    assert renderings[-1] == ("normals",), "only what is missing"


def test_without_cache_nothing_is_written_or_read(folder):
    first = make(cache=False)
    assert not folder.exists()
    make()
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert equal(make(cache=False), first)


def test_writing_to_a_result_does_not_change_the_file():
    first = make()
    expected = first["image"].clone()
    make()["image"].zero_()
    assert torch.equal(make()["image"], expected)


HEADER = 8  # bytes before the header, its length

DAMAGE = {
    "empty": lambda data: b"",
    "foreign": lambda data: b"PK\x03\x04" + data,
    "only a length": lambda data: data[:HEADER],
    "header cut": lambda data: data[: HEADER + 40],
    "half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "a byte too many": lambda data: data + b"\0",
    "bit in the header": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "bit in the data": lambda data: data[:-9] + bytes([data[-9] ^ 16]) + data[-8:],
    "zeros": lambda data: bytes(len(data)),
    "random": lambda data: os.urandom(len(data)),
    "a header that promises too much": lambda data: struct.pack("<Q", 2**40) + data[HEADER:],
    "another program's": lambda data: save({"image": torch.zeros(4, 3, 16, 16)}),
    "no fields": lambda data: save({}, {"set": "x", "checksum": "00000000"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_file_is_rendered_again(folder, renderings, damage):
    first = make()
    for path in folder.iterdir():
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.warns(UserWarning, match="is unusable .* rendering it again"):
        assert equal(make(), first)
    assert len(renderings) == 2
    assert equal(make(), first) and len(renderings) == 2, "the file is whole again"


def test_another_sets_file_is_not_mistaken(folder):
    first, other = make(seed=0), make(seed=1)
    names = sorted(folder.iterdir())
    swapped = {path: path.read_bytes() for path in names}
    stems = {path: path.name.split("-")[3] for path in names}
    for path in names:
        twin = next(p for p in names if stems[p] == stems[path] and p != path)
        path.write_bytes(swapped[twin])
    with pytest.warns(UserWarning, match="holds another set"):
        assert equal(make(seed=0), first)
    with pytest.warns(UserWarning, match="holds another set"):
        assert equal(make(seed=1), other)


def test_a_file_renamed_to_promise_more_is_refused(folder):
    store(KEY, 5, toy())
    (path,) = folder.iterdir()
    path.rename(path.with_name(path.name.replace("-5.", "-50.")))
    with pytest.warns(UserWarning, match="holds another set"):
        assert load(KEY, 40) is None


def test_a_folder_in_the_place_of_a_file_is_passed_over(folder):
    store(KEY, 5, toy())
    (path,) = folder.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="is unusable"):
        assert load(KEY, 5) is None


def test_other_code_reads_nothing_old(monkeypatch, renderings):
    first = make()
    monkeypatch.setattr(cache, "code_version", lambda: "another version")
    assert equal(make(), first) and len(renderings) == 2


@pytest.mark.parametrize("changed", ["rooms/furniture.py", "rooms/deeper/new.py", "__init__.py"])
def test_the_code_version_is_that_of_the_sources(tmp_path, monkeypatch, changed):
    """Of all rooms of the world, at any depth."""
    before, source = cache.code_version(), cache.Path(cache.__file__)
    world_copy = tmp_path / "world"
    shutil.copytree(source.parents[1], world_copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(world_copy / "sets" / source.name))
    assert cache.code_version.__wrapped__() == before
    (world_copy / changed).parent.mkdir(exist_ok=True)
    (world_copy / changed).write_text("# another chair\n")
    changed_version = cache.code_version.__wrapped__()
    assert changed_version != before
    monkeypatch.setattr(cache, "version", lambda name: "0.0")
    assert cache.code_version.__wrapped__() not in (before, changed_version), "its photographs"


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/mimlib"])
def test_no_folder_to_write_to_costs_time_only(tmp_path, monkeypatch, place):
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    places = {"a file": blocker, "below a file": blocker / "cache"}
    monkeypatch.setenv("MIMLIB_CACHE", str(places.get(place, place)))
    expected = make(cache=False)
    with pytest.warns(UserWarning, match="cannot keep rendered sets in .*set MIMLIB_CACHE"):
        assert equal(make(), expected)
    assert equal(make(), expected)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_or_read_only_disk_costs_time_only(folder, monkeypatch, recwarn, code):
    """One warning, whatever name the file has that cannot be written, and nothing left behind."""
    expected = make(cache=False)

    def refuse(path, data):
        if code == errno.ENOSPC:
            open(path, "wb").close()
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(cache.Path, "write_bytes", refuse)
    for _ in range(3):
        assert equal(make(), expected)
    said = [str(warning.message) for warning in recwarn if "MIMLIB_CACHE" in str(warning.message)]
    assert len(said) == 1 and os.strerror(code) in said[0]
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_costs_time_only(folder):
    expected = make()
    folder.chmod(0o555)
    with pytest.warns(UserWarning, match="cannot keep rendered sets in .*set MIMLIB_CACHE"):
        make(seed=1)
    assert equal(make(), expected), "what is there is read"
    folder.chmod(0o755)


def test_an_interrupted_write_leaves_nothing(folder, monkeypatch):
    folder.mkdir()

    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(folder / "set.safetensors", toy())
    assert not list(folder.iterdir())


def test_files_are_readable_by_others_and_say_what_they_are(folder):
    make()
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o444 == 0o444
        assert path.name.startswith("ViewsRecipe-paper-16-")
        with safe_open(path, "pt") as file:
            assert file.metadata()["set"] == path.stem and len(file.metadata()["checksum"]) == 8
            names = file.keys()
            assert names and all(len(file.get_tensor(name)) == 4 for name in names)


def test_a_set_is_mapped_and_not_read_as_a_whole(folder):
    make()
    mapped = make()
    assert set(map(str, folder.glob("*-image-*"))) <= {m.path for m in Process().memory_maps()}
    assert mapped["image"].any()


def test_an_empty_name_means_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MIMLIB_CACHE", "")
    assert cache_folder() == tmp_path / ".cache" / "mimlib"
    monkeypatch.setenv("MIMLIB_CACHE", "~/worlds")
    assert cache_folder() == tmp_path / "worlds"


@pytest.mark.parametrize("place", ["", "~/worlds", "~nobody-of-that-name/worlds"])
def test_a_user_without_a_home_goes_on_without_a_cache(monkeypatch, tmp_path, place):
    """As with `docker run --user 12345`: no HOME, and the system does not list the user."""
    expected = make(cache=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)
    monkeypatch.setenv("MIMLIB_CACHE", place)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="cannot keep .*no home folder.*set MIMLIB_CACHE"):
        assert equal(make(), expected)
    assert equal(make(), expected)
    assert not list(tmp_path.iterdir()), "a folder called ~"


def test_threads_that_write_and_read_one_set(folder):
    """A reader sees a whole set or none, while others replace it."""
    expected, wrong = toy(400), []

    def write():
        for _ in range(30):
            store(KEY, 400, toy(400))

    def read():
        for _ in range(60):
            found = load(KEY, 400)
            if found is not None and not equal(found, expected):
                wrong.append(found)

    threads = [threading.Thread(target=work) for work in (write, write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(list(folder.iterdir())) == 1


def test_two_processes_at_once(folder):
    """Another process makes the set while this one makes it again and again."""
    atlas = world.default_atlas()  # drawing it takes longer than all else here
    key = {"recipe": "atlas", "size": SIDE, "per_family": PER_FAMILY}
    store(key, 1, {"texels": atlas.texels[None], "offsets": atlas.offsets[None]})
    code = (
        "import torch, warnings; warnings.simplefilter('error'); from mimlib import world;"
        "torch.set_num_threads(1);"
        "print(*{int(world.views(4, 16)['image'].long().sum()) for _ in range(50)})"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    expected = world.views(4, 16, cache=False)
    while other.poll() is None:
        assert equal(world.views(4, 16), expected)
        for path in folder.glob("Views*"):
            path.unlink(missing_ok=True)
        time.sleep(0.05)
    assert other.returncode == 0
    assert other.stdout.read().split() == [b"%d" % expected["image"].long().sum()]
    world.views(4, 16)
    files = sorted(folder.iterdir())
    assert [path.name.split("-")[0] for path in files] == ["ViewsRecipe", "atlas"]
    for path in files:
        read_file(path, path.stem)


def test_what_makes_a_set_is_the_same_on_every_processor():
    """Named by the code: pixels may differ in the last bits from processor to processor."""
    assert world.maker() == f"world {cache.code_version()[:12]}"
    source = WorldImagesConfig(count=4, size=16).build()
    assert source.identity() == f"4 images, {world.maker()}"
    pairs = WorldPairsConfig(count=4, size=16).build()
    assert pairs.identity() == f"{len(pairs)} images, {world.maker()}"
    rooms = WorldDetectionConfig(count=4, size=16).build()
    assert rooms.identity() == f"4 images, {world.maker()}"
