"""Voxels of many images, some images at a time: what the steps that stream maps of people share."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from brainlocus.core import check_same_grid
from brainlocus.io import read_grid, read_volume
from brainlocus.io.nifti import sidecar_path

__all__ = ["READ_BYTES", "ImageTask", "gather_rows", "image_tasks", "read_images", "save_voxels", "unit_of"]

READ_BYTES = 24
"""Bytes a voxel of the grid that reading one image takes: as stored, as numbers, and turned."""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """Some images and the voxels that are wanted of them."""

    paths: tuple[Path, ...]
    voxels: Path
    """File of flat indices, as `save_voxels` writes it."""
    start: int
    stop: int
    """Range of that file."""
    first: Path
    """Image whose grid all others must have."""
    zeros_missing: bool


def save_voxels(voxels: Int[np.ndarray, " voxels"], path: Path) -> None:
    """Write the flat indices of voxels for `ImageTask`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, voxels)
    _voxels.cache_clear()


def image_tasks(
    paths: Sequence[Path], voxels: Path, bounds: tuple[int, int], *, batch: int, zeros_missing: bool
) -> list[ImageTask]:
    """Return the tasks of reading a range of voxels of all images, `batch` images each."""
    return [
        ImageTask(tuple(paths[k : k + batch]), voxels, *bounds, paths[0], zeros_missing)
        for k in range(0, len(paths), batch)
    ]


def read_images(task: ImageTask) -> Float32[np.ndarray, "batch voxels"]:
    """Return the task's voxels of its images, NaN where there is no value.

    Raises
    ------
    AlignmentError
        An image lies on another grid than the first (named).
    FormatError
        An image cannot be read.
    """
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


def gather_rows(
    blocks: Iterable[Float32[np.ndarray, "_ voxels"]], batch: int
) -> Iterator[Float32[np.ndarray, "batch voxels"]]:
    """Yield the rows of blocks, up to `batch` at a time; what was yielded is overwritten by the next."""
    whole: np.ndarray | None = None
    n = 0
    for block in blocks:
        if batch <= block.shape[0]:
            yield block
            continue
        if whole is None:
            whole = np.empty((batch, block.shape[1]), dtype=np.float32)
        if n + block.shape[0] > batch:
            yield whole[:n]
            n = 0
        whole[n : n + block.shape[0]] = block
        n += block.shape[0]
    if whole is not None and n:
        yield whole[:n]


def unit_of(path: Path) -> str:
    """Return the unit that an image's BIDS sidecar gives, or nothing."""
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return ""
    try:
        return str(json.loads(sidecar.read_text(encoding="utf-8")).get("Units", ""))
    except (ValueError, AttributeError):
        return ""


@lru_cache(maxsize=4)
def _voxels(path: Path) -> Int[np.ndarray, " voxels"]:
    voxels: Int[np.ndarray, " voxels"] = np.load(path, mmap_mode="r")
    return voxels
