"""``idp template``: maps of people in a standard space to their mean, spread, median and change with age."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32, Int
from pydantic import Field

from brainlocus.core import Grid, SchemaError, Volume, check_same_grid, shared_samples
from brainlocus.images.idp import (
    TemplateDesign,
    TemplateMaps,
    add_images,
    finish_template,
    prepare_template,
    start_template,
    template_bytes,
)
from brainlocus.io import ImageList, find_images, read_grid, read_mask, read_volume, write_volume
from brainlocus.io.nifti import sidecar_path
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import CommaFloats, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.canvas import save_figure
from brainlocus.pipeline.figures.slices import mosaic
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["IDP_TEMPLATE", "IdpTemplateConfig"]

_BATCH = 8
_FEWEST_VOXELS = 4096
_READ_BYTES = 24
"""Bytes a voxel of the grid that reading one image takes: as stored, as numbers, and turned."""


class IdpTemplateConfig(StepConfig):
    """Settings of ``idp template``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps on one grid: a BIDS folder, a table with participant_id and path, or a list of paths"
    )
    pattern: str = Field("sub-*/**/*_space-*_Chimap.nii*", description="Which files of a folder are images")
    mask: InputPath | None = Field(None, description="Voxels to work on; the whole grid by default")
    zeros: Literal["missing", "value"] = Field("missing", description="Whether voxels of exactly 0 have no value")
    median: bool = Field(True, description="Also write the median, which reads the images again for every part")
    participants: InputPath | None = Field(None, description="Table with the contrast and the covariates")
    contrast: str | None = Field(None, description="Numeric column the maps are regressed on, such as age")
    covariates: str = Field("", description="Formula of covariates of the regression: 'sex + C(site)'")
    bins: CommaFloats = Field((), description="Bounds of bins of the contrast, each with its mean: 45,55,65,75")
    min_share: float = Field(0.9, gt=0, le=1, description="Share of people a voxel needs for the regression")


@dataclass(frozen=True, slots=True)
class _Task:
    paths: tuple[Path, ...]
    voxels: Path
    start: int
    stop: int
    first: Path
    zeros_missing: bool


@lru_cache(maxsize=4)
def _voxels(path: Path) -> Int[np.ndarray, " voxels"]:
    voxels: Int[np.ndarray, " voxels"] = np.load(path, mmap_mode="r")
    return voxels


def _read(task: _Task) -> Float32[np.ndarray, "batch voxels"]:
    """Return a range of the mask's voxels of some images, NaN where there is no value."""
    chosen = _voxels(task.voxels)[task.start : task.stop]
    expected = read_grid(task.first)
    rows = np.empty((len(task.paths), chosen.size), dtype=np.float32)
    for row, path in zip(rows, task.paths, strict=True):
        volume = read_volume(path)
        check_same_grid(volume.grid, expected, what=str(path))
        row[:] = volume.data.ravel()[chosen]
        row[~np.isfinite(row)] = np.nan
        if task.zeros_missing:
            row[row == 0] = np.nan
    return rows


def _design(config: IdpTemplateConfig, images: ImageList) -> tuple[TemplateDesign, dict[str, Any]]:
    """Return the design of the people in the order of their images, and counts."""
    if config.contrast is None:
        if config.covariates or config.participants:
            raise SchemaError("--covariates and --participants go with --contrast; name the column to regress on.")
        return prepare_template(len(images), edges=config.bins), {}
    if config.participants is None:
        raise SchemaError(f"--contrast {config.contrast}: give the table that has it with --participants.")
    people = read_people(config.participants)
    shared = shared_samples(images.samples, people.samples, names=("the images", "the participants table"))
    at = images.samples.indices_of(shared)
    known = people.take(shared)
    column = known.column(config.contrast)
    if column.kind == "categorical":
        raise SchemaError(f"--contrast: expected numbers, but {config.contrast!r} holds text.")
    contrast = _spread(column.values[:, None], at, len(images))[:, 0]
    design = design_from_formula(config.covariates, known)
    covariates = _spread(design.matrix, at, len(images))
    found = prepare_template(
        len(images), contrast=contrast, covariates=covariates, edges=config.bins, min_share=config.min_share
    )
    counts = {
        "participants_in_table": len(shared),
        "participants_in_regression": found.n_regressed,
        "participants_in_bins": np.bincount(found.bin_of[found.bin_of >= 0], minlength=found.n_bins).tolist(),
        "covariates": list(design.names),
    }
    return found, counts


def _spread(values: np.ndarray, at: Int[np.ndarray, " shared"], n: int) -> np.ndarray:
    whole = np.full((n, values.shape[1]), np.nan)
    whole[at] = values
    return whole


def _ranges(design: TemplateDesign, n_voxels: int, n_images: int, memory: int, *, median: bool) -> int:
    """Return how many voxels fit in the memory at once.

    Raises
    ------
    ResourceError
        Not even a few thousand do.
    """

    def needed(count: int) -> int:
        return template_bytes(design, count, _BATCH) + (10 * count * n_images if median else 0)

    count = n_voxels
    while count > _FEWEST_VOXELS and needed(count) > memory:
        count = -(-count // 2)
    require_memory(needed(min(count, n_voxels)), memory, f"A template of {n_images} images")
    return count


def idp_template(config: IdpTemplateConfig, out: Path, context: Context) -> StepResult:
    """Stream the images through the sums, range of voxels by range."""
    images = find_images(config.images, pattern=config.pattern)
    design, counts = _design(config, images)
    grid = read_grid(images.paths[0])
    inside = np.ones(grid.shape, dtype=bool)
    if config.mask is not None:
        mask = read_mask(config.mask)
        check_same_grid(mask.grid, grid, what=str(config.mask))
        inside = mask.data
    voxels = np.flatnonzero(inside)
    context.shards.mkdir(parents=True, exist_ok=True)
    np.save(context.shards / "voxels.npy", voxels)
    _voxels.cache_clear()
    spare = context.memory_bytes - _READ_BYTES * inside.size * context.executor.workers - 8 * inside.size
    size = _ranges(design, voxels.size, len(images), spare, median=config.median)
    maps: list[TemplateMaps] = []
    medians: list[np.ndarray] = []
    passes = range(0, voxels.size, size)
    for start in passes:
        stop = min(start + size, voxels.size)
        tasks = [
            _Task(
                images.paths[k : k + _BATCH], context.shards / "voxels.npy", start, stop, images.paths[0],
                config.zeros == "missing",
            )
            for k in range(0, len(images), _BATCH)
        ]  # fmt: skip
        name = "Reading" if len(passes) == 1 else f"Reading, part {len(maps) + 1} of {len(passes)}"
        blocks = context.progress.track(context.executor.map(_read, tasks), name, len(tasks))
        found, middle = _one_range(design, blocks, stop - start, len(images), median=config.median)
        maps.append(found)
        medians.append(middle)
    written = _write(config, out, grid, voxels, maps, medians, design, _unit(images.paths[0]))
    counts |= {
        "participants": len(images),
        "voxels": int(voxels.size),
        "passes": len(passes),
        "voxels_without_a_value": int(sum((m.n == 0).sum() for m in maps)),
        "maps": written,
    }
    text = f"{len(images)} people, {voxels.size} voxels, the images read {_times(len(passes))}"
    if config.contrast is not None:
        text += f"; {counts['participants_in_regression']} people in the regression on {config.contrast}"
    return StepResult(counts, summary=(text,))


def _times(passes: int) -> str:
    return "once" if passes == 1 else f"{passes} times"


def _one_range(
    design: TemplateDesign,
    blocks: Iterator[Float32[np.ndarray, "batch voxels"]],
    n_voxels: int,
    n_images: int,
    *,
    median: bool,
) -> tuple[TemplateMaps, Float32[np.ndarray, " voxels"]]:
    sums = start_template(design, n_voxels)
    kept = np.empty((n_images if median else 0, n_voxels), dtype=np.float32)
    first = 0
    for block in blocks:
        people = np.arange(first, first + block.shape[0])
        add_images(sums, block, people)
        if median:
            kept[people] = block
        first += block.shape[0]
    middle = np.full(n_voxels, np.nan, dtype=np.float32)
    if median:
        some = sums.n > 0
        middle[some] = np.nanmedian(kept[:, some], axis=0, overwrite_input=True)
    return finish_template(sums), middle


def _unit(path: Path) -> str:
    """Return the unit that an image's BIDS sidecar gives, or nothing."""
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return ""
    try:
        return str(json.loads(sidecar.read_text(encoding="utf-8")).get("Units", ""))
    except (ValueError, AttributeError):
        return ""


def _write(
    config: IdpTemplateConfig,
    out: Path,
    grid: Grid,
    voxels: Int[np.ndarray, " voxels"],
    maps: list[TemplateMaps],
    medians: list[np.ndarray],
    design: TemplateDesign,
    unit: str,
) -> list[str]:
    """Write every map and its picture; return the names of the maps."""
    written: list[str] = []

    def save(
        name: str, parts: list[np.ndarray], what: str, *, unit: str = "", window: tuple[float, float] | None = None,
        colours: str = "gray", picture: bool = True,
    ) -> np.ndarray:  # fmt: skip
        data = np.full(int(np.prod(grid.shape)), np.nan, dtype=np.float32)
        data[voxels] = np.concatenate(parts)
        volume = Volume(data.reshape(grid.shape), grid.affine, what, unit)
        write_volume(volume, out / f"{name}.nii.gz")
        written.append(name)
        if picture and np.isfinite(data).any():
            figure = mosaic(volume, window=window, colours=colours, title=name.replace("_", " "))
            save_figure(figure, out / f"{name}.png")
        return data

    mean = save("mean", [m.mean for m in maps], "mean", unit=unit)
    window = _window(mean)
    save("sd", [m.standard_deviation for m in maps], "standard_deviation", unit=unit)
    count = np.zeros(int(np.prod(grid.shape)), dtype=np.float32)
    count[voxels] = np.concatenate([m.n for m in maps])
    write_volume(Volume(count.reshape(grid.shape), grid.affine, "people"), out / "n.nii.gz")
    if config.median:
        save("median", medians, "median", unit=unit, window=window)
    if config.contrast is not None:
        per = f"{unit or 'unit'} per unit of {config.contrast}"
        save("beta", [m.beta for m in maps], "beta", unit=per, colours="coolwarm", picture=False)
        save("standard_error", [m.standard_error for m in maps], "standard_error", unit=per, picture=False)
        save("t", [m.t for m in maps], f"t_of_{config.contrast}", window=(-8.0, 8.0), colours="coolwarm")
        save("neg_log10_p", [m.neg_log10_p for m in maps], "neg_log10_p", window=(0.0, 20.0), colours="inferno")
    bounds = config.bins
    bins = []
    for k in range(design.n_bins):
        name = f"bin_{bounds[k]:g}-{bounds[k + 1]:g}"
        bins.append(save(name, [m.bin_means[k] for m in maps], "mean", unit=unit, window=window))
    if len(bins) > 1:
        difference = bins[-1] - bins[0]
        limit = max(abs(v) for v in _window(difference))
        save(
            "difference", [difference[voxels]], "last_less_first_bin", unit=unit, window=(-limit, limit),
            colours="coolwarm",
        )  # fmt: skip
    return written


def _window(data: Float32[np.ndarray, " voxels"]) -> tuple[float, float]:
    finite = data[np.isfinite(data)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (2.0, 98.0)))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


IDP_TEMPLATE = Step(
    "idp template", "Average maps of people, and their change with age.", IdpTemplateConfig, idp_template, out="folder"
)
