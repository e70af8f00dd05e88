"""Every exercise: right answers pass, each mistake gets the hint it deserves, stubs run on.

More answers, right and wrong, are in answers_*.py: a file for each file of exercises.
"""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import RIGHT, WRONG

from mimlib.course import exercises as folder
from mimlib.course.exercises import exercise as exercises

for path in sorted(Path(__file__).parent.glob("answers_*.py")):
    importlib.import_module(path.stem)  # fills RIGHT and WRONG
ALL = exercises.all_exercises()
MISTAKES = [(task, *item) for task in ALL.values() for item in task.wrong.items()]
of_every_exercise = pytest.mark.parametrize("task", ALL.values(), ids=list(ALL))


@of_every_exercise
def test_right_answer_passes(task, capsys):
    assert exercises.exercise(task.name, task.answer) is task.answer
    assert capsys.readouterr().out == f"{task.name}: passed\n"


@of_every_exercise
@pytest.mark.parametrize("blank", [NotImplemented, ...], ids=["NotImplemented", "dots"])
def test_stub_runs_on_with_the_reference(task, blank, capsys):
    assert exercises.exercise(task.name, lambda *arguments: blank) is task.answer
    assert "not attempted yet - continuing with the reference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "wrong", "advice"), MISTAKES, ids=lambda x: getattr(x, "name", "")
)
def test_each_mistake_gets_its_own_hint(task, wrong, advice):
    with pytest.raises(exercises.Mistake) as caught:
        exercises.exercise(task.name, wrong)
    assert advice in str(caught.value)


@of_every_exercise
def test_unknown_mistakes_and_crashes_are_reported_with_the_first_hint(task):
    with pytest.raises(exercises.Mistake, match="Hint: ") as caught:
        exercises.exercise(task.name, lambda *arguments: "nonsense")
    assert task.hints[0] in str(caught.value)

    def crash(*arguments):
        raise KeyError("oops")

    with pytest.raises(exercises.Mistake, match="crash.*raised KeyError"):
        exercises.exercise(task.name, crash)


def test_every_exercise_has_hints_and_those_of_its_mistakes_differ():
    for task in ALL.values():
        assert task.hints and task.wrong, task.name
        assert len(set(task.wrong.values())) == len(task.wrong)


def test_the_smallest_failing_case_is_shown():
    with pytest.raises(exercises.Mistake, match=r"\(196, 0\.7\)"):
        exercises.exercise("start.3", lambda count, ratio: count - int(count * ratio))


def test_answers_of_every_file_of_exercises_are_known():
    shelves = {path.stem for path in Path(folder.__file__).parent.glob("*_*.py")} | {"start"}
    here = Path(__file__).parent.glob("answers_*.py")
    assert {path.stem.removeprefix("answers_") for path in here} == shelves - {"__init__"}
    for name in ALL:
        assert sum(item[0] == name for item in RIGHT) >= 4, name
        assert sum(item[0] == name for item in WRONG) >= 4, name


@pytest.mark.parametrize(
    ("name", "answer"), RIGHT, ids=[f"{name}-{answer.__name__}" for name, answer in RIGHT]
)
def test_other_right_answers_pass(name, answer, capsys):
    assert exercises.exercise(name, answer) is answer
    assert capsys.readouterr().out == f"{name}: passed\n"


@pytest.mark.parametrize(
    ("name", "words", "answer"), WRONG, ids=[f"{name}-{f.__name__}" for name, _, f in WRONG]
)
def test_other_wrong_answers_are_refused_in_fitting_words(name, words, answer):
    with pytest.raises(exercises.Mistake) as caught:
        exercises.exercise(name, answer)
    assert words in str(caught.value)


def rewritten(function, change):
    """An answer whose tensors and numbers are passed through `change`, wherever they are."""

    def of(result):
        return (
            [of(part) for part in result] if isinstance(result, (list, tuple)) else change(result)
        )

    return lambda *arguments: of(function(*arguments))


WIDE = {torch.float32: torch.float64, torch.int64: torch.int32}
NOTATIONS = {
    "tensors": torch.as_tensor,
    "arrays": lambda item: np.asarray(item),
    "numbers": lambda item: torch.as_tensor(item).tolist(),
    "other widths": lambda item: (t := torch.as_tensor(item)).to(WIDE.get(t.dtype, t.dtype)),
    "slopes": lambda item: (t := torch.as_tensor(item)).requires_grad_(t.is_floating_point()),
}


@of_every_exercise
@pytest.mark.parametrize("change", NOTATIONS.values(), ids=list(NOTATIONS))
def test_the_notation_of_an_answer_does_not_matter(task, change):
    exercises.exercise(task.name, rewritten(task.answer, change))


@pytest.mark.parametrize(
    ("task", "wrong", "advice"), MISTAKES, ids=lambda x: getattr(x, "name", "")
)
def test_nor_does_that_of_a_mistake(task, wrong, advice):
    with pytest.raises(exercises.Mistake) as caught:
        exercises.exercise(task.name, rewritten(wrong, NOTATIONS["numbers"]))
    assert advice in str(caught.value)


def _off(item):
    """The last value is another one, by as little as its kind allows."""
    tensor = torch.as_tensor(item).clone().contiguous()
    last = tensor.view(-1)[-1:]
    last.add_(1e-3) if tensor.is_floating_point() else last.copy_(last == 0)
    return tensor


def _of_another_kind(item):
    if not isinstance(item, torch.Tensor) or item.ndim == 0:
        return [[item]] * 2
    return item.float() if item.dtype == torch.int64 else item.long()


SPOILT = {
    "one value": _off,
    "not a number": lambda item: torch.as_tensor(item) * torch.nan,
    "one axis more": lambda item: torch.stack(2 * [torch.as_tensor(item)]),
    "another kind": _of_another_kind,
    "text": str,
}


@of_every_exercise
@pytest.mark.parametrize("change", SPOILT.values(), ids=list(SPOILT))
def test_what_is_spoilt_is_refused(task, change):
    with pytest.raises(exercises.Mistake, match="result.*Hint: "):
        exercises.exercise(task.name, rewritten(task.answer, change))


@of_every_exercise
def test_who_forgets_to_return_is_told_so(task):
    with pytest.raises(exercises.Mistake, match=r"returned None. Hint: .*`return`"):
        exercises.exercise(task.name, lambda *arguments: None)


@of_every_exercise
def test_an_answer_that_changes_its_arguments_harms_nobody(task):
    def spoil(item):
        if isinstance(item, torch.Tensor):
            item.zero_()
        elif isinstance(item, tuple):
            [spoil(part) for part in item]

    def rude(*arguments):
        answer = task.answer(*arguments)
        answer = answer.clone() if isinstance(answer, torch.Tensor) else answer  # views, too
        spoil(arguments)
        return answer

    assert exercises.exercise(task.name, rude) is rude


def test_hint_and_solution(capsys):
    exercises.hint("mae.3", 2)
    assert "hint 2 of 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match="hints 1 to 2"):
        exercises.hint("mae.3", 3)
    exercises.solution("mae.3")
    assert inspect.getsource(ALL["mae.3"].source) in capsys.readouterr().out


def test_unknown_name_lists_near_ones():
    with pytest.raises(KeyError, match=r"mae\.3"):
        exercises.hint("mae3")


def test_exercises_of_a_lesson_are_numbered_from_one():
    names = list(ALL)
    for lesson in {name.split(".")[0] for name in names}:
        numbers = [int(name.split(".")[1]) for name in names if name.startswith(f"{lesson}.")]
        assert numbers == list(range(1, len(numbers) + 1)) and 3 <= len(numbers) <= 5
