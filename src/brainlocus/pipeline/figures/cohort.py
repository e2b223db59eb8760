"""Figures of the cohort's steps: preparation, sites, phenome scan, signatures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.cohort.harmonise import SmoothTerm, mean_of_known, smooth_effect
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure

__all__ = [
    "draw_curves",
    "draw_explained",
    "draw_groups",
    "draw_pattern",
    "draw_scores",
    "draw_shapes",
    "draw_sites",
]


def draw_shapes(
    before: Float64[np.ndarray, " traits"], after: Float64[np.ndarray, " traits"], name: str, path: Path
) -> None:
    """Draw a shape statistic of every trait before against after preparation."""
    figure, axes = new_figure(2, width=3.8, height=3.2)
    for axis, values, title, colour in zip(axes[0], (before, after), ("before", "after"), (GREY, BLUE), strict=True):
        finite = values[np.isfinite(values)]
        axis.hist(finite, bins=min(30, max(5, finite.size // 3)), color=colour)
        axis.set_xlabel(name)
        axis.set_title(title, fontsize=10)
    axes[0, 0].set_ylabel("traits")
    save_figure(figure, path)


def draw_explained(explained: Float64[np.ndarray, " traits"], path: Path) -> None:
    """Draw the share of variance that confounds explain, largest first."""
    figure, axes = new_figure()
    ordered = np.sort(explained[np.isfinite(explained)])[::-1]
    axes[0, 0].bar(np.arange(1, ordered.size + 1), 100 * ordered, width=1.0, color=BLUE)
    axes[0, 0].set_xlabel("trait, by rank")
    axes[0, 0].set_ylabel("variance explained by confounds (%)")
    save_figure(figure, path)


def draw_groups(
    groups: Sequence[str],
    marginal: Float64[np.ndarray, "groups traits"],
    unique: Float64[np.ndarray, "groups traits"],
    total: Float64[np.ndarray, " traits"],
    path: Path,
) -> None:
    """Draw the variance that each group of confounds explains, alone and beyond the others: box plots over traits."""
    figure, axes = new_figure(width=6.4, height=1.2 + 0.33 * (len(groups) + 1))
    axis = axes[0, 0]
    known = np.isfinite(total)
    rows = [("all", total, None), *zip(groups, marginal, unique, strict=True)]
    for k, (_, alone, beyond) in enumerate(rows):
        for values, colour, shift in ((alone, BLUE, -0.17), (beyond, ORANGE, 0.17)):
            if values is not None and known.any():
                least, low, middle, high, most = 100 * np.percentile(values[known], (5, 25, 50, 75, 95))
                place = k + (shift if k else 0.0)
                axis.plot([least, most], [place, place], color=colour, lw=1)
                axis.barh(place, high - low, left=low, height=0.28, color=colour, alpha=0.5)
                axis.plot([middle, middle], [place - 0.14, place + 0.14], color=colour, lw=2)
    axis.set_yticks(range(len(rows)), [name.replace("_", " ") for name, _, _ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.axhline(0.5, color=GREY, lw=0.8)
    axis.set_xlabel(f"variance explained (%), {int(known.sum())} traits: median, quartiles, 5th to 95th percentile")
    axis.plot([], [], color=BLUE, lw=5, alpha=0.6, label="alone")
    axis.plot([], [], color=ORANGE, lw=5, alpha=0.6, label="beyond the others")
    axis.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def draw_sites(before: Float64[np.ndarray, " features"], after: Float64[np.ndarray, " features"], path: Path) -> None:
    """Draw the sites' eta^2 of every feature before and after harmonising."""
    figure, axes = new_figure(2, width=4.2)
    left, right = axes[0]
    known = np.concatenate([before, after])
    top = float(known[np.isfinite(known)].max(initial=0.0))
    bins = np.linspace(0.0, max(top, 1e-3), 40)
    left.hist(
        before[np.isfinite(before)], bins=bins, color=ORANGE, alpha=0.8, label=f"before, {mean_of_known(before):.3f}"
    )
    left.hist(after[np.isfinite(after)], bins=bins, color=BLUE, alpha=0.8, label=f"after, {mean_of_known(after):.3f}")
    left.legend(title="mean", frameon=False)
    left.set_xlabel("partial η² of the sites")
    left.set_ylabel("features")
    right.scatter(before, after, s=9, color=BLUE, alpha=0.6, lw=0)
    right.plot([0, top], [0, top], color=GREY, lw=1, ls="--")
    right.set_xlabel("before")
    right.set_ylabel("after")
    save_figure(figure, path)


def draw_curves(term: SmoothTerm, sigma: Float64[np.ndarray, " features"], path: Path) -> None:
    """Draw the preserved curve of every feature, and how many degrees of freedom the curves take."""
    figure, axes = new_figure(2, width=4.2)
    left, right = axes[0]
    varies = np.flatnonzero(sigma > 0)
    at = np.linspace(*term.extent, 200)
    curves = smooth_effect(term, at)[:, varies] / sigma[varies]
    thin = float(np.clip(20.0 / max(varies.size, 1), 0.08, 0.7))
    left.plot(at, curves, color=BLUE, lw=0.8, alpha=thin)
    if varies.size > 1:
        left.plot(at, np.median(curves, axis=1), color=ORANGE, lw=1.8, label="median")
        left.legend(frameon=False)
    left.axhline(0.0, color=GREY, lw=1, ls="--")
    left.set_xlabel(term.covariate)
    left.set_ylabel("effect (residual SD of the feature)")
    edf = term.edf[varies]
    right.hist(edf, bins=np.linspace(1.0, max(float(edf.max(initial=0.0)), 2.0), 30), color=BLUE)
    right.set_xlabel(f"effective degrees of freedom of {term.covariate} (1: straight line)")
    right.set_ylabel("features")
    save_figure(figure, path)


def draw_scores(
    score: Float64[np.ndarray, " people"], diagnosis: Int[np.ndarray, " people"], title: str, path: Path
) -> None:
    """Draw the distribution of held-out decision values in controls and patients."""
    from scipy.stats import gaussian_kde

    figure, axes = new_figure()
    axis = axes[0, 0]
    span = np.linspace(score.min(), score.max(), 300)
    for label, name, colour in ((0, "controls", BLUE), (1, "patients", ORANGE)):
        values = score[diagnosis == label]
        if values.size > 2 and np.ptp(values) > 0:
            density = gaussian_kde(values)(span)
            axis.fill_between(span, density, color=colour, alpha=0.35, lw=0)
            axis.plot(span, density, color=colour, label=f"{name} ({values.size})")
    axis.axvline(0.0, color=GREY, lw=1, ls="--")
    axis.set_xlabel("mean held-out decision value")
    axis.set_ylabel("density")
    axis.set_title(title, fontsize=10)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
    save_figure(figure, path)


def draw_pattern(pattern: Float[np.ndarray, " features"], names: Sequence[str], path: Path, *, count: int = 20) -> None:
    """Draw the features that go most with the score."""
    order = np.argsort(-np.abs(pattern), kind="stable")[:count][::-1]
    figure, axes = new_figure(width=6.0, height=1.0 + 0.22 * order.size)
    colours = [ORANGE if pattern[k] > 0 else BLUE for k in order]
    axes[0, 0].barh(np.arange(order.size), pattern[order], color=colours)
    axes[0, 0].set_yticks(np.arange(order.size), [names[k] for k in order], fontsize=8)
    axes[0, 0].set_xlabel("covariance of the feature with the score (Haufe pattern)")
    save_figure(figure, path)
