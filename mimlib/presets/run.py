"""A run: everything that decides a training, as plain data; and a named one, with its recipe."""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, get_type_hints

import tyro

from mimlib.training.config import TrainConfig


@dataclass(frozen=True)
class Run:
    """Everything that decides a training run, as plain data."""

    name: Annotated[str, tyro.conf.Suppress]  # name of the preset it came from
    method: object  # config with build() -> Trainable
    data: object  # config with build() -> Source
    train: TrainConfig
    evaluations: Annotated[tuple, tyro.conf.Suppress] = ()  # configs with build() -> Evaluation
    pretrained: str = ""  # run folder, checkpoint or safetensors file to start from


@dataclass(frozen=True)
class Preset:
    """A named run with its recipe card: a row of the tables in `methods/` and `tasks/`."""

    parameters: int  # of the whole method, buffers aside; a test counts them
    method: object
    data: object
    train: TrainConfig
    evaluations: tuple = ()
    processes: int = 1  # that the recipe is made for
    pretrained: str = ""  # what the command says to start from; the run itself says nothing
    card: str = ""  # paper and table, hardware, hours, expected number; a test wants one

    def run(self, name: str) -> Run:
        """Return the run of this name."""
        return Run(name, self.method, self.data, self.train, self.evaluations)

    def describe(self, name: str) -> str:
        """Write the card with the command that trains it."""
        many = f"torchrun --nproc-per-node {self.processes}" if self.processes > 1 else "python"
        start = f" --pretrained {self.pretrained}" if self.pretrained else ""
        return f"{self.card}\n\n{many} -m mimlib train {name}{start}"


def with_cards(rows: Mapping[str, Preset], cards: Mapping[str, str]) -> dict[str, Preset]:
    """Return the rows with their cards, text indented as code is.

    Raises:
        ValueError: if a row has no card, or a card no row.
    """
    if different := rows.keys() ^ cards.keys():
        raise ValueError(f"rows and cards differ in {', '.join(sorted(different))}; give both")
    return {name: replace(row, card=inspect.cleandoc(cards[name])) for name, row in rows.items()}


def run_info(run: Run) -> dict:
    """Describe a run as plain JSON values: for checkpoints, receipts and keys of results."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def override(run: Run, changes: Mapping[str, object]) -> Run:
    """Return `run` with dotted fields replaced, for instance {"train.steps": 100}.

    Raises:
        ValueError: if a name is not a field or a value has the wrong type.
    """
    return _replace(run, {tuple(name.split(".")): value for name, value in changes.items()}, "")


def part_of(train: TrainConfig, steps: float = 1.0, batch: float = 1.0) -> dict[str, object]:
    """Return overrides that train a share of the steps, on a share of the batch, at equal rates.

    Args:
        train: what a preset says; the rate it reaches stays the same.
        steps: share of its steps and of its warm-up.
        batch: share of its batch.
    """
    parts: dict[str, object] = {}
    if steps != 1:
        parts["train.steps"] = round(steps * train.steps)
        parts["train.warmup_steps"] = round(steps * train.warmup_steps)
    if batch != 1:  # base_rate is that of 256 images
        parts["train.batch_size"] = round(batch * train.batch_size)
        parts["train.base_rate"] = train.base_rate / batch
    return parts


def _replace(config: object, changes: Mapping[tuple[str, ...], object], prefix: str) -> object:
    """Replace fields at any depth, all of one dataclass at once: they are checked together."""
    fields = [f.name for f in dataclasses.fields(config) if f.name != "name"]
    below: dict[str, dict[tuple[str, ...], object]] = {}
    for (head, *rest), value in changes.items():
        if head not in fields:
            known = f"{type(config).__name__} has {', '.join(fields)}"
            raise ValueError(f"no field {head!r} in {prefix + head!r}; {known}")
        below.setdefault(head, {})[tuple(rest)] = value
    values = {}
    for head, inner in below.items():
        old = getattr(config, head)
        if () in inner:
            values[head] = _accept(inner[()], config, head, prefix + head)
        elif dataclasses.is_dataclass(old):
            values[head] = _replace(old, inner, f"{prefix}{head}.")
        else:
            raise ValueError(f"{prefix + head!r} has no fields of its own; set it directly")
    return replace(config, **values)


def _accept(value: object, config: object, name: str, full: str) -> object:
    """Return `value` if a field may hold it: of a kind that is declared, or of the same as now.

    Whole floats serve as ints.
    """
    old, declared = getattr(config, name), get_type_hints(type(config))[name]
    if isinstance(declared, UnionType) and isinstance(value, declared):  # an encoder's, for one
        return value
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if type(old) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(old, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(old) is not type(value):
        raise ValueError(
            f"{full} is {old!r}, a {type(old).__name__}; got {value!r}, a {type(value).__name__}"
        )
    return value
