"""What is installed, which device will be used, what each lesson will cost here, what is wrong.

`python -m mimlib doctor` prints it in words a newcomer can act on; its exit code is the number of
things that must be mended before the lessons run.
"""

import importlib.metadata
import platform
import sys

from mimlib import __version__

Finding = tuple[str, str]  # "ok", "note" (works, but know this) or "fix" (mend this first); text


def examine() -> list[Finding]:
    """Look at everything a lesson needs; return one finding per thing looked at."""
    findings = [("ok", f"Python {platform.python_version()} at {sys.prefix}"), *_packages()]
    if any(state == "fix" for state, _ in findings):
        return findings  # the rest needs what is missing
    from mimlib.machine import checks

    return [*findings, *checks.examine()]


def report() -> int:
    """Print the findings; return how many of them must be mended."""
    findings = examine()
    print(f"mimlib {__version__}")
    for state, text in findings:
        print(f"  {state:>4}  {text}")
    broken = sum(state == "fix" for state, _ in findings)
    print("all well: run a lesson" if not broken else f"{broken} thing(s) to mend first")
    return broken


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    """Compare what is installed with what pyproject.toml asks for."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in importlib.metadata.requires("mimlib") or ()]
    except (ImportError, importlib.metadata.PackageNotFoundError):
        return [("fix", "mimlib itself is not installed; run: pip install -e .")]
    found, findings, for_tests = [], [], []
    for need in wanted:
        version = _version(need.name)
        if need.marker is not None:  # an extra
            for_tests += [need.name] if version is None and 'extra == "test"' in str(need) else []
        elif version is None:
            findings.append(("fix", f"{need.name} is missing; run: pip install -e ."))
        elif not need.specifier.contains(version, prereleases=True):
            text = f"{need.name} {version} is not {need.specifier}; run: pip install -U -e ."
            findings.append(("fix", text))
        else:
            found.append(f"{need.name} {version}")
    if for_tests:
        text = f"{', '.join(for_tests)} not installed: only the tests need it"
        findings.append(("note", f"{text} (pip install -e '.[test]')"))
    return [("ok", ", ".join(found)), *findings]
