"""Figures of two modalities compared: Bland and Altman's plane, and the angle of specificity by phenotype."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import GREY, PALETTE, new_figure, save_figure

__all__ = ["draw_agreement", "draw_plane", "draw_specificity"]

_ONLY = 63.434948822922
"""atan 2: the angle of a pair that one modality alone is associated with."""
_LEGEND = 16


def draw_plane(results: ResultTable, names: tuple[str, str], by: str, path: Path) -> None:
    """Draw mean and difference of -log10 p of every pair, in the colours of `by`."""
    figure, axes = new_figure(width=6.4, height=4.4)
    axis = axes[0, 0]
    _coloured(axis, results["mean_neg_log10_p"], results["neg_log10_p_difference"], results[by])
    top = 1.04 * float(results["mean_neg_log10_p"].max())
    most = 1.15 * float(np.abs(results["neg_log10_p_difference"]).max())
    end = min(top, most / 2.0)
    for sign, name, side in ((1.0, names[0], "bottom"), (-1.0, names[1], "top")):
        axis.plot([0, end], [0, 2.0 * sign * end], color=GREY, lw=1, ls="--")
        axis.annotate(f" only {name}", (end, 2.0 * sign * end), ha="left", va=side, fontsize=8, color=GREY)
    axis.axhline(0.0, color=GREY, lw=1)
    axis.set_xlabel("mean of −log₁₀ p")
    axis.set_ylabel(f"−log₁₀ p, {names[0]} less {names[1]}")
    save_figure(figure, path)


def draw_specificity(results: ResultTable, names: tuple[str, str], path: Path) -> None:
    """Draw the angle of every pair: a column for each phenotype, those with most regions first, colour the region.

    The grey behind a column is its mean -log10 p over the modalities that are significant.
    """
    phenotypes, counts = np.unique(results["phenotype"], return_counts=True)
    order = phenotypes[np.argsort(-counts, kind="stable")]
    place = {str(name): k for k, name in enumerate(order)}
    x = np.array([place[str(name)] for name in results["phenotype"]], dtype=np.float64)
    figure, axes = new_figure(width=float(np.clip(2.5 + 0.16 * order.size, 6.0, 18.0)), height=4.6)
    axis = axes[0, 0]
    strength = _strength(results)
    means = np.array([strength[x == k].mean() for k in range(order.size)])
    shade = 0.35 * means / max(float(means.max()), 1e-300)
    for k in range(order.size):
        axis.axvspan(k - 0.5, k + 0.5, color="black", alpha=float(shade[k]), lw=0)
    _coloured(axis, x, results["angle"], results["region"])
    axis.axhline(0.0, color=GREY, lw=1)
    axis.set_ylim(-75, 75)
    axis.set_yticks([-_ONLY, -30, 0, 30, _ONLY], [f"only {names[1]}", "−30°", "both", "30°", f"only {names[0]}"])
    axis.set_xlim(-0.6, order.size - 0.4)
    if order.size <= 80:
        axis.set_xticks(range(order.size), [_short(str(n)) for n in order], rotation=60, ha="right", fontsize=7,
                        rotation_mode="anchor")  # fmt: skip
    else:
        axis.set_xlabel(f"{order.size} phenotypes, those with most regions first")
        axis.set_xticks([])
    save_figure(figure, path)


def draw_agreement(
    first: Float64[np.ndarray, "people measures"],
    second: Float64[np.ndarray, "people measures"],
    results: ResultTable,
    path: Path,
) -> None:
    """Draw difference against mean of each measure, with bias, limits and the slope."""
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    figure, axes = new_figure(columns, rows, width=3.0, height=2.6)
    for k, axis in enumerate(axes.ravel()):
        if k >= len(results):
            axis.set_axis_off()
            continue
        both = np.isfinite(first[:, k]) & np.isfinite(second[:, k])
        mean, difference = (first[both, k] + second[both, k]) / 2, (first - second)[both, k]
        axis.scatter(mean, difference, s=8, color=PALETTE[0], alpha=0.6, lw=0)
        for name, style in (("bias", "-"), ("limit_lower", "--"), ("limit_upper", "--")):
            axis.axhline(float(results[name][k]), color=PALETTE[1], lw=1, ls=style)
        ends = np.array([mean.min(), mean.max()])
        slope = float(results["proportional_slope"][k])
        if np.isfinite(slope):
            axis.plot(ends, float(results["bias"][k]) + slope * (ends - mean.mean()), color=GREY, lw=1)
        axis.set_title(str(results["measure"][k]), fontsize=8)
        axis.set_xlabel("mean", fontsize=8)
        axis.set_ylabel("first − second", fontsize=8)
        axis.tick_params(labelsize=7)
    save_figure(figure, path)


def _strength(results: ResultTable) -> Float64[np.ndarray, " pairs"]:
    """Return the mean -log10 p over the modalities in which a pair is significant."""
    both = np.column_stack([results["neg_log10_p_first"], results["neg_log10_p_second"]])
    passed = np.column_stack([results["significant_first"], results["significant_second"]]) > 0
    return np.asarray(np.where(passed, both, 0.0).sum(axis=1) / np.maximum(passed.sum(axis=1), 1))


def _coloured(
    axis: Any,
    x: Float64[np.ndarray, " pairs"],
    y: Float64[np.ndarray, " pairs"],
    groups: Shaped[np.ndarray, " pairs"],
) -> None:
    names = sorted(set(groups.tolist()))
    for k, name in enumerate(names):
        chosen = groups == name
        marker = "o^sDv"[(k // len(PALETTE)) % 5]
        axis.scatter(
            x[chosen], y[chosen], s=20, lw=0, marker=marker, color=PALETTE[k % 8], label=_short(name or "none")
        )
    if 1 < len(names) <= _LEGEND:
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
