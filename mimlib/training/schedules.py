"""Rates as pure functions of the step: resuming needs the step number and nothing else."""

from math import cos, pi


def _cosine(progress: float, peak: float, low: float) -> float:
    return low + (peak - low) * 0.5 * (1.0 + cos(pi * progress))


# How a rate falls from its peak to its minimum while progress runs from 0 to 1. The straight line
# is the "poly" schedule of power 1 that segmentation is trained with. The whole cosine (ConST-CL)
# begins with the run: a warm-up rises to where it is by then, a little below the peak.
SCHEDULES = {
    "cosine": _cosine,
    "linear": lambda progress, peak, low: peak + (low - peak) * progress,
    "whole_cosine": _cosine,
}


def scheduled(
    step: float,
    steps: float,
    peak: float,
    warmup_steps: float = 0,
    minimum: float = 0.0,
    schedule: str = "cosine",
) -> float:
    """Return the rate of a step: a linear rise from 0 to `peak`, then a fall to `minimum`.

    MAE appendix A (Loshchilov and Hutter 2017 after the warm-up of Goyal et al. 2017).
    As official: the first step of a warm-up has rate 0.

    Steps count from 0, fractions are allowed. A run is `steps` long and has its minimum at the end
    of them; its first `warmup_steps` are the rise, the fall is one of SCHEDULES.
    """
    if schedule == "whole_cosine" and warmup_steps:
        reached = scheduled(max(step, warmup_steps), steps, peak, 0, minimum)
        return reached * min(step / warmup_steps, 1.0)
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return SCHEDULES[schedule](progress, peak, minimum)


def is_due(every: int, done: int, last: bool) -> bool:
    """Say whether something that happens every so many steps (0 = only at the end) is due."""
    return last or bool(every) and done % every == 0
