"""The README's promises: two commands, files that exist, commands that parse."""

import base64
import json
import re
from pathlib import Path

from mimlib.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_are_there_and_ci_runs_the_second():
    assert "\npip install -e . && papermill notebooks/01_mae.ipynb out.ipynb\n" in README
    assert '\npip install -e ".[test]" && pytest --nbval\n' in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert not link.startswith("http"), f"{link}: the README stands on its own"
        assert (ROOT / link).exists(), f"{link} does not exist"


def test_every_named_file_and_preset_exists():
    tree = README.split("## The house")[1].split("```")[1]
    for name in re.findall(r"^  ([a-z_]+(?:\.py|/))", tree, re.M):
        assert (ROOT / "mimlib" / name).exists(), name
    for name in re.findall(r"-m mimlib (?:train|show) (\w+)", README):
        assert name in PRESETS, name


def test_the_picture_is_the_one_stored_in_the_lesson():
    (picture,) = re.findall(r"!\[[^\]]+\]\(notebooks/(assets/[^)]+)\)", README)
    cells = json.loads((ROOT / "notebooks/01_mae.ipynb").read_text(encoding="utf-8"))["cells"]
    (outputs,) = (c["outputs"] for c in cells if f"# kept as {picture}\n" in c["source"])
    (drawn,) = (o["data"]["image/png"] for o in outputs if "data" in o)
    stored = base64.b64decode(drawn)
    assert (ROOT / "notebooks" / picture).read_bytes() == stored, "render lesson 01 again"
