"""The exercises of the stored lessons: their own cells, untouched, solved and spoilt."""

import ast

import pytest
from lesson_cells import LESSONS, read

from mimlib import course
from mimlib.course.exercises import exercise as exercises

KNOWN = exercises.all_exercises()


def stubs(path):
    """Each exercise's task, the notebook's stub, and the line by which it asks for a verdict."""
    cells = [cell for cell in read(path) if cell.is_code]
    for cell, following in zip(cells, [*cells[1:], None]):
        if "exercise" not in cell.tags:
            continue
        (stub,) = (node for node in cell.tree.body if isinstance(node, ast.FunctionDef))
        near = [*cell.tree.body, *(following.tree.body if following else [])]
        (line,) = (
            node
            for node in near
            if isinstance(node, ast.Assign)
            and ast.unparse(node).startswith(f"{stub.name} = course.")
        )
        yield KNOWN[ast.literal_eval(line.value.args[0])], stub, line


def verdict(line, name, answer):
    """Run the notebook's line with `answer` under the name that it looks up."""
    names = {"course": course, name: answer}
    exec(compile(ast.unparse(line), "cell", "exec"), names)
    return names[name]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_untouched_solved_and_spoilt(path, capsys):
    found = list(stubs(path))
    assert 3 <= len(found) <= 5
    for task, stub, line in found:
        names = {}
        exec(compile(ast.Module([stub], []), "cell", "exec"), names)
        assert verdict(line, stub.name, names[stub.name]) is task.answer
        assert "not attempted yet" in capsys.readouterr().out
        assert verdict(line, stub.name, task.answer) is task.answer
        assert capsys.readouterr().out == f"{task.name}: passed\n"
        for wrong, advice in task.wrong.items():
            with pytest.raises(exercises.Mistake) as caught:
                verdict(line, stub.name, wrong)
            assert advice in str(caught.value)
