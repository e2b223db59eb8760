"""Lists of images, and their one-time conversion to a voxel-major matrix on disk.

A list is a BIDS-like folder, a table with ``participant_id`` and ``path``, or a text file with one path a
line. The matrix has one row a mask voxel and one column a person, float32, in a ``.npy`` file that is
memory-mapped afterwards; images are read once, as many at a time as the memory budget allows.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.core import FormatError, Mask, ResourceError, SampleIndex, SchemaError, Volume, check_same_grid
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.atomic import atomic_path
from brainlocus.io.nifti import is_nifti, read_volume
from brainlocus.io.text import read_lines

__all__ = [
    "ImageList",
    "ImageMatrix",
    "convert_images",
    "convert_images_peak_bytes",
    "default_mask",
    "find_images",
    "mask_values",
]

GREY_MATTER = "sub-*/anat/*_label-GM_probseg.nii*"
NEGATIVE_TOLERANCE = 1e-6
"""Negative values no larger than this come from interpolation and are clipped to 0; larger ones are an error."""


@dataclass(frozen=True, slots=True)
class ImageList:
    """One image a person, in order."""

    samples: SampleIndex
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True, eq=False)
class ImageMatrix:
    """Images as a matrix on disk."""

    path: Path
    samples: SampleIndex
    n_clipped: int
    """Tiny negative voxels set to 0, over all images."""

    def open(self) -> Float32[np.ndarray, "voxels samples"]:
        """Return the matrix as a read-only memory map."""
        matrix: Float32[np.ndarray, "voxels samples"] = np.load(self.path, mmap_mode="r")
        return matrix


def find_images(source: Path, *, pattern: str = GREY_MATTER) -> ImageList:
    """Return the images of a folder, table or list file, in the order of their participant ids or rows.

    Parameters
    ----------
    source
        A folder (searched for `pattern`), a ``.tsv``/``.csv`` with columns ``participant_id`` and ``path``, a
        text file with one path a line, or one image. Relative paths start at the list's folder.
    pattern
        Glob below a folder.

    Raises
    ------
    FormatError
        Nothing is found, or an image named in a list does not exist.
    SchemaError
        A participant occurs twice, or a column is missing.
    """
    if source.is_dir():
        paths = sorted(source.glob(pattern))
        if not paths:
            raise FormatError(f"{source}: no image matches {pattern!r}. Give another pattern, or a list of paths.")
        ids = [_participant(path) for path in paths]
    elif not source.is_file():
        raise FormatError(f"{source}: there is no such file or folder. Expected a folder, a table or a list of images.")
    elif is_nifti(source):
        paths, ids = [source], [_participant(source)]
    else:
        ids, paths = _read_list(source)
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise FormatError(f"{source}: {len(absent)} of {len(paths)} images do not exist, the first is {absent[0]}.")
    try:
        return ImageList(SampleIndex.of(ids), tuple(paths))
    except SchemaError as error:
        raise SchemaError(f"{source}: {error} Give one image a participant.") from error


def convert_images_peak_bytes(n_voxels: int, n_grid: int, images_at_once: int) -> int:
    """Return the largest memory of `convert_images`: the buffer, and one image as read and as stored."""
    return 4 * n_voxels * images_at_once + 16 * n_grid


def convert_images(
    images: ImageList,
    mask: Mask,
    *,
    out: Path,
    memory_bytes: int = 1 << 30,
    track: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> ImageMatrix:
    """Write the mask voxels of all images as one voxel-major float32 ``.npy`` file.

    Parameters
    ----------
    out
        Name of the ``.npy`` file; written under a temporary name and renamed.
    memory_bytes
        Images are buffered up to this much before they are written side by side.
    track
        Wraps the sequence of paths while they are read, to show progress.

    Raises
    ------
    AlignmentError
        An image lies on another grid than the mask (named).
    FormatError
        An image cannot be read, has NaN, infinite or negative voxels in the mask, or is zero throughout
        (named, with the count).
    ResourceError
        Not even one image fits in the memory.
    """
    inside = mask.data
    n_voxels = int(inside.sum())
    overhead = convert_images_peak_bytes(n_voxels, inside.size, 0)
    at_once = min((memory_bytes - overhead) // max(4 * n_voxels, 1), len(images))
    if at_once < 1:
        needed = convert_images_peak_bytes(n_voxels, inside.size, 1)
        raise ResourceError(f"Converting images of {n_voxels} voxels needs {needed / 2**20:.0f} MiB; raise --memory.")
    n_clipped = 0
    with atomic_path(out) as partial:
        matrix = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(n_voxels, len(images)))
        buffer = np.empty((at_once, n_voxels), dtype=np.float32)
        start = 0
        for image, path in enumerate(track(images.paths)):
            buffer[image - start], clipped = mask_values(read_volume(path, quantity="grey_matter"), mask, path=path)
            n_clipped += clipped
            if image + 1 - start == at_once or image + 1 == len(images):
                _write_transposed(matrix, buffer[: image + 1 - start], start)
                start = image + 1
        matrix.flush()
    return ImageMatrix(out, images.samples, n_clipped)


def mask_values(volume: Volume, mask: Mask, *, path: Path) -> tuple[Float32[np.ndarray, " voxels"], int]:
    """Return an image's mask voxels after checking them, and how many tiny negatives were set to 0.

    Raises
    ------
    AlignmentError, FormatError
        See `convert_images`.
    """
    check_same_grid(volume.grid, mask.grid, what=str(path))
    values = volume.data[mask.data].astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise FormatError(
            f"{path}: {bad} of {values.size} voxels in the mask are NaN or infinite, expected numbers from 0 up. "
            "Fill them or shrink the mask."
        )
    negative = values < 0
    n_negative = int(negative.sum())
    if n_negative and float(values.min()) < -NEGATIVE_TOLERANCE:
        raise FormatError(
            f"{path}: {n_negative} voxels in the mask are negative (smallest {values.min():g}), expected a tissue map "
            "with values from 0 up. Is it a contrast or a z map?"
        )
    values[negative] = 0
    if not values.any():
        raise FormatError(f"{path}: every voxel in the mask is 0. Check the image and the mask.")
    return values, n_negative


def default_mask(images: ImageList, *, threshold: float = 0.1, share: float = 0.95) -> Mask:
    """Return the voxels with a mean above `threshold` times the largest that are above 0 in `share` of images.

    Parameters
    ----------
    threshold
        Relative to the largest voxel mean, so that scaled maps (RAVENS x 1000) need no other value.

    Raises
    ------
    FormatError
        No voxel qualifies.
    """
    first = read_volume(images.paths[0])
    total = np.zeros(first.data.shape)
    positive = np.zeros(first.data.shape, dtype=np.int64)
    for path in images.paths:
        volume = read_volume(path)
        check_same_grid(volume.grid, first.grid, what=str(path))
        data = np.nan_to_num(volume.data, nan=0.0)
        total += data
        positive += data > 0
    inside: Bool[np.ndarray, "x y z"] = (total > threshold * total.max()) & (positive >= share * len(images))
    if not inside.any():
        raise FormatError(f"No voxel is above 0 in {share:.0%} of the {len(images)} images; give a mask.")
    return Mask(inside, first.affine)


def _write_transposed(
    matrix: Float32[np.ndarray, "voxels samples"], buffer: Float32[np.ndarray, "batch voxels"], start: int
) -> None:
    """Copy image rows to matrix columns by voxel blocks that stay in cache."""
    block = 4096
    for voxel in range(0, matrix.shape[0], block):
        rows = slice(voxel, voxel + block)
        matrix[rows, start : start + buffer.shape[0]] = buffer[:, rows].T


def _participant(path: Path) -> str:
    """Return ``sub-001`` from the file name or the nearest folder that has it, as BIDS writes it in tables."""
    for part in (path.name, *reversed(path.parts[:-1])):
        match = re.match(r"sub-[A-Za-z0-9]+", part)
        if match:
            return match.group(0)
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _read_list(source: Path) -> tuple[list[str], list[Path]]:
    if source.suffix in (".tsv", ".csv", ".parquet", ".gz"):
        table = read_arrow(source)
        for needed in ("participant_id", "path"):
            if needed not in table.column_names:
                raise SchemaError(f"{source}: column {needed!r} is missing; found {table.column_names}.")
        ids = [str(name or "") for name in table.column("participant_id").to_pylist()]
        paths = [source.parent / str(path or "") for path in table.column("path").to_pylist()]
    else:
        lines = read_lines(source, what="a list of images, a table or an image")
        paths = [source.parent / line.strip() for line in lines if line.strip()]
        ids = [_participant(path) for path in paths]
    if not paths:
        raise FormatError(f"{source}: the list is empty, expected one image a line.")
    return ids, paths
