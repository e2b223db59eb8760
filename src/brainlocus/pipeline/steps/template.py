"""``idp template``: maps of people in a standard space to their mean, spread, median and change with age."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
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
from brainlocus.io import ImageList, find_images, read_grid, read_mask, write_volume
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import CommaFloats, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.canvas import save_figure
from brainlocus.pipeline.figures.slices import mosaic
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.image_voxels import READ_BYTES, image_tasks, read_images, save_voxels, unit_of
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["IDP_TEMPLATE", "IdpTemplateConfig"]

_BATCH = 8
_FEWEST_VOXELS = 4096
_WRITE_BYTES = 24
"""Bytes a voxel of the grid that writing and drawing one map takes."""


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


def _range_size(
    design: TemplateDesign, n_voxels: int, n_images: int, context: Context, *, median: bool, fixed: int
) -> int:
    """Return how many voxels fit in the memory at once, beside `fixed` bytes that do not depend on it.

    Raises
    ------
    ResourceError
        Not even a few thousand do.
    """
    waiting = 4 * _BATCH * (2 * context.executor.workers + 1)

    def needed(count: int) -> int:
        held = 9 * n_images if median else 0  # every value, and which are missing
        return fixed + template_bytes(design, count, _BATCH) + count * (held + waiting)

    count = n_voxels
    while count > _FEWEST_VOXELS and needed(count) > context.memory_bytes:
        count = -(-count // 2)
    require_memory(needed(count), context.memory_bytes, f"A template of {n_images} images")
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
    save_voxels(voxels, context.shards / "voxels.npy")
    names = _names(config, design)
    fixed = voxels.size * (8 + 4 * len(names)) + inside.size * (READ_BYTES * context.executor.workers + _WRITE_BYTES)
    size = _range_size(design, voxels.size, len(images), context, median=config.median, fixed=fixed)
    maps = {name: np.full(voxels.size, np.nan, dtype=np.float32) for name in names}
    passes = range(0, voxels.size, size)
    for number, start in enumerate(passes, 1):
        stop = min(start + size, voxels.size)
        tasks = image_tasks(
            images.paths, context.shards / "voxels.npy", (start, stop), batch=_BATCH,
            zeros_missing=config.zeros == "missing",
        )  # fmt: skip
        name = "Reading" if len(passes) == 1 else f"Reading, part {number} of {len(passes)}"
        blocks = context.progress.track(context.executor.map(read_images, tasks), name, len(tasks))
        found = _one_range(design, blocks, stop - start, len(images), median=config.median)
        for key, values in zip(names, _columns(found, config, design), strict=True):
            maps[key][start:stop] = values
    _write(config, out, grid, voxels, maps, unit_of(images.paths[0]))
    counts |= {
        "participants": len(images),
        "voxels": int(voxels.size),
        "passes": len(passes),
        "voxels_without_a_value": int((maps["n"] == 0).sum()),
        "maps": list(maps),
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
    for start in range(0, n_voxels if median else 0, _FEWEST_VOXELS):
        part = slice(start, start + _FEWEST_VOXELS)
        some = sums.n[part] > 0
        middle[part][some] = np.nanmedian(kept[:, part][:, some], axis=0)
    return finish_template(sums), middle


def _bin_names(config: IdpTemplateConfig) -> list[str]:
    return [f"bin_{low:g}-{high:g}" for low, high in pairwise(config.bins)]


def _names(config: IdpTemplateConfig, design: TemplateDesign) -> list[str]:
    """Return the maps that are written, in the order of `_columns`."""
    names = ["mean", "sd", "n", *(["median"] if config.median else [])]
    if design.regressors is not None:
        names += ["beta", "standard_error", "t", "neg_log10_p"]
    return names + _bin_names(config) + (["difference"] if design.n_bins > 1 else [])


def _columns(
    found: tuple[TemplateMaps, Float32[np.ndarray, " voxels"]], config: IdpTemplateConfig, design: TemplateDesign
) -> list[np.ndarray]:
    maps, middle = found
    columns = [maps.mean, maps.standard_deviation, maps.n, *([middle] if config.median else [])]
    if design.regressors is not None:
        columns += [maps.beta, maps.standard_error, maps.t, maps.neg_log10_p]
    columns += list(maps.bin_means)
    return columns + ([maps.bin_means[-1] - maps.bin_means[0]] if design.n_bins > 1 else [])


def _write(
    config: IdpTemplateConfig,
    out: Path,
    grid: Grid,
    voxels: Int[np.ndarray, " voxels"],
    maps: dict[str, np.ndarray],
    unit: str,
) -> None:
    """Write every map, and a picture of those that are looked at."""
    usual = _window(maps["mean"])
    for name, values in maps.items():
        data = np.full(int(np.prod(grid.shape)), 0.0 if name == "n" else np.nan, dtype=np.float32)
        data[voxels] = values
        look = _look(name, values, usual, config.contrast or "")
        shown = unit if look.unit == "map" else look.unit
        if look.unit == "slope":
            shown = f"{unit or 'unit'} per unit of {config.contrast}"
        volume = Volume(data.reshape(grid.shape), grid.affine, look.quantity, shown)
        write_volume(volume, out / f"{name}.nii.gz")
        if look.window is not None and np.isfinite(values).any():
            figure = mosaic(volume, window=look.window, colours=look.colours, title=name.replace("_", " "))
            save_figure(figure, out / f"{name}.png")


@dataclass(frozen=True, slots=True)
class _Look:
    """How a map is drawn."""

    quantity: str
    unit: Literal["map", "slope", ""]
    window: tuple[float, float] | None
    """None: it is not drawn."""
    colours: str = "gray"


def _look(name: str, values: np.ndarray, usual: tuple[float, float], contrast: str) -> _Look:
    if name == "difference":
        limit = max(abs(bound) for bound in _window(values))
        return _Look("last_less_first_bin", "map", (-limit, limit), "coolwarm")
    if name == "sd":
        return _Look("standard_deviation", "map", _window(values))
    known = {
        "n": _Look("people", "", None),
        "beta": _Look("beta", "slope", None),
        "standard_error": _Look("standard_error", "slope", None),
        "t": _Look(f"t_of_{contrast}", "", (-8.0, 8.0), "coolwarm"),
        "neg_log10_p": _Look("neg_log10_p", "", (0.0, 20.0), "inferno"),
    }
    return known.get(name, _Look("median" if name == "median" else "mean", "map", usual))


def _window(data: Float32[np.ndarray, " voxels"]) -> tuple[float, float]:
    finite = data[np.isfinite(data)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (2.0, 98.0)))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


IDP_TEMPLATE = Step(
    "idp template", "Average maps of people, and their change with age.", IdpTemplateConfig, idp_template, out="folder"
)
