"""One golden file against mimlib: by the method it names, not by how it is called."""

import json

from parity_constcl import constcl_outputs
from parity_convmae import convmae_outputs
from parity_croco import croco_outputs
from parity_downstream import downstream_croco_outputs
from parity_files import Golden, compare
from parity_mae import fine_tuning_outputs, mae_outputs
from parity_propagation import propagation_outputs
from parity_selfpatch import selfpatch_outputs

METHODS = {
    "mae": mae_outputs,
    "downstream_mae": fine_tuning_outputs,
    "convmae": convmae_outputs,
    "croco": croco_outputs,
    "downstream_croco": downstream_croco_outputs,
    "selfpatch": selfpatch_outputs,
    "downstream_selfpatch": propagation_outputs,
    "constcl": constcl_outputs,
}


def method_of(path):
    """What computes a file's outputs; None if mimlib does not have its method."""
    facts = json.loads(path.with_suffix(".json").read_text())
    said = facts.get("method", path.stem)  # a croco_v2 is a croco
    known = [name for name in METHODS if f"{said}_".startswith(f"{name}_")]
    return METHODS[max(known, key=len)] if known else None


def check(path):
    """Return what of a file is wrong, with the differences, and what nobody computes.

    Raises:
        Refused: naming file, argument and value, if mimlib cannot build what the file asks for.
    """
    golden = Golden(path)
    assert golden.outputs and golden.outputs.keys() == golden.facts["outputs"].keys()
    return compare(method_of(path)(golden), golden)
