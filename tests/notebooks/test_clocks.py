"""No check depends on a clock, in no lesson, study or test."""

import pytest
from clocks import checks_of_clocks
from lesson_cells import LESSONS, ROOT, STUDIES, read

TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", LESSONS + STUDIES, ids=lambda path: path.stem)
def test_no_check_of_a_lesson_depends_on_a_clock(path):
    found = checks_of_clocks(*(cell.source for cell in read(path) if cell.is_code))
    assert not found, f"show the time, check what is counted: {found}"


def test_no_test_depends_on_a_clock():
    found = {path.name: checks_of_clocks(path.read_text(encoding="utf-8")) for path in TESTS}
    assert not any(found.values()), {name: checks for name, checks in found.items() if checks}


TIMED = "def slow():\n    start = time.perf_counter()\n    return time.perf_counter() - start\n"
BAD = (
    (TIMED, "taken = [slow() for _ in range(3)]", 'report.band("cost", taken[1] / taken[0], 1, 2)'),
    (TIMED, "for each in (1, 2):\n    best = slow()", "assert best < 2 * first"),
    ("gain = a.summary.images_per_second / b.rate", 'report.band("gain", gain, 1, 3.5)'),
    ('assert summary["seconds"] < 60',),
    ("import time\nstart = time.time()", "assert time.time() - start < 5"),
    ('report.band("time of a step, ConvMAE over MAE", ratio, 1.0, 3.5)',),
    ('report.band("how much faster", value=ratio, low=1.0, high=3.5)',),
)
GOOD = (
    (TIMED, "taken = slow()", 'figures.bars({"time": taken}, "seconds")', "assert work[1] > 9"),
    ('kept = report.receipt("notebooks/x")', 'assert kept["seconds"] <= 150'),
    ('assert 0 < summary.seconds and "seconds" in summary.history[-1]',),
    ('report.band("loss, second view true, three times", loss, 0, 1)',),
)


@pytest.mark.parametrize("cells", BAD)
def test_a_check_of_a_clock_is_found(cells):
    assert len(checks_of_clocks(*cells)) == 1


@pytest.mark.parametrize("cells", GOOD)
def test_what_is_no_check_of_a_clock_is_left_alone(cells):
    assert not checks_of_clocks(*cells)
