"""Figures of ``twas cluster``: similarity with its tree and annotations, the tree, and phenotypes as points."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from brainlocus.core.errors import import_extra
from brainlocus.genetics.twas import WardTree
from brainlocus.pipeline.figures.canvas import GREY, new_figure, save_figure

__all__ = ["draw_points", "draw_similarity", "draw_tree", "shrunk"]

_MOST_PIXELS = 1000
_MOST_LEVELS = 16
_NAMED = 60
"""Phenotypes that a figure has room to name."""
_OTHER, _NONE = "#c9ccd1", "#ffffff"
_COLOURS = (
    "#2b6ca3", "#d1622b", "#4a9a62", "#8b5fa8", "#b8862d", "#3f9ea8", "#c0507c", "#6b7280",
    "#86b3d9", "#f0a987", "#95cba4", "#c5a8d8", "#e3c47e", "#93d3da", "#e59dba", "#1f3a52",
)  # fmt: skip


def shrunk(
    matrix: Float[np.ndarray, "objects objects"], order: Int[np.ndarray, " objects"], *, most: int = _MOST_PIXELS
) -> Float64[np.ndarray, "bins bins"]:
    """Return a matrix in the order of a tree, averaged over squares where it is larger than a picture."""
    n = order.size
    if n <= most:
        return np.asarray(matrix[np.ix_(order, order)], dtype=np.float64)
    edges = np.linspace(0, n, most + 1).astype(np.int64)
    sizes = np.diff(edges)
    found = np.empty((most, most))
    for k in range(most):
        rows = matrix[order[edges[k] : edges[k + 1]]].mean(axis=0)[order]
        found[k] = np.add.reduceat(rows, edges[:-1]) / sizes
    return found


def _level_colours(labels: Shaped[np.ndarray, " objects"]) -> tuple[dict[str, str], list[str]]:
    """Return a colour for every level, the frequent first, and the levels that have one of their own."""
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    ordered = names[np.argsort(-counts, kind="stable")].tolist()
    own = ordered if len(ordered) <= _MOST_LEVELS else ordered[: _MOST_LEVELS - 1]
    colours = {name: _OTHER for name in ordered}
    colours |= {name: _COLOURS[k] for k, name in enumerate(own)}
    return colours, own


def _legend(axis: Any, title: str, labels: Shaped[np.ndarray, " objects"], **where: Any) -> None:
    """Add the legend of a colouring beside those that are there."""
    patches = import_extra("matplotlib.patches", extra="plot")
    colours, own = _level_colours(labels)
    entries = [patches.Patch(color=colours[name], label=_short(name, 28)) for name in own]
    if len(colours) > len(own):
        entries.append(patches.Patch(color=_OTHER, label=f"{len(colours) - len(own)} others"))
    if (labels == "").any():
        entries.append(patches.Patch(facecolor=_NONE, edgecolor=GREY, label="not known"))
    before = axis.get_legend()
    axis.legend(
        handles=entries, title=title, fontsize=6.5, title_fontsize=8, frameon=False, alignment="left",
        handlelength=1.0, handleheight=0.9, labelspacing=0.25, borderaxespad=0.0, **where,
    )  # fmt: skip
    if before is not None:
        axis.add_artist(before)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _branches(tree: WardTree) -> tuple[Float64[np.ndarray, "merges 4"], Float64[np.ndarray, "merges 4"]]:
    """Return where each merge's bracket stands (left, left, right, right) and its heights."""
    n = tree.n_leaves
    place = np.empty(2 * n - 1)
    place[tree.order] = np.arange(n)
    height = np.zeros(2 * n - 1)
    across, up = np.empty((n - 1, 4)), np.empty((n - 1, 4))
    for step, pair in enumerate(tree.merge):
        ends = np.where(pair < 0, -pair - 1, n + pair - 1)
        ends = ends[np.argsort(place[ends])]
        left, right = place[ends]
        across[step] = left, left, right, right
        up[step] = height[ends[0]], tree.height[step], tree.height[step], height[ends[1]]
        place[n + step], height[n + step] = (left + right) / 2, tree.height[step]
    return across, up


def _draw_brackets(axis: Any, tree: WardTree, cut: int, *, sideways: bool, width: float) -> None:
    """Draw the tree; the merges above the cut are dark."""
    collections = import_extra("matplotlib.collections", extra="plot")
    across, up = _branches(tree)
    above = np.arange(across.shape[0]) >= tree.n_leaves - cut
    for chosen, colour in ((~above, "#9aa3ad"), (above, "#222222")):
        pairs = (up[chosen], across[chosen]) if sideways else (across[chosen], up[chosen])
        axis.add_collection(
            collections.LineCollection(np.stack(pairs, axis=2), colors=colour, linewidths=width, capstyle="projecting")
        )
    top = float(tree.height.max(initial=0.0)) * 1.03 or 1.0
    if sideways:
        axis.set_xlim(top, 0)
        axis.set_ylim(tree.n_leaves - 0.5, -0.5)
    else:
        axis.set_ylim(0, top)
        axis.set_xlim(-0.5, tree.n_leaves - 0.5)


def draw_similarity(
    rho: Float[np.ndarray, "objects objects"],
    tree: WardTree,
    clusters: Int[np.ndarray, " objects"],
    strips: Mapping[str, Shaped[np.ndarray, " objects"]],
    names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw the correlations in the order of the tree, which stands on the left, with a strip for each annotation."""
    figure_module = import_extra("matplotlib.figure", extra="plot")
    colours_module = import_extra("matplotlib.colors", extra="plot")
    n, n_clusters = tree.n_leaves, int(clusters.max())
    named = n <= _NAMED
    room = min(2.6, 0.047 * max(map(len, names)) + 0.12) if named else 0.0
    side, strip, branch = 6.2, 0.17, 1.1
    legends = 1.6 if strips else 0.0
    width = 0.25 + branch + strip * len(strips) + side + room + 0.75 + legends
    head = max([0.45, *(0.062 * len(name) + 0.12 for name in strips)])
    height = side + 0.3 + head + room
    figure = figure_module.Figure(figsize=(width, height))

    def place(left: float, bottom: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    bottom = 0.2 + room
    axis = place(0.2, bottom, branch, side)
    _draw_brackets(axis, tree, n_clusters, sideways=True, width=0.8 if n <= 300 else 0.4)
    axis.set_axis_off()
    left = 0.2 + branch + 0.05
    for labels in strips.values():
        _strip(place(left, bottom, strip * 0.85, side), labels[tree.order], colours_module)
        left += strip
    main = place(left, bottom, side, side)
    image = main.imshow(
        shrunk(rho, tree.order), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest",
        extent=(-0.5, n - 0.5, n - 0.5, -0.5), aspect="auto",
    )  # fmt: skip
    for edge in np.flatnonzero(np.diff(clusters[tree.order])) + 0.5 if n_clusters > 1 else ():
        main.axhline(edge, color="black", lw=0.5)
        main.axvline(edge, color="black", lw=0.5)
    main.tick_params(length=0, labelsize=6, labelleft=False, labelright=named, labelbottom=named)
    ticks = np.arange(n if named else 0)
    main.set_xticks(ticks, [names[k] for k in tree.order] if named else [], rotation=90)
    main.set_yticks(ticks, [names[k] for k in tree.order] if named else [])
    bar = figure.colorbar(image, cax=place(left + side + room + 0.15, bottom, 0.12, 1.6), ticks=(-1, -0.5, 0, 0.5, 1))
    bar.ax.tick_params(labelsize=7)
    bar.ax.set_title("ρ", fontsize=9)
    figure.text(left / width, (bottom + side + 0.12) / height, title, fontsize=11)
    for k, name in enumerate(strips):
        at = 0.2 + branch + 0.05 + strip * (k + 0.42)
        figure.text(
            at / width, (bottom + side + 0.06) / height, name, fontsize=6.5, rotation=90, va="bottom", ha="center"
        )
    if strips:
        _stack_legends(place(left + side + room + 0.2, bottom, legends, side), strips, side)
    save_figure(figure, path)


def _strip(axis: Any, labels: Shaped[np.ndarray, " objects"], colours_module: Any) -> None:
    colours, _ = _level_colours(labels)
    rgb = np.array([colours_module.to_rgb(colours.get(str(label), _NONE)) for label in labels])
    axis.imshow(rgb[:, None, :], aspect="auto", interpolation="nearest")
    axis.set_axis_off()


def _stack_legends(axis: Any, strips: Mapping[str, Shaped[np.ndarray, " objects"]], high: float) -> None:
    """Put the legends of the strips below one another, as far as there is room."""
    axis.set_axis_off()
    top = 1.0
    lowest = 1.95 / high  # above the colour bar
    for name, labels in strips.items():
        n_levels = np.unique(labels[labels != ""]).size
        rows = min(n_levels, _MOST_LEVELS) + int(n_levels > _MOST_LEVELS) + int((labels == "").any())
        need = (0.22 + 0.122 * rows) / high
        if top - need < lowest:
            break
        _legend(axis, name, labels, loc="upper left", bbox_to_anchor=(0.0, top))
        top -= need


def draw_tree(
    tree: WardTree, clusters: Int[np.ndarray, " objects"], names: Sequence[str], title: str, path: Path
) -> None:
    """Draw the tree alone, leaves at the bottom; names where there is room, the size of each cluster else."""
    n = tree.n_leaves
    named = n <= 150
    figure, axes = new_figure(width=min(16.0, max(6.0, 0.13 * n)), height=4.6)
    axis = axes[0, 0]
    n_clusters = int(clusters.max())
    _draw_brackets(axis, tree, n_clusters, sideways=False, width=1.0 if n <= 300 else 0.5)
    axis.spines["bottom"].set_visible(False)
    axis.set_ylabel(f"height ({tree.method})")
    axis.tick_params(axis="x", length=0)
    if named:
        axis.set_xticks(np.arange(n), [names[k] for k in tree.order], rotation=90, fontsize=6)
    else:
        ordered = clusters[tree.order]
        starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1, n]
        middles = (starts[1:] + starts[:-1] - 1) / 2
        labels = [f"{ordered[a]}: {b - a}" for a, b in pairwise(starts)]
        axis.set_xticks(middles, labels, rotation=60, ha="right", fontsize=7)
        axis.set_xlabel("cluster: phenotypes")
    if 1 < n_clusters < n:
        cut = (tree.height[n - n_clusters] + tree.height[n - n_clusters - 1]) / 2
        axis.axhline(cut, color=GREY, lw=0.8, ls="--")
    axis.set_title(title, fontsize=11, loc="left")
    save_figure(figure, path)


def draw_points(
    points: Float64[np.ndarray, "objects two"],
    labels: Shaped[np.ndarray, " objects"],
    axis_names: tuple[str, str],
    title: str,
    path: Path,
    *,
    legend: str = "",
) -> None:
    """Draw phenotypes as points coloured by a label; points without one are open."""
    figure, axes = new_figure(width=6.6 if legend else 5.0, height=4.8)
    axis = axes[0, 0]
    colours, _ = _level_colours(labels)
    size = float(np.clip(6000 / max(len(points), 1), 6, 40))
    # The frequent levels first, so that rare ones lie on top.
    for name in ["", *colours]:
        chosen = labels == name
        if chosen.any():
            style = {"facecolors": "none", "edgecolors": GREY} if not name else {"color": colours[name]}
            axis.scatter(points[chosen, 0], points[chosen, 1], s=size, lw=0.4, alpha=0.85, **style)
    axis.set_xlabel(axis_names[0])
    axis.set_ylabel(axis_names[1])
    axis.set_title(title, fontsize=10, loc="left")
    if axis_names[0].startswith("UMAP"):
        axis.set_xticks([])
        axis.set_yticks([])
    if legend:
        _legend(axis, legend, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    save_figure(figure, path)
