"""What lessons need and training does not: setup, proofs, exercises, reports, widgets.

A lesson uses these names:

    lesson = course.start("mae", PRESET, SEED, OVERRIDES, RUN_DIR, NPROC)
        the setup cell, right after the parameters cell. Train with
        `launch(lesson.run, lesson.run_dir, lesson.num_processes)`.

    check.same("patches", mine, ours, tolerance=0.0, proves="mimlib.layers.patches.patchify")
        a proof cell. `proves` is a literal; every public name of layers/, encoders/, decoders/ and
        methods/ must be proved by a lesson or stand in `proofs.NOT_PROVED` with the reason.
    check.gradients(loss, module_or_named_tensors) -> dict
        to be handed to `check.same`, mine against ours.

    report.band("loss", value, 0.4, 0.6)     asserts; prints the value and its band
    report.table([{"name": ..., ...}, ...])  aligned text: integers, words, receipts
    report.verdict("mae.1")                  prints a study's receipt and returns it
    report.receipt("runs/mae_gpu")           any file of data/receipts/

    answer = course.exercise("mae.1", answer)
        after the stub that ends in `return NotImplemented`: reports, and returns the reader's
        function, or the reference while the stub is untouched. course.hint("mae.1", 2),
        course.solution("mae.1"). Exercises live in `exercises/`.

    course.paint_mask(images, model), course.attention_explorer(images, encoder)
        live in JupyterLab, a static picture elsewhere; last value of their cell.

Rules of a lesson's cells are in tests/notebooks/test_lint.py, how to render it in CONTRIBUTING.md.
"""

from mimlib.course.exercises.exercise import exercise, hint, solution
from mimlib.course.lesson import check, report, widgets
from mimlib.course.lesson.start import Lesson, start
from mimlib.course.lesson.widgets import attention_explorer, paint_mask

__all__ = [
    "Lesson",
    "attention_explorer",
    "check",
    "exercise",
    "hint",
    "paint_mask",
    "report",
    "solution",
    "start",
    "widgets",
]
