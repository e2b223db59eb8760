"""Figures of ``twas specificity``: how many tissues, how strong, and how much a model yields."""

from pathlib import Path

import numpy as np

from brainlocus.core import ResultTable
from brainlocus.genetics.twas import Specificity
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure

__all__ = ["draw_breadth", "draw_strength", "draw_tissue_sizes"]


def _level(table: ResultTable, level: str) -> ResultTable:
    return table.take(np.flatnonzero(table["level"] == level))


def draw_breadth(found: Specificity, path: Path) -> None:
    """Draw genes and pairs by number of tissues beside what models allow, and shares of models."""
    figure, axes = new_figure(3, width=4.0, height=3.4)
    for axis, level, text in ((axes[0, 0], "gene", "genes"), (axes[0, 1], "pair", "gene-phenotype pairs")):
        rows = _level(found.profile, level)
        k = rows["n_tissues"]
        axis.bar(k, rows["count"], color=BLUE, width=0.8, label="observed")
        expected = np.where(rows["expected_count"] >= 0.5, rows["expected_count"], np.nan)
        axis.plot(k, expected, "o", color=ORANGE, ms=4, label="tissues independent")
        if level == "gene":
            axis.plot(k, rows["possible_count"], color=GREY, lw=1.2, ls="--", label="with so many models or more")
        positive = np.r_[rows["count"], rows["expected_count"]]
        axis.set_yscale("log")
        axis.set_ylim(0.5, 60 * max(positive.max(), rows["possible_count"].max() if level == "gene" else 1.0))
        axis.legend(frameon=False, fontsize=7)
        axis.set_xlabel("tissues with an association (k)")
        axis.set_ylabel(text)
    axis = axes[0, 2]
    axis.hist(found.genes["share_of_models"], bins=20, range=(0, 1), color=BLUE, edgecolor="white", lw=0.5)
    axis.set_xlabel("k / number of tissues with a model")
    axis.set_ylabel("genes")
    save_figure(figure, path)


def draw_strength(found: Specificity, path: Path) -> None:
    """Draw median |z| and its spread over tissues by number of tissues, and |z| by class."""
    figure, axes = new_figure(3, width=4.0, height=3.4)
    rows = _level(found.profile, "pair")
    for axis, column, text in (
        (axes[0, 0], "median_abs_z", "median |z| of pairs"),
        (axes[0, 1], "sd_abs_z", "mean SD of |z| over tissues"),
    ):
        axis.plot(rows["n_tissues"], rows[column], "o-", color=BLUE, ms=4)
        axis.set_xlabel("tissues with an association (k)")
        axis.set_ylabel(text)
    classes = np.unique(found.pairs["specificity"]).tolist()
    values = [found.pairs["median_abs_z"][found.pairs["specificity"] == name] for name in classes]
    boxes = axes[0, 2].boxplot(values, showfliers=False, patch_artist=True, widths=0.55)
    for k, box in enumerate(boxes["boxes"]):
        box.set_facecolor(PALETTE[k % len(PALETTE)])
        box.set_alpha(0.6)
    labels = [f"{name.replace('_', ' ')}\n{v.size:,}" for name, v in zip(classes, values, strict=True)]
    axes[0, 2].set_xticks(range(1, len(classes) + 1), labels, fontsize=8)
    axes[0, 2].set_ylabel("median |z| of pairs")
    save_figure(figure, path)


def draw_tissue_sizes(found: Specificity, path: Path) -> None:
    """Draw associations against models of the tissues, a line for each group."""
    tissues = found.tissues
    figure, axes = new_figure(width=5.6, height=4.2)
    axis = axes[0, 0]
    for k, name in enumerate(np.unique(tissues["group"]).tolist()):
        mine = tissues["group"] == name
        x, y = tissues["n_models"][mine], tissues["n_associations"][mine]
        axis.plot(x, y, "o", color=PALETTE[k], ms=5, label=name.replace("_", " "))
        if np.unique(x).size > 1:
            slope, level = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            axis.plot(ends, level + slope * ends, color=PALETTE[k], lw=1)
        for label, a, b in zip(tissues["tissue"][mine].tolist(), x, y, strict=True):
            axis.annotate(
                label.replace("_", " ")[:28], (a, b), fontsize=5, color=GREY, xytext=(3, 2), textcoords="offset points"
            )
    last = found.comparisons.take(np.array([len(found.comparisons) - 1]))
    p = 10.0 ** -last["neg_log10_p"][0]
    axis.set_title(f"group x size: t = {last['statistic'][0]:.2f}, p = {p:.2g}", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    axis.set_xlabel("genes that the tissue models")
    axis.set_ylabel("associations")
    save_figure(figure, path)
