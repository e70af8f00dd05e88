"""What a study is: settings to compare, and the rule of each verdict."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

DEPTH = "depth RMSE, fine-tuned [m]"
PROBE = "semantic probe accuracy, frozen"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must hold for a claim, fixed before the runs.

    The paired difference over seeds, `better` minus `worse` (turned around where less is better),
    must have its interval above zero; with a margin, the interval must lie within +- the margin.
    """

    metric: str
    better: str  # label of a setting
    worse: str  # label of a setting
    higher_is_better: bool = True
    margin: float = 0.0  # in the metric's unit; above zero the claim is "no difference"


def lower(metric: str, better: str, worse: str) -> Rule:
    """Return the rule that a metric of which less is better is lower."""
    return Rule(metric=metric, better=better, worse=worse, higher_is_better=False)


@dataclass(frozen=True)
class Study:
    """A claim, the paper's number and the settings that are compared."""

    name: str
    claim: str
    paper: str  # the paper's own numbers, not comparable in absolute terms
    settings: Mapping[str, Mapping[str, object]]  # label -> overrides of the preset
    rules: tuple[Rule, ...]
    _: KW_ONLY
    notebook: str  # file in notebooks/studies
    method: str  # presets are called <method>_<size>
    # Label -> further parameters of the notebook; METHOD takes the place of `method`.
    parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    size: str = "lesson"  # of the presets its receipt is made of
    # Of a lesson preset's steps and of its batch, at the same rate: a study trains many times.
    share_of_steps: float = 1.0
    share_of_batch: float = 1.0
    # Label -> share of the steps of a setting that has less than the others, at every size.
    shares: Mapping[str, float] = field(default_factory=dict)
