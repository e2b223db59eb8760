"""Figure of ``genes ontology``: the strongest terms of every cluster as dots."""

from pathlib import Path

import numpy as np

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import GREY, new_figure, save_figure

__all__ = ["draw_terms"]

_TOP = 6
_WIDEST = 48


def draw_terms(results: ResultTable, clusters: list[str], fdr: float, path: Path) -> None:
    """Draw the union of the clusters' strongest terms of an ontology: dots by share of genes, coloured by q.

    Terms that repeat a stronger one are not chosen. Dots of terms with q above `fdr` are open.
    """
    chosen: list[str] = []
    for cluster in clusters:
        mine = np.flatnonzero((results["cluster"] == cluster) & (results["similar_to"] == ""))
        mine = mine[np.argsort(-results["neg_log10_p"][mine], kind="stable")][:_TOP]
        chosen += [t for t in results["term_id"][mine].tolist() if t not in chosen]
    names = dict(zip(results["term_id"].tolist(), results["term"].tolist(), strict=True))
    rows = np.flatnonzero(np.isin(results["term_id"], chosen))
    x = np.array([clusters.index(c) for c in results["cluster"][rows].tolist()])
    y = np.array([len(chosen) - 1 - chosen.index(t) for t in results["term_id"][rows].tolist()])
    ratio = results["gene_ratio"][rows]
    strength = -np.log10(np.maximum(results["q_bh"][rows], 1e-300))
    size = 15 + 165 * ratio / ratio.max()
    figure, axes = new_figure(width=4.2 + 0.55 * len(clusters), height=1.3 + 0.24 * len(chosen))
    axis = axes[0, 0]
    open_dots = results["q_bh"][rows] > fdr
    axis.scatter(x[open_dots], y[open_dots], s=size[open_dots], facecolor="none", edgecolor=GREY, lw=0.8)
    dots = axis.scatter(
        x[~open_dots],
        y[~open_dots],
        s=size[~open_dots],
        c=strength[~open_dots],
        cmap="viridis_r",
        lw=0,
        vmin=-np.log10(fdr),
    )
    if (~open_dots).any():
        figure.colorbar(dots, ax=axis, label="−log10 q", shrink=0.6)
    labels = [names[t] if len(names[t]) <= _WIDEST else names[t][: _WIDEST - 1] + "…" for t in chosen]
    axis.set_yticks(range(len(chosen))[::-1], labels, fontsize=7)
    axis.set_xticks(range(len(clusters)), clusters, rotation=45, ha="right", fontsize=8)
    axis.set_xlim(-0.6, len(clusters) - 0.4)
    axis.scatter([], [], s=60, facecolor="none", edgecolor=GREY, label=f"q > {fdr:g}")
    for share in (ratio.max(), ratio.max() / 3):
        axis.scatter([], [], s=15 + 165 * share / ratio.max(), color=GREY, label=f"{share:.1%} of genes")
    axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=3)
    save_figure(figure, path)
