"""Figures of the multivariate steps: held-out variates, loadings, permutations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure

__all__ = ["draw_loadings", "draw_null", "draw_variates"]

_MOST_MODES = 6
_BARS = 15
_STEADY = 2.5
"""Bootstrap ratio from which a loading is drawn as steady (about 99 % of a normal distribution)."""


def draw_variates(
    x: Float64[np.ndarray, "people modes"],
    y: Float64[np.ndarray, "people modes"],
    fold: Int[np.ndarray, " people"],
    modes: ResultTable,
    path: Path,
) -> None:
    """Draw the held-out variates against each other, a panel a mode, a colour a fold."""
    count = min(x.shape[1], _MOST_MODES)
    columns = min(count, 3)
    figure, axes = new_figure(columns, -(-count // columns), width=3.6, height=3.4)
    for k, axis in enumerate(axes.ravel()):
        if k >= count:
            axis.set_axis_off()
            continue
        for f in np.unique(fold):
            mine = fold == f
            axis.scatter(x[mine, k], y[mine, k], s=9, lw=0, alpha=0.6, color=PALETTE[int(f) % len(PALETTE)])
        axis.set_xlabel("X variate, held out (SD)")
        axis.set_ylabel("Y variate, held out (SD)")
        axis.set_title(
            f"mode {k + 1}: r {modes['r_test'][k]:.2f} held out "
            f"({modes['r_test_lower'][k]:.2f} to {modes['r_test_upper'][k]:.2f}),\n"
            f"{modes['r_train'][k]:.2f} in training{_p_text(modes, k)}",
            fontsize=9,
        )
    save_figure(figure, path)


def _p_text(modes: ResultTable, k: int) -> str:
    p = float(modes["p_permutation"][k])
    return "" if np.isnan(p) else f"; p {p:.2g}"


def draw_loadings(tables: Sequence[tuple[str, ResultTable]], path: Path) -> None:
    """Draw the largest loadings of every mode, those that hold over bootstraps in full colour."""
    modes = [int(k) for k in np.unique(tables[0][1]["mode"])[:_MOST_MODES]]
    longest = max(min(_BARS, int((t["mode"] == modes[0]).sum())) for _, t in tables)
    figure, axes = new_figure(len(tables), len(modes), width=4.8, height=0.9 + 0.2 * longest)
    for row, mode in enumerate(modes):
        for axis, (name, table) in zip(axes[row], tables, strict=True):
            _bars(axis, table, mode, f"{name}, mode {mode}")
    save_figure(figure, path)


def _bars(axis: Any, table: ResultTable, mode: int, title: str) -> None:
    mine = np.flatnonzero(table["mode"] == mode)
    loading = table["loading"][mine]
    order = np.argsort(-np.abs(loading), kind="stable")[:_BARS][::-1]
    ratio = table["bootstrap_ratio"][mine][order]
    steady = np.isnan(ratio) | (np.abs(ratio) >= _STEADY)
    colours = [
        (ORANGE if loading[j] > 0 else BLUE) if sure else "#cfcfcf" for j, sure in zip(order, steady, strict=True)
    ]
    axis.barh(np.arange(order.size), loading[order], color=colours)
    axis.set_yticks(np.arange(order.size), [_short(table["variable"][mine][j]) for j in order], fontsize=7)
    axis.axvline(0.0, color=GREY, lw=0.8)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("loading (grey: bootstrap ratio below 2.5)", fontsize=8)


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 28 else f"{text[:25]}..."


def draw_null(
    null: Float64[np.ndarray, "tested permutations"],
    observed: Shaped[np.ndarray, " modes"],
    p: Float64[np.ndarray, " modes"],
    path: Path,
) -> None:
    """Draw the held-out correlation under permutation, a panel a tested mode, with that of the data."""
    count = min(null.shape[0], _MOST_MODES)
    columns = min(count, 3)
    figure, axes = new_figure(columns, -(-count // columns), width=3.6, height=2.8)
    for k, axis in enumerate(axes.ravel()):
        if k >= count:
            axis.set_axis_off()
            continue
        axis.hist(null[k], bins=min(40, max(8, null.shape[1] // 20)), color=GREY)
        axis.axvline(observed[k], color=ORANGE, lw=2)
        axis.set_title(f"mode {k + 1}: r {observed[k]:.2f}, p {p[k]:.2g}", fontsize=9)
        axis.set_xlabel("held-out r under permutation")
    axes[0, 0].set_ylabel("permutations")
    save_figure(figure, path)
