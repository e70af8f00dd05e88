"""Checkpoints under every accident: cut short, flipped bits, foreign, malicious, disk full."""

import errno
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from mimlib.training import checkpoint
from mimlib.training.checkpoint import (
    CheckpointError,
    checkpoint_path,
    digest_of,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prepare_folder,
    save_checkpoint,
)
from mimlib.training.resume import newest_good

FULL = Path("/dev/full")


def payload(value=1.0):
    model = OrderedDict(
        weight=torch.full((40, 30), value),
        count=torch.tensor(3),
        half=torch.ones(5, dtype=torch.bfloat16),
        empty=torch.zeros(0),
        flag=torch.tensor([True, False]),
    )
    return {"step": 1, "model": model, "config": {"rate": 0.1, "names": ["a", None, True]}}


def test_what_is_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path, 7, payload())
    assert path == tmp_path / "step_00000007.pt" == latest_checkpoint(tmp_path)
    loaded = load_checkpoint(path)
    assert loaded["config"] == payload()["config"] and loaded["step"] == 1
    for name, tensor in payload()["model"].items():
        assert torch.equal(loaded["model"][name], tensor)
        assert loaded["model"][name].dtype == tensor.dtype
    assert os.listdir(tmp_path) == [path.name]


def test_the_newest_are_kept_and_later_ones_are_never_deleted(tmp_path):
    for step in (2, 4, 100, 6, 8):
        save_checkpoint(tmp_path, step, payload(), keep=2)
    assert [checkpoint.step_of(path) for path in list_checkpoints(tmp_path)] == [100, 8, 6]
    (tmp_path / "step_best.pt").write_bytes(b"")  # not one of ours by name
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 100)
    assert latest_checkpoint(tmp_path / "absent") is None


def test_the_digest_sees_every_change():
    reference = digest_of(payload())
    changed = payload()
    changed["model"]["weight"][3, 4] += 1e-7
    assert digest_of(changed) != reference
    reshaped = payload()
    reshaped["model"]["weight"] = reshaped["model"]["weight"].reshape(30, 40)
    retyped = payload()
    retyped["config"]["names"] = ("a", None, True)
    renamed = payload()
    renamed["model"]["weights"] = renamed["model"].pop("weight")
    for other in (reshaped, retyped, renamed):
        assert digest_of(other) != reference
    assert digest_of(payload()) == reference


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, 1, payload())
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="step_00000001.pt .*earlier"):
            load_checkpoint(path)


def test_no_flipped_bit_gets_through(tmp_path):
    """A flip is refused, or it hit padding and the content is what was saved."""
    path = save_checkpoint(tmp_path, 1, payload())
    whole = path.read_bytes()
    reference = digest_of({**payload(), "format": checkpoint.FORMAT})
    data = whole.index(torch.full((8,), 1.0).numpy().tobytes())
    places = [data, data + 1001, *range(5, len(whole), len(whole) // 60)]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert digest_of(load_checkpoint(path)) == reference
        except CheckpointError:
            refused += 1
    assert refused >= 2  # at least the two flips inside the weights


class Bomb:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_file_is_refused_and_never_run(tmp_path):
    trap = tmp_path / "trap"
    plain = checkpoint_path(tmp_path, 1)
    plain.write_bytes(pickle.dumps(Bomb(trap)))
    zipped = checkpoint_path(tmp_path, 2)
    torch.save({"format": checkpoint.FORMAT, "model": Bomb(trap)}, zipped)
    legacy = checkpoint_path(tmp_path, 3)
    torch.save({"model": Bomb(trap)}, legacy, _use_new_zipfile_serialization=False)
    by_hand = checkpoint_path(tmp_path, 4)
    with zipfile.ZipFile(by_hand, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(trap), protocol=2))
        archive.writestr("archive/version", "3\n")
    for path in (plain, zipped, legacy, by_hand):
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    assert not trap.exists()
    pickle.loads(plain.read_bytes())  # the trap works where it is not guarded
    assert trap.exists()


def test_a_foreign_file_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"model": {"cls_token": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="not written by this package; .*mimlib.weights"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="not written by this package"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_broken_newest_falls_back_and_names_both(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {**payload(), "step": step})
    checkpoint_path(tmp_path, 3).write_bytes(b"not a checkpoint")
    with pytest.warns(UserWarning, match="step_00000003.pt .*continuing from .*step_00000002.pt"):
        path, content = newest_good(tmp_path)
    assert path == checkpoint_path(tmp_path, 2) and content["step"] == 2
    for step in (1, 2):
        checkpoint_path(tmp_path, step).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no usable checkpoint in .*step_00000003.pt"):
        newest_good(tmp_path)
    assert newest_good(tmp_path / "absent") == (None, None)


def full_disk(after):
    """A file that takes `after` bytes and then says the disk is full."""
    real_open = open

    class Full:
        def __init__(self, path, mode):
            self.file, self.left = real_open(path, mode), after

        def write(self, data):
            size = memoryview(data).nbytes
            if size > self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= size
            return self.file.write(data)

        def flush(self):
            self.file.flush()

        def fileno(self):
            return self.file.fileno()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    return Full


@pytest.mark.parametrize("room", [0, 3000])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, room):
    good = save_checkpoint(tmp_path, 1, payload(1.0))
    monkeypatch.setattr(checkpoint, "open", full_disk(room), raising=False)
    with pytest.raises(OSError, match="could not save .*step_00000002.pt.*continues from .*01.pt"):
        save_checkpoint(tmp_path, 2, payload(2.0), keep=1)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [good.name]
    assert load_checkpoint(good)["model"]["weight"][0, 0] == 1.0
    save_checkpoint(tmp_path, 2, payload(2.0), keep=1)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 2)]


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs the device that is always full")
def test_a_really_full_device_is_an_os_error():
    with pytest.raises((OSError, RuntimeError)):
        checkpoint.write_file(FULL, payload())


def test_the_folder_is_made_and_proven_before_training(tmp_path):
    folder = tmp_path / "a" / "b"
    prepare_folder(folder)
    leftover = folder / ".step_00000001.123.part"
    leftover.write_bytes(b"of a killed process")
    prepare_folder(folder)
    assert os.listdir(folder) == []
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="cannot write to the output folder .*file/run; choose"):
        prepare_folder(blocked / "run")


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    def refuse(path, data):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write anywhere, so it is simulated
    with pytest.raises(PermissionError, match="cannot write to the output folder .*choose another"):
        prepare_folder(tmp_path)
