"""The figure of ``atlas hierarchy``: parcels of every scale below their parents, and how well they are contained."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from brainlocus.core.errors import import_extra
from brainlocus.core.label_colours import label_colours
from brainlocus.images.atlas import LOOSE, AtlasTree
from brainlocus.pipeline.figures.canvas import BLUE, ORANGE, save_figure

__all__ = ["draw_tree"]

_BAR = 0.26
"""Height of a scale's bar, in distances between scales."""
_UNDER_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def draw_tree(tree: AtlasTree, path: Path) -> None:
    """Draw a bar a scale, cut into parcels as wide as their volume and joined to their parents.

    Colours are those of the coarsest parcels; the more of a parcel its parent has, the stronger the ribbon. Beside it
    stands the containment of each scale's parcels.
    """
    figure_module = import_extra("matplotlib.figure", extra="plot")
    n_scales = len(tree.scales)
    figure = figure_module.Figure(figsize=(11.0, 1.6 + 1.15 * n_scales), layout="constrained")
    bars, boxes = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1.0))
    edges = [_edges(tree, level) for level in range(n_scales)]
    colours = _colours(tree)
    for level in range(n_scales):
        if level:
            _draw_ribbons(bars, tree, level, edges, colours[level])
        _draw_bar(bars, edges[level], float(n_scales - 1 - level), colours[level])
    bars.set_xlim(0, max(float(e[-1]) for e in edges))
    bars.set_ylim(-0.3, n_scales - 0.7)
    names = [f"C{s.scale}\n{e.size - 1} parcels" for s, e in zip(tree.scales, edges, strict=True)]
    bars.set_yticks(range(n_scales - 1, -1, -1), names, fontsize=8)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel("voxels, parcels in the order of the tree", fontsize=9)
    bars.tick_params(axis="x", labelsize=8)
    bars.spines[["top", "right", "left"]].set_visible(False)
    _draw_boxes(boxes, tree)
    save_figure(figure, path)


def _edges(tree: AtlasTree, level: int) -> Float64[np.ndarray, " bounds"]:
    """Return where parcels begin and end, in voxels from the left."""
    return np.append(0.0, np.cumsum(tree.sizes(level)[tree.order(level) - 1], dtype=np.float64))


def _colours(tree: AtlasTree) -> list[Float64[np.ndarray, "_parcels 3"]]:
    """Return the colour of every parcel in the order of the tree: that of its coarsest ancestor, grey without one."""
    top = np.arange(tree.scales[0].scale + 1)
    found = []
    for level, _ in enumerate(tree.scales):
        if level:
            top = np.append(0, top[tree.links[level - 1].parents])
        ancestors: Int64[np.ndarray, " present"] = top[tree.order(level)]
        rgb = label_colours(ancestors) / 255.0
        rgb[ancestors == 0] = 0.6
        found.append(rgb)
    return found


def _draw_bar(axis: Any, edges: Float64[np.ndarray, " bounds"], at: float, colours: Any) -> None:
    collections = import_extra("matplotlib.collections", extra="plot")
    boxes = [
        [(a, at - _BAR / 2), (b, at - _BAR / 2), (b, at + _BAR / 2), (a, at + _BAR / 2)]
        for a, b in pairwise(edges.tolist())
    ]
    # White lines between parcels, thinner where there are many, so that they do not swallow the colours.
    width = min(0.6, 60.0 / len(boxes))
    axis.add_collection(collections.PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=width))


def _draw_ribbons(axis: Any, tree: AtlasTree, level: int, edges: list[Any], colours: Any) -> None:
    """Join each parcel to its share of its parent's lower edge, the children side by side."""
    collections = import_extra("matplotlib.collections", extra="plot")
    link = tree.links[level - 1]
    order, above = tree.order(level), tree.order(level - 1)
    left = dict(zip(above.tolist(), edges[level - 1].tolist(), strict=False))
    width = dict(zip(above.tolist(), np.diff(edges[level - 1]).tolist(), strict=True))
    together = np.bincount(link.parents, link.sizes, minlength=link.coarse + 1)
    high, low = len(tree.scales) - level - _BAR / 2, len(tree.scales) - 1 - level + _BAR / 2
    ribbons, shades = [], []
    for k, label in enumerate(order.tolist()):
        parent = int(link.parents[label - 1])
        if not parent:
            continue
        share = width[parent] * float(link.sizes[label - 1]) / float(together[parent])
        a, b = left[parent], left[parent] + share
        left[parent] = b
        ribbons.append([(a, high), (b, high), (edges[level][k + 1], low), (edges[level][k], low)])
        shades.append((*colours[k], 0.1 + 0.55 * float(link.containment[label - 1])))
    axis.add_collection(collections.PolyCollection(ribbons, facecolors=shades, linewidths=0))


def _draw_boxes(axis: Any, tree: AtlasTree) -> None:
    """Draw the distribution of containment between the two scales it belongs to."""
    for level, link in enumerate(tree.links):
        at = len(tree.scales) - 1.5 - level
        values = link.containment[link.sizes > 0]
        drawn = axis.boxplot(
            [values], positions=[at], orientation="horizontal", widths=0.3, whis=(5, 95), showfliers=False,
            patch_artist=True, manage_ticks=False, medianprops={"color": "#30303a"},
        )  # fmt: skip
        drawn["boxes"][0].set(facecolor="#c8d8e8", edgecolor=BLUE)
        axis.plot(link.mean_containment, at, "D", color=BLUE, ms=5, zorder=5)
        loose = int(link.loose.sum())
        text = f"mean {link.mean_containment:.3f}, {loose} below {LOOSE:g}, ARI {link.adjusted_rand:.3f}"
        axis.text(1.0, at + 0.24, text, fontsize=7, ha="right", color="#30303a", bbox=_UNDER_TEXT)
    axis.axvline(LOOSE, color=ORANGE, lw=0.9, ls="--")
    axis.set_xlim(0, 1.02)
    axis.set_xlabel(
        "containment in the scale above\n(box: quartiles, whiskers: 5 to 95 %,\ndiamond: mean by volume)", fontsize=8
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0, labelleft=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
