"""The figure of ``atlas reproducibility``: matched components by scale against chance, and the agreement of labels."""

from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import BLUE, GREY, PALETTE, new_figure, save_figure

__all__ = ["draw_reproducibility"]

_LABELS = (
    ("adjusted_rand", "adjusted Rand", "o"),
    ("adjusted_mutual_information", "adjusted MI", "s"),
    ("mean_dice", "Dice of matches", "^"),
)
_ABOVE = {"frameon": False, "fontsize": 8, "loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": 3,
          "columnspacing": 1.0, "handletextpad": 0.4}  # fmt: skip


def draw_reproducibility(summary: ResultTable, components: ResultTable, path: Path) -> None:
    """Draw, per scale, the inner products of matched components of all repeats, and indices of the hard labels.

    Parameters
    ----------
    summary
        A row a scale and repeat.
    components
        A row a pair of components.
    """
    scales = np.unique(summary["scale"])
    figure, axes = new_figure(2, 1, width=max(4.2, 1.4 + 0.75 * scales.size), height=3.6)
    left, right = axes[0]
    _draw_products(left, scales, summary, components)
    for k, (column, name, marker) in enumerate(_LABELS):
        means = [float(summary[column][summary["scale"] == s].mean()) for s in scales]
        right.plot(range(scales.size), means, marker=marker, ms=5, lw=1.2, color=PALETTE[k], label=name)
        for at, s in enumerate(scales):
            each = summary[column][summary["scale"] == s]
            if each.size > 1:
                right.plot(np.full(each.size, at), each, "_", color=PALETTE[k], ms=7, alpha=0.6)
    low = min(0.0, *(float(summary[column].min()) for column, _, _ in _LABELS))
    right.set_ylim(low - 0.02, 1.02)
    right.set_ylabel("agreement of hard labels")
    right.legend(**_ABOVE)
    for axis in (left, right):
        axis.set_xticks(range(scales.size), [f"C{s}" for s in scales])
        axis.set_xlim(-0.6, scales.size - 0.4)
        axis.set_xlabel("scale")
    save_figure(figure, path)


def _draw_products(axis: Any, scales: Any, summary: ResultTable, components: ResultTable) -> None:
    for at, scale in enumerate(scales):
        products = components["inner_product"][components["scale"] == scale]
        drawn = axis.boxplot(
            [products], positions=[at], widths=0.5, whis=(5, 95), showfliers=False, patch_artist=True,
            manage_ticks=False, medianprops={"color": "#30303a"},
        )  # fmt: skip
        drawn["boxes"][0].set(facecolor="#c8d8e8", edgecolor=BLUE)
        rows = summary["scale"] == scale
        means = summary["reproducibility"][rows]
        axis.plot(
            np.full(means.size, at),
            means,
            "D",
            color=BLUE,
            ms=5,
            zorder=5,
            label="mean of a split" if at == 0 else None,
        )
        chance = summary["null_reproducibility"][rows]
        axis.plot(np.full(chance.size, at), chance, "x", color=GREY, ms=6, label="voxels permuted" if at == 0 else None)
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("inner product of matched components")
    axis.legend(**_ABOVE)
