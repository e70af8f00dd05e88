"""Exercises whose checks are themselves tested.

An exercise knows the right answer (a function that calls the production code), a list of cases from
small to large, and the mistakes people make, each as a function with a hint of its own. The same
table serves the reader, who gets the hint for the mistake made, and the tests, which require that
every listed mistake is recognized.
"""

import copy
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mimlib.course import exercises
from mimlib.course.lesson import check

TOLERANCE = 1e-5  # of floating-point results, as in check.same
ONE_KIND = {torch.float64: torch.float32, torch.int32: torch.int64}  # an answer may be in either


class Mistake(AssertionError):
    """An answer that is not right; the message holds the smallest failing case and a hint."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One task of a lesson, whose notebook has the words and the stub."""

    name: str  # "<lesson>.<number>"
    answer: Callable  # the right function, made of production code
    source: object  # production function or class that `solution` shows
    cases: Callable[[], tuple[tuple, ...]]  # arguments to try, smallest first
    wrong: Mapping[Callable, str]  # mistakes people make, and what to tell them
    hints: tuple[str, ...]  # from a nudge to nearly the answer


def find(name: str) -> Exercise:
    """Return the exercise called `name`.

    Raises:
        KeyError: if there is none; the message lists the nearest names.
    """
    everything = all_exercises()
    if name not in everything:
        near = difflib.get_close_matches(name, everything, n=3) or sorted(everything)
        raise KeyError(f"no exercise is called {name!r}; there is {', '.join(near)}")
    return everything[name]


def all_exercises() -> dict[str, Exercise]:
    """Return every exercise that a module of this folder defines, by name."""
    modules = pkgutil.iter_modules(exercises.__path__, f"{exercises.__name__}.")
    shelves = [vars(importlib.import_module(module.name)).values() for module in modules]
    found = [item for shelf in shelves for item in shelf if isinstance(item, Exercise)]
    return {task.name: task for task in sorted(found, key=lambda task: task.name)}


def exercise(name: str, function: Callable) -> Callable:
    """Judge the reader's `function`, print the verdict in one line, return what to go on with.

    Returns:
        `function` if it is right; the reference if it is still the stub (returns NotImplemented).

    Raises:
        Mistake: if it is wrong.
    """
    task = find(name)
    for arguments in task.cases():
        shown = ", ".join(_short(argument) for argument in arguments)
        call = f"{name}: {getattr(function, '__name__', 'your function')}({shown})"
        try:
            got = function(*copy.deepcopy(arguments))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Mistake(f"{call} raised {what}. Hint: {task.hints[0]}") from error
        if got is NotImplemented or got is Ellipsis:
            print(f"{name}: not attempted yet - continuing with the reference")
            return task.answer
        if got is None:
            raise Mistake(f"{call} returned None. Hint: hand the result back with `return`")
        ours = task.answer(*copy.deepcopy(arguments))
        try:
            check.compare("result", _plain(got), _plain(ours), TOLERANCE)
        except check.Different as difference:
            raise Mistake(f"{call}: {difference}. Hint: {_advice(task, function)}") from None
    print(f"{name}: passed")
    return function


def hint(name: str, level: int = 1) -> None:
    """Print hint number `level` of an exercise, 1 being the gentlest.

    Raises:
        ValueError: if there is no such level.
    """
    task = find(name)
    if not 1 <= level <= len(task.hints):
        raise ValueError(f"{name} has hints 1 to {len(task.hints)}, asked for {level}")
    print(f"{name}, hint {level} of {len(task.hints)}: {task.hints[level - 1]}")


def solution(name: str) -> None:
    """Print the answer: the source of the production function, and how the answer calls it."""
    task = find(name)
    print(inspect.getsource(task.source))
    if task.answer is not task.source:
        print(f"# and as the exercise asks for it\n{inspect.getsource(task.answer)}")


def _advice(task: Exercise, function: Callable) -> str:
    """Return the hint of the known mistake that behaves as `function` does on every case."""
    for wrong, advice in task.wrong.items():
        if all(_alike(wrong, function, arguments) for arguments in task.cases()):
            return advice
    return task.hints[0]


def _alike(left: Callable, right: Callable, arguments: tuple) -> bool:
    try:
        results = [_plain(function(*copy.deepcopy(arguments))) for function in (left, right)]
        check.compare("result", *map(_countable, results), TOLERANCE)
    except Exception:
        return False
    return True


def _plain(result: object) -> object:
    """Write alike what says the same: lists and arrays as tensors, tensors of one as numbers."""
    if isinstance(result, (np.ndarray, np.generic)):
        result = result.tolist()
    if isinstance(result, (list, tuple)):
        parts = [_plain(part) for part in result]
        try:
            return torch.stack([torch.as_tensor(part) for part in parts])
        except (TypeError, RuntimeError):  # of several shapes, or no numbers
            return parts
    if isinstance(result, torch.Tensor):
        result = result.to(ONE_KIND.get(result.dtype, result.dtype))
        return result if result.ndim else result.item()
    return result


def _countable(result: object) -> object:
    """Replace NaN, which equals nothing, by a number: two answers may share that mistake."""
    if isinstance(result, torch.Tensor):
        return result.nan_to_num(nan=1e30)
    return result if result == result else 1e30


def _short(argument: object) -> str:
    if isinstance(argument, torch.Tensor):
        large = argument.numel() > 8
        return f"{check.describe(argument)} tensor" if large else str(argument.tolist())
    return getattr(argument, "__name__", repr(argument))
