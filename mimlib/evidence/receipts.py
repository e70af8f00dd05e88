"""Receipts: measured results kept in the repository, each with where and by what it was made."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from mimlib import places
from mimlib.places import write_text
from mimlib.runs.mistakes import Mistake

Origin = Mapping[str, object]  # see machine/origin.py


def read(name: str) -> dict:
    """Read a committed result, for instance "mae.1" or "notebooks/01_mae".

    Raises:
        FileNotFoundError: if it was never measured; the message lists the receipts there are.
    """
    path = places.receipts() / f"{name}.json"
    if not path.is_file():
        have = [p.relative_to(places.receipts()) for p in places.receipts().rglob("*.json")]
        names = ", ".join(sorted(str(p).removesuffix(".json") for p in have))
        raise FileNotFoundError(f"no receipt {name!r}; there is {names or 'none yet'}")
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, receipt: Mapping) -> None:
    """Store a receipt; Mistake if it is to be committed and no commit says what code made it."""
    if places.receipts().resolve() in path.resolve().parents:
        refuse_uncommitted(origins(receipt))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(receipt, indent=1) + "\n")


def refuse_uncommitted(found: Iterable[Origin]) -> None:
    """Raise a Mistake unless all of it was made by committed code."""
    for made in found:
        if made.get("commit") is None or made.get("dirty") is not False:
            raise Mistake(
                f"measured by {code_of(made)}: a receipt in {places.receipts()} needs code that a "
                "commit names. Commit your changes and measure again, or try out with receipts "
                "written to another folder"
            )


def origins(receipt: Mapping) -> list[Origin]:
    """Return where the numbers of a receipt come from, each place and code once.

    Receipts from before mimlib kept it run by run have one origin, that of one of the runs.
    """
    if "environments" in receipt:
        return receipt["environments"]
    return [receipt.get("environment", receipt)]


def distinct(found: Iterable[Origin]) -> list[Origin]:
    """Return each origin once, in the order in which they come."""
    different: list[Origin] = []
    for made in found:
        if made not in different:
            different.append(made)
    return different


def code_of(made: Origin) -> str:
    """Say which code made a number."""
    if made.get("commit") is None:
        return "code that no commit names"
    commit, _, changed = str(made["commit"]).partition("-")  # a suffix said so before 2026-12
    return f"commit {commit}" + (" with changes" if made.get("dirty", changed) else "")


def hardware_of(made: Origin) -> str:
    """Name what a number was made on, with the number type; older receipts do not know it."""
    return f"{made.get('hardware')} ({made.get('number_type', 'processor not recorded')})"
