"""Which changes of the code make a result stale, and which do not."""

import pytest

from mimlib.evidence import sources
from mimlib.presets import preset

FILES = {
    "__init__": "",
    "methods/__init__": "",
    "methods/mae": "from mimlib.layers.patches import patchify\n\ndef loss(x):\n    return x + 1\n",
    "methods/croco": "def loss(x):\n    return x\n",
    "layers/patches": "from mimlib.layers import order\n\ndef patchify(x):\n    return x\n",
    "layers/order": "STEP = 1\n",
    "layers/rope": "TURN = 1\n",
    "encoders/vit": "",
    "tasks/depth": "from mimlib.metrics import dense\n",
    "metrics/dense": "RATE = 1\n",
    "metrics/videos": "from mimlib.methods import croco\nRATE = 1\n",
    "world/sets/worker": "def main():\n    return 1\n",
    "presets/tasks/depth": "from mimlib.methods import croco\nSTEPS = 100\n",
    "presets/methods/mae": "STEPS = 100\n",
    "figures/style": "SIZE = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(package, name, text):
    path = package / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sources._read.cache_clear()


@pytest.mark.parametrize("name", FILES)
def test_what_is_reached_counts_and_other_code_does_not(package, name):
    config, before = preset("mae_tiny"), sources.sources_of(preset("mae_tiny"))
    assert sources.sources_of(config) == before
    write(package, name, FILES[name] + "CHANGED = True\n")
    others = ("methods/croco", "layers/rope", "metrics/videos", "presets/methods/mae")
    free = name in (*others, "figures/style", "__init__")
    assert (sources.sources_of(config) == before) == free


def test_what_the_notebook_imports_counts(package):
    cells = ["from mimlib.metrics import videos\nfrom mimlib import figures", "x = 1"]
    config = preset("mae_tiny")
    before = sources.sources_of(config, cells)
    assert before != sources.sources_of(config)
    for name, differs in (("figures/style", False), ("metrics/videos", True)):
        write(package, name, FILES[name] + "CHANGED = True\n")
        assert (sources.sources_of(config, cells) != before) == differs
    before = sources.sources_of(config, cells)
    write(package, "methods/croco", "def loss(x):\n    return -x\n")
    assert sources.sources_of(config, cells) != before, "imported by what is imported"


def test_comments_docstrings_and_layout_do_not_count(package):
    config, before = preset("mae_tiny"), sources.sources_of(preset("mae_tiny"))
    head = '"""What it is."""\n\n' + FILES["methods/mae"].split("\n\n")[0]
    body = '\n\n\ndef loss(x):  # why\n    """Say so."""\n    return (x\n        + 1)\n'
    write(package, "methods/mae", head + body)
    assert sources.sources_of(config) == before
    write(package, "methods/mae", head + body.replace("+ 1", "+ 2"))
    assert sources.sources_of(config) != before


EVERYTHING = """
import os.path as p
def f(a, /, b: int = 1, *c, d=None, **e) -> None:
    with a as b: yield f"{a!r:>{b}} {d}" "and"
    match a:
        case [1, {"x": y}, *_] if (z := -1.5e300): return ..., (), [], {*c}, b"", True, 2j
    for i, in c: del i
    else: raise ValueError from None
    return [lambda: x[1:, ::2] for x in a if x < 1 <= 2] @ d
"""


def test_the_hash_is_the_same_in_every_python(package):
    """What `ast.dump` writes differs: a field of its own comes and goes with each version."""
    write(package, "methods/mae", EVERYTHING)
    assert sources._read(package / "methods/mae.py")[0][:10] == "bc5b411b60"


def test_the_real_package_is_read_and_methods_are_told_apart():
    assert {"methods.mae", "training.trainer", "world"} <= sources.modules().keys()
    assert sources.sources_of(preset("mae_tiny")) != sources.sources_of(preset("croco_tiny"))
    assert sources.sources_of(preset("mae_tiny")) == sources.sources_of(preset("mae_gpu"))
