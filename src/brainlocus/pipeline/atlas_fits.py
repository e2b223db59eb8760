"""One scale of ``atlas fit``: the task of a worker, what it leaves on disk, and the files of the result.

A worker (`pipeline.atlas_solvers`) writes one ``.npz`` a scale; the step reads it again and writes the folder ``C32``
with labels, components, loadings, report and figures. A hard atlas is stored by its labels and one weight a voxel, a
soft one as a matrix.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.core import Mask
from brainlocus.images.atlas import BatchOptions, MuOptions, atlas_parcellation
from brainlocus.io import atomic_path, write_colour_table, write_parcellation
from brainlocus.pipeline.figures.atlas import draw_components, draw_losses, draw_parcellation

__all__ = ["FittedScale", "ScaleTask", "Solver", "read_scale", "store_scale", "write_scale"]

Solver = Literal["em", "mu", "em+mu"]


@dataclass(frozen=True, slots=True)
class ScaleTask:
    """What a worker needs to fit one scale."""

    matrix: Path
    scale: int
    seed: int
    solver: Solver
    restarts: int
    tolerance: float
    """Of the loss for ``em``, of the change of W for the others."""
    max_passes: int
    refine: Literal["auto", "mu", "quasi-newton"]
    options: MuOptions
    device: Literal["cpu", "cuda"]
    batches: BatchOptions | None = None
    """Fit by batches of images."""
    by_image: Path | None = None
    """The images once more, one row a person, for batches."""
    checkpoint: Path | None = None
    """Where the state after every epoch is kept."""
    digest: str = ""
    """Names the images and the mask."""
    coarser: Path | None = None
    """What a worker stored of the next smaller scale: split its components instead of fitting anew."""
    cells: Path | None = None
    """Coarse cell of every voxel: fit the cells first and start from there."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedScale:
    """What is written of a scale, whichever solver fitted it."""

    labels: Int[np.ndarray, " voxels"]
    weights: Float[np.ndarray, " voxels"] | Float[np.ndarray, "voxels components"]
    """One weight a voxel of a hard atlas, or all of W."""
    loadings: Float64[np.ndarray, "components samples"]
    losses: Float64[np.ndarray, " losses"]
    at: Int[np.ndarray, " losses"]
    """When each loss was taken."""
    total: float
    report: dict[str, Any]
    """What ``fit.json`` says besides."""

    @property
    def n_components(self) -> int:
        """Number of components, vanished ones included."""
        return int(self.loadings.shape[0])

    @property
    def converged(self) -> bool:
        """Whether the solver says that it converged."""
        return bool(self.report["converged"])


def store_scale(fitted: FittedScale, path: Path) -> None:
    """Write what `read_scale` reads."""
    with path.open("wb") as stream:
        np.savez(
            stream,
            labels=fitted.labels,
            weights=fitted.weights,
            loadings=fitted.loadings,
            losses=fitted.losses,
            at=fitted.at,
            total=fitted.total,
            report=np.array(json.dumps(fitted.report)),
        )


def read_scale(path: Path) -> FittedScale:
    """Return what a worker stored."""
    with np.load(path, allow_pickle=False) as stored:
        return FittedScale(
            labels=stored["labels"],
            weights=stored["weights"],
            loadings=stored["loadings"],
            losses=stored["losses"],
            at=stored["at"],
            total=float(stored["total"]),
            report=json.loads(str(stored["report"])),
        )


def write_scale(
    fitted: FittedScale, mask: Mask, ids: list[str], folder: Path, *, figures: bool = True
) -> dict[str, Any]:
    """Write the folder of a scale and return its report."""
    folder.mkdir()
    scale = fitted.n_components
    parcellation = atlas_parcellation(fitted, mask)
    write_parcellation(parcellation, folder / "labels.nii.gz")
    write_colour_table(parcellation, folder / "labels_lut.txt")
    with atomic_path(folder / "components.npy") as partial:
        dense = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(fitted.labels.size, scale))
        if fitted.weights.ndim == 2:
            dense[:] = fitted.weights
        else:
            rows = np.flatnonzero(fitted.labels > 0)
            dense[rows, fitted.labels[rows] - 1] = fitted.weights[rows]
        dense.flush()
    with atomic_path(folder / "loadings.npy") as partial:
        np.save(partial, fitted.loadings)
    found = dict(fitted.report)
    run = found.pop("run")
    report = {
        **found,
        "components": scale,
        "voxels": int(fitted.labels.size),
        "participants": len(ids),
        "losses": fitted.losses.tolist(),
        "loss_at": fitted.at.tolist(),
        "total": fitted.total,
        "vanished": [f"C{scale}_{k}" for k in found["vanished"]],
        "participant_ids": ids,
        "run": run,
    }
    (folder / "fit.json").write_text(json.dumps(report, indent=1) + "\n")
    if not figures:
        return report
    hard = found.get("em_relative_loss")
    # The loss of the best epoch is on the curve already.
    shown = slice(0, -1 if fitted.at.size > 1 and fitted.at[-1] < fitted.at[-2] else None)
    draw_losses(
        fitted.at[shown],
        fitted.losses[shown],
        fitted.total,
        folder / "loss.png",
        what=found.get("step", "pass over all voxels" if found["solver"] == "em" else "iteration"),
        hard=None if hard is None else hard**2 * fitted.total,
    )
    draw_parcellation(parcellation, f"C{scale}", folder / "atlas.png")
    drawn = np.load(folder / "components.npy", mmap_mode="r")
    draw_components(drawn, parcellation, mask, f"C{scale}", folder / "components.png")
    return report
