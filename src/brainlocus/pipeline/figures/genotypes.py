"""Figures of the genotype steps: what quality control left, kinship, components."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from brainlocus.genetics.genotypes import DEGREES, FlowRow
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure

__all__ = ["draw_components", "draw_flow", "draw_kinship"]

_DEGREE_NAMES = ("duplicates, twins", "first degree", "second degree", "third degree", "farther")


def draw_flow(flow: Sequence[FlowRow], path: Path) -> None:
    """Draw people and variants left after every step, with what each step took."""
    figure, axes = new_figure(2, width=5.2, height=0.8 + 0.3 * len(flow))
    at = np.arange(len(flow))[::-1]
    sides = (("people", [row.n_samples for row in flow], BLUE), ("variants", [row.n_variants for row in flow], ORANGE))
    for axis, (name, left, colour) in zip(axes[0], sides, strict=True):
        axis.barh(at, left, color=colour, alpha=0.85, height=0.7)
        for k, (place, count) in enumerate(zip(at, left, strict=True)):
            taken = left[k - 1] - count if k else 0
            text = f"{count:,}" + (f"  (−{taken:,})" if taken else "")
            axis.text(count, place, f" {text}", va="center", fontsize=8)
        axis.set_xlim(0, 1.32 * max(left[0], 1))
        axis.set_xlabel(name)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(at, [row.step for row in flow], fontsize=9)
    axes[0, 1].set_yticks([])
    save_figure(figure, path)


def draw_kinship(
    kinship: Float64[np.ndarray, " pairs"], ibs0: Float64[np.ndarray, " pairs"], cutoff: float, path: Path
) -> None:
    """Draw kinship against the share of opposite homozygotes, which tells parents from siblings."""
    figure, axes = new_figure(width=5.6, height=4.2)
    axis = axes[0, 0]
    degree = np.searchsorted(-np.array(DEGREES), -kinship)
    for k, name in enumerate(_DEGREE_NAMES):
        here = (degree == k) & np.isfinite(kinship)
        if here.any():
            colour = GREY if k == len(DEGREES) else PALETTE[k]
            label = f"{name} ({here.sum():,})"
            axis.scatter(ibs0[here], kinship[here], s=14, lw=0, alpha=0.8, color=colour, label=label)
    for bound in DEGREES:
        axis.axhline(bound, color=GREY, lw=0.6, ls=":")
    axis.axhline(cutoff, color=GREY, lw=1.2, ls="--", label=f"cut-off {cutoff:g}")
    axis.set_xlabel("share of opposite homozygotes (IBS0)")
    axis.set_ylabel("kinship (KING-robust)")
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_components(
    scores: Float[np.ndarray, "samples components"],
    fitted: Bool[np.ndarray, " samples"],
    eigenvalues: Float[np.ndarray, " components"],
    local: Bool[np.ndarray, " components"],
    path: Path,
) -> None:
    """Draw the leading components against one another, projected people apart, and the eigenvalues."""
    n_pairs = min(3, scores.shape[1] // 2)
    figure, axes = new_figure(n_pairs + 1, width=3.7, height=3.4)
    for k in range(n_pairs):
        axis = axes[0, k]
        sides = ((fitted, BLUE, "fitted"), (~fitted, ORANGE, "projected"))
        for which, colour, name in sides:
            if which.any():
                x, y = scores[which, 2 * k], scores[which, 2 * k + 1]
                axis.scatter(x, y, s=7, lw=0, alpha=0.6, color=colour, label=name)
        axis.set_xlabel(f"PC{2 * k + 1}")
        axis.set_ylabel(f"PC{2 * k + 2}")
        axis.locator_params(nbins=5)
    if n_pairs and not fitted.all():
        axes[0, 0].legend(frameon=False, fontsize=8, markerscale=2)
    axis = axes[0, n_pairs]
    number = np.arange(1, eigenvalues.size + 1)
    axis.plot(number, eigenvalues, "-", color=GREY, lw=1)
    axis.plot(number[~local], eigenvalues[~local], "o", color=BLUE, ms=4)
    if local.any():
        axis.plot(number[local], eigenvalues[local], "s", color=ORANGE, ms=5, label="of one region")
        axis.legend(frameon=False, fontsize=8)
    axis.set_xlabel("component")
    axis.set_ylabel("eigenvalue")
    axis.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)
