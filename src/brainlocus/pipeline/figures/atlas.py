"""Figures of ``atlas fit``: the loss, the parcels in three planes, and every component seen through (glass brain)."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from brainlocus.core import Mask, Parcellation
from brainlocus.core.errors import import_extra
from brainlocus.core.label_colours import label_colours
from brainlocus.numerics.cropping import bounding_box
from brainlocus.numerics.orientation import to_ras
from brainlocus.pipeline.figures.canvas import BLUE, ORANGE, new_figure, save_figure

__all__ = ["draw_components", "draw_losses", "draw_parcellation", "project"]

_PLANES = ((0, "sagittal", "x"), (1, "coronal", "y"), (2, "axial", "z"))
_SHARES = (0.14, 0.32, 0.5, 0.68, 0.86)
MOST_COMPONENTS = 60
"""Components that a figure has room for: those of the largest energy, which have the lowest numbers."""
_COLUMNS = 4
_GLASS = 0.92
"""Grey of the head's outline under a component."""


def draw_losses(
    at: Int[np.ndarray, " losses"],
    losses: Float64[np.ndarray, " losses"],
    total: float,
    path: Path,
    *,
    what: str = "pass over all voxels",
    hard: float | None = None,
) -> None:
    """Draw the relative loss.

    Parameters
    ----------
    at
        When each loss was taken, in units of `what`.
    hard
        Loss of the hard atlas that a refinement started from: a line to compare with.
    """
    figure, axes = new_figure()
    axis = axes[0, 0]
    shown = np.sqrt(np.maximum(losses, 0.0) / total)
    axis.plot(at, shown, "o-", color=BLUE, ms=4 if losses.size <= 40 else 0)
    if hard is not None:
        axis.axhline(float(np.sqrt(max(hard, 0.0) / total)), color=ORANGE, ls="--", label="hard atlas (em)")
        axis.legend(frameon=False)
    axis.set_xlabel(what)
    axis.set_ylabel("relative loss  ‖X − WWᵀX‖ / ‖X‖")
    axis.ticklabel_format(useOffset=False)
    save_figure(figure, path)


def draw_parcellation(parcellation: Parcellation, title: str, path: Path) -> None:
    """Draw five slices in each plane of the world (RAS), at even steps through the labelled part.

    The left of the head is on the left. Colours are those of the table that goes with the labels.
    """
    labels, affine = to_ras(parcellation.labels, parcellation.affine)
    box = bounding_box(labels > 0, (1, 1, 1))
    size = np.linalg.norm(affine[:3, :3], axis=0)
    colours = label_colours(np.arange(int(labels.max(initial=0)) + 1))
    colours[0] = 255
    figure, axes = new_figure(len(_SHARES), 3, width=2.0, height=1.9)
    for row, (normal, name, letter) in enumerate(_PLANES):
        across, up = (a for a in range(3) if a != normal)
        span = box[normal].stop - box[normal].start
        for column, share in enumerate(_SHARES):
            at = box[normal].start + min(int(share * span), span - 1)
            axis = axes[row, column]
            window = list(box)
            window[normal] = slice(at, at + 1)
            part = np.take(labels[tuple(window)], 0, axis=normal).T
            extent = (0, part.shape[1] * size[across], 0, part.shape[0] * size[up])
            axis.imshow(colours[part], origin="lower", extent=extent, interpolation="nearest")
            axis.set_axis_off()
            middle = np.array([(s.start + s.stop - 1) / 2 for s in box])
            middle[normal] = at
            world = float(affine[normal, :3] @ middle + affine[normal, 3])
            sides = ("P", "A") if normal == 0 else ("L", "R")
            axis.set_title(f"{sides[0]}   {letter} {world:.0f} mm   {sides[1]}", fontsize=7, pad=2)
            if column == 0:
                axis.text(-0.03, 0.5, name, rotation=90, fontsize=8, va="center", ha="right", transform=axis.transAxes)
    present = np.unique(labels[labels > 0]).size
    n_labels = max(int(labels.max(initial=0)), *parcellation.names, 0)
    figure.suptitle(
        f"{title}: {present} of {n_labels} parcels" if present < n_labels else f"{title}: {present} parcels"
    )
    save_figure(figure, path)


def project(
    values: Float[np.ndarray, "x y z"], size_mm: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "_h _w"], ...]:
    """Return the largest values along x, y and z of a map in RAS, rows from below, all in voxels of the shortest edge.

    Examples
    --------
    >>> sagittal, coronal, axial = project(np.ones((2, 3, 4)), np.array([1.0, 1.0, 2.0]))
    >>> sagittal.shape, coronal.shape, axial.shape
    ((8, 3), (8, 2), (3, 2))
    """
    step = float(size_mm.min())
    places = [
        (np.arange(round(n * edge / step)) * step / edge).astype(np.int64).clip(0, n - 1)
        for n, edge in zip(values.shape, size_mm, strict=True)
    ]
    found = []
    for normal in range(3):
        across, up = (a for a in range(3) if a != normal)
        found.append(values.max(axis=normal).T[np.ix_(places[up], places[across])])
    return tuple(found)


def draw_components(
    weights: Float[np.ndarray, "voxels components"],
    parcellation: Parcellation,
    mask: Mask,
    title: str,
    path: Path,
    *,
    most: int = MOST_COMPONENTS,
) -> None:
    """Draw the components seen through from the right, the back and above, each scaled to its largest weight.

    Parameters
    ----------
    weights
        May be a memory map.
    parcellation
        Hard atlas; components that win no voxel have vanished and are left out.
    most
        Components to draw at most, from the first.
    """
    inside, affine = to_ras(mask.data, mask.affine)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    box = bounding_box(inside, (1, 1, 1))
    n_components = weights.shape[1]
    shown = [int(k) - 1 for k in np.unique(parcellation.labels) if k > 0][:most]
    outline = project(inside[box].astype(np.float64), size)
    panels = [_panel(_in_space(weights[:, k], mask)[box], size, outline, k + 1) for k in shown]
    columns = min(_COLUMNS, max(len(panels), 1))
    rows = -(-len(panels) // columns)
    height, width = _panel_shape(outline)
    picture = np.ones((max(rows, 1) * height, columns * width, 3))
    figure_module = import_extra("matplotlib.figure", extra="plot")
    across = 2.75 * columns
    figure = figure_module.Figure(
        figsize=(across, across * picture.shape[0] / picture.shape[1] + 0.4), layout="constrained"
    )
    axis = figure.subplots()
    for at, (k, panel) in enumerate(zip(shown, panels, strict=True)):
        row, column = divmod(at, columns)
        picture[row * height : row * height + panel.shape[0], column * width : column * width + panel.shape[1]] = panel
        axis.text(column * width, row * height, str(k + 1), fontsize=7, va="top")
    axis.imshow(picture, interpolation="nearest")
    axis.set_axis_off()
    some = f"the first {len(shown)} of {n_components}" if len(shown) < n_components else f"{n_components}"
    axis.set_title(f"{title}: {some} components, left of the head on the left", fontsize=10, loc="left")
    save_figure(figure, path)


def _panel_shape(outline: tuple[Float[np.ndarray, "_h _w"], ...]) -> tuple[int, int]:
    """Return height and width of the three views side by side with room around."""
    return max(view.shape[0] for view in outline) + 4, sum(view.shape[1] + 2 for view in outline) + 6


def _in_space(values: Float[np.ndarray, " voxels"], mask: Mask) -> Float64[np.ndarray, "x y z"]:
    whole = np.zeros(mask.data.shape)
    whole[mask.data] = values
    return np.asarray(to_ras(whole, mask.affine)[0])


def _panel(
    values: Float64[np.ndarray, "x y z"],
    size: Float[np.ndarray, "3"],
    outline: tuple[Any, ...],
    number: int,
) -> Float64[np.ndarray, "height width 3"]:
    """Return the three views of one component side by side, rows from the top, in its colour over the glass."""
    height, width = _panel_shape(outline)
    panel = np.ones((height, width, 3))
    colour = label_colours(np.array([number]))[0] / 255.0
    left = 1
    for view, glass in zip(project(values / values.max(), size), outline, strict=True):
        head: Bool[np.ndarray, "h w"] = glass > 0
        # The root lifts small weights, which a hard atlas has at the rim of its parcels, above the grey.
        strength = np.sqrt(view)[..., None]
        shades = np.where(head, _GLASS, 1.0)[..., None] * (1.0 - strength) + colour * strength
        panel[height - view.shape[0] - 1 : height - 1, left : left + view.shape[1]] = shades[::-1]
        left += view.shape[1] + 2
    return panel
