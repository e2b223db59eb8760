"""``idp extract``: maps and a parcellation to one number a parcel and person."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int
from pydantic import Field

from brainlocus.core import (
    AlignmentError,
    Column,
    FormatError,
    Grid,
    PhenotypeTable,
    SchemaError,
    Volume,
    same_grid,
)
from brainlocus.images.atlas import component_name
from brainlocus.images.idp import (
    LoadingIndex,
    ParcelIndex,
    extract_loadings,
    extract_volume,
    prepare_extraction,
    prepare_loadings,
)
from brainlocus.io import (
    ImageList,
    find_images,
    image_batches,
    images_grid,
    images_peak_bytes,
    iter_images,
    read_mask,
    read_parcellation,
    write_table,
)
from brainlocus.numerics import resample_labels, resample_map
from brainlocus.pipeline.atlas_scales import label_files
from brainlocus.pipeline.config import InputPath, Positional, StepConfig
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["IDP_EXTRACT", "IdpExtractConfig"]

_IMAGES_PER_TASK = 25
_MOVING_BYTES = 160 << 20

Statistic = Literal["sum", "mean", "median", "loading"]
Resample = Literal["no", "labels", "maps"]


class IdpExtractConfig(StepConfig):
    """Settings of ``idp extract``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps: a BIDS folder, a table with participant_id and path, a list of paths, a 4-D NIfTI file, or "
        "one array (.npy, .zarr): people x voxels of --mask, or people x i x j x k"
    )
    image_ids: InputPath | None = Field(
        None,
        description="Table with participant_id, a row an image in order, for maps in one file; by default image-00001 "
        "and so on",
    )
    mask: InputPath | None = Field(None, description="For an array (.npy, .zarr): the mask whose voxels or grid it has")
    atlas: InputPath = Field(description="Labels (.nii.gz), or a folder of atlas fit: every scale in it")
    statistic: Statistic = Field(
        "sum", description="sum (mm3), mean or median of a parcel, or loading: mean weighted by the component"
    )
    scale: float = Field(1.0, gt=0, description="Factor the maps were multiplied by when stored (RAVENS: 1000)")
    resample: Resample = Field(
        "no",
        description="Where grids differ: no (an error), labels (nearest, to each map's grid), maps (linear, to the "
        "atlas's grid)",
    )
    pattern: str = Field("sub-*/anat/*_label-GM_probseg.nii*", description="Which files of a folder are images")


@dataclass(frozen=True, slots=True)
class _Task:
    images: ImageList
    mask: Path | None
    atlases: tuple[Path, ...]
    statistic: Statistic
    scale: float
    resample: Resample


@lru_cache(maxsize=8)
def _index(path: Path) -> ParcelIndex:
    return prepare_extraction(read_parcellation(path))


@lru_cache(maxsize=16)
def _moved(path: Path, shape: tuple[int, int, int], affine: bytes) -> ParcelIndex:
    """Return the index of labels brought to another grid; the images of a cohort share a few grids."""
    grid = Grid(shape, np.frombuffer(affine, dtype=np.float64).reshape(4, 4))
    moved = resample_labels(read_parcellation(path), grid)
    if not moved.labels.any():
        raise AlignmentError(f"{path}: no label lies on the maps' grid; expected both in one space.")
    return prepare_extraction(moved)


@lru_cache(maxsize=8)
def _loadings(path: Path) -> LoadingIndex:
    """Return the components that belong to a labels file of ``atlas fit``."""
    components, mask = path.parent / "components.npy", path.parent.parent / "mask.nii.gz"
    for needed in (components, mask):
        if not needed.is_file():
            raise FormatError(
                f"--statistic loading: expected components.npy beside {path} and mask.nii.gz above, as atlas fit "
                f"writes them, found no {needed}. Give a folder of atlas fit."
            )
    weights = np.load(components, mmap_mode="r")
    names = [component_name(weights.shape[1], k + 1) for k in range(weights.shape[1])]
    # Components that win no voxel have vanished; a soft solver leaves them small weights everywhere.
    alive = np.isin(np.arange(1, weights.shape[1] + 1), read_parcellation(path).labels)
    return prepare_loadings(weights, read_mask(mask), names, alive=alive)


def _extract(task: _Task) -> tuple[Float64[np.ndarray, "images columns"], Int[np.ndarray, " images"]]:
    rows, missing = [], []
    mask = None if task.mask is None else read_mask(task.mask)
    for k, read in enumerate(iter_images(task.images, mask, at_once=_IMAGES_PER_TASK)):
        volume, what = read, task.images.name(k)
        if task.resample == "maps":
            volume = _on_grid(volume, _index_of(task, task.atlases[0]).grid, what)
        parts = [_extract_one(task, atlas, volume, what) for atlas in task.atlases]
        rows.append(np.concatenate([values for values, _ in parts]))
        missing.append(parts[0][1])
    return np.array(rows), np.array(missing, dtype=np.int64)


def _index_of(task: _Task, atlas: Path) -> ParcelIndex | LoadingIndex:
    return _loadings(atlas) if task.statistic == "loading" else _index(atlas)


def _on_grid(volume: Volume, grid: Grid, what: str) -> Volume:
    if same_grid(volume.grid, grid):
        return volume
    moved = resample_map(volume, grid)
    if not np.isfinite(moved.data).any():
        raise AlignmentError(f"{what}: no voxel of the map lies on the atlas's grid; expected both in one space.")
    return moved


def _extract_one(task: _Task, atlas: Path, volume: Volume, what: str) -> tuple[Float64[np.ndarray, " columns"], int]:
    index = _index_of(task, atlas)
    here: ParcelIndex | LoadingIndex = index
    if task.resample == "labels" and not same_grid(volume.grid, index.grid):
        here = _moved(atlas, volume.grid.shape, np.asarray(volume.grid.affine, dtype=np.float64).tobytes())
    try:
        if isinstance(here, LoadingIndex):
            found = extract_loadings(here, volume, what=what, scale=task.scale)
        else:
            statistic = "sum" if task.statistic == "loading" else task.statistic
            found = extract_volume(here, volume, what=what, statistic=statistic, scale=task.scale)
    except AlignmentError as error:
        raise AlignmentError(f"{error} Or let idp extract do it: --resample labels, or --resample maps.") from error
    if here is index or isinstance(here, LoadingIndex) or isinstance(index, LoadingIndex):
        return found.values[0], int(found.n_missing[0])
    # Parcels that no voxel of the map's grid is nearest to have no value.
    values = np.full(index.n_parcels, np.nan)
    values[np.searchsorted(index.labels, here.labels)] = found.values[0]
    return values, int(found.n_missing[0])


def _peak_bytes(grid: tuple[int, int, int], n_images: int, n_parcels: int, workers: int, resample: Resample) -> int:
    """Return what the images at hand take, as read and as numbers with a copy, and the table with its copies.

    To resample takes the coordinates of a million points at a time besides, and copies of the map.
    """
    each, moving = (32, 0) if resample == "no" else (64, _MOVING_BYTES)
    return (each * math.prod(grid) + moving) * workers + 8 * 4 * n_images * n_parcels + (8 << 20)


def idp_extract(config: IdpExtractConfig, out: Path, context: Context) -> StepResult:
    """Extract every parcel of every image."""
    for cached in (_index, _moved, _loadings):
        cached.cache_clear()
    if config.statistic == "loading" and config.resample == "labels":
        raise SchemaError("--statistic loading weighs voxels of the fit's mask; take --resample maps instead.")
    atlases = label_files(config.atlas)
    images = find_images(config.images, pattern=config.pattern, image_ids=config.image_ids, arrays=True)
    if config.mask is not None and not images.needs_mask:
        raise SchemaError(f"--mask: {config.images} says itself where its voxels lie; leave the mask out.")
    grid = images_grid(images, None if config.mask is None else read_mask(config.mask))
    indexes = [_loadings(path) if config.statistic == "loading" else _index(path) for path in atlases]
    names = [name for index in indexes for name in index.names]
    largest = max((indexes[0].grid.shape, grid.shape), key=math.prod)
    needed = _peak_bytes(largest, len(images), len(names), context.executor.workers, config.resample)
    needed += images_peak_bytes(images, _IMAGES_PER_TASK) * context.executor.workers
    needed += sum(40 * index.weights.nnz for index in indexes if isinstance(index, LoadingIndex))
    require_memory(needed, context.memory_bytes, f"Extracting {len(names)} parcels of {len(images)} images")
    tasks = [
        _Task(batch, config.mask, atlases, config.statistic, config.scale, config.resample)
        for batch in image_batches(images, _IMAGES_PER_TASK)
    ]
    done = list(context.progress.track(context.executor.map(_extract, tasks), "Extracting", len(tasks)))
    values = np.vstack([rows for rows, _ in done])
    n_missing = np.concatenate([missing for _, missing in done])
    unit = "mm3" if config.statistic == "sum" else ""
    columns = tuple(
        Column(name, np.ascontiguousarray(values[:, k]), "quantitative", unit) for k, name in enumerate(names)
    )
    write_table(PhenotypeTable(images.samples, columns), out)
    vanished = [name for index in indexes for name in index.vanished]
    counts = {
        "participants": len(images),
        "parcels": len(names),
        "vanished_parcels": vanished,
        "images_with_missing_voxels": int((n_missing > 0).sum()),
        "missing_voxels": int(n_missing.sum()),
    }
    summary = f"{len(images)} people, {len(names)} parcels"
    if n_missing.any():
        summary += f"; {counts['missing_voxels']} missing voxels in {counts['images_with_missing_voxels']} images"
    return StepResult(counts, summary=(summary,))


IDP_EXTRACT = Step("idp extract", "Measure every parcel of an atlas in every image.", IdpExtractConfig, idp_extract)
