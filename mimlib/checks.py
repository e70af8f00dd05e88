"""Checks of settings: what was got, what is expected and what to do, said in one form."""

import math
import operator
from collections.abc import Collection


def check_positive(config: object, *names: str, hint: str = "") -> None:
    """Refuse fields that are not above 0; see `check_range`."""
    check_range(config, *names, above=0, hint=hint)


def check_range(
    config: object,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    ordered: bool = False,
    hint: str = "",
) -> None:
    """Refuse fields that lie outside a range, or are no number; of a tuple, each entry is asked.

    Args:
        config: whose fields.
        names: of the fields.
        least: smallest number allowed; None: no such end, as below.
        above: number that is too small already.
        most: largest number allowed.
        below: number that is too large already.
        ordered: the fields are ranges themselves, (low, high) with low <= high.
        hint: what to do about it.

    Raises:
        ValueError: naming the first field that is outside, what it is and what was expected.
    """
    ends = ((least, operator.ge), (above, operator.gt), (most, operator.le), (below, operator.lt))
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, (tuple, list)) else (value,)
        fits = all(
            not math.isnan(number) and (end is None or holds(number, end))
            for number in numbers
            for end, holds in ends
        )
        if ordered:
            fits = fits and len(numbers) == 2 and numbers[0] <= numbers[1]
        if not fits:
            rule = _rule("low <= high" if ordered else name, least, above, most, below)
            raise ValueError(f"{name} is {value}; expected {rule}{hint and '; ' + hint}")


def _rule(name: str, least, above, most, below) -> str:
    """Write a range as 0 < name <= 1."""
    low = f"{above} < " if above is not None else "" if least is None else f"{least} <= "
    high = f" < {below}" if below is not None else "" if most is None else f" <= {most}"
    return f"{low}{name}{high}"


def check_choice(config: object, name: str, choices: Collection) -> None:
    """Refuse a field that is none of the choices.

    Raises:
        ValueError: naming the field, what it is and the choices.
    """
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(str, choices))}")
