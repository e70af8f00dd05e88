"""What `python -m mimlib doctor` says."""

import json
import os
import subprocess
import sys

import pytest

from mimlib.machine import checks, doctor
from mimlib.machine.costs import Rates


@pytest.fixture(autouse=True)
def known_rates(monkeypatch):
    """No test waits for a clock."""
    monkeypatch.setattr(checks, "rates", lambda run: Rates(300.0, 1.0, 1.0, 25.0))


def test_this_machine_is_fit_for_the_lessons(capsys):
    assert doctor.report() == 0
    text = capsys.readouterr().out
    assert "torch " in text and "will train on" in text and "all well" in text


def test_a_missing_package_is_named_with_its_cure(monkeypatch, capsys):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "timm" else real(name))
    assert doctor.report() == 1
    text = capsys.readouterr().out
    assert "timm is missing; run: pip install" in text and "1 thing(s) to mend" in text


def test_an_old_package_is_named(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "0.9.1" if name == "torch" else real(name))
    fixes = [text for state, text in doctor.examine() if state == "fix"]
    assert len(fixes) == 1 and "torch 0.9.1 is not >=2.11" in fixes[0]


def test_a_release_candidate_is_a_version(monkeypatch):
    real = doctor._version
    new = "9.6rc1"
    monkeypatch.setattr(doctor, "_version", lambda name: new if name == "timm" else real(name))
    assert not [text for state, text in doctor.examine() if state == "fix"]


def test_the_doctor_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchmetrics'] = None\n"
        "from mimlib.machine import doctor; real = doctor._version\n"
        "doctor._version = lambda name: None if name == 'torch' else real(name)\n"
        "from mimlib.__main__ import main; raise SystemExit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "torch is missing; run: pip install -e ." in done.stdout


def test_lesson_costs_scale_with_the_machine(monkeypatch, tmp_path):
    made = {"hardware": "2 cores of Bird", "number_type": "bfloat16"}
    old = {"seconds": 100.0, "peak_memory_mib": 1024.0}
    new = old | {
        "preset": "mae_lesson",
        "work": {"training": {"seconds": 60.0}},
        "rates": {"images": 900.0, "views": 100.0, "views_together": 200.0, "rounds": 50.0},
        "environment": made,
    }
    (tmp_path / "notebooks").mkdir()
    for name, receipt in {"01_mae": new, "02_old": old | {"hardware": "2 CPU cores"}}.items():
        (tmp_path / f"notebooks/{name}.json").write_text(json.dumps(receipt))
    monkeypatch.setattr(checks.places, "receipts", lambda: tmp_path)
    assert [text for _, text in checks._lessons()] == [
        "lesson 01_mae: about 260 s and 1.0 GiB here; 100 s on 2 cores of Bird, bfloat16",
        "lesson 02_old: 1.0 GiB; 100 s on 2 CPU cores whose rates were not recorded",
    ]


@pytest.mark.parametrize("place", ["a file", "below a file", "no home"])
def test_an_unwritable_cache_is_a_note(monkeypatch, tmp_path, place):
    (tmp_path / "file").write_text("")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}
    if place == "no home":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", str)  # the system does not list this user
    monkeypatch.setenv("MIMLIB_CACHE", str(places.get(place, "~/cache")))
    state, text = checks._cache()
    assert state == "note" and "set MIMLIB_CACHE to a writable folder" in text


def test_the_cache_of_the_home_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MIMLIB_CACHE", "~/cache")
    _, text = checks._cache()
    assert str(tmp_path / "cache") in text and "~" not in text
