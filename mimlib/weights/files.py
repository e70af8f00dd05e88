"""Weights in files: read whole or refused, and copied whole or refused."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

UNREADABLE = (
    "{} is not readable as weights ({}); expected a checkpoint of torch.save or a .safetensors "
    "file, whole"
)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read a checkpoint or a safetensors file onto the CPU.

    ValueError if it is torn, of another kind, or holds more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} holds more than tensors and plain values (training files of the official "
                "MAE hold their command line); if you trust it, open it once with "
                "torch.load(path, weights_only=False) and save its 'model' entry alone"
            ) from error
        raise ValueError(UNREADABLE.format(path, error)) from error
    except (RuntimeError, KeyError, EOFError, ValueError, SafetensorError) as error:
        raise ValueError(UNREADABLE.format(path, error)) from error
    if not isinstance(content, Mapping):
        raise ValueError(UNREADABLE.format(path, f"it holds a {type(content).__name__}"))
    return content


def copy_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str | Path, may_miss: Iterable[str] = ()
) -> None:
    """Copy tensors of our names, all or none of them.

    ValueError names what is missing, unexpected, of another shape or not finite.
    """
    own = model.state_dict()
    problems = {
        "missing": [n for n in own if n not in state and n not in set(may_miss)],
        "unexpected": [n for n in state if n not in own],
        "of another shape": [
            f"{n} {tuple(state[n].shape)}, expected {tuple(own[n].shape)}"
            for n in own
            if n in state and state[n].shape != own[n].shape
        ],
        "with values that are not finite": [
            n for n, t in state.items() if isinstance(t, Tensor) and not t.isfinite().all()
        ],
    }
    if any(problems.values()):
        lines = [
            f"  {len(found)} {kind}: {_shorten(found)}" for kind, found in problems.items() if found
        ]
        raise ValueError(
            f"{source} do not fit {type(model).__name__}:\n" + "\n".join(lines) + "\n"
            "check size, patch size, class token and which part of the network the file holds"
        )
    model.load_state_dict(state, strict=False)


def rename(name: str, parts: Mapping[str, str]) -> str:
    """Replace the part that a name begins with, the first of `parts` that fits."""
    for old, new in parts.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick the entries whose names begin with `prefix`, without it."""
    return strip(prefix, {n: t for n, t in state.items() if n.startswith(prefix)})


def strip(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take `prefix` away from the names that begin with it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _shorten(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
