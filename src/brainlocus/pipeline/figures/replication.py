"""Figures of ``twas replicate``: estimates of two cohorts against each other, and agreement by modality and tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core import ResultTable
from brainlocus.genetics.twas import TissuePair
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure

__all__ = ["draw_estimates", "draw_external", "draw_modalities", "draw_tissues"]

_FEW = 5000
"""Up to this many points are drawn one by one; more as a density."""


def _rows(found: ResultTable, level: str, selection: str) -> ResultTable:
    return found.take(np.flatnonzero((found["level"] == level) & (found["selection"] == selection)))


def _scatter(axis: Any, x: np.ndarray, y: np.ndarray) -> None:
    if x.size > _FEW:
        axis.hexbin(x, y, gridsize=90, bins="log", cmap="Blues", mincnt=1, linewidths=0)
    else:
        axis.scatter(x, y, s=8, color=BLUE, alpha=0.5, lw=0)
    axis.axhline(0, color=GREY, lw=0.6)
    axis.axvline(0, color=GREY, lw=0.6)


def draw_estimates(pairs: Sequence[TissuePair], found: ResultTable, estimate: str, path: Path) -> None:
    """Draw the estimates of tests significant in both cohorts, and the share of equal signs by selection."""
    figure, axes = new_figure(2, width=4.4, height=3.8)
    x, y = (np.concatenate([p.estimate[k] for p in pairs]) for k in range(2))
    _scatter(axes[0, 0], x, y)
    one = _rows(found, "all", "both")
    axes[0, 0].set_title(
        f"{int(one['n_tests'][0]):,} tests, {one['same_sign'][0]:.1%} of equal sign\nSpearman "
        f"{one['spearman_rho'][0]:.3f}",
        fontsize=9,
    )
    name = "effect size" if estimate == "effect" else "z"
    axes[0, 0].set_xlabel(f"{name}, discovery")
    axes[0, 0].set_ylabel(f"{name}, replication")
    all_rows = found.take(np.flatnonzero(found["level"] == "all"))
    words = {
        "both": "p in both",
        "discovery": "p in the discovery",
        "replication": "p in the replication",
        "fdr_both": "FDR in both",
        "fdr_discovery": "FDR in the discovery",
        "fdr_replication": "FDR in the replication",
    }
    at = np.arange(len(all_rows))[::-1]
    axis = axes[0, 1]
    axis.barh(at, np.nan_to_num(all_rows["same_sign"]), color=BLUE, height=0.6)
    for k, n in zip(at, all_rows["n_tests"], strict=True):
        axis.text(0.02, k, f"{int(n):,}", va="center", fontsize=7, color="white" if n else "black")
    axis.axvline(0.5, color=ORANGE, lw=1.2, ls="--")
    axis.text(0.505, at.max() + 0.45, "by chance", color=ORANGE, fontsize=7)
    axis.set_yticks(at, [words[s] for s in all_rows["selection"].tolist()], fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of equal sign")
    save_figure(figure, path)


def draw_modalities(found: ResultTable, path: Path) -> None:
    """Draw the mean over phenotypes of equal signs and of Spearman's correlation, by modality, with intervals."""
    rows = _rows(found, "modality", "both")
    at = np.arange(len(rows))[::-1]
    figure, axes = new_figure(2, width=4.2, height=1.2 + 0.32 * max(len(rows), 2))
    labels = [f"{m} ({int(n)})" for m, n in zip(rows["modality"], rows["n_phenotypes"], strict=True)]
    for axis, column, text, chance in (
        (axes[0, 0], "mean_same_sign", "mean share of equal sign", 0.5),
        (axes[0, 1], "mean_spearman_rho", "mean Spearman correlation", 0.0),
    ):
        axis.axvline(chance, color=ORANGE, lw=1, ls="--")
        axis.hlines(at, rows[f"{column}_lower"], rows[f"{column}_upper"], color=GREY, lw=2)
        axis.plot(rows[column], at, "o", color=BLUE, ms=5)
        axis.set_yticks(at, labels, fontsize=8)
        low = min(chance, float(np.nanmin(np.r_[rows[f"{column}_lower"], rows[column]], initial=chance)))
        axis.set_xlim(max(low, 2 * chance - 1) - 0.05, 1.05)
        axis.set_xlabel(f"{text} (95 % interval)")
    save_figure(figure, path)


def draw_tissues(found: ResultTable, path: Path) -> None:
    """Draw the share of equal signs of every modality and tissue."""
    rows = _rows(found, "modality_tissue", "both")
    modalities, tissues = np.unique(rows["modality"]), np.unique(rows["tissue"])
    grid = np.full((tissues.size, modalities.size), np.nan)
    place = np.searchsorted(tissues, rows["tissue"]), np.searchsorted(modalities, rows["modality"])
    grid[place] = rows["same_sign"]
    figure, axes = new_figure(width=3.4 + 0.5 * modalities.size, height=1.6 + 0.24 * tissues.size)
    axis = axes[0, 0]
    image = axis.imshow(grid, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for k, j in zip(*place, strict=True):
        colour = "white" if abs(grid[k, j] - 0.5) > 0.35 else "black"
        axis.text(j, k, f"{grid[k, j]:.2f}", ha="center", va="center", fontsize=6, color=colour)
    axis.set_xticks(range(modalities.size), modalities.tolist(), rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(tissues.size), tissues.tolist(), fontsize=7)
    figure.colorbar(image, ax=axis, label="equal sign", shrink=0.8)
    save_figure(figure, path)


def draw_external(found: ResultTable, tests: ResultTable, path: Path) -> None:
    """Draw external z against the mean of the hemispheres, and the distribution of external p."""
    tested = np.isfinite(tests["z_external"])
    figure, axes = new_figure(2, width=4.2, height=3.6)
    _scatter(axes[0, 0], ((tests["z_left"] + tests["z_right"]) / 2)[tested], tests["z_external"][tested])
    axes[0, 0].set_xlabel("mean z of both hemispheres, discovery")
    axes[0, 0].set_ylabel("z, external")
    axes[0, 0].set_title(
        f"{found['share_significant'][0]:.1%} significant ({found['expected_significant'][0]:.0%} by chance), "
        f"{found['same_sign'][0]:.1%} of equal sign",
        fontsize=8,
    )
    axis = axes[0, 1]
    p = 10.0 ** -tests["neg_log10_p"][tested]
    axis.hist(p, bins=20, range=(0, 1), color=BLUE, edgecolor="white", lw=0.5)
    axis.axhline(p.size / 20, color=ORANGE, lw=1.2, ls="--", label="no effect at all")
    axis.axhline((1 - found["pi1"][0]) * p.size / 20, color=GREY, lw=1.2, ls=":", label=f"pi1 = {found['pi1'][0]:.2f}")
    axis.legend(frameon=False, fontsize=7)
    axis.set_xlabel("external p")
    axis.set_ylabel("associations")
    save_figure(figure, path)
