"""Figures of ``atlas fit``: the parcels in three planes, and the loss."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.core import Parcellation
from brainlocus.pipeline.figures.canvas import BLUE, ORANGE, new_figure, save_figure

__all__ = ["draw_losses", "draw_parcellation"]


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
    """Draw three slices in each plane of the world (RAS), at even steps through the labelled part."""
    labels = _to_ras(parcellation)
    n_labels = int(labels.max(initial=1))
    # Neighbouring numbers get colours far apart: golden-ratio steps round the colour circle.
    shuffled = np.where(labels > 0, (labels * 0.61803398875) % 1.0, np.nan)
    figure, axes = new_figure(3, 3, width=2.6, height=2.6)
    inside = np.argwhere(labels > 0)
    low, high = inside.min(axis=0), inside.max(axis=0)
    planes = (("x", 0, "sagittal"), ("y", 1, "coronal"), ("z", 2, "axial"))
    for row, (_, axis_number, name) in enumerate(planes):
        for column, share in enumerate((0.3, 0.5, 0.7)):
            at = round(float(low[axis_number] + share * (high[axis_number] - low[axis_number])))
            axis = axes[row, column]
            axis.imshow(
                np.take(shuffled, at, axis=axis_number).T,
                origin="lower", cmap="hsv", vmin=0, vmax=1, interpolation="nearest",
            )  # fmt: skip
            axis.set_axis_off()
            if column == 0:
                axis.set_title(name, loc="left", fontsize=9)
    figure.suptitle(f"{title}: {np.unique(labels[labels > 0]).size} of {n_labels} parcels", fontsize=11)
    save_figure(figure, path)


def _to_ras(parcellation: Parcellation) -> np.ndarray:
    """Return the labels with axes in the order and direction of the world's, as the affine says."""
    rotation = parcellation.affine[:3, :3]
    order = [int(np.abs(rotation[world]).argmax()) for world in range(3)]
    labels = np.transpose(parcellation.labels, order)
    for world in range(3):
        if rotation[world, order[world]] < 0:
            labels = np.flip(labels, axis=world)
    return labels
