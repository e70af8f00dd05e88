"""What a study is: settings to compare, and the rule of each verdict."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must hold for a claim, fixed before the runs.

    The paired difference over seeds, `better` minus `worse` (turned around where less is better),
    must have its interval above zero; with a margin, the interval must lie within +- the margin.
    On the floor there is no verdict: see `studies.judge`.
    """

    metric: str
    better: str  # label of a setting
    worse: str  # label of a setting
    higher_is_better: bool = True
    margin: float = 0.0  # in the metric's unit; above zero the claim is "no difference"


Names = str | tuple[str, ...]  # several make a rule each


def higher(metrics: Names, better: str, worse: Names, **further: object) -> tuple[Rule, ...]:
    """Return the rules that metrics of which more is better are higher."""
    metrics, worse = ((names,) if isinstance(names, str) else names for names in (metrics, worse))
    return tuple(Rule(metric=m, better=better, worse=w, **further) for m in metrics for w in worse)


def lower(metrics: Names, better: str, worse: Names) -> tuple[Rule, ...]:
    """Return the rules that metrics of which less is better are lower."""
    return higher(metrics, better, worse, higher_is_better=False)


def equal(metrics: Names, one: str, other: Names, **margin: float) -> tuple[Rule, ...]:
    """Return the rules that metrics differ by less than a margin, in their unit."""
    return higher(metrics, one, other, **margin)


def vary(name: str, values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Return settings that differ in one field of the run; None is what the preset has."""
    return {label: {} if value is None else {name: value} for label, value in values.items()}


@dataclass(frozen=True)
class Study:
    """A claim, the paper's number and the settings that are compared."""

    name: str
    claim: str
    paper: str  # the paper's own numbers, not comparable in absolute terms
    # Label -> overrides of the preset and, in capitals, further parameters of the notebook; METHOD
    # takes the place of `method`.
    settings: Mapping[str, Mapping[str, object]]
    rules: tuple[Rule, ...]
    _: KW_ONLY
    notebook: str  # in notebooks/studies
    method: str  # presets are called <method>_<size>
    size: str = "lesson"  # of the presets its receipt is made of
    seeds: int = 5  # of its receipt; 3 where a run takes more than two minutes of a core
    # Of a lesson preset's batch, at the same rate: a study trains many times.
    share_of_batch: float = 1.0
    # Label -> share of the steps of a setting that has less or more than others, at every size.
    shares: Mapping[str, float] = field(default_factory=dict)
