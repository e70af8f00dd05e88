"""What pip installs works from any folder: also from the one above a clone named mimlib.

Both kinds of install are made of the source distribution, so that it is seen to be complete. An
environment here is a fresh one that borrows the packages of this one, mimlib not among them.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import mimlib

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys, hatchling.build as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
LOOK = """
import importlib.metadata, json, pathlib
import mimlib
from mimlib import course, places
from mimlib.course.lesson import report
from mimlib.evidence import shipping, studies
pathlib.Path(OUT).write_text(json.dumps({
    "file": mimlib.__file__,
    "version": [mimlib.__version__, importlib.metadata.version("mimlib")],
    "network": sum(p.numel() for p in shipping.shipped("croco_small").parameters()),
    "studies": [(studies.NOTEBOOKS / s.notebook).is_file() for s in studies.STUDIES.values()],
    "receipt": report.receipt("mae.1")["study"],
    "root": str(places.root()),
    "lessons": len(places.notebooks()),
}))
"""
WRITE = """
import mimlib
from mimlib import places
print(mimlib.__file__, places.receipts(), places.root(), sep=chr(10), flush=True)
places.write_text(places.receipts() / "x.json", "{}")
"""


class Install(NamedTuple):
    """An environment with mimlib in it."""

    python: Path
    site: Path
    above: Path  # the folder that holds the clone
    copied: bool


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The source distribution, unpacked as a clone of its name would lie."""
    above = tmp_path_factory.mktemp("above")
    with tarfile.open(above / build(ROOT, "build_sdist", above)) as archive:
        archive.extractall(above, filter="data")
    return (above / f"mimlib-{mimlib.__version__}").rename(above / "mimlib")


def build(source, kind, folder):
    command = [sys.executable, "-c", BUILD, kind, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", params=["build_editable", "build_wheel"])
def install(request, clone, tmp_path_factory):
    """`pip install -e .` and `pip install .`, done by hand: a wheel is unpacked."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder / "venv", symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", {"base": str(folder / "venv")})
    site = Path(paths["purelib"])
    with zipfile.ZipFile(folder / build(clone, request.param, folder)) as wheel:
        wheel.extractall(site)
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    python = Path(paths["scripts"]) / Path(sys.executable).name
    return Install(python, site, clone.parent, request.param == "build_wheel")


def run(install, folder, *arguments):
    """Run Python as a newcomer does: nothing in its environment says where mimlib is."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(install.python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_lesson_begins_in_the_folder_above_the_clone(install, tmp_path):
    """Up to its setup cell, through papermill: its kernel starts in the caller's folder.

    One more cell looks for all that ships.
    """
    lesson = json.loads((install.above / "mimlib/notebooks/00_start_here.ipynb").read_text())
    begins = ["course.start(" in "".join(cell["source"]) for cell in lesson["cells"]]
    cells = lesson["cells"][: begins.index(True) + 1]
    look = f"OUT = {str(tmp_path / 'found.json')!r}{LOOK}"
    lesson["cells"] = [*cells, {**cells[-1], "id": "look", "source": look, "outputs": []}]
    (tmp_path / "begun.ipynb").write_text(json.dumps(lesson))
    papermill = ("-m", "papermill", str(tmp_path / "begun.ipynb"), str(tmp_path / "out.ipynb"))
    done = run(install, install.above, *papermill, "-k", "python3", "-p", "PRESET", "tiny")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"mimlib {mimlib.__version__} | mae_tiny" in (tmp_path / "out.ipynb").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    home = install.site if install.copied else install.above / "mimlib"
    assert Path(found["file"]).samefile(home / "mimlib/__init__.py")
    assert found["version"] == [mimlib.__version__] * 2
    assert found["network"] > 1e6 and all(found["studies"]) and found["receipt"] == "mae.1"
    assert Path(found["root"]).samefile(install.above if install.copied else home), "for runs"
    assert (found["lessons"] > 0) == (not install.copied)


def test_elsewhere_a_copied_installation_is_found_and_not_written_into(install, tmp_path):
    """A receipt goes into a checkout; a copy refuses it, whoever asks."""
    done = run(install, tmp_path, "-c", WRITE)
    file, receipts, root = map(Path, done.stdout.splitlines())
    home = install.site if install.copied else install.above / "mimlib"
    assert file.samefile(home / "mimlib/__init__.py")
    assert root.samefile(tmp_path if install.copied else home)
    assert (receipts / "x.json").is_file() == (done.returncode == 0) == (not install.copied)
    assert ("PermissionError" in done.stderr) == install.copied
    (receipts / "x.json").unlink(missing_ok=True)
