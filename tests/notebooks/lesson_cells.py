"""A stored lesson as the linter sees it."""

import ast
import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
STUDIES = sorted((ROOT / "notebooks" / "studies").glob("*.ipynb"))


class Cell:
    """One cell: kind, source, tags, printed text, pictures."""

    def __init__(self, raw: dict):
        self.raw = raw
        self.is_code = raw["cell_type"] == "code"
        self.source = "".join(raw["source"])
        self.tags = raw["metadata"].get("tags", [])
        self.outputs = raw.get("outputs", [])
        self.count = raw.get("execution_count")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def text(self) -> str:
        """What the cell printed and returned, as plain text."""
        parts = ["".join(output.get("text", "")) for output in self.outputs]
        parts += ["".join(output.get("data", {}).get("text/plain", "")) for output in self.outputs]
        return "\n".join(parts)

    @property
    def pictures(self) -> list[bytes]:
        """The PNG images the cell shows."""
        found = [output.get("data", {}).get("image/png") for output in self.outputs]
        return [base64.b64decode(png) for png in found if png]

    @property
    def calls(self) -> list[str]:
        """Dotted names of what the cell calls."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return [ast.unparse(node.func) for node in nodes]

    @property
    def asserts(self) -> bool:
        """Whether the cell checks anything."""
        checks = ("check.same", "report.band", "course.exercise")
        has_assert = any(isinstance(node, ast.Assert) for node in ast.walk(self.tree))
        return has_assert or any(call.endswith(checks) for call in self.calls)


def read(path: Path) -> list[Cell]:
    return [Cell(raw) for raw in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def headings(cells: list[Cell], level: int = 2) -> list[str]:
    """Headings of a level in the markdown cells, in order."""
    marks = "#" * level
    text = "\n".join(cell.source for cell in cells if not cell.is_code)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.findall(rf"^{marks} (.+?)\s*$", text, flags=re.MULTILINE)


def section(cells: list[Cell], heading: str) -> list[Cell]:
    """Cells from the markdown cell with this heading to the next heading of the level."""
    found, inside = [], False
    for cell in cells:
        titles = headings([cell])
        if titles:
            inside = titles[0] == heading
        if inside:
            found.append(cell)
    return found


def table_rows(cells: list[Cell], first_column: str) -> list[list[str]]:
    """Rows of the markdown table whose first column has this name."""
    text = "\n".join(cell.source for cell in cells if not cell.is_code)
    lines = [line for line in text.splitlines() if line.strip().startswith("|")]
    rows = [[part.strip() for part in line.strip().strip("|").split("|")] for line in lines]
    for start, row in enumerate(rows):
        if row[0] == first_column:
            return [r for r in rows[start + 2 :] if len(r) == len(row)]
    return []
