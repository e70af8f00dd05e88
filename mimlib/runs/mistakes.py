"""Mistakes of the caller, found before any work is done: told in a line, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class Mistake(ValueError):
    """What the caller can mend; the message says all."""


@contextmanager
def mistakes(*kinds: type[Exception]) -> Iterator[None]:
    """Make errors of these kinds mistakes; those about values and files, if none is named.

    Meant for what prepares work, never for the work itself, whose errors show where they arose.
    """
    try:
        yield
    except Mistake:
        raise
    except kinds or (ValueError, OSError) as error:  # noqa: B030
        raise Mistake(str(error)) from error
