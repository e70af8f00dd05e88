"""The three checks of settings: what they refuse, and what they say then."""

import math
from types import SimpleNamespace

import pytest

from mimlib.checks import check_choice, check_positive, check_range


@pytest.mark.parametrize(("value", "bounds", "message"), [
    (-1, {"least": 0}, "share is -1; expected 0 <= share$"),
    (1.0, {"least": 0, "below": 1}, "share is 1.0; expected 0 <= share < 1$"),
    (0.0, {"above": 0, "most": 1}, "share is 0.0; expected 0 < share <= 1$"),
    (2, {"most": 1}, "share is 2; expected share <= 1$"),
    (math.nan, {"most": 1}, "share is nan"),
    (math.nan, {}, "share is nan"),
    ((0.5, 2.0), {"least": 0, "most": 1}, r"share is \(0.5, 2.0\); expected 0 <= share <= 1"),
    ((0.9, 0.2), {"above": 0, "most": 1, "ordered": True}, "expected 0 < low <= high <= 1"),
    ((0.2, math.nan), {"ordered": True}, "expected low <= high"),
    ((0.1, 0.2, 0.3), {"ordered": True}, "expected low <= high"),
    (7, {"most": 1, "hint": "use a share"}, "expected share <= 1; use a share$"),
])  # fmt: skip
def test_what_lies_outside_a_range_is_named_with_the_range(value, bounds, message):
    with pytest.raises(ValueError, match=message):
        check_range(SimpleNamespace(share=value), "share", **bounds)


def test_what_lies_within_passes_to_its_ends():
    config = SimpleNamespace(zero=0, one=1.0, both=(0, 1), low=(0.2, 0.2), none=())
    check_range(config, "zero", "one", "both", "none", least=0, most=1)
    check_range(config, "low", "both", least=0, most=1, ordered=True)
    check_range(config, "one", above=0.999, below=1.001)
    with pytest.raises(ValueError, match="zero is 0"):
        check_range(config, "one", "zero", above=0)  # every field is asked, not the first alone


def test_positive_numbers_and_choices():
    check_positive(SimpleNamespace(size=1, unit=1e-3), "size", "unit")
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"size is {wrong}; expected 0 < size; use 64"):
            check_positive(SimpleNamespace(size=wrong), "size", hint="use 64")
    check_choice(SimpleNamespace(kind="a"), "kind", ("a", "b"))
    with pytest.raises(ValueError, match="kind is 'c'; choose one of a, b"):
        check_choice(SimpleNamespace(kind="c"), "kind", ("a", "b"))
