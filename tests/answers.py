"""Answers that readers might give to the exercises; answers_*.py have them, lesson by lesson."""

from collections.abc import Callable

RIGHT: list[tuple[str, Callable]] = []  # name of the exercise, answer
WRONG: list[tuple[str, str, Callable]] = []  # name, words of the message it deserves, answer


def right(name: str) -> Callable:
    """Mark an answer that has to pass."""

    def keep(function: Callable) -> Callable:
        RIGHT.append((name, function))
        return function

    return keep


def wrong(name: str, words: str) -> Callable:
    """Mark an answer that has to be refused in these words."""

    def keep(function: Callable) -> Callable:
        WRONG.append((name, words, function))
        return function

    return keep
