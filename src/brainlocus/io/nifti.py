"""NIfTI files to volumes, masks and parcellations, and back.

Labels are read by world position only: axes are kept as stored, with their affine. A file is written under
a temporary name and then renamed; the bytes do not depend on the time of writing.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from brainlocus.core import FormatError, Mask, Parcellation, Volume
from brainlocus.core.errors import import_extra
from brainlocus.io.atomic import atomic_path
from brainlocus.io.tables import read_arrow

__all__ = [
    "is_nifti",
    "read_mask",
    "read_parcellation",
    "read_volume",
    "sidecar_path",
    "write_mask",
    "write_parcellation",
    "write_volume",
]

LABEL_TOLERANCE = 1e-3
"""Labels stored as floats may differ from an integer by this much (rounding of 32-bit scaling)."""


def is_nifti(path: Path) -> bool:
    """Return whether the name ends in ``.nii`` or ``.nii.gz``."""
    return path.name.endswith((".nii", ".nii.gz"))


def sidecar_path(path: Path) -> Path:
    """Return the JSON file that goes with an image: ``labels.nii.gz`` -> ``labels.json``.

    Examples
    --------
    >>> sidecar_path(Path("C32/labels.nii.gz")).name
    'labels.json'
    """
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def read_volume(
    path: Path, *, quantity: str = "", unit: str = "", dtype: type[np.floating[Any]] = np.float32
) -> Volume:
    """Read a three-dimensional image.

    Parameters
    ----------
    quantity, unit
        What the voxels hold; NIfTI does not say.
    dtype
        Type of the array in memory.

    Raises
    ------
    FormatError
        The file is absent, not NIfTI, truncated, not three-dimensional, or its scaling is not a number. NaN
        voxels are not an error here.
    """
    data, affine = _load(path, dtype)
    return Volume(data, affine, quantity, unit)


def read_mask(path: Path) -> Mask:
    """Read a mask: voxels above 0 count.

    Raises
    ------
    FormatError
        As for `read_volume`; or no voxel is above 0.
    """
    data, affine = _load(path, np.float32)
    inside = data > 0
    if not inside.any():
        raise FormatError(f"{path}: the mask is empty, expected voxels above 0. Check that it is the right file.")
    return Mask(inside, affine)


def read_parcellation(path: Path, *, lookup: Path | None = None) -> Parcellation:
    """Read labels, with their names from a lookup table where there is one.

    Labels stored as floats are rounded and kept in the smallest signed integer type; NaN is background.

    Parameters
    ----------
    lookup
        BIDS lookup table (``*_dseg.tsv``, columns ``index`` and ``name``). By default the image's own JSON sidecar
        (as `write_parcellation` writes it) or, failing that, the table of the same name.

    Raises
    ------
    FormatError
        As for `read_volume`; or a label is negative or not an integer; or the sidecar cannot be read.
    """
    data, affine = _load(path, np.float64)
    values = np.nan_to_num(data, nan=0.0, posinf=-1.0, neginf=-1.0)
    labels = np.rint(values)
    off = np.abs(values - labels) > LABEL_TOLERANCE
    if off.any() or labels.min() < 0:
        wrong = values[off][0] if off.any() else labels.min()
        raise FormatError(
            f"{path}: expected integer labels from 0 up, found {wrong:g} ({int(off.sum())} voxels are not integers). "
            "Is this a map instead of a parcellation?"
        )
    largest = int(labels.max(initial=0))
    kind = next(t for t in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(t).max)
    names = _read_lookup(lookup) if lookup is not None else _read_names(sidecar_path(path))
    beside = sidecar_path(path).with_suffix(".tsv")
    if not names and lookup is None and beside.is_file():
        names = _read_lookup(beside)
    return Parcellation(labels.astype(kind), affine, names)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image in the type it has in memory."""
    _save(volume.data, volume.affine, path)


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask as 8-bit integers."""
    _save(mask.data.astype(np.uint8), mask.affine, path)


def write_parcellation(parcellation: Parcellation, path: Path) -> None:
    """Write labels, and their names in a JSON sidecar: ``{"labels": {"1": "C32_1", ...}}``."""
    labels = parcellation.labels
    # NIfTI viewers read int16 and int32 everywhere; int8 and int64 not.
    kind = np.int16 if int(labels.max(initial=0)) <= np.iinfo(np.int16).max else np.int32
    _save(labels.astype(kind), parcellation.affine, path)
    names = {str(label): name for label, name in sorted(parcellation.names.items())}
    with atomic_path(sidecar_path(path)) as partial:
        partial.write_text(json.dumps({"labels": names}, indent=1) + "\n", encoding="utf-8")


def _load(path: Path, dtype: type[np.floating[Any]]) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    nibabel = import_extra("nibabel", extra="imaging")
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file. Expected a NIfTI image (.nii or .nii.gz).")
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: expected a NIfTI image, but the header cannot be read: {error}") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise FormatError(f"{path}: expected a single-file NIfTI image, found {type(image).__name__}.")
    shape = tuple(image.shape)
    if len(shape) != 3 and not (len(shape) > 3 and set(shape[3:]) == {1}):
        raise FormatError(f"{path}: expected a three-dimensional image, found shape {shape}. Split it into volumes.")
    _check_scaling(image, path)
    try:
        data = np.asarray(image.dataobj, dtype=dtype).reshape(shape[:3])
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise FormatError(f"{path}: the voxels cannot be read, the file is truncated or damaged: {error}") from error
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise FormatError(f"{path}: the affine is singular or not finite:\n{affine}")
    return data, affine


def _check_scaling(image: Any, path: Path) -> None:
    """Refuse a scaling that is not a number; nibabel would ignore it in silence."""
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        header = type(image.header).from_fileobj(file)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or (slope != 0 and not np.isfinite(intercept)):
        raise FormatError(
            f"{path}: scl_slope is {slope} and scl_inter {intercept}, expected numbers: "
            "the true values of the voxels are unknown. Write the image again with its scaling."
        )


def _save(data: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], path: Path) -> None:
    nibabel = import_extra("nibabel", extra="imaging")
    if not is_nifti(path):
        raise ValueError(f"Image names must end in .nii or .nii.gz, got {path.name!r}.")
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as partial:
        nibabel.save(image, partial)


def _read_lookup(path: Path) -> dict[int, str]:
    table = read_arrow(path)
    for needed in ("index", "name"):
        if needed not in table.column_names:
            raise FormatError(f"{path}: expected the columns index and name of a dseg.tsv, found {table.column_names}.")
    names: dict[int, str] = {}
    indices, called = table.column("index").to_pylist(), table.column("name").to_pylist()
    for line, (index, name) in enumerate(zip(indices, called, strict=True), 2):
        try:
            names[int(index)] = str(name)
        except ValueError:
            raise FormatError(f"{path}: expected a label number in line {line}, found {index!r}.") from None
    return names


def _read_names(sidecar: Path) -> dict[int, str]:
    if not sidecar.is_file():
        return {}
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8")).get("labels", {})
        return {int(label): str(name) for label, name in found.items()}
    except (ValueError, AttributeError) as error:
        raise FormatError(
            f'{sidecar}: expected {{"labels": {{"1": "name", ...}}}} beside the parcellation: {error}'
        ) from error
