"""One scale of ``atlas fit``: the task of a worker, what it leaves on disk, and the files of the result.

A worker writes one ``.npz`` a scale; the step reads it again and writes the folder ``C32`` with labels, components,
loadings, report and figures. A hard atlas is stored by its labels and one weight a voxel, a soft one as a matrix.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.core import Mask
from brainlocus.images.atlas import (
    NESTED_EXPONENT,
    AtlasFit,
    BatchOptions,
    MuOptions,
    Quality,
    SoftFit,
    SplitAtlas,
    atlas_parcellation,
    cell_images,
    checked_norms,
    coarse_start,
    fit_batches,
    fit_em,
    fit_mu,
    hard_atlas,
    hard_quality,
    initial_weights,
    own_weights,
    parents_of,
    refine_soft,
    relative,
    soften_inside,
    split_atlas,
    unit_prototypes,
)
from brainlocus.io import atomic_path, write_colour_table, write_parcellation
from brainlocus.numerics.devices import named_device
from brainlocus.pipeline.atlas_checkpoint import read_checkpoint, write_checkpoint
from brainlocus.pipeline.figures.atlas import draw_components, draw_losses, draw_parcellation
from brainlocus.pipeline.memory import peak_memory_bytes

__all__ = ["FittedScale", "ScaleTask", "Solver", "fit_scale", "read_scale", "write_scale"]

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


def fit_scale(task: ScaleTask, path: Path) -> None:
    """Fit one scale and store it; runs in a worker."""
    images = np.load(task.matrix, mmap_mode="r")
    start = time.perf_counter()
    fitted = _solve(task, images)
    run = {"seconds": round(time.perf_counter() - start, 3), "peak_memory_bytes": peak_memory_bytes()}
    with path.open("wb") as stream:
        np.savez(
            stream,
            labels=fitted.labels,
            weights=fitted.weights,
            loadings=fitted.loadings,
            losses=fitted.losses,
            at=fitted.at,
            total=fitted.total,
            report=np.array(json.dumps({**fitted.report, "run": run})),
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


def _solve(task: ScaleTask, images: Float[np.ndarray, "voxels samples"]) -> FittedScale:
    rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=(task.scale,)))
    coarser = None if task.coarser is None else _read_coarser(task.coarser)
    if task.batches is not None:
        fitted = _by_batches(task, images, rng, coarser)
    elif task.solver == "mu":
        fitted = _by_updates(task, images, rng, coarser)
    else:
        fitted = _from_hard(task, images, rng, coarser)
    if coarser is None:
        return fitted
    parents = parents_of(fitted.labels, coarser.labels, task.scale)
    nested = {"split_of": coarser.n_components, "parents": parents.tolist()}
    return replace(fitted, report={**fitted.report, **nested})


@dataclass(frozen=True, slots=True, eq=False)
class _Coarser:
    """The next smaller scale of a nested atlas, whichever solver fitted it."""

    labels: Int[np.ndarray, " voxels"]
    weights: Float64[np.ndarray, " voxels"]
    """Each voxel's weight in its own component."""
    n_components: int
    total: float
    report: dict[str, Any]

    def split(
        self, task: ScaleTask, images: Float[np.ndarray, "voxels samples"], rng: np.random.Generator
    ) -> SplitAtlas:
        """Return its components split by EM to make those of the task."""
        hard = hard_atlas(
            images,
            self.labels,
            self.weights,
            n_components=self.n_components,
            total=self.total,
            n_empty_voxels=self.report["empty_voxels"],
            converged=self.report["converged"],
        )
        return split_atlas(images, hard, task.scale, generator=rng)

    def digest(self) -> str:
        """Return what names the labels and weights that are split."""
        return hashlib.sha256(self.labels.tobytes() + self.weights.tobytes()).hexdigest()


def _read_coarser(path: Path) -> _Coarser:
    stored = read_scale(path)
    weights = stored.weights if stored.weights.ndim == 1 else own_weights(stored.labels, stored.weights)
    return _Coarser(stored.labels, weights, stored.n_components, stored.total, stored.report)


def _start(
    task: ScaleTask, images: Float[np.ndarray, "voxels samples"], rng: np.random.Generator, coarser: _Coarser | None
) -> tuple[str, Float[np.ndarray, "voxels components"] | None]:
    """Return what multiplicative updates start from, by name, and the weights where they are not of `MuOptions`."""
    if coarser is not None:
        return "split", soften_inside(coarser.split(task, images, rng), coarser.labels, images.dtype.type)
    if task.cells is not None:
        cells = np.load(task.cells)
        return "coarse", coarse_start(_fit_cells(task, images, rng, cells), cells)
    return task.options.start, None


def _fit_cells(
    task: ScaleTask,
    images: Float[np.ndarray, "voxels samples"],
    rng: np.random.Generator,
    cells: Int[np.ndarray, " voxels"],
) -> AtlasFit:
    return fit_em(
        cell_images(images, cells), task.scale, generator=rng, restarts=task.restarts, max_passes=task.max_passes
    )


def _by_updates(
    task: ScaleTask, images: Float[np.ndarray, "voxels samples"], rng: np.random.Generator, coarser: _Coarser | None
) -> FittedScale:
    options = task.options
    if coarser is not None:
        options = replace(options, exponent=min(options.exponent, NESTED_EXPONENT))
    name, start = _start(task, images, rng, coarser)
    fit = fit_mu(images, task.scale, generator=rng, options=options, start=start, device=named_device(task.device))
    more = {
        "start": name,
        "exponent": options.exponent,
        "active": options.active,
        "compressed": options.compress,
    }
    return _soft(fit, "mu", more)


def _from_hard(
    task: ScaleTask, images: Float[np.ndarray, "voxels samples"], rng: np.random.Generator, coarser: _Coarser | None
) -> FittedScale:
    """Fit by EM, or split, and refine where the solver says so."""
    start = prototypes = None
    if coarser is None:
        if task.cells is not None:
            prototypes = unit_prototypes(_fit_cells(task, images, rng, np.load(task.cells)))
        hard = fit_em(
            images,
            task.scale,
            generator=rng,
            restarts=task.restarts,
            tolerance=task.tolerance if task.solver == "em" else 1e-6,
            max_passes=task.max_passes,
            prototypes=prototypes,
        )
    else:
        split = coarser.split(task, images, rng)
        hard, start = split.fit, soften_inside(split, coarser.labels, images.dtype.type)
    if task.solver == "em":
        fitted = _hard(hard, hard_quality(images, hard))
        if prototypes is not None:
            fitted.report["start"] = "coarse"
        if coarser is not None:
            fitted.report["step"] = "split"
            fitted = replace(fitted, at=np.array([0, 1]))
        return fitted
    refined = refine_soft(
        images, hard, refinement=task.refine, tolerance=task.tolerance, start=start, device=named_device(task.device)
    )
    refinement: dict[str, Any] = {
        "start": "split" if coarser is not None else "em" if prototypes is None else "coarse, em",
        "refinement": refined.method,
        "kept": refined.kept,
        "em_relative_loss": relative(refined.hard_loss, hard.total),
        "refined_relative_loss": relative(refined.refined_loss, hard.total),
        "refinement_converged": refined.fit.converged,
    }
    soft = _soft(refined.fit, "em+mu", refinement)
    # The refinement is short by design: what has to converge is the hard atlas.
    soft.report["converged"] = hard.converged
    soft.report["warnings"] = _hard_warnings(hard)
    return soft


def _hard_warnings(fit: AtlasFit) -> list[str]:
    return [] if fit.converged else ["Not converged: the limit of passes was reached; raise --max-passes."]


def _by_batches(
    task: ScaleTask, images: Float[np.ndarray, "voxels samples"], rng: np.random.Generator, coarser: _Coarser | None
) -> FittedScale:
    """Fit by batches, from the checkpoint of an interrupted run where there is one."""
    assert task.batches is not None and task.by_image is not None and task.checkpoint is not None  # noqa: S101, PT018
    batches = task.batches
    if coarser is not None:
        batches = replace(batches, exponent=min(batches.exponent, NESTED_EXPONENT))
    checkpoint, settings = task.checkpoint, (task.scale, task.seed, task.options, batches, task.device)
    usual = task.options.start if task.cells is None else "coarse"
    start_of = usual if coarser is None else coarser.digest()
    digest = hashlib.sha256(f"{task.digest} {settings} {start_of}".encode()).hexdigest()
    state = read_checkpoint(checkpoint, digest=digest)
    norms = checked_norms(images)
    if state is None:
        name, start = _start(task, images, rng, coarser)
        if start is None:
            start = initial_weights(images, task.scale, norms, generator=rng, options=task.options)
    else:
        name, start = usual if coarser is None else "split", state.weights
    fit = fit_batches(
        np.load(task.by_image, mmap_mode="r"),
        norms,
        start,
        options=batches,
        generator=rng,
        state=state,
        voxel_major=images,
        checkpoint=lambda state: write_checkpoint(state, checkpoint, digest=digest),
        device=named_device(task.device),
    )
    more = {
        "start": name,
        "step": "epoch",
        "exponent": batches.exponent,
        "batch_size": batches.batch_size,
        "epoch_loss": batches.epoch_loss,
        "epochs": int(fit.changes.size),
        "best_epoch": int(fit.at[-1]),
    }
    return _soft(fit, "mu", more)


def _hard(fit: AtlasFit, quality: Quality) -> FittedScale:
    report = {
        "solver": "em",
        "empty_voxels": fit.n_empty_voxels,
        "relative_loss": fit.relative_loss,
        "converged": fit.converged,
        "reason": fit.reason,
        "passes": int(fit.losses.size),
        "vanished": list(fit.vanished),
        **asdict(quality),
        "warnings": _hard_warnings(fit),
    }
    at = np.arange(1, fit.losses.size + 1)
    return FittedScale(fit.labels, fit.weights, fit.loadings, fit.losses, at, fit.total, report)


def _soft(fit: SoftFit, solver: Solver, more: dict[str, Any]) -> FittedScale:
    report = {
        "solver": solver,
        **more,
        "empty_voxels": fit.n_empty_voxels,
        "relative_loss": fit.relative_loss,
        "relative_loss_of_unit_columns": relative(fit.unit_loss, fit.total),
        "converged": fit.converged,
        "reason": fit.reason,
        "iterations": int(fit.at[-1]),
        "last_change": float(fit.changes[-1]) if fit.changes.size else None,
        "vanished": list(fit.vanished),
        **asdict(fit.quality),
        "column_norms": fit.norms.tolist(),
        "warnings": list(fit.warnings),
    }
    return FittedScale(fit.labels, fit.weights, fit.loadings, fit.losses, fit.at, fit.total, report)


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
