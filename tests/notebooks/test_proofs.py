"""Nothing a lesson teaches goes unproved, and no excuse outlives its reason."""

from lesson_cells import LESSONS, STUDIES

from mimlib.course.notebooks import proofs

PROVED = {name for path in LESSONS for name in proofs.proved_names(path)}
PUBLIC = set(proofs.public_names())
STEMS = {path.stem for path in LESSONS}


def covered(name: str) -> bool:
    """A class counts as proved if it or one of its methods is."""
    return any(proved == name or proved.startswith(name + ".") for proved in PROVED)


def test_every_public_name_is_proved_owed_or_excused():
    owed = {name for name, lesson in proofs.OWED.items() if lesson not in STEMS}
    missing = {name for name in PUBLIC if not covered(name)} - set(proofs.NOT_PROVED) - owed
    assert not missing, (
        f"no proof cell names {sorted(missing)}: add check.same(..., proves=...) to a lesson, "
        "or the reason to mimlib/course/notebooks/proofs.py"
    )


def test_excuses_are_needed():
    excused = set(proofs.NOT_PROVED) | set(proofs.OWED)
    assert excused <= PUBLIC, f"gone from the package: {sorted(excused - PUBLIC)}"
    assert not [name for name in proofs.NOT_PROVED if covered(name)]
    assert not set(proofs.NOT_PROVED) & set(proofs.OWED)
    paid = [name for name in proofs.OWED if covered(name)]
    assert not paid, f"proved, no longer owed: {paid}"


def test_public_names_are_found():
    assert "mimlib.layers.patches.patchify" in PUBLIC
    assert "mimlib.methods.mae.MAE" in PUBLIC
    assert "mimlib.methods.mae.Output" not in PUBLIC


def test_studies_take_the_same_parameters():
    from lesson_cells import read

    from mimlib.course.lesson import start as lesson

    for path in STUDIES:
        tagged = [cell for cell in read(path) if "parameters" in cell.tags]
        assert len(tagged) == 1, path.name
        assert lesson.assigned_names(tagged[0].source)[:1] == ("PRESET",)
