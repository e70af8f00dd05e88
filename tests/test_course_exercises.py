"""Every exercise: the right answer passes, each listed mistake gets its own hint, stubs run on."""

import inspect

import pytest

from mimlib.course.exercises import exercise as exercises

ALL = exercises.all_exercises()
MISTAKES = [(task, *item) for task in ALL.values() for item in task.wrong.items()]


@pytest.mark.parametrize("task", ALL.values(), ids=list(ALL))
def test_right_answer_passes(task, capsys):
    assert exercises.exercise(task.name, task.answer) is task.answer
    assert capsys.readouterr().out == f"{task.name}: passed\n"


@pytest.mark.parametrize("task", ALL.values(), ids=list(ALL))
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


@pytest.mark.parametrize("task", ALL.values(), ids=list(ALL))
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
        exercises.exercise("start.2", lambda count, ratio: count - int(count * ratio))


def test_an_answer_that_changes_its_arguments_harms_nobody():
    def rude(patches):
        answer = ALL["mae.3"].answer(patches)
        patches.zero_()
        return answer

    assert exercises.exercise("mae.3", rude) is rude


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
