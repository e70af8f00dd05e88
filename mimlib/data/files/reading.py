"""What may go wrong while files are read: said by their names, and by what is not installed."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def reading(what: str | Path, advice: str = "") -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a ValueError that names it.

    Decoders raise SyntaxError, struct.error, EOFError and others.
    """
    try:
        yield
    except Exception as error:
        advice = advice and f"; {advice}"
        raise ValueError(f"cannot read {what}: {type(error).__name__}: {error}{advice}") from error


def import_optional(name: str, what: str, advice: str = "") -> ModuleType:
    """Import a package that one kind of file alone needs; RuntimeError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(
            f"{name}, which reads {what}, is not installed; this package does not depend on it "
            f"otherwise: pip install {name}{advice}"
        ) from error
