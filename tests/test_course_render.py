"""The renderer: fresh kernel, clean file, same bytes twice."""

import copy
import json
import os

import nbformat
import pytest

from mimlib import places
from mimlib.course.lesson import report
from mimlib.course.notebooks import render
from mimlib.machine import costs

WORK = """if "MIMLIB_WORK" in os.environ:
    with open(os.environ["MIMLIB_WORK"], "a") as file:
        file.write('["training", 2, 0.5]\\n["training", 4, 1.5]\\n')
# course.start("mae", PRESET)"""
SOURCES = (
    ("markdown", "# Small\n\nMeasured: soon.\n"),
    ("code", "import os\nprint('a')\nprint('b', os.environ['OMP_NUM_THREADS'])"),
    ("code", "import sys\nprint('50%|##   |', file=sys.stderr)\n2 + 2"),
    ("code", "print('half\\rwhole')"),
    ("code", "2 + 2"),
    ("code", "2 + 2"),
    ("code", 'PRESET = "lesson"\n' + WORK),
)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "receipts", lambda: tmp_path / "receipts")
    small = nbformat.v4.new_notebook(metadata={"papermill": {"duration": 3}})
    for kind, source in SOURCES:
        cell = getattr(nbformat.v4, f"new_{kind}_cell")(source)
        cell.metadata = {"tags": ["x"], "collapsed": True}
        small.cells.append(cell)
    path = tmp_path / "small.ipynb"
    nbformat.write(small, path)
    return path


def test_two_runs_give_the_same_bytes_and_measuring_fills_the_banner(notebook, monkeypatch):
    made = {"commit": "abc", "dirty": False, "hardware": "2 cores of Bird"}
    made["number_type"] = "float32"
    monkeypatch.setattr(render, "origin", lambda: made)
    assert render.main([str(notebook)]) == 0
    first = notebook.read_bytes()
    assert "Measured: not yet." in first.decode()
    assert render.main(["--check", str(notebook)]) == 0
    assert notebook.read_bytes() == first
    stored = json.loads(first)
    assert set(stored["metadata"]) == {"kernelspec", "language_info"}
    codes = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == [1, 2, 3, 4, 5, 6]
    assert codes[0]["outputs"][0]["text"] == ["a\n", f"b {os.environ['OMP_NUM_THREADS']}\n"]
    assert [output["output_type"] for output in codes[1]["outputs"]] == ["execute_result"]
    assert codes[2]["outputs"][0]["text"] == ["whole\n"]
    assert all(cell["metadata"] == {"tags": ["x"]} for cell in stored["cells"])
    assert len({cell["id"] for cell in stored["cells"]}) == len(SOURCES)
    render.main(["--measure", str(notebook)])
    assert "on 2 cores of Bird (float32)" in notebook.read_text()
    cost = report.receipt("notebooks/small")
    assert cost["seconds"] > 0 and 20 < cost["peak_memory_mib"] < 4000
    assert cost["work"]["training"] == {"count": 6, "seconds": 2.0}
    assert cost["tiny_seconds"] > 0 and cost["preset"] == "mae_lesson"
    assert all(cost["rates"][name] > 0 for name in costs.PARTS.values())
    assert "tiny" not in notebook.read_text()
    made["dirty"] = True
    with pytest.raises(ValueError, match="commit abc with changes: a receipt in .*Commit your"):
        render.main(["--measure", str(notebook)])


def test_ids_follow_the_text_not_the_place(notebook):
    one = nbformat.read(notebook, as_version=4)
    render.clean(one)
    two = copy.deepcopy(one)
    two.cells.insert(1, nbformat.v4.new_markdown_cell("new"))
    render.clean(two)
    assert [cell.id for cell in two.cells if cell.source != "new"] == [c.id for c in one.cells]


def test_a_failing_cell_stores_nothing(notebook):
    broken = nbformat.read(notebook, as_version=4)
    broken.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(broken, notebook)
    before = notebook.read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        render.main([str(notebook)])
    assert notebook.read_bytes() == before


def test_complaints_on_stderr_are_shown_not_stored(capsys):
    output = nbformat.v4.new_output("stream", name="stderr", text="50%|# |\rUserWarning: hm\n")
    assert render._clean_outputs([output]) == []
    assert "UserWarning: hm" in capsys.readouterr().err


def test_a_picture_is_kept_as_a_file(tmp_path):
    cell = nbformat.v4.new_code_cell("# kept as assets/one.png\nshow()")
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="})]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    render.keep_pictures(tmp_path / "a.ipynb")
    assert (tmp_path / "assets/one.png").read_bytes() == b"hello"
