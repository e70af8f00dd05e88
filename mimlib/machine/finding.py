"""One line of the doctor's report."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report."""

    state: str  # "ok", "note" (works, but know this) or "fix" (mend this first)
    text: str
