"""Checks that depend on a clock: a band around a time, or an assertion of one, fails on a busy day.

Times are shown; operations, tokens, bytes and calls are checked. What a clock said is followed by
name through assignments and functions. Seconds that a receipt holds are of another day.
"""

import ast
import re

CLOCKS = {"perf_counter", "process_time", "thread_time", "monotonic", "matmul_rate"}
MEASURED = {"seconds", "images_per_second", "mfu"}  # attributes and keys of logs and summaries
STORED = ("receipt", "read_text")  # calls that return what was measured another day
SPEAKS_OF_TIME = re.compile(r"\b(time of|seconds|milliseconds|ms|speed|faster|slower|images/s)\b")
CHECKS = ("band", "check.same", "check.compare")
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def checks_of_clocks(*sources: str) -> list[str]:
    """Return the checks in these cells or files, read in order, whose outcome is up to a clock."""
    reader = _Reader()
    for source in sources:
        reader.visit(ast.parse(source))
    return reader.found


class _Reader(ast.NodeVisitor):
    """Reads statements in order and remembers which names hold times, and which hold receipts."""

    def __init__(self):
        self.timed, self.stored, self.found = set(), set(), []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """What a function calls its values is its own; whoever calls it gets a time."""
        outside = set(self.timed), set(self.stored)
        self.generic_visit(node)
        tells = any(self._tells_time(part) for part in node.body)
        self.timed, self.stored = outside
        if tells:
            self.timed.add(node.name)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Follow a value to its names, part by part where both sides are tuples."""
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts)
            for part, value in pairs:
                self._name(part, value, anew=isinstance(part, (ast.Name, ast.Tuple)))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """A sum with a time in it is a time."""
        self.generic_visit(node)
        self._name(node.target, node.value, anew=False)

    def visit_For(self, node: ast.For) -> None:
        """The parts of times are times."""
        self._name(node.target, node.iter, anew=True)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """A band around a time, or one that says so."""
        self.generic_visit(node)
        if ast.unparse(node.func).endswith(CHECKS):
            label = ast.unparse(node.args[0]) if node.args else ""
            values = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            if SPEAKS_OF_TIME.search(label) or any(map(self._tells_time, values)):
                self.found.append(f"line {node.lineno}: {ast.unparse(node)}")

    def visit_Assert(self, node: ast.Assert) -> None:
        """An assertion that puts a time in order; that it is more than 0 is true on every day."""
        self.generic_visit(node)
        for part in ast.walk(node.test):
            if not isinstance(part, ast.Compare):
                continue
            sides = zip([part.left, *part.comparators], part.comparators)
            for pair in (pair for op, pair in zip(part.ops, sides) if isinstance(op, ORDER)):
                if "0" not in map(ast.unparse, pair) and any(map(self._tells_time, pair)):
                    self.found.append(f"line {node.lineno}: {ast.unparse(node)}")

    def _name(self, target: ast.AST, value: ast.AST, anew: bool) -> None:
        """Let the names in `target` hold `value`; `anew`: and nothing of what they held before."""
        names = {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        calls = [ast.unparse(n.func) for n in ast.walk(value) if isinstance(n, ast.Call)]
        is_stored, is_timed = any(c.endswith(STORED) for c in calls), self._tells_time(value)
        if anew:
            self.timed, self.stored = self.timed - names, self.stored - names
        if is_stored:
            self.stored |= names
        elif is_timed:
            self.timed |= names

    def _tells_time(self, node: ast.AST) -> bool:
        """Whether a clock, or a name that holds what one said, occurs in this code."""
        return any(self._is_time(part) for part in ast.walk(node))

    def _is_time(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self.timed | CLOCKS
        key = node.attr if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            key = node.slice.value
        if key in MEASURED:
            return ast.unparse(node.value) not in self.stored
        return key in CLOCKS or (key == "time" and ast.unparse(node) == "time.time")
