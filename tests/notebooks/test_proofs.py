"""Nothing a lesson teaches goes unproved, and no excuse outlives its reason."""

from lesson_cells import LESSONS, STUDIES

from mimlib.course.notebooks import proofs

PROVED = {name for path in LESSONS for name in proofs.proved_names(path)}
PUBLIC = set(proofs.public_names())


def covered(name: str) -> bool:
    """A class counts as proved if it or one of its methods is."""
    return any(proved == name or proved.startswith(name + ".") for proved in PROVED)


def test_every_public_name_is_proved_or_excused():
    missing = {name for name in PUBLIC if not covered(name)} - set(proofs.NOT_PROVED)
    assert not missing, (
        f"no proof cell names {sorted(missing)}: add check.same(..., proves=...) to a lesson, "
        "or the reason to mimlib/course/notebooks/proofs.py"
    )


def test_excuses_are_needed():
    gone = sorted(set(proofs.NOT_PROVED) - PUBLIC)
    assert not gone, f"gone from the package, or of a kind that computes nothing: {gone}"
    assert not [name for name in proofs.NOT_PROVED if covered(name)]


def test_public_names_are_found():
    assert "mimlib.layers.patches.patchify" in PUBLIC
    assert "mimlib.methods.mae.MAE" in PUBLIC
    assert "mimlib.methods.mae.Output" not in PUBLIC, "defined elsewhere"
    assert not {"mimlib.encoders.vit.ViTConfig", "mimlib.layers.cells.Places"} & PUBLIC


def test_studies_take_the_same_parameters():
    from lesson_cells import read

    from mimlib.course.lesson import start as lesson

    for path in STUDIES:
        tagged = [cell for cell in read(path) if "parameters" in cell.tags]
        assert len(tagged) == 1, path.name
        assert lesson.assigned_names(tagged[0].source)[:1] == ("PRESET",)
