"""Rates as pure functions of the step: resuming needs the step number and nothing else."""

import math


def warmup_cosine(
    step: float, steps: float, peak: float, warmup_steps: float = 0, minimum: float = 0.0
) -> float:
    """Rise linearly from 0 to `peak`, then fall along half a cosine to `minimum`.

    MAE appendix A (Loshchilov and Hutter 2017 after the warm-up of Goyal et al. 2017).
    As official: the first step of a warm-up has rate 0.

    Args:
        step: number of the step, from 0; fractions are allowed.
        steps: length of the whole run, in the unit of `step`.
        peak: largest rate.
        warmup_steps: length of the linear part, in the unit of `step`.
        minimum: rate at `step = steps`.

    Returns:
        The rate of this step.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_linear(
    step: float, steps: float, peak: float, warmup_steps: float = 0, minimum: float = 0.0
) -> float:
    """Rise as `warmup_cosine` does, then fall along a straight line to `minimum`.

    The "poly" schedule of power 1 that segmentation is trained with; arguments as above.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return peak + (minimum - peak) * progress


SCHEDULES = {"cosine": warmup_cosine, "linear": warmup_linear}


def is_due(every: int, done: int, last: bool) -> bool:
    """Say whether something that happens every so many steps (0 = only at the end) is due."""
    return last or bool(every) and done % every == 0
