"""Lists of images, and their one-time conversion to a voxel-major matrix on disk.

A list is a BIDS-like folder, a table with ``participant_id`` and ``path``, a text file with one path a line, or one
array of all images (`io.image_arrays`). The matrix has one row a mask voxel and one column a person, float32, in a
``.npy`` file that is memory-mapped afterwards; images are read once, as many at a time as the memory budget allows.
"""

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from brainlocus.core import (
    FormatError,
    Grid,
    Mask,
    ResourceError,
    SampleIndex,
    SchemaError,
    Volume,
    check_same_grid,
)
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.atomic import atomic_path
from brainlocus.io.image_arrays import check_places, is_image_array, open_image_array, read_image_array
from brainlocus.io.nifti import is_nifti, read_volume
from brainlocus.io.text import read_lines
from brainlocus.io.transforms import read_grid
from brainlocus.numerics.memory_maps import give_back_pages

__all__ = [
    "ImageList",
    "ImageMatrix",
    "convert_images",
    "convert_images_peak_bytes",
    "default_mask",
    "find_images",
    "image_batches",
    "images_grid",
    "images_peak_bytes",
    "iter_images",
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
    """File of each image; the same for all where they lie in one array."""
    numbers: tuple[int, ...] | None = None
    """Place of each image in the array, from 0; None where every image has a file of its own."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def needs_mask(self) -> bool:
        """Whether a mask has to say where the voxels lie."""
        return self.numbers is not None and not is_nifti(self.paths[0])

    def take(self, indices: Int[np.ndarray, " kept"]) -> "ImageList":
        """Return the images at some indices."""
        at = [int(k) for k in indices]
        numbers = None if self.numbers is None else tuple(self.numbers[k] for k in at)
        return ImageList(self.samples.take(np.asarray(at, dtype=np.int64)), tuple(self.paths[k] for k in at), numbers)

    def name(self, index: int) -> str:
        """Return what messages call an image: its file, and in an array its number and id."""
        if self.numbers is None:
            return str(self.paths[index])
        return f"{self.paths[index]}: image {self.numbers[index] + 1} ({self.samples.ids[index]})"


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


def find_images(
    source: Path, *, pattern: str = GREY_MATTER, image_ids: Path | None = None, arrays: bool = False
) -> ImageList:
    """Return the images of a folder, table, list file or array, in the order of their participant ids or rows.

    Parameters
    ----------
    source
        A folder (searched for `pattern`), a ``.tsv``/``.csv`` with columns ``participant_id`` and ``path``, a
        text file with one path a line, or one image. Relative paths start at the list's folder.
    pattern
        Glob below a folder.
    image_ids
        Table whose column ``participant_id`` names the images of an array, in their order; without it they are
        ``image-00001`` and so on.
    arrays
        One array of all images (see `brainlocus.io.image_arrays`) is taken, too.

    Raises
    ------
    FormatError
        Nothing is found, or an image named in a list does not exist.
    SchemaError
        A participant occurs twice, or a column is missing; or `image_ids` does not fit.
    """
    if arrays and is_image_array(source):
        return _images_of_array(source, image_ids)
    if image_ids is not None:
        raise SchemaError(
            f"{image_ids}: ids are given to one array of images only, {source} has ids itself. Leave them out."
        )
    if is_image_array(source):
        raise FormatError(f"{source}: expected one file an image, found one array of all. Write the images one by one.")
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


def iter_images(images: ImageList, mask: Mask | None = None, *, at_once: int = 1) -> Generator[Volume, None, None]:
    """Yield every image, in order.

    Parameters
    ----------
    mask
        Says where the voxels of a ``.npy`` or zarr array lie; voxels outside an array of its voxels are NaN.
    at_once
        Most images that are held where an array has several in one piece.

    Raises
    ------
    FormatError
        An image cannot be read.
    SchemaError, AlignmentError
        An array and the mask do not fit; see `brainlocus.io.image_arrays`.
    """
    if images.numbers is None:
        for path in images.paths:
            yield read_volume(path, quantity="grey_matter")
    else:
        yield from read_image_array(open_image_array(images.paths[0]), images.numbers, mask, at_once=at_once)


def images_grid(images: ImageList, mask: Mask | None = None) -> Grid:
    """Return the grid of the first image, without reading it.

    Raises
    ------
    FormatError, SchemaError, AlignmentError
        As `iter_images`.
    """
    if images.needs_mask:
        check_places(open_image_array(images.paths[0]), mask)
        assert mask is not None  # noqa: S101 - checked
        return mask.grid
    return read_grid(images.paths[0])


def images_peak_bytes(images: ImageList, at_once: int) -> int:
    """Return what `iter_images` holds besides one image as read and as numbers: pieces of an array."""
    if images.numbers is None:
        return 0
    array = open_image_array(images.paths[0])
    return array.piece_bytes + (array.image_bytes * min(at_once, array.together) if array.together > 1 else 0)


def image_batches(images: ImageList, size: int) -> list[ImageList]:
    """Return the images some at a time, all at once where each batch would have to read what lies before it."""
    if images.numbers is not None and open_image_array(images.paths[0]).is_stream:
        return [images]
    return [images.take(np.arange(k, min(k + size, len(images)))) for k in range(0, len(images), size)]


def convert_images_peak_bytes(n_voxels: int, n_grid: int, images_at_once: int) -> int:
    """Return the largest memory of `convert_images`: the buffer, and one image as read and as stored.

    An array of images takes `images_peak_bytes` besides.
    """
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
    pieces = images_peak_bytes(images, 0)
    each = 4 * n_voxels + images_peak_bytes(images, 1) - pieces
    at_once = min((memory_bytes - overhead - pieces) // max(each, 1), len(images))
    if at_once < 1:
        needed = overhead + pieces + each
        raise ResourceError(f"Converting images of {n_voxels} voxels needs {needed / 2**20:.0f} MiB; raise --memory.")
    n_clipped = 0
    with atomic_path(out) as partial:
        matrix = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(n_voxels, len(images)))
        buffer = np.empty((at_once, n_voxels), dtype=np.float32)
        start = 0
        with closing(iter_images(images, mask, at_once=at_once)) as volumes:
            for image, _ in enumerate(track(images.paths)):
                buffer[image - start], clipped = mask_values(next(volumes), mask, what=images.name(image))
                n_clipped += clipped
                if image + 1 - start == at_once or image + 1 == len(images):
                    _write_transposed(matrix, buffer[: image + 1 - start], start)
                    start = image + 1
        matrix.flush()
    return ImageMatrix(out, images.samples, n_clipped)


def mask_values(volume: Volume, mask: Mask, *, what: str) -> tuple[Float32[np.ndarray, " voxels"], int]:
    """Return an image's mask voxels after checking them, and how many tiny negatives were set to 0.

    Parameters
    ----------
    what
        What messages call the image.

    Raises
    ------
    AlignmentError, FormatError
        See `convert_images`.
    """
    check_same_grid(volume.grid, mask.grid, what=what)
    values = volume.data[mask.data].astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise FormatError(
            f"{what}: {bad} of {values.size} voxels in the mask are NaN or infinite, expected numbers from 0 up. "
            "Fill them or shrink the mask."
        )
    negative = values < 0
    n_negative = int(negative.sum())
    if n_negative and float(values.min()) < -NEGATIVE_TOLERANCE:
        raise FormatError(
            f"{what}: {n_negative} voxels in the mask are negative (smallest {values.min():g}), expected a tissue map "
            "with values from 0 up. Is it a contrast or a z map?"
        )
    values[negative] = 0
    if not values.any():
        raise FormatError(f"{what}: every voxel in the mask is 0. Check the image and the mask.")
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
    SchemaError
        The images are an array that does not say where its voxels lie.
    """
    grid = images_grid(images)
    total = np.zeros(grid.shape)
    positive = np.zeros(grid.shape, dtype=np.int64)
    for k, volume in enumerate(iter_images(images)):
        check_same_grid(volume.grid, grid, what=images.name(k))
        data = np.nan_to_num(volume.data, nan=0.0)
        total += data
        positive += data > 0
    inside: Bool[np.ndarray, "x y z"] = (total > threshold * total.max()) & (positive >= share * len(images))
    if not inside.any():
        raise FormatError(f"No voxel is above 0 in {share:.0%} of the {len(images)} images; give a mask.")
    return Mask(inside, grid.affine)


def _write_transposed(
    matrix: Float32[np.ndarray, "voxels samples"], buffer: Float32[np.ndarray, "batch voxels"], start: int
) -> None:
    """Copy image rows to matrix columns by voxel blocks that stay in cache."""
    block = 4096
    for voxel in range(0, matrix.shape[0], block):
        rows = slice(voxel, voxel + block)
        matrix[rows, start : start + buffer.shape[0]] = buffer[:, rows].T
        give_back_pages(matrix)


def _images_of_array(source: Path, ids: Path | None) -> ImageList:
    n = open_image_array(source).n_images
    if ids is None:
        names = [f"image-{k:05d}" for k in range(1, n + 1)]
    else:
        names = [str(name or "") for name in read_arrow(ids, ["participant_id"]).column("participant_id").to_pylist()]
        if len(names) != n:
            raise SchemaError(
                f"{ids}: expected a row for each of the {n} images of {source}, in their order; found {len(names)}."
            )
    try:
        return ImageList(SampleIndex.of(names), (source,) * n, tuple(range(n)))
    except SchemaError as error:
        raise SchemaError(f"{ids}: {error}") from error


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
