"""What a NIfTI file says of itself, as stored: before any library has repaired, scaled or ignored it.

`read_header` reads the header alone; `read_stored` the voxels of one volume without their scaling, so that a reader may
judge both. Files whose header and size contradict each other are refused before memory is taken.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from brainlocus.core import FormatError, Grid
from brainlocus.core.errors import import_extra

__all__ = ["NiftiHeader", "StoredImage", "read_header"]

MAX_DEFLATE_RATIO = 1032
"""zlib cannot expand a byte to more than this (zlib technical details), so a smaller file is truncated."""

SPATIAL_UNITS = {0: "unknown", 1: "m", 2: "mm", 3: "um"}


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """Header of a single-file NIfTI-1 or NIfTI-2 image."""

    path: Path
    shape: tuple[int, ...]
    """Without trailing axes of length one beyond the third."""
    dtype: np.dtype[Any]
    """Type of the stored values."""
    offset: int
    """Byte at which the voxels begin."""
    slope: float
    intercept: float
    """As stored: slope may be 0 or NaN, which say that there is no scaling."""
    affine: Float[np.ndarray, "4 4"]
    """Sform, else qform, else voxel sizes with the centre at 0: the precedence of the NIfTI standard."""
    qform: Float[np.ndarray, "4 4"] | None
    """None where the qform code is 0."""
    sform_code: int
    qform_code: int
    voxel_size_mm: tuple[float, float, float]
    """``pixdim``, which need not agree with the affine, nor be numbers above 0."""
    spatial_unit: str
    """``mm``, ``m``, ``um``, ``unknown`` (not set), or ``code 5``."""

    @property
    def grid(self) -> Grid:
        """Shape of one volume, and affine."""
        return Grid((self.shape[0], self.shape[1], self.shape[2]), self.affine)

    @property
    def has_scaling(self) -> bool:
        """Whether slope and intercept are numbers that mean something."""
        return math.isfinite(self.slope) and self.slope != 0 and math.isfinite(self.intercept)


class StoredImage:
    """Voxels of a file as stored, volume by volume.

    A compressed file stays open between reads, so that volumes read in order are decompressed once; its checksum is
    verified when the last volume is read.
    """

    def __init__(self, header: NiftiHeader) -> None:
        self.header = header
        self._stream: gzip.GzipFile | None = None

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def volume(self, *index: int) -> Shaped[np.ndarray, "x y z"]:
        """Return one volume; `index` counts along the axes after the third.

        Raises
        ------
        FormatError
            The file is truncated or damaged.
        """
        header = self.header
        further = header.shape[3:]
        number = int(np.ravel_multi_index(index, further, order="F")) if further else 0
        size = math.prod(header.shape[:3])
        start = header.offset + number * size * header.dtype.itemsize
        try:
            if header.path.name.endswith(".gz"):
                is_last = number + 1 == math.prod(further)
                flat = np.frombuffer(self._read(start, size * header.dtype.itemsize, is_last), dtype=header.dtype)
            else:
                flat = np.memmap(header.path, dtype=header.dtype, mode="r", offset=start, shape=(size,))
            return flat.reshape(header.shape[:3], order="F")
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise FormatError(
                f"{header.path}: the voxels cannot be read, the file is truncated or damaged: {error}"
            ) from error

    def _read(self, start: int, length: int, is_last: bool) -> bytes:
        if self._stream is None:
            self._stream = gzip.open(self.header.path, "rb")  # noqa: SIM115 - kept open for the next volume
        self._stream.seek(start)
        content = self._stream.read(length)
        if is_last:
            while self._stream.read(1 << 20):  # what follows the voxels, and then the checksum
                pass
        return content


def read_header(path: Path) -> NiftiHeader:
    """Read the header of an image.

    Raises
    ------
    FormatError
        The file is absent, not single-file NIfTI, shorter than its header says, not of real numbers, has fewer than
        three axes or an empty one, or an affine that is singular or not finite.
    """
    nibabel = import_extra("nibabel", extra="imaging")
    image_errors = import_extra("nibabel.spatialimages", extra="imaging")
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file. Expected a NIfTI image (.nii or .nii.gz).")
    try:
        with np.errstate(all="ignore"):
            image = nibabel.load(path)
            if not isinstance(image, nibabel.Nifti1Image):
                raise FormatError(f"{path}: expected a single-file NIfTI image, found {type(image).__name__}.")
            with image.file_map["image"].get_prepare_fileobj("rb") as file:
                raw = type(image.header).from_fileobj(file, check=False)
            return _checked(path, image, raw)
    except (
        nibabel.filebasedimages.ImageFileError,
        image_errors.HeaderDataError,
        image_errors.ImageDataError,
        gzip.BadGzipFile,
        EOFError,
        KeyError,
        OSError,
        OverflowError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise FormatError(f"{path}: expected a NIfTI image, but the header cannot be read: {error}") from error


def _checked(path: Path, image: Any, raw: Any) -> NiftiHeader:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3 or min(shape) < 1:
        raise FormatError(f"{path}: expected a three-dimensional image with voxels along every axis, found {shape}.")
    dtype = np.dtype(image.dataobj.dtype)
    if dtype.kind not in "iuf":
        what = "complex numbers: write magnitude and phase as two images" if dtype.kind == "c" else str(dtype)
        raise FormatError(f"{path}: expected an image of real numbers, found {what}.")
    offset = int(image.dataobj.offset)
    _check_size(path, offset + math.prod(shape) * dtype.itemsize)
    sizes = [float(v) for v in np.abs(raw["pixdim"][1:4])]
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise FormatError(f"{path}: the affine is singular or not finite:\n{affine}")
    sform_code, qform_code = int(raw["sform_code"]), int(raw["qform_code"])
    qform = np.asarray(image.header.get_qform(), dtype=np.float64) if qform_code else None
    unit = int(raw["xyzt_units"]) & 7
    return NiftiHeader(
        path,
        shape,
        dtype,
        offset,
        float(raw["scl_slope"]),
        float(raw["scl_inter"]),
        affine,
        qform,
        sform_code,
        qform_code,
        (sizes[0], sizes[1], sizes[2]),
        SPATIAL_UNITS.get(unit, f"code {unit}"),
    )


def _check_size(path: Path, needed: int) -> None:
    size = path.stat().st_size
    if needed > size * (MAX_DEFLATE_RATIO if path.name.endswith(".gz") else 1):
        raise FormatError(
            f"{path}: the header tells of {needed} bytes, but the file has {size}: it is truncated or damaged. "
            "Copy or convert it again."
        )
