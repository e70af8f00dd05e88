"""The surroundings in which a lesson is rendered and checked: the same on both sides."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path

# One table for the reference run (render.py) and for pytest --nbval (conftest.py).
ENVIRONMENT: Mapping[str, str] = {
    "OMP_NUM_THREADS": "2",  # the two cores the course promises to manage with
    "MKL_NUM_THREADS": "2",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences a start-up warning on stderr
    "MIMLIB_STATIC": "1",  # widgets draw their static strip
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def fix_environment() -> None:
    """Set the variables of ENVIRONMENT for this process and its children."""
    os.environ.pop("MPLBACKEND", None)  # the kernel chooses inline by itself
    os.environ.update(ENVIRONMENT)


def kernel_prelude() -> str:
    """Return code that takes a kernel offline, run silently before its first cell.

    The text of this file is executed in a name space of its own: nothing is imported that the
    lesson has not imported itself, and no name is left behind.
    """
    return f"exec({Path(__file__).read_text() + chr(10) + 'block_network()'!r}, {{}})"


def block_network() -> None:
    """Let this process connect to itself only: a lesson must work offline.

    Raises (later, at the connection):
        ConnectionRefusedError: naming the host that was asked for.
    """
    connect = socket.socket.connect

    def _guarded(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not _is_local(address[0]):
            raise ConnectionRefusedError(
                f"the network is blocked while lessons and tests run, asked for {address[0]!r}; "
                "generate the data or ship it with the package"
            )
        return connect(self, address)

    if connect.__name__ != "_guarded":
        socket.socket.connect = _guarded


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
