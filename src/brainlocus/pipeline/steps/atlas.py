"""``atlas fit``: maps of many people to hard atlases at one or more scales.

Written to OUT: ``mask.nii.gz``, and for each scale ``C32/labels.nii.gz`` with its names and a colour table,
``C32/components.npy`` (mask voxels x components, float32), ``C32/fit.json``, ``C32/loss.png``, ``C32/atlas.png`` and
``C32/components.png``.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainlocus.core import Mask, ResourceError, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.images.atlas import AtlasFit, atlas_parcellation, fit_em, fit_em_peak_bytes, hoyer_sparsity
from brainlocus.io import (
    ImageList,
    atomic_path,
    convert_images,
    default_mask,
    find_images,
    read_mask,
    write_colour_table,
    write_mask,
    write_parcellation,
)
from brainlocus.pipeline.config import CommaInts, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.atlas import draw_components, draw_losses, draw_parcellation
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ATLAS_FIT", "AtlasFitConfig"]

_SOLVERS = ("em",)


class AtlasFitConfig(StepConfig):
    """Settings of ``atlas fit``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Grey-matter maps: a BIDS folder, a table with participant_id and path, or a list of paths"
    )
    mask: InputPath | None = Field(
        None,
        description="Mask; by default voxels above 0 in 95 % of the images with a mean above a tenth of the largest",
    )
    scales: CommaInts = Field((32,), description="Numbers of components, each fitted on its own")
    solver: str = Field("em", description="Solver: em (exact orthogonal)")
    pattern: str = Field(
        "sub-*/anat/*_label-GM_probseg.nii*", description="Which files of a folder are images, as a glob"
    )
    restarts: int = Field(5, ge=1, description="Starts tried on a sample of voxels")
    tolerance: float = Field(1e-6, gt=0, description="Stop when the loss falls by less than this share")
    max_passes: int = Field(200, ge=1, description="Most passes over all voxels")
    figures: bool = Field(True, description="Draw losses, parcels and components")


@dataclass(frozen=True, slots=True)
class _FitTask:
    matrix: Path
    scale: int
    restarts: int
    tolerance: float
    max_passes: int
    seed: int


def _fit_scale(task: _FitTask, path: Path) -> None:
    images = np.load(task.matrix, mmap_mode="r")
    rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=(task.scale,)))
    start = time.perf_counter()
    fit = fit_em(
        images,
        task.scale,
        generator=rng,
        restarts=task.restarts,
        tolerance=task.tolerance,
        max_passes=task.max_passes,
    )
    with path.open("wb") as stream:
        np.savez(
            stream,
            labels=fit.labels,
            weights=fit.weights,
            loadings=fit.loadings,
            losses=fit.losses,
            total=fit.total,
            reason=np.array(fit.reason),
            vanished=np.array(fit.vanished, dtype=np.int64),
            n_empty_voxels=fit.n_empty_voxels,
            seconds=time.perf_counter() - start,
        )


def _read_fit(path: Path) -> tuple[AtlasFit, float]:
    with np.load(path, allow_pickle=False) as stored:
        fit = AtlasFit(
            labels=stored["labels"],
            weights=stored["weights"],
            loadings=stored["loadings"],
            losses=stored["losses"],
            total=float(stored["total"]),
            reason="tol" if str(stored["reason"]) == "tol" else "max_iter",
            vanished=tuple(int(k) for k in stored["vanished"]),
            n_empty_voxels=int(stored["n_empty_voxels"]),
        )
        return fit, float(stored["seconds"])


def _check(config: AtlasFitConfig) -> None:
    if config.solver not in _SOLVERS:
        raise SchemaError(
            f"--solver: expected {', '.join(_SOLVERS)}, found {config.solver!r}.{nearest(config.solver, _SOLVERS)} "
            "This version fits by em only."
        )
    if not config.scales or min(config.scales) < 1 or len(set(config.scales)) < len(config.scales):
        raise SchemaError(f"--scales: expected different numbers from 1 up, found {list(config.scales)}.")


def _write_scale(
    fit: AtlasFit, seconds: float, mask: Mask, ids: list[str], folder: Path, *, figures: bool
) -> dict[str, Any]:
    folder.mkdir()
    scale = fit.n_components
    parcellation = atlas_parcellation(fit, mask)
    write_parcellation(parcellation, folder / "labels.nii.gz")
    write_colour_table(parcellation, folder / "labels_lut.txt")
    with atomic_path(folder / "components.npy") as partial:
        dense = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(fit.labels.size, scale))
        rows = np.flatnonzero(fit.labels > 0)
        dense[rows, fit.labels[rows] - 1] = fit.weights[rows]
        dense.flush()
    with atomic_path(folder / "loadings.npy") as partial:
        np.save(partial, fit.loadings)
    report = {
        "solver": "em",
        "components": scale,
        "voxels": int(fit.labels.size),
        "empty_voxels": fit.n_empty_voxels,
        "participants": len(ids),
        "relative_loss": fit.relative_loss,
        "losses": fit.losses.tolist(),
        "total": fit.total,
        "converged": fit.converged,
        "reason": fit.reason,
        "passes": int(fit.losses.size),
        "vanished": [f"C{scale}_{k}" for k in fit.vanished],
        "hoyer_sparsity": hoyer_sparsity(fit.labels, fit.weights, scale),
        "participant_ids": ids,
        "run": {"seconds": round(seconds, 3)},
    }
    (folder / "fit.json").write_text(json.dumps(report, indent=1) + "\n")
    if figures:
        draw_losses(fit.losses, fit.total, folder / "loss.png")
        draw_parcellation(parcellation, f"C{scale}", folder / "atlas.png")
        weights = np.load(folder / "components.npy", mmap_mode="r")
        draw_components(weights, parcellation, mask, f"C{scale}", folder / "components.png")
    return report


def _convert(images: ImageList, mask: Mask, context: Context) -> tuple[Path, int]:
    """Return the voxel-major matrix and its clipped voxels, from an interrupted run where that had finished it."""
    matrix, note = context.shards / "images.npy", context.shards / "images.json"
    if not note.exists():
        converted = convert_images(
            images,
            mask,
            out=matrix,
            memory_bytes=context.memory_bytes // 2,
            track=lambda paths: context.progress.track(paths, "Reading images", len(paths)),
        )
        with atomic_path(note) as partial:
            partial.write_text(json.dumps({"n_clipped": converted.n_clipped}))
    return matrix, int(json.loads(note.read_text())["n_clipped"])


def atlas_fit(config: AtlasFitConfig, out: Path, context: Context) -> StepResult:
    """Fit an atlas at every scale."""
    _check(config)
    images = find_images(config.images, pattern=config.pattern)
    mask = read_mask(config.mask) if config.mask is not None else default_mask(images)
    n_voxels, n_samples = int(mask.data.sum()), len(images)
    # The largest scales that are fitted at the same time.
    together = sorted(config.scales)[-context.executor.workers :]
    needed = sum(fit_em_peak_bytes(n_voxels, n_samples, scale) for scale in together)
    if needed > context.memory_bytes:
        raise ResourceError(
            f"Fitting {', '.join(map(str, together))} components to {n_voxels} voxels of {n_samples} people needs "
            f"{needed / 2**30:.2f} GiB, {context.memory_bytes / 2**30:.2f} GiB are allowed. Raise --memory."
        )
    if max(config.scales) > n_voxels:
        raise SchemaError(f"--scales: {max(config.scales)} components need as many voxels, the mask has {n_voxels}.")
    matrix, n_clipped = _convert(images, mask, context)
    tasks = {
        f"C{scale}.npz": _FitTask(
            matrix, scale, config.restarts, config.tolerance, config.max_passes, context.seed
        )
        for scale in config.scales
    }  # fmt: skip
    write_mask(mask, out / "mask.nii.gz")
    ids = [str(i) for i in images.samples.ids]
    lines, n_unconverged = [], 0
    for path in context.map_shards(_fit_scale, tasks, "Fitting scales"):
        fit, seconds = _read_fit(path)
        report = _write_scale(fit, seconds, mask, ids, out / path.stem, figures=config.figures)
        n_unconverged += int(not fit.converged)
        note = "" if fit.converged else "; NOT converged, raise --max-passes"
        lines.append(
            f"C{fit.n_components}: relative loss {fit.relative_loss:.4f} after {report['passes']} passes, "
            f"{len(fit.vanished)} vanished{note}"
        )
    counts = {"participants": n_samples, "voxels": n_voxels, "clipped_negatives": n_clipped}
    return StepResult(counts, n_failed=n_unconverged, summary=tuple(lines))


ATLAS_FIT = Step(
    "atlas fit", "Fit structural-covariance atlases to grey-matter maps.", AtlasFitConfig, atlas_fit, out="folder"
)
