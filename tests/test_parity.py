"""Numerical parity with the official implementations, on stored inputs and outputs.

MIMLIB_GOLDEN names another folder in the format of tests/golden/README.md, with any number of files
of any of the methods. Files of methods that mimlib does not have are skipped by name.
"""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from parity import METHODS, check, method_of
from parity_files import find
from parity_tables import check_table

OWN_FOLDER = Path(__file__).resolve().parent / "golden"
FOLDER = Path(os.environ.get("MIMLIB_GOLDEN", OWN_FOLDER)).resolve()
TENSORS, JSON_ALONE = find(FOLDER)


@cache
def checked(name):
    """What of a file is wrong, and what nobody computes."""
    if method_of(TENSORS[name]) is None:
        pytest.skip(f"{name}: mimlib does not have its method yet")
    return check(TENSORS[name])


@pytest.mark.parametrize("name", TENSORS)
def test_every_stored_output_is_reproduced(name):
    wrong, _ = checked(name)
    assert not wrong, f"{name}: these differ by more than the tolerance: {wrong}"


@pytest.mark.parametrize("name", TENSORS)
def test_no_stored_output_is_left_out(name):
    """A file of ours has none; one from elsewhere may, and then says so: the others do count."""
    _, unknown = checked(name)
    if unknown and FOLDER != OWN_FOLDER:
        pytest.skip(f"{name}: nothing in mimlib is compared with {', '.join(unknown)}")
    assert not unknown


@pytest.mark.parametrize("name", JSON_ALONE)
def test_every_table_is_reproduced(name):
    check_table(name, json.loads(JSON_ALONE[name].read_text()))


def test_the_folder_holds_what_we_have():
    assert TENSORS or JSON_ALONE, f"{FOLDER} holds no golden files"
    if FOLDER == OWN_FOLDER:
        assert {method_of(path) for path in TENSORS.values()} == set(METHODS.values())
