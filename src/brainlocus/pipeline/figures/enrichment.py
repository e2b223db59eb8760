"""Figures of ``twas enrich``: the set beside the sets drawn, threshold by threshold."""

from pathlib import Path

import numpy as np

from brainlocus.genetics.twas import SetEnrichment
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure

__all__ = ["draw_draws", "draw_margins"]

_WHAT = ("associations", "phenotypes hit")


def draw_draws(found: SetEnrichment, path: Path) -> None:
    """Draw the counts of the sets drawn with the set's own and the 95th percentile, a panel a threshold."""
    n = found.thresholds.size
    figure, axes = new_figure(n, 2, width=2.3, height=2.1)
    for k in range(2):
        for t in range(n):
            axis = axes[k, t]
            null = found.null[k, :, t]
            span = max(int(np.ptp(np.r_[null, found.observed[k, t]])), 1)
            axis.hist(null, bins=min(span + 1, 30), color=GREY, alpha=0.7)
            axis.axvline(found.q95[k, t], color=BLUE, lw=1, ls="--")
            axis.axvline(found.observed[k, t], color=ORANGE, lw=1.6)
            mark = " (best)" if found.best[k, t] else ""
            axis.set_title(f"p ≤ {found.thresholds[t]:g}{mark}\nempirical p {found.p[k, t]:.3g}", fontsize=7)
            axis.tick_params(labelsize=6)
            axis.set_yticks([])
            if t == 0:
                axis.set_ylabel(_WHAT[k], fontsize=8)
    figure.suptitle("orange: the set; blue: 95th percentile of the sets drawn", fontsize=8)
    save_figure(figure, path)


def draw_margins(found: SetEnrichment, path: Path) -> None:
    """Draw the standardised counts of the set and of the sets drawn over the thresholds."""
    figure, axes = new_figure(2, width=4.0, height=3.2)
    at = np.arange(found.thresholds.size)
    for k, axis in enumerate(axes.ravel()):
        sd = np.where(found.standard_deviation[k] > 0, found.standard_deviation[k], np.nan)
        scaled = (found.null[k] - found.mean[k]) / sd
        if np.isfinite(scaled).any():
            low, high = np.nanquantile(np.where(np.isfinite(scaled), scaled, 0.0), [0.05, 0.95], axis=0)
            axis.fill_between(at, low, high, color=GREY, alpha=0.3, lw=0, label="sets drawn, 5 to 95 %")
        axis.plot(at, found.standardised[k], "o-", color=ORANGE, ms=4, label="the set")
        axis.axhline(0, color=GREY, lw=0.6)
        axis.set_xticks(at, [f"{t:g}" for t in found.thresholds], rotation=45, fontsize=7)
        axis.set_xlabel("threshold of p")
        axis.set_ylabel("standard deviations above the mean")
        axis.set_title(f"{_WHAT[k]}: family-wise p {found.family_wise_p[k]:.3g}", fontsize=9)
        axis.legend(frameon=False, fontsize=7)
    save_figure(figure, path)
