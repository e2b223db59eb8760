"""Figures of interactions: Q-Q of a scan, simple slopes, dose response of copy number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure

__all__ = ["draw_dose", "draw_qq", "draw_slopes"]

_DRAWN = 8


def draw_qq(
    scans: Sequence[tuple[str, Float[np.ndarray, "_bins 2"], float]], path: Path, *, what: str = "pairs"
) -> None:
    """Draw observed against expected -log10 p of up to eight traits, from their binned tests.

    Parameters
    ----------
    scans
        Trait, bins (-log10 p at the lower edge, tests), lambda.
    """
    figure, axes = new_figure(width=4.4, height=4.2)
    axis = axes[0, 0]
    top = 1.0
    for colour, (name, bins, inflation) in zip(PALETTE, scans[:_DRAWN], strict=False):
        if not len(bins):
            continue
        order = np.argsort(-bins[:, 0])
        seen, observed = bins[order, 1], bins[order, 0]
        expected = -np.log10((np.cumsum(seen) - 0.5 * seen) / seen.sum())
        axis.plot(expected, observed, ".", ms=3, color=colour, label=f"{name}, λ {inflation:.3f}")
        top = max(top, float(expected.max()))
    axis.plot([0, top], [0, top], color=GREY, lw=1, ls="--")
    axis.set_xlabel("expected −log₁₀ p")
    axis.set_ylabel("observed −log₁₀ p")
    left_out = f" (first {_DRAWN} of {len(scans)} traits)" if len(scans) > _DRAWN else ""
    axis.set_title(f"{what}{left_out}", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_slopes(
    exposure: Float[np.ndarray, " points"],
    slopes: Float[np.ndarray, " points"],
    errors: Float[np.ndarray, " points"],
    *,
    title: str,
    labels: tuple[str, str],
    range_of_exposure: tuple[float, float],
    bounds: tuple[float, float],
    path: Path,
) -> None:
    """Draw the effect of a variant along an exposure, with 95 % bands at the simple slopes.

    Parameters
    ----------
    labels
        Exposure and trait.
    bounds
        Johnson-Neyman bounds, drawn where they lie in the exposure's range.
    """
    figure, axes = new_figure(width=4.8, height=3.6)
    axis = axes[0, 0]
    axis.axhline(0.0, color=GREY, lw=1)
    axis.plot(exposure, slopes, color=BLUE, lw=1.2)
    axis.errorbar(exposure, slopes, yerr=1.96 * errors, fmt="o", color=BLUE, ms=5, capsize=3)
    low, high = range_of_exposure
    for bound in bounds:
        if low < bound < high:
            axis.axvline(bound, color=ORANGE, lw=1, ls="--")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(f"effect per allele on {labels[1]}")
    axis.set_title(title, fontsize=9)
    save_figure(figure, path)


def draw_dose(
    copies: Sequence[int],
    means: Sequence[float],
    errors: Sequence[float],
    counts: Sequence[int],
    *,
    title: str,
    path: Path,
) -> None:
    """Draw the mean adjusted trait (in SD) by number of copies, with 95 % intervals and carriers."""
    figure, axes = new_figure(width=4.0, height=3.4)
    axis = axes[0, 0]
    axis.axhline(0.0, color=GREY, lw=1)
    axis.errorbar(copies, means, yerr=1.96 * np.array(errors), fmt="o", color=BLUE, ms=5, capsize=3)
    axis.set_xticks(list(copies), [f"{c}\n(n = {k})" for c, k in zip(copies, counts, strict=True)])
    axis.margins(x=0.2)
    axis.set_xlabel("copies")
    axis.set_ylabel("adjusted trait (SD)")
    axis.set_title(title, fontsize=9)
    save_figure(figure, path)
