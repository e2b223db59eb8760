"""Images of many people in one array: a 4-D NIfTI file, a ``.npy`` file or a zarr array.

=============  ====================================  ====================================================
file           axes                                  where the voxels lie
=============  ====================================  ====================================================
NIfTI, 4-D     i x j x k x people                    in its affine (``GM_mod_merg.nii.gz`` of FSL-VBM)
.npy, zarr     people x i x j x k                    on the grid of a mask that is given besides
.npy, zarr     people x voxels                       the voxels of that mask, in C order of its array
=============  ====================================  ====================================================

None of them is held whole: images are read one after the other, a compressed NIfTI file in one pass, a zarr array piece
by piece. zarr arrays are folders (version 2 or 3 of the format) or ``.zip`` files of such a folder.
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from brainlocus.core import AlignmentError, FormatError, Mask, SchemaError, Volume
from brainlocus.core.errors import import_extra
from brainlocus.io.nifti import is_nifti
from brainlocus.io.nifti_header import NiftiHeader, StoredImage, read_header

__all__ = ["ImageArray", "check_places", "is_image_array", "open_image_array", "read_image_array"]

_ZARR = ("zarr.json", ".zarray", ".zgroup")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class ImageArray:
    """What the header of an array says."""

    path: Path
    shape: tuple[int, ...]
    """People first, whatever the order in the file."""
    dtype: np.dtype[Any]
    together: int
    """Images that are stored in one piece: to read one of them is to read all."""
    piece_bytes: int
    """Memory of decoding one such piece; 0 where images lie apart."""
    header: NiftiHeader | None = None
    """Of NIfTI, which alone has an affine."""

    @property
    def n_images(self) -> int:
        """Number of people."""
        return self.shape[0]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as stored."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def is_stream(self) -> bool:
        """Whether an image can be read only after all before it."""
        return self.path.name.endswith(".nii.gz")


def is_image_array(path: Path) -> bool:
    """Return whether a path is, by its name and for NIfTI by its axes, one array of images.

    Raises
    ------
    FormatError
        A NIfTI file whose header cannot be read.
    """
    if is_nifti(path):
        return path.is_file() and len(read_header(path).shape) > 3
    return path.suffix in (".npy", ".npz") or _is_zarr(path)


def open_image_array(path: Path) -> ImageArray:
    """Return what an array's header says.

    Raises
    ------
    FormatError
        It cannot be read, has other axes than those above, an empty one, one person alone, or no real numbers.
    MissingExtraError
        A zarr array, without zarr-python.
    """
    found = _describe_nifti(path) if is_nifti(path) else _describe(path)
    if found.dtype.kind not in "iuf":
        raise FormatError(f"{path}: expected an array of real numbers, found {found.dtype}.")
    if len(found.shape) not in (2, 4):
        raise FormatError(
            f"{path}: expected people x voxels of the mask, or people x i x j x k, found the shape {found.shape}."
        )
    if min(found.shape) < 1:
        raise FormatError(f"{path}: the array is empty, its shape (people first) is {found.shape}.")
    if found.n_images < 2:
        raise FormatError(f"{path}: expected the images of two people or more, found one.")
    return found


def check_places(array: ImageArray, mask: Mask | None) -> None:
    """Check that it is known where an array's voxels lie.

    Raises
    ------
    SchemaError
        No mask is given to an array that has no affine.
    AlignmentError
        The array has other voxels than the mask, or another grid.
    """
    if array.header is not None:
        return
    if mask is None:
        raise SchemaError(f"{array.path}: an array does not say where its voxels lie. Give the mask too (--mask).")
    n_voxels, shape = int(mask.data.sum()), array.shape
    expected = (n_voxels,) if len(shape) == 2 else mask.data.shape
    if shape[1:] == expected:
        return
    wanted = " x ".join(map(str, expected))
    what = f"people x {wanted}" + (" (the voxels of the mask)" if len(shape) == 2 else " (the mask's grid)")
    hint = " People come first: turn the array." if shape[:-1] == expected else ""
    raise AlignmentError(f"{array.path}: expected {what}, found the shape {shape}.{hint}")


def read_image_array(
    array: ImageArray, numbers: Sequence[int], mask: Mask | None, *, at_once: int = 1
) -> Iterator[Volume]:
    """Yield images of an array; voxels outside the mask of an array of its voxels are NaN.

    Parameters
    ----------
    numbers
        Which images, from 0. In rising order every part of the file is read once.
    mask
        Needed for an array without an affine.
    at_once
        Most images that are held while a piece of several is read.

    Raises
    ------
    FormatError
        The array cannot be read any further.
    SchemaError, AlignmentError
        See `check_places`.
    """
    if array.header is not None:
        with closing(StoredImage(array.header)) as stored:
            for number in numbers:
                yield Volume(_scaled(stored.volume(number), array.header), array.header.affine, "grey_matter")
        return
    check_places(array, mask)
    assert mask is not None  # noqa: S101 - checked
    source = _open(array.path)
    for run in _runs(numbers, array.together, at_once):
        block = _read_block(array, source, run[0], run[-1] + 1)
        for number in run:
            yield Volume(_placed(block[number - run[0]], mask), mask.affine, "grey_matter")
        del block  # before the next one is read


def _is_zarr(path: Path) -> bool:
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / name).is_file() for name in _ZARR)
    return path.suffix == ".zip"


def _describe_nifti(path: Path) -> ImageArray:
    header = read_header(path)
    if len(header.shape) != 4:
        raise FormatError(f"{path}: expected i x j x k x people, found the shape {header.shape}.")
    return ImageArray(path, (header.shape[3], *header.shape[:3]), header.dtype, 1, 0, header)


def _describe(path: Path) -> ImageArray:
    source = _open(path)
    shape, dtype = tuple(int(n) for n in source.shape), np.dtype(source.dtype)
    together, piece_bytes = 1, 0
    if _is_zarr(path):
        together = int(source.chunks[0]) if shape else 1
        # Encoded, decoded, and on its way into the block.
        piece_bytes = 3 * math.prod(source.chunks) * dtype.itemsize
    elif source.flags.f_contiguous and not source.flags.c_contiguous:
        together = shape[0]  # stored voxel by voxel
    return ImageArray(path, shape, dtype, max(together, 1), piece_bytes)


def _open(path: Path) -> Any:
    """Return a memory map or a zarr array."""
    if _is_zarr(path):
        return _open_zarr(path)
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file. Expected an array of images.")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise FormatError(f"{path}: expected an array of numbers in a .npy file, cannot read it: {error}") from error
    if not isinstance(found, np.ndarray):
        raise FormatError(f"{path}: expected one array, found several in a .npz file. Save the images as a .npy file.")
    return found


def _open_zarr(path: Path) -> Any:
    zarr = import_extra("zarr", extra="zarr")
    try:
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        found = zarr.open(store=store, mode="r")
    except _UNREADABLE as error:
        raise FormatError(f"{path}: expected a zarr array, cannot read one: {error}") from error
    if isinstance(found, zarr.Group):
        names = ", ".join(sorted(found.array_keys())) or "none"
        raise FormatError(f"{path}: expected a zarr array, found a group of arrays ({names}). Give one, {path}/NAME.")
    return found


def _runs(numbers: Iterable[int], together: int, at_once: int) -> Iterator[list[int]]:
    """Yield rising numbers of one piece that span `at_once` images at most."""
    run: list[int] = []
    for number in numbers:
        if run and not (run[-1] < number < run[0] + at_once and number // together == run[0] // together):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _read_block(array: ImageArray, source: Any, start: int, stop: int) -> Shaped[np.ndarray, "..."]:
    try:
        if not _is_zarr(array.path):
            # Images that lie apart are read from the map itself; of voxels that lie together a block is copied.
            block: np.ndarray = source[start:stop]
            return block if array.together == 1 else np.ascontiguousarray(block)
        # One chunk at a time: ten are decoded side by side otherwise, and memory is ten times what was planned.
        with import_extra("zarr", extra="zarr").config.set({"async.concurrency": 1}):
            return np.asarray(source[start:stop])
    except _UNREADABLE as error:
        raise FormatError(f"{array.path}: images {start + 1} to {stop} cannot be read: {error}") from error


def _placed(values: Shaped[np.ndarray, "..."], mask: Mask) -> Float32[np.ndarray, "x y z"]:
    # Numbers beyond float32 become infinite, which whoever takes the image reports.
    with np.errstate(over="ignore"):
        if values.ndim == 3:
            return values.astype(np.float32)
        placed = np.full(mask.data.shape, np.nan, dtype=np.float32)
        placed[mask.data] = values
        return placed


def _scaled(stored: Shaped[np.ndarray, "x y z"], header: NiftiHeader) -> Float32[np.ndarray, "x y z"]:
    """Return the values of stored voxels, the same as of an image in a file of its own, slice by slice."""
    if not header.has_scaling or (header.slope, header.intercept) == (1.0, 0.0):
        return stored.astype(np.float32)
    scale = import_extra("nibabel.volumeutils", extra="imaging").apply_read_scaling
    values = np.empty(stored.shape, dtype=np.float32, order="F")
    for z in range(stored.shape[2]):
        values[..., z] = scale(stored[..., z], np.float64(header.slope), np.float64(header.intercept))
    return values
