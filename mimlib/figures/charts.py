"""Pictures made of numbers: curves with bands, bars with intervals, histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from mimlib.figures.style import COLORS, GRAY, Picture, canvas, styled


@styled
def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    references: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> Picture:
    """Draw lines over a common axis.

    Args:
        series: name -> (x, y); y may hold several runs [R, n]: their mean is drawn, and a band
            from the lowest to the highest.
        x_label: name and unit.
        y_label: name and unit.
        references: named horizontal lines, for instance baselines.
        log_x: logarithmic x axis.
    """
    picture, axes = canvas(1, 1, 5.4, 2.9)
    axis = axes[0, 0]
    for (name, (x, y)), color in zip(series.items(), COLORS * 2):
        y = np.asarray(y, dtype=float)
        if y.ndim == 2:
            axis.fill_between(x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.2, linewidth=0)
            y = y.mean(axis=0)
        axis.plot(x, y, color=color, label=name, marker="o" if len(x) < 15 else None, markersize=4)
    for (name, value), style in zip((references or {}).items(), ("--", ":", "-.", (0, (1, 3)))):
        axis.axhline(value, color=GRAY, linestyle=style, linewidth=1.2, label=name)
    axis.set(xlabel=x_label, ylabel=y_label, xscale="log" if log_x else "linear")
    if len(series) > 1 or references:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture


@styled
def bars(
    values: Mapping[str, float],
    y_label: str,
    halves: Mapping[str, float] | None = None,
    paper: Mapping[str, float] | None = None,
    paper_label: str = "paper, other scale",
) -> Picture:
    """Draw one bar per name with its 95 % interval, the paper's numbers in gray beside it.

    Args:
        values: name -> mean over seeds.
        y_label: name and unit.
        halves: name -> half width of the 95 % interval.
        paper: name -> what the paper reports, on an axis of its own: not comparable in size.
        paper_label: name and unit of the paper's numbers.
    """
    picture, axes = canvas(1, 1, max(3.2, 0.9 * len(values) + 1.6), 2.8)
    axis = axes[0, 0]
    places = np.arange(len(values))
    errors = [halves.get(name, 0.0) for name in values] if halves else None
    width = 0.4 if paper else 0.65
    shift = width / 2 if paper else 0.0
    axis.bar(
        places - shift, list(values.values()), width, color=COLORS[0], yerr=errors, capsize=4,
        label="here, 95 % interval" if halves else "here",
    )  # fmt: skip
    axis.set_xticks(places, list(values))
    axis.set(ylabel=y_label)
    axis.grid(axis="x", visible=False)
    if paper:
        beside = axis.twinx()
        beside.bar(
            [place + shift for place, name in zip(places, values) if name in paper],
            [paper[name] for name in values if name in paper],
            width, color=GRAY, alpha=0.5, label=paper_label,
        )  # fmt: skip
        beside.set_ylabel(paper_label, color=GRAY)
        beside.grid(False)
        beside.spines["right"].set_visible(True)
        _zoom(beside, list(paper.values()), None)
    _zoom(axis, list(values.values()), errors)
    return picture


def study(
    receipt: Mapping,
    metric: str,
    paper: Mapping[str, float] | None = None,
    paper_label: str = "paper, other scale",
) -> Picture:
    """Draw one metric of a study's receipt: mean and 95 % interval per setting.

    Args:
        receipt: as `mimlib.evidence.studies.run_study` returns it.
        metric: one of its metrics.
        paper: setting -> what the paper reports.
        paper_label: name and unit of the paper's numbers.
    """
    found = {label: s["metrics"][metric] for label, s in receipt["settings"].items()}
    return bars(
        {label: m["mean"] for label, m in found.items()},
        metric,
        {label: (m["interval"][1] - m["interval"][0]) / 2 for label, m in found.items()},
        paper,
        paper_label,
    )


@styled
def scatter(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> Picture:
    """Draw points, name -> (x, y), and the line on which both axes agree: they have one unit."""
    picture, axes = canvas(1, 1, 3.6, 3.0)
    axis = axes[0, 0]
    for (name, (x, y)), color, marker in zip(series.items(), COLORS * 2, "o^sDvP*X" * 2):
        axis.scatter(x, y, s=22, color=color, marker=marker, alpha=0.8, label=name)
    limits = *axis.get_xlim(), *axis.get_ylim()
    ends = [min(limits), max(limits)]
    axis.plot(ends, ends, color=GRAY, linestyle="--", linewidth=1.2, label="equal")
    axis.set(xlabel=x_label, ylabel=y_label, xlim=ends, ylim=ends, aspect="equal")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture


def _zoom(axis: Axes, values: Sequence[float], errors: Sequence[float] | None) -> None:
    """Start the axis near the smallest bar when the differences would not be seen from zero."""
    slack = max(errors) if errors else 0.0
    low, high = min(values) - slack, max(values) + slack
    if low > 0 and high - low < 0.35 * high:
        margin = max(0.6 * (high - low), 0.02 * high)
        axis.set_ylim(low - margin, high + 0.3 * margin)
        axis.set_ylabel(axis.get_ylabel() + "\n(axis cut)")
