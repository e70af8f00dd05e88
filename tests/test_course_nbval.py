"""The three traps of nbval that conftest.py removes, each run in a pytest of its own."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


SHOW = "from IPython.display import display\ndisplay({%r: 'fresh'}, raw=True)"
CONNECT = """import socket
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except ConnectionRefusedError as error:
    print("blocked" in str(error))"""
VARIABLES = "import os; print(os.environ['MIMLIB_STATIC'], os.environ['OMP_NUM_THREADS'])"
# Notebook -> cells (source, stored stdout, stored data).
NOTEBOOKS = {
    "forgiven": [
        ("import sys; print('warning', file=sys.stderr)", "", {}),
        (SHOW % "image/svg+xml", "", {"image/svg+xml": "<svg>stored</svg>"}),
        (SHOW % "image/gif", "", {"image/gif": "stored"}),
        ("x = 1\nx;", "", {}),
        ("print('mimlib 9.9.9 | device cuda')", "mimlib 0.1.0 | device cpu\n", {}),
        ("print('loss: 5.1e-01 (expected 0.4 to 0.6)')", "loss: -0.52 (expected 0.4 to 0.6)\n", {}),
        (VARIABLES, "1 2\n", {}),
        (CONNECT, "True\n", {}),
        ("print(sorted(n for n in globals() if 'block' in n))", "[]\n", {}),
    ],
    "found": [
        ("print(2)", "1\n", {}),
        ("1 / 0", "", {}),
        ("print('loss: 1 (expected 0 to 2)')", "loss: 1 (expected 0 to 3)\n", {}),
    ],
    "dead": [("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "", {})],
}


def store(path: Path, cells: list[tuple[str, str, dict]]) -> None:
    notebook = nbformat.v4.new_notebook()
    for count, (source, text, data) in enumerate(cells, 1):
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        if text:
            cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        if data:
            cell.outputs.append(nbformat.v4.new_output("display_data", data=data))
        notebook.cells.append(cell)
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> str:
    """Run nbval with our conftest on the small notebooks and return what it prints."""
    folder = tmp_path_factory.mktemp("nbval")
    for name, cells in NOTEBOOKS.items():
        store(folder / f"{name}.ipynb", cells)
    shutil.copy(ROOT / "conftest.py", folder)
    command = [
        *(sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA", "-p"),
        *("no:cacheprovider", "--rootdir", str(folder), "--nbval-cell-timeout", "60"),
        *("--nbval-sanitize-with", str(ROOT / "tests/nbval_sanitize.cfg"), str(folder)),
    ]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST_")}
    environment = alone | {"PYTHONPATH": str(ROOT), "MIMLIB_TYPECHECK": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("index", range(len(NOTEBOOKS["forgiven"])))
def test_what_means_nothing_is_not_compared(outcome, index):
    """stderr, SVG, GIF; a trailing semicolon silences its line; kernels are alike and offline."""
    assert f"PASSED forgiven.ipynb::Cell {index}" in outcome, outcome


def test_what_means_something_is_compared(outcome):
    assert "FAILED found.ipynb::Cell 0" in outcome and "Cell outputs differ" in outcome
    assert "FAILED found.ipynb::Cell 1" in outcome and "ZeroDivisionError" in outcome


def test_a_dead_kernel_is_named_at_once(outcome):
    """By its death, not by the time limit of a cell, which would be reported otherwise."""
    assert "FAILED dead.ipynb::Cell 0" in outcome and "the kernel died" in outcome
    assert "exceeded" not in outcome


def test_nbval_is_pinned_because_it_is_patched():
    version = importlib.metadata.version("nbval")
    assert f'"nbval=={version}"' in (ROOT / "pyproject.toml").read_text()


def test_the_unit_test_process_is_offline():
    import socket

    import pytest_socket

    with pytest.raises(pytest_socket.SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_shapes_are_checked_in_unit_tests():
    import jaxtyping
    import torch

    from mimlib.layers.patches import patchify

    if os.environ.get("MIMLIB_TYPECHECK", "1") == "0":
        pytest.skip("asked not to check")
    with pytest.raises(jaxtyping.TypeCheckError):
        patchify(torch.zeros(3, 8, 8), 4)
