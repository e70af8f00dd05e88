"""A file is written whole or not at all, and what is no file stays what it is."""

import os
import stat
import threading
from pathlib import Path

import pytest

from mimlib import places


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    places.write_text(path, "old")
    with pytest.raises(RuntimeError), places.written_whole(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path, exists):
    """What it leads to is replaced, also in another folder, also by a relative link."""
    (tmp_path / "shelf").mkdir()
    target, link = tmp_path / "shelf" / "a.txt", tmp_path / "link.txt"
    if exists:
        target.write_text("old")
    link.symlink_to("shelf/a.txt")
    places.write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert not target.is_symlink() and os.listdir(target.parent) == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path, linked):
    pipe, path = tmp_path / "pipe", tmp_path / ("link" if linked else "pipe")
    os.mkfifo(pipe)
    if linked:
        path.symlink_to(pipe)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    places.write_text(path, "told")
    reader.join(30)
    assert heard == ["told"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert set(os.listdir(tmp_path)) == {"pipe", path.name}


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs names of open files")
def test_an_open_pipe_is_written_to_by_its_name():
    """As /dev/stdout is, whose link leads to no path at all where it is a pipe."""
    read, write = os.pipe()
    try:
        places.write_text(Path(f"/dev/fd/{write}"), "told")
        assert os.read(read, 100) == b"told"
    finally:
        os.close(read)
        os.close(write)
