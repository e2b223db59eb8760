"""Figures of ``associate reliability``: sessions against each other, and differences against means."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure

__all__ = ["draw_bland_altman", "draw_icc", "draw_sessions"]

_COLUMNS = 4


def _grid(count: int) -> tuple[int, int]:
    columns = min(_COLUMNS, count)
    return columns, -(-count // columns)


def draw_sessions(
    first: Float64[np.ndarray, "people measures"],
    last: Float64[np.ndarray, "people measures"],
    results: ResultTable,
    path: Path,
) -> None:
    """Draw the last session against the first, one panel a measure, with the line of equality."""
    columns, rows = _grid(len(results))
    figure, axes = new_figure(columns, rows, width=2.7, height=2.6)
    for k, axis in enumerate(axes.ravel()):
        if k >= len(results):
            axis.set_axis_off()
            continue
        both = np.isfinite(first[:, k]) & np.isfinite(last[:, k])
        axis.scatter(first[both, k], last[both, k], s=9, color=BLUE, alpha=0.6, lw=0)
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color=GREY, lw=1, ls="--")
        text = f"r {results['r'][k]:.2f}, ICC(2,1) {results['icc_2_1'][k]:.2f}"
        axis.set_title(f"{results['measure'][k]}\n{text}", fontsize=8)
        axis.set_xlabel(_session(results, "first_session", k), fontsize=8)
        axis.set_ylabel(_session(results, "last_session", k), fontsize=8)
        axis.tick_params(labelsize=7)
    save_figure(figure, path)


def draw_bland_altman(
    first: Float64[np.ndarray, "people measures"],
    last: Float64[np.ndarray, "people measures"],
    results: ResultTable,
    path: Path,
) -> None:
    """Draw differences against means with bias and limits of agreement, one panel a measure."""
    columns, rows = _grid(len(results))
    figure, axes = new_figure(columns, rows, width=2.7, height=2.6)
    for k, axis in enumerate(axes.ravel()):
        if k >= len(results):
            axis.set_axis_off()
            continue
        both = np.isfinite(first[:, k]) & np.isfinite(last[:, k])
        mean, difference = (first[both, k] + last[both, k]) / 2, last[both, k] - first[both, k]
        axis.scatter(mean, difference, s=9, color=BLUE, alpha=0.6, lw=0)
        for name, style in (("bias", "-"), ("limit_lower", "--"), ("limit_upper", "--")):
            if np.isfinite(results[name][k]):
                axis.axhline(results[name][k], color=ORANGE, lw=1, ls=style)
        axis.set_title(str(results["measure"][k]), fontsize=8)
        unit = f" ({results['unit'][k]})" if results["unit"][k] else ""
        axis.set_xlabel(f"mean{unit}", fontsize=8)
        axis.set_ylabel(f"last − first{unit}", fontsize=8)
        axis.tick_params(labelsize=7)
    save_figure(figure, path)


def draw_icc(results: ResultTable, path: Path) -> None:
    """Draw ICC(2,1) of every measure with its interval, highest first."""
    order = np.argsort(-np.nan_to_num(results["icc_2_1"], nan=-2.0), kind="stable")
    order = order[np.isfinite(results["icc_2_1"][order])][::-1]
    figure, axes = new_figure(width=6.5, height=1.2 + 0.2 * max(order.size, 3))
    axis = axes[0, 0]
    at = np.arange(order.size)
    axis.hlines(at, results["icc_2_1_lower"][order], results["icc_2_1_upper"][order], color=GREY, lw=2)
    axis.plot(results["icc_2_1"][order], at, "o", color=BLUE, ms=4)
    axis.set_yticks(at, [str(name) for name in results["measure"][order]], fontsize=7)
    axis.set_xlim(min(0.0, axis.get_xlim()[0]), 1.0)
    axis.set_xlabel("ICC(2,1) with its interval")
    save_figure(figure, path)


def _session(results: ResultTable, column: str, row: int) -> str:
    name = str(results[column][row])
    return name if name.startswith("ses") else f"session {name}"
