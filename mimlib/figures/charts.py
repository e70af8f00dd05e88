"""Pictures made of numbers: curves with bands, bars with intervals, histograms."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from scipy import stats

from mimlib.figures.style import COLORS, GRAY, Picture, canvas, styled

LESS_IS_BETTER = re.compile(r"RMSE|REL|EPE(?! gain)|off by|loss|\[ms|GFLOP|tokens|move|parameters")
NEITHER_IS_BETTER = re.compile("reliance|diversity")  # what a network does, not how well


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
            that is its 95 % interval by Student's t.
        x_label: name and unit.
        y_label: name and unit.
        references: named horizontal lines, for instance baselines.
        log_x: logarithmic x axis.
    """
    picture, axes = canvas(1, 1, 5.4, 2.9)
    axis = axes[0, 0]
    for (name, (x, y)), color in zip(series.items(), COLORS * 2):
        runs = np.atleast_2d(np.asarray(y, dtype=float))
        y = runs.mean(axis=0)
        if len(runs) > 1:
            half = stats.t.ppf(0.975, len(runs) - 1) * stats.sem(runs)
            axis.fill_between(x, y - half, y + half, color=color, alpha=0.2, linewidth=0)
            name += ", 95 % interval"
        axis.plot(x, y, color=color, label=name, marker="o" if len(x) < 15 else None, markersize=4)
    for (name, value), style in zip((references or {}).items(), ("--", ":", "-.", (0, (1, 3)))):
        axis.axhline(value, color=GRAY, linestyle=style, linewidth=1.2, label=name)
    axis.set(xlabel=x_label, ylabel=y_label, xscale="log" if log_x else "linear")
    places = sorted({float(value) for x, _ in series.values() for value in x}) if log_x else []
    if 0 < len(places) < 10:  # so few on a logarithmic axis have their numbers
        axis.set_xticks(places, [f"{value:g}" for value in places])
        axis.minorticks_off()
    if len(series) > 1 or references:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture


@styled
def bars(values: Mapping[str, float], y_label: str) -> Picture:
    """Draw one bar per name (a network, a run), from zero, with its value; label: name, unit."""
    picture, axes = canvas(1, 1, max(3.2, 0.9 * len(values) + 0.8), 2.6)
    axis = axes[0, 0]
    drawn = axis.bar(list(values), list(values.values()), 0.65, color=COLORS[0])
    axis.bar_label(drawn, fmt=lambda value: f"{round(value, 9):#.3g}", padding=2, fontsize=8)
    axis.axhline(0, color=GRAY, linewidth=0.8)
    axis.set(ylabel=y_label, xmargin=0.05, ymargin=0.12)
    axis.grid(axis="x", visible=False)
    return picture


@styled
def study(
    receipt: Mapping, metric: str, paper: Mapping[str, object] | None = None, paper_label: str = ""
) -> Picture:
    """Draw one metric of a study's receipt: a dot per seed, beside them mean and 95 % interval.

    Args:
        receipt: as `mimlib.evidence.studies.run_study` returns it.
        metric: one of its metrics, of the settings and floors that have it.
        paper: setting -> what the paper reports, in brackets below: not comparable in size.
        paper_label: name and unit of the paper's numbers.
    """
    rows = {label: row["metrics"] for label, row in receipt["settings"].items()}
    found = {label: metrics[metric] for label, metrics in rows.items() if metric in metrics}
    if not found:
        known = sorted(set().union(*rows.values()))
        raise KeyError(f"no setting has {metric!r}; there are {known}")
    picture, axes = canvas(1, 1, max(3.6, 1.35 * len(found) + 1.6), 2.8)
    axis, places = axes[0, 0], np.arange(len(found))
    seeds = np.array([m["values"] for m in found.values()])  # [settings, seeds]
    axis.plot(places - 0.12, seeds, "o", color=COLORS[0], markersize=4, alpha=0.7)
    means = np.array([m["mean"] for m in found.values()])
    half = abs(np.array([m["interval"] for m in found.values()]).T - means)  # [2, settings]
    axis.errorbar(places + 0.12, means, half, fmt="s", color=COLORS[5], markersize=5, capsize=4)
    digits = _digits(means, half)
    for place, mean in zip(places, means.round(digits) + 0.0):  # never "-0.00"
        axis.annotate(f"{mean:.{digits}f}", (place + 0.2, mean), fontsize=8, va="center")
    told = paper or {}
    axis.set_xticks(places, [f"{n}\n({told[n]})" if n in told else n for n in found])
    axis.set(ylabel=directed(metric), xlim=(-0.5, len(found) - 0.3))
    axis.set_xlabel(f"in brackets: {paper_label},\nnot comparable in size" if paper else "")
    axis.grid(axis="x", visible=False)
    axis.legend(handles=_key(seeds.shape[1]), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture


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


def directed(metric: str) -> str:
    """Say whether more or less of a metric is better, of those that have a better end."""
    better = "less" if LESS_IS_BETTER.search(metric) else "more"
    return metric if NEITHER_IS_BETTER.search(metric) else f"{metric}\n({better} is better)"


def _digits(means: np.ndarray, half: np.ndarray) -> int:
    """Count decimals: three digits of the largest mean; more if the widest interval needs them."""
    sizes = abs(means).max() / 100, half.max()
    return max([0, *(-math.floor(math.log10(size)) for size in sizes if size > 0)])


def _key(num_seeds: int) -> list[Line2D]:
    """Say what the marks of a study are."""
    kinds = (("o", COLORS[0], f"a seed, of {num_seeds}"), ("s", COLORS[5], "mean, 95 % interval"))
    return [Line2D([], [], marker=m, color=c, label=name, linestyle="") for m, c, name in kinds]
