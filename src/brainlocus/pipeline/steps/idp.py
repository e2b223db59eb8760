"""``idp extract``: maps and a parcellation to one number a parcel and person."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int
from pydantic import Field

from brainlocus.core import Column, FormatError, PhenotypeTable
from brainlocus.images.idp import ParcelIndex, extract_volume, prepare_extraction
from brainlocus.io import find_images, read_parcellation, read_volume, write_table
from brainlocus.pipeline.config import InputPath, Positional, StepConfig
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["IDP_EXTRACT", "IdpExtractConfig"]

_IMAGES_PER_TASK = 25


class IdpExtractConfig(StepConfig):
    """Settings of ``idp extract``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps: a BIDS folder, a table with participant_id and path, or a list of paths"
    )
    atlas: InputPath = Field(description="Labels (.nii.gz), or a folder of atlas fit: every scale in it")
    statistic: Literal["sum", "mean", "median"] = Field("sum", description="sum (mm3), mean or median of a parcel")
    scale: float = Field(1.0, gt=0, description="Factor the maps were multiplied by when stored (RAVENS: 1000)")
    pattern: str = Field("sub-*/anat/*_label-GM_probseg.nii*", description="Which files of a folder are images")


@dataclass(frozen=True, slots=True)
class _Task:
    images: tuple[Path, ...]
    atlases: tuple[Path, ...]
    statistic: Literal["sum", "mean", "median"]
    scale: float


@lru_cache(maxsize=8)
def _index(path: Path) -> ParcelIndex:
    return prepare_extraction(read_parcellation(path))


def _extract(task: _Task) -> tuple[Float64[np.ndarray, "images columns"], Int[np.ndarray, " images"]]:
    rows, missing = [], []
    for path in task.images:
        volume = read_volume(path)
        parts = [
            extract_volume(_index(atlas), volume, what=str(path), statistic=task.statistic, scale=task.scale)
            for atlas in task.atlases
        ]
        rows.append(np.concatenate([part.values[0] for part in parts]))
        missing.append(int(parts[0].n_missing[0]))
    return np.array(rows), np.array(missing, dtype=np.int64)


def _atlases(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    found = sorted(path.glob("C*/labels.nii.gz"), key=lambda p: int(p.parent.name[1:]))
    if not found:
        raise FormatError(f"{path}: expected C*/labels.nii.gz below the folder, found none. Give a labels file.")
    return tuple(found)


def _peak_bytes(grid: tuple[int, int, int], n_images: int, n_parcels: int, workers: int) -> int:
    """Return what the images at hand take, as read and as numbers with a copy, and the table with its copies."""
    return 32 * math.prod(grid) * workers + 8 * 4 * n_images * n_parcels + (8 << 20)


def idp_extract(config: IdpExtractConfig, out: Path, context: Context) -> StepResult:
    """Extract every parcel of every image."""
    _index.cache_clear()
    atlases = _atlases(config.atlas)
    images = find_images(config.images, pattern=config.pattern)
    indexes = [_index(path) for path in atlases]
    names = [name for index in indexes for name in index.names]
    needed = _peak_bytes(indexes[0].grid.shape, len(images), len(names), context.executor.workers)
    require_memory(needed, context.memory_bytes, f"Extracting {len(names)} parcels of {len(images)} images")
    tasks = [
        _Task(images.paths[k : k + _IMAGES_PER_TASK], atlases, config.statistic, config.scale)
        for k in range(0, len(images), _IMAGES_PER_TASK)
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
