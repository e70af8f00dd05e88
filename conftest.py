"""How tests and notebooks are run: one environment, no network, nbval without its traps.

nbval is pinned in pyproject.toml because it is patched here; tests/test_course_nbval.py holds the
three changes: a kernel that dies is reported at once, cells run with history (so that a trailing
semicolon means what it means in JupyterLab), and stderr, SVG and GIF are not compared.

The whole suite runs in several processes side by side, one file in one process, long files first;
whoever names files or folders, or writes `-n 0`, gets one process.
"""

import os
import shutil
import tempfile
import time
from queue import Empty

if os.environ.get("MIMLIB_TYPECHECK", "1") != "0":
    # Before anything of mimlib is imported: unit tests check shapes and types at every call of
    # the four rooms that compute. torch.compile cannot look through the checks: its tests run
    # in a process with MIMLIB_TYPECHECK=0. Notebook kernels are processes of their own.
    from jaxtyping import install_import_hook

    rooms = ("layers", "encoders", "decoders", "methods")
    install_import_hook([f"mimlib.{room}" for room in rooms], "beartype.beartype")

import pytest
import pytest_socket
import torch
from nbval import kernel as nbval_kernel

from mimlib.course.notebooks import sandbox
from mimlib.places import num_cores

sandbox.fix_environment()
torch.set_num_threads(1)  # of this process: two cores are better spent on two things
if "PYTEST_XDIST_WORKER" in os.environ:  # then the same holds for the kernels of notebooks
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
MOST_PROCESSES = 4  # a lesson and the tests beside it take some 4 GiB each
LOCAL = ["127.0.0.1", "::1", "localhost"]
REPLY_TIMEOUT = 3600  # seconds, where nbval names none
PRELUDE_TIMEOUT = 120  # seconds


def pytest_configure(config):
    """Share one world cache among all tests and notebooks of this run, then throw it away."""
    if "MIMLIB_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="mimlib-cache-")
        os.environ["MIMLIB_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop("MIMLIB_CACHE", None))


def pytest_xdist_auto_num_workers(config):
    """Start several processes for the whole suite and none for a part of it: `-n auto`."""
    whole = config.option.nbval and config.args == config.getini("testpaths")
    return min(num_cores(), MOST_PROCESSES) if whole else 0


def pytest_collection_modifyitems(items):
    """Begin with notebooks, those of most cells first, then with files that hold slow tests.

    Files stay together, each in the order it is written in.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def rank(path):
        slow = any(item.get_closest_marker("slow") for item in files[path])
        return (0, -len(files[path])) if path.suffix == ".ipynb" else (1 if slow else 2, 0)

    items[:] = [item for path in sorted(files, key=rank) for item in files[path]]


def pytest_collectstart(collector):
    """Do not compare what differs without meaning: warnings' paths, dates in SVG, GIF frames."""
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("stderr", "image/svg+xml", "image/gif")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Allow connections to this machine only."""
    pytest_socket.socket_allow_hosts(LOCAL, allow_unix_socket=True)


class Kernel(nbval_kernel.RunningKernel):
    """nbval's kernel, offline, with history, and honest about its death."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        message = self.kc.execute(sandbox.kernel_prelude(), silent=True, store_history=False)
        self.await_reply(message, PRELUDE_TIMEOUT)

    def execute_cell_input(self, cell_input, allow_stdin=None):
        """Run a cell as JupyterLab does."""
        return self.kc.execute(
            cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )

    def await_reply(self, msg_id, timeout=None):
        """Wait for the reply to a cell, looking every second whether the kernel is alive."""
        end = time.monotonic() + (timeout or REPLY_TIMEOUT)
        while True:
            try:
                message = self.get_message(stream="shell", timeout=1)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died; was the memory enough?") from None
                if time.monotonic() > end:
                    raise
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                if message["content"]["status"] == "aborted":
                    raise RuntimeError("the kernel refused the request")
                return


def pytest_sessionstart(session):
    """Put our kernel in the place of nbval's."""
    from nbval import plugin

    plugin.RunningKernel = Kernel
