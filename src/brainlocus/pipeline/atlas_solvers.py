"""Fits of one scale of ``atlas fit``, by every solver and from every start: what a worker does.

Data flow::

    ScaleTask --em, or coarse cells and em, or a split of the coarser scale--> hard atlas --(em)----------> FittedScale
                                                                          --(em+mu)--> soft refinement --^
    ScaleTask --nndsvd, seeds, coarse cells, or a split--> W --(mu)--> updates from all images or batches -^
"""

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.images.atlas import (
    ACTIVE_EXPONENT,
    KEPT,
    NESTED_EXPONENT,
    AtlasFit,
    BatchOptions,
    FitStep,
    Quality,
    Report,
    SoftFit,
    SplitAtlas,
    Weights,
    cell_images,
    checked_norms,
    coarse_start,
    fit_batches,
    fit_em,
    fit_mu,
    hard_active,
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
from brainlocus.numerics.devices import named_device
from brainlocus.pipeline.atlas_checkpoint import read_checkpoint, write_checkpoint
from brainlocus.pipeline.atlas_fits import FittedScale, ScaleTask, Solver, read_scale, store_scale
from brainlocus.pipeline.heartbeats import heartbeat
from brainlocus.pipeline.memory import peak_memory_bytes

__all__ = ["fit_scale"]


def fit_scale(task: ScaleTask, path: Path) -> None:
    """Fit one scale and store it; runs in a worker."""
    images = np.load(task.matrix, mmap_mode="r")
    start = time.perf_counter()
    with heartbeat(path) as say:
        say("reading the images")
        rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=(task.scale,)))
        coarser = None if task.coarser is None else _read_coarser(task.coarser)
        fitted = _solve(_Work(task, images, rng, coarser, say))
    run = {"seconds": round(time.perf_counter() - start, 3), "peak_memory_bytes": peak_memory_bytes()}
    store_scale(replace(fitted, report={**fitted.report, "run": run}), path)


@dataclass(frozen=True, slots=True, eq=False)
class _Coarser:
    """The next smaller scale of a nested atlas, whichever solver fitted it."""

    labels: Int[np.ndarray, " voxels"]
    weights: Float64[np.ndarray, " voxels"]
    """Each voxel's weight in its own component."""
    n_components: int
    total: float
    report: dict[str, Any]

    def digest(self) -> str:
        """Return what names the labels and weights that are split."""
        return hashlib.sha256(self.labels.tobytes() + self.weights.tobytes()).hexdigest()


def _read_coarser(path: Path) -> _Coarser:
    stored = read_scale(path)
    weights = stored.weights if stored.weights.ndim == 1 else own_weights(stored.labels, stored.weights)
    return _Coarser(stored.labels, weights, stored.n_components, stored.total, stored.report)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A task with what it needs at hand."""

    task: ScaleTask
    images: Float[np.ndarray, "voxels samples"]
    rng: np.random.Generator
    coarser: _Coarser | None
    say: Report

    @property
    def start(self) -> str:
        """What the fit starts from, by name."""
        if self.coarser is not None:
            return "split"
        usual = self.task.options.start if self.task.solver == "mu" else "em"
        if self.task.cells is None:
            return usual
        return "coarse, em" if self.task.solver == "em+mu" else "coarse"


@dataclass(frozen=True, slots=True, eq=False)
class _Hard:
    """A hard atlas to report or to start from."""

    fit: AtlasFit
    parents: Int[np.ndarray, " components"] | None = None
    """Component of the coarser scale around each."""


def _solve(work: _Work) -> FittedScale:
    task, coarser = work.task, work.coarser
    if task.batches is not None:
        fitted = _by_batches(work, task.batches)
    elif task.solver == "mu":
        fitted = _by_updates(work)
    else:
        fitted = _from_hard(work)
    if coarser is None:
        return fitted
    parents = parents_of(fitted.labels, coarser.labels, task.scale)
    return replace(fitted, report={**fitted.report, "split_of": coarser.n_components, "parents": parents.tolist()})


def _split(work: _Work, coarser: _Coarser) -> SplitAtlas:
    """Return the components of the coarser scale split by EM to make those of the task."""
    hard = hard_atlas(
        work.images,
        coarser.labels,
        coarser.weights,
        n_components=coarser.n_components,
        total=coarser.total,
        n_empty_voxels=coarser.report["empty_voxels"],
        converged=coarser.report["converged"],
    )
    return split_atlas(work.images, hard, work.task.scale, generator=work.rng, progress=work.say)


def _fit_cells(work: _Work, cells: Int[np.ndarray, " voxels"]) -> AtlasFit:
    task = work.task
    return fit_em(
        cell_images(work.images, cells),
        task.scale,
        generator=work.rng,
        restarts=task.restarts,
        max_passes=task.max_passes,
        progress=work.say,
    )


def _fit_hard(work: _Work) -> _Hard:
    """Fit by EM, from a sample or from coarse cells, or split the coarser scale."""
    task = work.task
    if work.coarser is not None:
        split = _split(work, work.coarser)
        return _Hard(split.fit, split.parents)
    prototypes = None if task.cells is None else unit_prototypes(_fit_cells(work, np.load(task.cells)))
    fit = fit_em(
        work.images,
        task.scale,
        generator=work.rng,
        restarts=task.restarts,
        tolerance=task.tolerance if task.solver == "em" else 1e-6,
        max_passes=task.max_passes,
        prototypes=prototypes,
        progress=work.say,
    )
    return _Hard(fit)


def _from_hard(work: _Work) -> FittedScale:
    """Fit a hard atlas, and refine it where the solver says so."""
    task, images = work.task, work.images
    hard = _fit_hard(work)
    if task.solver == "em":
        fitted = _report_hard(hard.fit, hard_quality(images, hard.fit))
        if work.start != "em":
            fitted.report["start"] = work.start
        if hard.parents is not None:
            fitted.report["step"] = "split"
            fitted = replace(fitted, at=np.array([0, 1]))
        return fitted
    refined = refine_soft(
        images,
        hard.fit,
        refinement=task.refine,
        kept=task.options.active or KEPT,
        parents=hard.parents,
        tolerance=task.tolerance,
        progress=work.say,
    )
    refinement: dict[str, Any] = {
        "start": work.start,
        "refinement": refined.method,
        "kept": refined.kept,
        "em_relative_loss": relative(refined.hard_loss, hard.fit.total),
        "refined_relative_loss": relative(refined.refined_loss, hard.fit.total),
        "refinement_converged": refined.fit.converged,
    }
    soft = _report_soft(refined.fit, "em+mu", refinement)
    # The refinement is short by design: what has to converge is the hard atlas.
    soft.report["converged"] = hard.fit.converged
    soft.report["warnings"] = _hard_warnings(hard.fit)
    return soft


def _start(work: _Work, kept: int | None) -> Weights | None:
    """Return what multiplicative updates start from; None where the options say it."""
    task, dtype = work.task, work.images.dtype.type
    if task.solver == "em+mu":
        hard = _fit_hard(work)
        return hard_active(hard.fit, kept or KEPT, dtype, families=hard.parents)
    if work.coarser is not None:
        split = _split(work, work.coarser)
        if kept is not None:
            return hard_active(split.fit, kept, dtype, families=split.parents)
        return soften_inside(split, work.coarser.labels, dtype)
    if task.cells is not None:
        cells = np.load(task.cells)
        return coarse_start(_fit_cells(work, cells), cells)
    return None


def _by_updates(work: _Work) -> FittedScale:
    task, options = work.task, work.task.options
    if work.coarser is not None:
        options = replace(options, exponent=min(options.exponent, NESTED_EXPONENT))
    fit = fit_mu(
        work.images,
        task.scale,
        generator=work.rng,
        options=options,
        start=_start(work, options.active),
        device=named_device(task.device),
        progress=work.say,
    )
    more = {
        "start": work.start,
        "exponent": options.exponent if options.active is None else ACTIVE_EXPONENT,
        "active": options.active,
        "compressed": options.compress,
    }
    return _report_soft(fit, "mu", more)


def _by_batches(work: _Work, batches: BatchOptions) -> FittedScale:
    """Fit by batches, from the checkpoint of an interrupted run where there is one."""
    task, images = work.task, work.images
    assert task.by_image is not None and task.checkpoint is not None  # noqa: S101, PT018
    checkpoint = task.checkpoint
    if work.coarser is not None:
        batches = replace(batches, exponent=min(batches.exponent, NESTED_EXPONENT))
    settings = (task.scale, task.seed, task.solver, task.options, batches, task.device)
    start_of = work.start if work.coarser is None else work.coarser.digest()
    digest = hashlib.sha256(f"{task.digest} {settings} {start_of}".encode()).hexdigest()
    state = read_checkpoint(checkpoint, digest=digest)
    norms = checked_norms(images)
    start: Weights | None
    if state is not None:
        start = state.weights
    else:
        work.say(FitStep("choosing where to start"))
        start = _start(work, batches.active)
        if start is None:
            start = initial_weights(
                images, task.scale, norms, generator=work.rng, options=task.options, progress=work.say
            )
    fit = fit_batches(
        np.load(task.by_image, mmap_mode="r"),
        norms,
        start,
        options=batches,
        generator=work.rng,
        state=state,
        voxel_major=images,
        checkpoint=lambda state: write_checkpoint(state, checkpoint, digest=digest),
        device=named_device(task.device),
        progress=work.say,
    )
    more = {
        "start": work.start,
        "step": "epoch",
        "exponent": batches.exponent,
        "active": batches.active,
        "batch_size": batches.batch_size,
        "epoch_loss": batches.epoch_loss,
        "epochs": int(fit.changes.size),
        "best_epoch": int(fit.at[-1]),
    }
    return _report_soft(fit, task.solver, more)


def _hard_warnings(fit: AtlasFit) -> list[str]:
    return [] if fit.converged else ["Not converged: the limit of passes was reached; raise --max-passes."]


def _report_hard(fit: AtlasFit, quality: Quality) -> FittedScale:
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


def _report_soft(fit: SoftFit, solver: Solver, more: dict[str, Any]) -> FittedScale:
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
