"""Samples of real data sets, where MIMLIB_REALDATA names a folder of them."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("MIMLIB_REALDATA", "nowhere"))


def sample(name):
    if not (FOLDER / name).is_dir():
        pytest.skip(f"MIMLIB_REALDATA names no folder with {name} in it")
    return FOLDER / name
