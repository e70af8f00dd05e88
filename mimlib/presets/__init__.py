"""Every named run. The only place where data, methods, tasks and training meet.

A run comes in four sizes: `_tiny` trains in seconds and serves the tests, `_lesson` learns in
some minutes on two CPU cores, `_gpu` on one GPU, and the paper's own size wants its data set and
many GPUs. Each file of `methods/` and `tasks/` has a table `PRESETS`, whose rows are recipe cards;
a new file there is found.
"""

import difflib
import pkgutil
from importlib import import_module

from mimlib.presets import methods, tasks
from mimlib.presets.run import Preset, Run
from mimlib.presets.scales import (
    HELD_OUT_SEED,
    cross_view,
    label_propagation,
    object_neighbors,
    object_probe,
    semantic_probe,
)

__all__ = [
    "HELD_OUT_SEED",
    "PRESETS",
    "cross_view",
    "label_propagation",
    "object_neighbors",
    "object_probe",
    "preset",
    "semantic_probe",
]


def _tables() -> dict[str, Preset]:
    """Gather the tables of all files, in the order of their names."""
    found: dict[str, Preset] = {}
    for room in (methods, tasks):
        for file in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            rows = getattr(import_module(file.name), "PRESETS", {})
            if twice := found.keys() & rows.keys():
                raise ValueError(f"{file.name} names {', '.join(twice)} a second time")
            found |= rows
    return found


PRESETS = _tables()


def preset(name: str) -> Run:
    """Return the run of this name.

    Raises:
        ValueError: if there is none; the message names the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
        raise ValueError(
            f"no preset is called {name!r}; did you mean {', '.join(near)}? "
            "'python -m mimlib list' shows all"
        )
    return PRESETS[name].run(name)
