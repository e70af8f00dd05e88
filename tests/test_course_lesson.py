"""The setup cell: what papermill passes is brought to its type or refused by name."""

from pathlib import Path

import pytest

from mimlib import places
from mimlib.course.lesson import start as lesson
from mimlib.presets import PRESETS


def start(**changes):
    return lesson.start(**{"lesson": "mae", "preset": "tiny", **changes})


def test_one_stable_line(capsys):
    started = start(seed=3)
    line = capsys.readouterr().out
    assert line.startswith("mimlib ") and "| mae_tiny | seed 3 | device " in line
    assert line.count("\n") == 1
    assert started.run.train.seed == 3 and started.run_dir.is_dir()


def test_paper_runs_exist():
    assert set(lesson.PAPER_RUNS.values()) <= set(PRESETS)
    assert start(preset="paper").run.name == "mae_vitb16_in1k"
    assert start(preset="mae_lesson").run.name == "mae_lesson"


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0"])
def test_whole_numbers_in_any_spelling(value):
    assert start(seed=value).seed == 7
    assert start(overrides={"train.steps": value}).run.train.steps == 7


@pytest.mark.parametrize(("value", "expected"), [("false", False), ("True", True), (False, False)])
def test_papermill_spells_bools_as_text(value, expected):
    run = start(overrides={"method.normalize_target": value}).run
    assert run.method.normalize_target is expected


def test_overrides_may_be_text():
    run = start(overrides='{"train.steps": 9, "method.mask_ratio": 0.5}').run
    assert (run.train.steps, run.method.mask_ratio) == (9, 0.5)
    assert start(overrides="{'train.steps': 9}").run.train.steps == 9
    assert start(overrides="").run.train.steps == start().run.train.steps


def test_overrides_that_need_each_other_are_taken_together():
    run = start(preset="lesson", overrides={"train.steps": "50", "train.warmup_steps": "5"}).run
    assert (run.train.steps, run.train.warmup_steps) == (50, 5)


def test_a_data_set_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert start(preset="paper").run.data.root == str(places.root() / "data/imagenet")


def test_an_override_wins_over_the_seed():
    assert start(seed=1, overrides={"train.seed": 2}).run.train.seed == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "tinny"}, "unknown PRESET 'tinny'; valid are .*tiny.*gpu.*paper"),
        ({"lesson": "mea"}, "no preset belongs to 'mea'"),
        ({"seed": "x"}, "SEED is 'x', expected a whole number"),
        ({"seed": True}, "SEED is True"),
        ({"seed": -1}, "SEED is -1"),
        ({"seed": 1.5}, "SEED is 1.5"),
        ({"num_processes": 0}, "NPROC is 0"),
        ({"run_dir": 5}, "RUN_DIR is 5"),
        ({"overrides": [1]}, "OVERRIDES is"),
        ({"overrides": "steps"}, "OVERRIDES is"),
        ({"overrides": {"train.stps": 5}}, "stps.*steps"),
        ({"overrides": {"train.steps": "many"}}, "train.steps"),
        ({"overrides": {"train.steps": 5.5}}, "train.steps"),
        ({"overrides": {"method.normalize_target": 1}}, "normalize_target"),
    ],
)
def test_refusals_name_what_is_valid(changes, words):
    with pytest.raises(ValueError, match=words):
        start(**changes)


def test_run_dir_is_relative_to_the_repository():
    assert start(run_dir="runs/x").run_dir == places.root() / "runs" / "x"
    assert start(run_dir="/tmp/x").run_dir == Path("/tmp/x")


PARAMETERS = 'PRESET = "lesson"  # size\nSEED: int = 0\nOVERRIDES = {}\n'


def test_misspelt_parameters_are_refused(monkeypatch):
    cells = ["", PARAMETERS, '# Parameters\nSEEDS = 3\nPRESET = "tiny"\n', "course.start(...)"]
    monkeypatch.setattr(lesson, "_executed_cells", lambda: cells)
    with pytest.raises(ValueError, match="unknown parameter SEEDS; valid are PRESET, SEED, OVER"):
        start()
    cells[2] = "# Parameters\nSEED = 3\n"
    assert start(seed=3).seed == 3


def test_without_ipython_there_is_nothing_to_refuse():
    lesson.refuse_unknown_parameters()


def test_costs_are_told_where_nothing_is_stored_or_compared(monkeypatch, capsys):
    told = "about 5 min here"
    monkeypatch.setattr(lesson.report, "costs_here", lambda notebook, run: told)
    for static, err in (("1", ""), ("0", told + "\n")):
        monkeypatch.setenv("MIMLIB_STATIC", static)
        start(notebook="01_mae")
        said = capsys.readouterr()
        assert said.err == err and told not in said.out
    start()
    assert capsys.readouterr().err == ""
