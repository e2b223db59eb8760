"""``atlas fit``: maps of many people to hard atlases at one or more scales.

Written to OUT: ``mask.nii.gz``, and for each scale ``C32/labels.nii.gz`` with its names and a colour table,
``C32/components.npy`` (mask voxels x components, float32), ``C32/fit.json``, ``C32/loss.png``, ``C32/atlas.png`` and
``C32/components.png``.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from brainlocus.core import Mask, ResourceError, SchemaError
from brainlocus.images.atlas import (
    KEPT,
    BatchOptions,
    MuOptions,
    fit_batches_peak_bytes,
    fit_em_peak_bytes,
    fit_mu_peak_bytes,
    grid_cells,
)
from brainlocus.io import (
    ImageList,
    atomic_path,
    convert_images,
    default_mask,
    find_images,
    read_mask,
    write_mask,
)
from brainlocus.numerics.devices import named_device
from brainlocus.numerics.memory_maps import give_back_pages
from brainlocus.pipeline.atlas_checkpoint import matrix_digest, refuse_other_images
from brainlocus.pipeline.atlas_fits import ScaleTask, Solver, read_scale, write_scale
from brainlocus.pipeline.atlas_solvers import fit_scale
from brainlocus.pipeline.config import CommaInts, InputPath, Positional, StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ATLAS_FIT", "AtlasFitConfig", "check_fit", "fit_images"]


class AtlasFitConfig(StepConfig):
    """Settings of ``atlas fit``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Grey-matter maps: a BIDS folder, a table with participant_id and path, a list of paths, a 4-D "
        "NIfTI file, or one array (.npy, .zarr): people x voxels of --mask, or people x i x j x k"
    )
    image_ids: InputPath | None = Field(
        None,
        description="Table with participant_id, a row an image in order, for images in one file; by default "
        "image-00001 and so on",
    )
    mask: InputPath | None = Field(
        None,
        description="Mask; by default voxels above 0 in 95 % of the images with a mean above a tenth of the largest",
    )
    scales: CommaInts = Field((32,), description="Numbers of components")
    solver: Literal["em", "mu", "em+mu"] | None = Field(
        None,
        description="em: hard atlas; mu: soft, by multiplicative updates; em+mu: soft, starting from em. By default "
        "em, or mu with --batch-size",
    )
    pattern: str = Field(
        "sub-*/anat/*_label-GM_probseg.nii*", description="Which files of a folder are images, as a glob"
    )
    hierarchy: Literal["independent", "nested"] = Field(
        "independent",
        description="Fit every scale on its own, or split the components of each scale to start the next, which then "
        "stays inside them",
    )
    restarts: int = Field(5, ge=1, description="em: starts tried on a sample of voxels")
    tolerance: float | None = Field(
        None,
        gt=0,
        description="Stop when the loss falls by less than this share (em: 1e-6), or W changes by less (mu: 1e-5)",
    )
    max_passes: int = Field(200, ge=1, description="em: most passes over all voxels")
    start: Literal["nndsvd", "seeds", "coarse"] = Field(
        "nndsvd",
        description="mu: start from singular vectors, or from k-means++ seeds; coarse (every solver): start from em on "
        "means over blocks of 2 x 2 x 2 voxels",
    )
    fill: Literal["column", "constant", "mean", "random", "none"] = Field(
        "column",
        description="mu: what replaces zeros of the singular vectors: 1e-3 of the column's largest, 0.1, the mean of "
        "the images, uniform up to a hundredth of it, or nothing",
    )
    exponent: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mu: power of the ratio that multiplies W, less than 1 to damp it; by default 1, as published, and "
        "1/2 with --batch-size and inside the components of nested scales",
    )
    max_iterations: int = Field(50_000, ge=1, description="mu: most iterations")
    max_seconds: float | None = Field(None, gt=0, description="mu: most seconds; such a fit cannot be repeated exactly")
    refine: Literal["auto", "mu", "quasi-newton"] = Field(
        "auto",
        description="em+mu: at most 100 multiplicative updates, or quasi-Newton steps (auto: where W has 200,000 "
        "entries at most)",
    )
    active: int | None = Field(
        None,
        ge=1,
        description="mu, em+mu: keep this many components of each voxel (8 is enough; em+mu: always), for many "
        "components; the exponent of the updates is then 1/2",
    )
    compress: bool = Field(
        False, description="mu: iterate on the leading singular vectors of the images; for many images"
    )
    batch_size: int | None = Field(
        None, ge=1, description="mu, em+mu: update W from this many images at a time (sopNMF)"
    )
    max_epochs: int = Field(1_000, ge=1, description="--batch-size: most passes over the images")
    patience: int = Field(20, ge=1, description="--batch-size: end after this many epochs without a lower loss")
    epoch_loss: Literal["exact", "running"] = Field(
        "exact",
        description="--batch-size: loss after each epoch, by one more pass, or summed while W changes",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="mu: where matrix products run; cuda needs CuPy or PyTorch"
    )
    figures: bool = Field(True, description="Draw losses, parcels and components")


def check_fit(config: AtlasFitConfig) -> None:
    """Check that settings go together.

    Raises
    ------
    SchemaError
        They do not.
    """
    if not config.scales or min(config.scales) < 1 or len(set(config.scales)) < len(config.scales):
        raise SchemaError(f"--scales: expected different numbers from 1 up, found {list(config.scales)}.")
    if config.batch_size is not None and config.solver == "em":
        raise SchemaError("--batch-size: expected with --solver mu or em+mu, found --solver em. Leave one of them out.")
    if config.compress and (_solver(config) != "mu" or config.batch_size is not None):
        raise SchemaError("--compress: expected with --solver mu and without --batch-size. Leave it out.")
    if config.active is not None and _solver(config) == "em":
        raise SchemaError("--active: expected with --solver mu or em+mu, found em. Leave it out.")
    if config.exponent is not None and (_solver(config) != "mu" or config.active is not None):
        raise SchemaError("--exponent: expected with --solver mu and without --active. Leave it out.")
    sparse = config.active is not None or _solver(config) == "em+mu"
    if sparse and config.device != "cpu":
        raise SchemaError("--device: em+mu and --active run on the processor only. Give --device cpu.")
    if sparse and config.batch_size is not None and config.epoch_loss == "running":
        raise SchemaError("--epoch-loss running: with --active or em+mu the exact loss costs little. Leave it out.")
    named_device(config.device)


def _solver(config: AtlasFitConfig) -> Solver:
    return config.solver or ("em" if config.batch_size is None else "mu")


def _check_scales(config: AtlasFitConfig, n_voxels: int, n_samples: int, n_cells: int) -> None:
    largest = max(config.scales)
    if largest > n_voxels:
        raise SchemaError(f"--scales: {largest} components need as many voxels, the mask has {n_voxels}.")
    # Only the coarsest of nested scales has a start of its own.
    largest = min(config.scales) if config.hierarchy == "nested" else largest
    if config.start == "coarse" and largest > n_cells:
        raise SchemaError(
            f"--start coarse: {largest} components need as many blocks of 2 x 2 x 2 voxels, the mask has {n_cells}. "
            "Give another start, or fewer components."
        )
    if _solver(config) == "mu" and config.start == "nndsvd" and largest >= min(n_voxels, n_samples):
        raise SchemaError(
            f"--scales: {largest} components; a start by singular vectors needs fewer than voxels ({n_voxels}) and "
            f"images ({n_samples}). Give --start seeds, or fewer components."
        )


def _peak_bytes(config: AtlasFitConfig, n_voxels: int, n_samples: int, scale: int, n_cells: int) -> int:
    hard = fit_em_peak_bytes(n_voxels, n_samples, scale)
    if config.start == "coarse":
        hard += 4 * n_cells * n_samples + (4 + 8) * n_voxels  # images of the cells, cells and shares of the voxels
    if config.hierarchy == "nested":
        hard += 4 * n_voxels * n_samples  # the voxels of a component, at most all
        hard += 0 if _solver(config) == "em" else 8 * n_voxels * scale  # W of the coarser scale, then the new one
    soft = fit_mu_peak_bytes(n_voxels, n_samples, scale)
    if config.compress:
        soft += 4 * n_voxels * min(n_samples, 4 * scale)
    if config.active is not None:
        soft += 8 * n_voxels * config.active + 16 * scale * (scale + n_samples)
    if config.batch_size is not None:
        kept = (config.active or KEPT) if _solver(config) == "em+mu" else None
        soft = max(soft, fit_batches_peak_bytes(n_voxels, n_samples, scale, config.batch_size, sparse=kept))
        soft += 4 * n_voxels * scale
    if config.hierarchy == "nested":
        soft = max(soft + 4 * n_voxels * scale, hard)  # the start and its copy that is updated, or the split before
    if config.start == "coarse":
        soft = max(soft, hard) + 4 * n_voxels * scale
    return {"em": hard, "mu": soft, "em+mu": max(hard, soft + 4 * n_voxels * scale)}[_solver(config)]


def _task(config: AtlasFitConfig, matrix: Path, scale: int, digest: str, context: Context) -> ScaleTask:
    solver = _solver(config)
    tolerance = config.tolerance or (1e-6 if solver == "em" else 1e-5)
    options = MuOptions(
        start="nndsvd" if config.start == "coarse" else config.start,
        fill=config.fill,
        tolerance=tolerance,
        max_iterations=config.max_iterations,
        max_seconds=config.max_seconds,
        exponent=config.exponent or 1.0,
        active=config.active,
        compress=config.compress,
    )
    task = ScaleTask(
        matrix=matrix,
        scale=scale,
        seed=context.seed,
        solver=solver,
        restarts=config.restarts,
        tolerance=tolerance,
        max_passes=config.max_passes,
        refine=config.refine,
        options=options,
        device=config.device,
        cells=context.shards / "cells.npy" if config.start == "coarse" else None,
    )
    if config.batch_size is None:
        return task
    batches = BatchOptions(
        config.batch_size,
        max_epochs=config.max_epochs,
        patience=config.patience,
        active=KEPT if config.active is None and solver == "em+mu" else config.active,
        epoch_loss=config.epoch_loss,
    )
    if config.exponent is not None:
        batches = replace(batches, exponent=config.exponent)
    checkpoint = context.shards / f"C{scale}.checkpoint.npz"
    return replace(task, batches=batches, by_image=_image_major(matrix, context), checkpoint=checkpoint, digest=digest)


def _image_major(matrix: Path, context: Context) -> Path:
    """Return the images written once more, one row a person, from an interrupted run where that had finished it."""
    copy = matrix.with_name("by_image.npy")
    if not copy.exists():
        images = np.load(matrix, mmap_mode="r")
        with atomic_path(copy) as partial:
            rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=images.shape[::-1])
            step = max(1, (64 << 20) // (4 * images.shape[1]))
            starts = range(0, images.shape[0], step)
            for start in context.progress.track(starts, "Turning the images", len(starts)):
                rows[:, start : start + step] = images[start : start + step].T
                give_back_pages(images)
                give_back_pages(rows)
            rows.flush()
    return copy


def _summary(report: dict[str, Any]) -> str:
    steps = next(f"{report[what]} {what}" for what in ("passes", "epochs", "iterations") if what in report)
    notes = "".join(f"; {text.removesuffix('.')}" for text in report["warnings"])
    return (
        f"C{report['components']}: relative loss {report['relative_loss']:.4f} after {steps}, "
        f"{len(report['vanished'])} vanished{notes}"
    )


def _convert(images: ImageList, mask: Mask, context: Context) -> tuple[Path, int, str]:
    """Return the voxel-major matrix, its clipped voxels and a digest, from an interrupted run where that had it.

    Raises
    ------
    KeptWorkError
        The images have changed since.
    """
    matrix, note = context.shards / "images.npy", context.shards / "images.json"
    digest = matrix_digest(images, mask)
    if not note.exists():
        converted = convert_images(
            images,
            mask,
            out=matrix,
            memory_bytes=context.memory_bytes // 2,
            track=lambda paths: context.progress.track(paths, "Reading images", len(paths)),
        )
        with atomic_path(note) as partial:
            partial.write_text(json.dumps({"n_clipped": converted.n_clipped, "digest": digest}))
    found = json.loads(note.read_text())
    refuse_other_images(found["digest"], digest)
    return matrix, int(found["n_clipped"]), digest


def _fitted(config: AtlasFitConfig, tasks: dict[str, ScaleTask], context: Context) -> Iterator[Path]:
    """Yield what is stored of every scale; nested ones one after the other, each with the path of the last."""
    if config.hierarchy == "independent":
        yield from context.map_shards(fit_scale, tasks, "Fitting scales", heartbeats=True)
        return
    coarser: Path | None = None
    for name, task in sorted(tasks.items(), key=lambda item: item[1].scale):
        nested = replace(task, coarser=coarser)
        what = f"Fitting {task.scale} components"
        for path in context.map_shards(fit_scale, {name: nested}, what, heartbeats=True):
            coarser = path
            yield path


def atlas_fit(config: AtlasFitConfig, out: Path, context: Context) -> StepResult:
    """Fit an atlas at every scale."""
    check_fit(config)
    images = find_images(config.images, pattern=config.pattern, image_ids=config.image_ids, arrays=True)
    mask = read_mask(config.mask) if config.mask is not None else default_mask(images)
    return fit_images(config, images, mask, out, context)


def fit_images(config: AtlasFitConfig, images: ImageList, mask: Mask, out: Path, context: Context) -> StepResult:
    """Fit an atlas to images at every scale of checked settings, whatever images and mask these name."""
    n_voxels, n_samples = int(mask.data.sum()), len(images)
    cells = grid_cells(mask.data) if config.start == "coarse" else np.empty(0, dtype=np.int32)
    n_cells = int(cells.max(initial=-1)) + 1
    _check_scales(config, n_voxels, n_samples, n_cells)
    # The largest scales that are fitted at the same time.
    together = sorted(config.scales)[-context.executor.workers :]
    needed = sum(_peak_bytes(config, n_voxels, n_samples, scale, n_cells) for scale in together)
    if needed > context.memory_bytes:
        raise ResourceError(
            f"Fitting {', '.join(map(str, together))} components to {n_voxels} voxels of {n_samples} people needs "
            f"{needed / 2**30:.2f} GiB, {context.memory_bytes / 2**30:.2f} GiB are allowed. Raise --memory."
        )
    matrix, n_clipped, digest = _convert(images, mask, context)
    if config.start == "coarse":
        with atomic_path(context.shards / "cells.npy") as partial:
            np.save(partial, cells)
    tasks = {f"C{scale}.npz": _task(config, matrix, scale, digest, context) for scale in config.scales}
    write_mask(mask, out / "mask.nii.gz")
    ids = [str(i) for i in images.samples.ids]
    reports = []
    for path in _fitted(config, tasks, context):
        reports.append(write_scale(read_scale(path), mask, ids, out / path.stem, figures=config.figures))
    counts = {"participants": n_samples, "voxels": n_voxels, "clipped_negatives": n_clipped}
    n_unconverged = sum(not report["converged"] for report in reports)
    return StepResult(counts, n_failed=n_unconverged, summary=tuple(map(_summary, reports)))


ATLAS_FIT = Step(
    "atlas fit", "Fit structural-covariance atlases to grey-matter maps.", AtlasFitConfig, atlas_fit, out="folder"
)
