"""Proof cells: what a lesson has just written equals what the package trains with."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass

import numpy as np
import torch
from torch import Tensor, nn


class Different(AssertionError):
    """Two things that should be equal are not; the message names the first difference."""


def same(
    name: str, mine: object, ours: object, tolerance: float = 0.0, proves: str | None = None
) -> None:
    """Assert that `mine` equals `ours` and print one line that is the same on every machine.

    Tensors and arrays are compared in shape, kind and value; numbers and strings in value;
    mappings, sequences and tuples part by part; modules by the names and shapes of what their
    state dict holds (load one into the other to compare their outputs).

    Args:
        name: what is compared, for the printed line.
        mine: what the reader has written.
        ours: what the package returns.
        tolerance: largest difference allowed, relative to the largest value of `ours` or 1.
            0 asks for equality: right for integers, permutations and pure rearrangements.
        proves: dotted name of the production function or class this cell proves, a literal. A
            test collects these literals and finds what no lesson proves.

    Raises:
        Different: at the first difference.
    """
    compare(name, mine, ours, tolerance)
    how = "exact" if tolerance == 0 else f"within {tolerance:g}"
    subject = f" = {proves.removeprefix('mimlib.')}" if proves else ""
    print(f"same: {name}{subject}, {describe(ours)}, {how}")


def gradients(loss: Tensor, of: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return d loss / d parameter by name, zero where a parameter has no part in the loss.

    Args:
        loss: scalar.
        of: a module (its trainable parameters) or named leaf tensors.
    """
    named = dict(of.named_parameters()) if isinstance(of, nn.Module) else dict(of)
    named = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    zeros = {"allow_unused": True, "materialize_grads": True}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, **zeros)
    return dict(zip(named, found))


def compare(name: str, mine: object, ours: object, tolerance: float) -> None:
    """Raise `Different` at the first difference between `mine` and `ours`; print nothing."""
    parts, found = _parts(ours), _parts(mine)
    if parts is None:
        _compare_whole(name, mine, ours, tolerance)
        return
    if found is None:
        raise Different(f"{name}: expected {describe(ours)}, got {type(mine).__name__}")
    missing, extra = [k for k in parts if k not in found], [k for k in found if k not in parts]
    if missing or extra:
        raise Different(
            f"{name}: missing {missing or 'nothing'}, not expected {extra or 'nothing'}"
        )
    for key, part in parts.items():
        where = f"{name}[{key}]" if isinstance(key, int) else f"{name}.{key}"
        compare(where, found[key], part, tolerance)


def _parts(item: object) -> Mapping | None:
    """Return what is compared part by part, by name or place; None for what has no parts."""
    if isinstance(item, nn.Module):
        return {name: list(tensor.shape) for name, tensor in item.state_dict().items()}
    if isinstance(item, Sequence) and not isinstance(item, str):
        return dict(enumerate(item))
    if is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    return item if isinstance(item, Mapping) else None


def _compare_whole(name: str, mine: object, ours: object, tolerance: float) -> None:
    if isinstance(ours, (Tensor, np.ndarray)):
        _compare_tensors(name, mine, torch.as_tensor(ours), tolerance)
    elif isinstance(mine, (Tensor, np.ndarray)) and torch.as_tensor(mine).numel() != 1:
        raise Different(f"{name}: got shape {list(mine.shape)}, expected {describe(ours)}")
    elif isinstance(ours, float):
        if isinstance(mine, bool) or not isinstance(mine, (int, float, Tensor)):
            raise Different(f"{name}: expected a number, got {type(mine).__name__}")
        close = abs(float(mine) - ours) <= tolerance * max(1.0, abs(ours))  # false for NaN
        if not close:
            raise Different(f"{name}: got {float(mine):.8g}, expected {ours:.8g}")
    elif mine != ours:
        raise Different(f"{name}: got {mine!r}, expected {ours!r}")


def _compare_tensors(name: str, mine: object, ours: Tensor, tolerance: float) -> None:
    if not isinstance(mine, (Tensor, np.ndarray)):
        raise Different(f"{name}: expected a tensor, got {type(mine).__name__}")
    mine = torch.as_tensor(mine).detach().cpu()
    ours = ours.detach().cpu()
    if mine.shape != ours.shape:
        raise Different(f"{name}: got shape {list(mine.shape)}, expected {list(ours.shape)}")
    if mine.dtype != ours.dtype:
        raise Different(f"{name}: got {_kind(mine)}, expected {_kind(ours)}")
    if ours.numel() == 0:
        return
    if tolerance == 0 or not ours.is_floating_point():
        wrong = mine != ours
    else:
        limit = tolerance * max(1.0, float(ours.abs().max()))
        wrong = ~((mine - ours).abs() <= limit)  # negated, so that NaN counts as wrong
    if wrong.any():
        where = tuple(int(i) for i in wrong.nonzero()[0])
        raise Different(
            f"{name}: {int(wrong.sum())} of {ours.numel()} values differ, first at "
            f"{list(where)}: got {mine[where].item():.8g}, expected {ours[where].item():.8g}"
        )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def describe(item: object) -> str:
    """Say in a few words what kind of thing `item` is and how large."""
    if isinstance(item, nn.Module):
        return f"{len(item.state_dict())} parameters and buffers in name and shape"
    if isinstance(item, (Tensor, np.ndarray)):
        item = torch.as_tensor(item)
        return f"{'x'.join(map(str, item.shape)) or 'scalar'} {_kind(item)}"
    if isinstance(item, Mapping):
        return f"{len(item)} named values"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return f"{len(item)} parts"
    return type(item).__name__
