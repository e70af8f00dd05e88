"""Continuing a run: the newest good checkpoint, and the proof that it is of the same run."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from mimlib.protocol import Source
from mimlib.training.checkpoint import CheckpointError, list_checkpoints, load_checkpoint
from mimlib.training.config import FREE_ON_RESUME, TrainConfig

# Where the data lies and how many processes read it changes no number.
PRECISION = ("train", "precision")
IMAGES = ("images",)  # what the source says of its content
DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}  # of a later field
FREE_PLACES = (("run", "data", "root"), ("run", "data", "workers"))


def newest_good(folder: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Load the newest checkpoint that verifies; (None, None) if the folder has none.

    Raises CheckpointError if there are checkpoints and none can be used.
    """
    failures = []
    for path in list_checkpoints(folder):
        try:
            content = load_checkpoint(path)
        except CheckpointError as error:
            failures.append(error)
            continue
        if failures:
            warnings.warn(f"{failures[0]}; continuing from {path}", stacklevel=2)
        return path, content
    if failures:
        raise CheckpointError(
            f"no usable checkpoint in {folder}: {failures[0]}. Move the step_*.pt files away to "
            "begin again"
        )
    return None, None


def describe_run(
    config: TrainConfig,
    dtype: torch.dtype,
    run_info: Mapping[str, Any] | None,
    num_ranks: int,
    source: Source,
) -> dict[str, Any]:
    """Turn everything that defines a run into plain values, as a checkpoint stores them.

    Raises TypeError if `run_info` holds something that is not a plain value or a dataclass.
    """

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        if isinstance(value, PurePath):
            return str(value)
        raise TypeError(f"run_info holds a {type(value).__name__}; expected plain values")

    train = replace(config, precision=str(dtype).removeprefix("torch."))
    images = source.identity() if hasattr(source, "identity") else ""  # of a stranger's source
    described = {"train": train, "num_ranks": num_ranks, "images": images, "run": run_info or {}}
    return json.loads(json.dumps(described, default=plain))


def is_free(name: tuple[str, ...]) -> bool:
    """Say whether a field may change between a checkpoint and its continuation."""
    if name[-2:-1] == ("train",) and name[-1] in FREE_ON_RESUME:
        return True
    return name[:2] == ("run", "evaluations") or name in FREE_PLACES


def check_same_run(path: Path, stored: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming what changed, if a run would draw or compute other numbers."""
    before, now = dict(flatten(stored)), dict(flatten(ours))
    if before.get(PRECISION) == "auto":  # older checkpoints do not say what it came to
        before[PRECISION] = now[PRECISION]
    before.setdefault(IMAGES, now[IMAGES])
    for name in now.keys() - before.keys():  # fields that came later
        if name[-2:-1] == ("train",) and name[-1] in DEFAULTS:
            before[name] = DEFAULTS[name[-1]]
    changed = [
        f"{'.'.join(name)}: {before.get(name, 'absent')!r} stored, {now.get(name, 'absent')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not is_free(name)
    ]
    if changed:
        raise CheckpointError(
            f"{path} is of a run with other settings ({'; '.join(changed)}); "
            "use the stored settings to continue it, or a new output folder"
        )


def flatten(tree: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the leaves of nested dicts with their path; a list is a leaf, unless it holds dicts."""
    if isinstance(tree, list) and tree and all(isinstance(item, dict) for item in tree):
        tree = dict(enumerate(tree))
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, (*name, str(key)))
    else:
        yield name, tree
