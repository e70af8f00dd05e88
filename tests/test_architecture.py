"""The rules of the house: who may import whom, how long a file may be, what is never written."""

import ast
import graphlib
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mimlib"
FILES = sorted(PACKAGE.rglob("*.py"))

ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "protocol": set(),
    "checks": set(),
    "places": set(),
    "world": {"protocol", "places"},
    "data": {"protocol", "world"},
    "layers": {"protocol"},
    "encoders": {"protocol", "layers"},
    "decoders": {"protocol", "layers", "encoders"},
    "methods": {"protocol", "layers", "encoders", "decoders", "data.batches"},
    "metrics": {"protocol", "data.batches"},
    "tasks": {"protocol", "layers", "encoders", "decoders", "data", "metrics"},
    "evaluation": {"protocol", "layers", "encoders", "data", "metrics", "tasks"},
    "training": {"protocol", "places"},
    "weights": {"protocol", "encoders", "decoders", "methods", "tasks.heads"},
    "presets": {
        *("protocol", "world", "data", "encoders", "decoders", "methods", "tasks", "evaluation"),
        "training",
    },
    "runs": {
        *("protocol", "places", "data", "presets", "evaluation", "training", "weights"),
        "machine.origin",
    },
    "evidence": {"protocol", "places", "presets", "runs", "training", "machine.origin"},
    "machine": {
        *("protocol", "places", "world", "data.batches", "encoders", "decoders", "methods"),
        *("presets", "training"),
    },
    "figures": {"protocol", "world", "layers"},
    "course": {"*"},
    "cli": {"*"},
    "__main__": {"cli", "machine.doctor"},
}
LOUD_ROOMS = {"training", "course", "figures", "machine", "runs", "evidence", "cli", "__main__"}
PICTURE_ROOMS = {"course", "figures"}
FORBIDDEN_NAMES = {"utils", "util", "misc", "helper", "helpers", "common"}
SHARED = {"objectives", "autoencoder", "siamese"}  # by methods
SET_ON_IMPORT = {"GOMP_SPINCOUNT": "5000", "THP_MEM_ALLOC_ENABLE": "1"}  # by mimlib/__init__.py
LONG_FILES = 300
LONG_FUNCTION = 60
LONG_FUNCTION_P90 = 40


def room_of(path: Path) -> str:
    """Name of the room a file lives in: its folder, or its own name at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def our_imports(path: Path) -> set[str]:
    """Dotted names below mimlib that a file imports, relative imports resolved."""
    names = set()
    package = ("mimlib", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        names |= {name.removeprefix("mimlib.") for name in found if name.startswith("mimlib.")}
    return names


def is_allowed(room: str, name: str) -> bool:
    """Whether the table lets `room` import `name`; all may check their settings."""
    if name == "checks" or name.startswith("checks."):
        return True
    if room == name.split(".")[0] or name == "__version__" or "*" in ALLOWED[room]:
        return True
    return any(name == entry or name.startswith(entry + ".") for entry in ALLOWED[room])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    room = room_of(path)
    assert room in ALLOWED, f"{path} is in no known room; add it to the table with its reasons"
    wrong = sorted(name for name in our_imports(path) if not is_allowed(room, name))
    assert not wrong, f"{room} may import {sorted(ALLOWED[room])}, but {path.name} imports {wrong}"


def test_readme_maps_every_room():
    """The map in README.md names the rooms of the table, neither more nor less."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text[text.index("\nmimlib/\n") : text.index("\ndata/receipts/")].splitlines()
    named = {m[1] for line in lines if (m := re.match(r"  (\w+)(?:/|\.py)  ", line))}
    assert named == ALLOWED.keys() - {"__init__", "__main__"}


def test_no_method_imports_another():
    """Files of sub-rooms are asked, too; what methods share may not know a method."""
    files = [p for p in (PACKAGE / "methods").rglob("*.py") if p.stem != "__init__"]
    assert any(p.parent.name == "objectives" for p in files)
    shared = {f"methods.{name}" for name in SHARED}
    for path in files:
        part = path.relative_to(PACKAGE / "methods").with_suffix("").parts[0]
        others = {
            name
            for name in our_imports(path)
            if name.startswith("methods.") and ".".join(name.split(".")[:2]) not in shared
        }
        assert not others, f"{path.name} of methods/{part} imports {others}"


def test_rooms_have_no_circle():
    """No file can reach itself by imports, and no room another that reaches it."""
    modules = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}

    def module_of(name: str) -> str:
        while name not in modules and "." in name:
            name = name.rpartition(".")[0]
        return name

    files = {
        module: {module_of(name) for name in our_imports(path)} & modules.keys() - {module}
        for module, path in modules.items()
    }
    rooms: dict[str, set[str]] = {}
    for module, targets in files.items():
        room = module.split(".")[0]
        rooms.setdefault(room, set()).update({t.split(".")[0] for t in targets} - {room})
    for graph in (files, rooms):
        graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_names_sizes_and_forbidden_calls(path):
    text = path.read_text(encoding="utf-8")
    room = room_of(path)
    assert path.stem not in FORBIDDEN_NAMES, f"{path.name}: name the file after what it holds"
    lines = text.splitlines()
    assert len(lines) <= LONG_FILES, f"{path} has {len(lines)} lines; split it by ideas"
    assert text.isascii(), f"{path} holds non-ASCII characters"
    tree = ast.parse(text)
    if lines:
        assert ast.get_docstring(tree), f"{path} has no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not any(a.name == "*" for a in node.names), f"{path}: import *"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONG_FUNCTION, f"{path}: {node.name} has {length} lines"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), f"{path}: an unfinished place"
    if room not in LOUD_ROOMS:
        quiet = re.compile(r"\.cuda\(|\.item\(\)|\bprint\(|autocast\(|[\"']cuda[\"']|[\"']mps[\"']")
        hits = [
            f"{i}: {line.strip()}"
            for i, line in enumerate(lines, 1)
            if quiet.search(line.split("#")[0])
        ]
        assert not hits, f"{path} speaks of devices or prints: {hits}"
    if room not in PICTURE_ROOMS:
        assert not re.search(r"^\s*(import|from) (matplotlib|ipywidgets)", text, re.M), path


def test_functions_are_mostly_short():
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.quantiles(lengths, n=10)[-1] <= LONG_FUNCTION_P90


def test_only_collectives_and_training_touch_distributed():
    for path in FILES:
        if "torch.distributed" in path.read_text(encoding="utf-8"):
            inside = path.relative_to(PACKAGE).as_posix()
            assert inside == "layers/collectives.py" or (
                room_of(path) == "training" or inside == "runs/launch.py"
            ), path


def test_importing_does_no_work():
    """No torch setting, seed, thread count or variable changes on import, but two variables.

    The process starts without those two, as a newcomer's does; a user's own values stay.
    """
    modules = [
        "mimlib." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts)
        for p in FILES
        if p.stem not in ("__init__", "__main__")
    ]
    code = f"""
import importlib, os, torch, matplotlib, matplotlib.pyplot, timm, torchvision, torchmetrics
def state():
    return (torch.get_num_threads(), torch.initial_seed(), torch.get_default_dtype(),
            torch.get_float32_matmul_precision(), dict(matplotlib.rcParams))
before, variables = state(), dict(os.environ)
for name in {modules!r}:
    importlib.import_module(name)
assert state() == before, "an import changed global state"
assert dict(os.environ) == variables | {SET_ON_IMPORT!r}, set(os.environ) ^ set(variables)
"""
    bare = {name: value for name, value in os.environ.items() if name not in SET_ON_IMPORT}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=bare)
    assert done.returncode == 0, done.stderr[-2000:]
    own = {name: "7" for name in SET_ON_IMPORT}
    code = f"import mimlib, os; assert {own!r}.items() <= os.environ.items()"
    subprocess.run([sys.executable, "-c", code], env=bare | own, check=True)


def test_public_functions_have_docstrings():
    missing = []
    for path in FILES:
        module = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in [*module.body, *(member for c in classes for member in c.body)]:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not missing, missing


def test_environment_yml_agrees_with_pyproject():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "environment.yml").read_text()
    listed = {
        re.split(r"[><=\[ ]", line.strip()[2:])[0]
        for line in text.splitlines()
        if line.strip().startswith("- ")
    }
    named = {
        "python",
        "jupyterlab",
        "pytorch",
        "torchvision",
        "timm",
        "einops",
        "nbval",
        "papermill",
        "matplotlib",
    }
    assert named <= listed
    assert '-e ".[test]"' in text, "environment.yml must install this package"
    conda_name = {"pytorch": "torch"}
    ours = {re.split(r"[><=\[ ;]", d)[0] for d in project["dependencies"]}
    ours |= {re.split(r"[><=\[ ;]", d)[0] for d in project["optional-dependencies"]["test"]}
    strangers = {conda_name.get(n, n) for n in listed} - ours - {"python", "pip", "pip:", "-e"}
    strangers = {n for n in strangers if n not in {"conda-forge", "-e"}}
    assert not strangers, f"environment.yml names packages pyproject.toml does not: {strangers}"
    for line in text.splitlines():
        if match := re.match(r"\s*- ([a-z0-9-]+)(>=|==?)([\d.]+)", line):
            name, _, version = match.groups()
            if name == "python":
                assert project["requires-python"] == f">={version}"
                continue
            wanted = [
                d
                for d in project["dependencies"] + project["optional-dependencies"]["test"]
                if re.split(r"[><=\[ ;]", d)[0] == conda_name.get(name, name)
            ]
            assert any(version in d for d in wanted), f"{line.strip()} against {wanted}"


def test_constraints_pin_what_we_depend_on():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    pins = dict(line.split("==") for line in lines)
    assert not [line for line in lines if "://" in line or " @ " in line]
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
