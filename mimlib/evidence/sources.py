"""Which code a result depends on: a hash that comments, docstrings and other methods leave alone.

What a run and its notebook import counts, and what that imports, and so on. What measures after a
pre-training is named by presets only, so it counts in whole: rather once too often than once too
seldom. Of the presets themselves no import is followed: they name every method, and the run that
was resolved from them is part of a result's key anyway.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
FOLLOWED = {
    *("protocol", "checks", "world", "data", "layers", "encoders", "decoders", "methods"),
    *("metrics", "tasks", "evaluation", "training", "weights", "runs"),
}
ALWAYS = ("world.", "tasks.", "evaluation.", "training.", "runs.launch", "presets.")
OTHER_METHODS = "presets.methods."
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sources_of(config: object, code: Iterable[str] = ()) -> str:
    """Hash the sources behind a result: of a resolved run, and of Python cells that measure it."""
    paths = modules()
    ahead = {name for name in paths if name.startswith(ALWAYS)}
    ahead |= set(_modules_in(config)).union(*(_imports(ast.parse(cell)) for cell in code))
    found: dict[str, str] = {}
    while ahead:
        name = ahead.pop()
        room = name.split(".")[0]
        if name in found or name not in paths or name.startswith(OTHER_METHODS):
            continue
        if room in FOLLOWED or room == "presets":
            found[name], imported = _read(paths[name])
            ahead |= imported if room in FOLLOWED else set()
            ahead.add(name.rpartition(".")[0])  # a module is imported after the package around it
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:10]


def modules() -> dict[str, Path]:
    """Return the file of every module of the package, by its name below `mimlib`."""
    paths = {p.relative_to(PACKAGE).with_suffix("").parts: p for p in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in paths.items()}


@cache
def _read(path: Path) -> tuple[str, frozenset[str]]:
    """Return the hash of a file without docstrings and comments, and the names it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    text = repr(_as_tuples(tree))
    return hashlib.sha256(text.encode()).hexdigest(), frozenset(_imports(tree))


def _as_tuples(node: object) -> object:
    """Return a tree without its empty fields, of which each Python has some of its own."""
    if isinstance(node, ast.AST):
        fields = ((name, _as_tuples(value)) for name, value in ast.iter_fields(node))
        return type(node).__name__, *(field for field in fields if field[1] not in (None, ()))
    return tuple(map(_as_tuples, node)) if isinstance(node, list) else node


def _imports(tree: ast.Module) -> set[str]:
    """Return what code may import of the package, modules or names in them, without `mimlib.`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    found = {name.removeprefix("mimlib.") for name in names if name.startswith("mimlib.")}
    return found | {name.rpartition(".")[0] for name in found}


def _modules_in(config: object) -> Iterator[str]:
    """Yield the module of every dataclass in a config, at any depth."""
    if is_dataclass(config):
        yield type(config).__module__.removeprefix("mimlib.")
        for field in fields(config):
            yield from _modules_in(getattr(config, field.name))
    elif isinstance(config, (tuple, list)):
        for item in config:
            yield from _modules_in(item)
