"""Numerical parity with the official implementations, on stored inputs and outputs.

MIMLIB_GOLDEN names another folder in the format of tests/golden/README.md, with any number of files
of any of the methods. What a file says about itself counts, not how it is called.
"""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from parity_convmae import convmae_outputs
from parity_croco import croco_outputs
from parity_downstream import downstream_croco_outputs
from parity_files import Golden, compare, find
from parity_mae import fine_tuning_outputs, mae_outputs
from parity_propagation import propagation_outputs
from parity_selfpatch import selfpatch_outputs
from parity_tables import TABLES

OWN_FOLDER = Path(__file__).resolve().parent / "golden"
FOLDER = Path(os.environ.get("MIMLIB_GOLDEN", OWN_FOLDER)).resolve()
TENSORS, JSON_ALONE = find(FOLDER)
METHODS = {
    "mae": mae_outputs,
    "downstream_mae": fine_tuning_outputs,
    "convmae": convmae_outputs,
    "croco": croco_outputs,
    "downstream_croco": downstream_croco_outputs,
    "selfpatch": selfpatch_outputs,
    "downstream_selfpatch": propagation_outputs,
}


def method_of(path):
    """What computes a file's outputs: by the method it names, `croco_v2` being a `croco`."""
    said = json.loads(path.with_suffix(".json").read_text())["method"]
    known = [name for name in METHODS if f"{said}_".startswith(f"{name}_")]
    return METHODS[max(known, key=len)] if known else None


@cache
def compared(name):
    """Of a file: its outputs that are wrong, and those that nobody computes."""
    if not (compute := method_of(TENSORS[name])):
        pytest.skip(f"{name}: mimlib does not have its method yet")
    golden = Golden(TENSORS[name])
    assert golden.outputs and set(golden.outputs) == set(golden.facts["outputs"])
    return *compare(compute(golden), golden), golden.tolerance


@pytest.mark.parametrize("name", TENSORS)
def test_every_stored_output_is_reproduced(name):
    wrong, _, tolerance = compared(name)
    assert not wrong, f"{name}: these differ by more than {tolerance}: {wrong}"


@pytest.mark.parametrize("name", TENSORS)
def test_no_stored_output_is_left_out(name):
    _, unknown, _ = compared(name)
    if unknown and FOLDER != OWN_FOLDER:
        pytest.skip(f"{name}: nothing of mimlib is compared with {', '.join(unknown)}")
    assert not unknown


@pytest.mark.parametrize("name", JSON_ALONE)
def test_every_table_is_reproduced(name):
    facts = json.loads(JSON_ALONE[name].read_text())
    kind = next((kind for kind in TABLES if name.startswith(kind)), None)
    if kind is None:
        pytest.skip(f"{name}: mimlib has nothing to compare with it yet")
    TABLES[kind](name, facts)


def test_the_folder_holds_what_we_have():
    assert TENSORS or JSON_ALONE, f"{FOLDER} holds no files"
    if FOLDER == OWN_FOLDER:
        assert {method_of(path) for path in TENSORS.values()} == set(METHODS.values())
