"""NIfTI files to volumes, masks and parcellations, and back.

Labels are read by world position only: axes are kept as stored, with their affine. A file is written under
a temporary name and then renamed; the bytes do not depend on the time of writing.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from brainlocus._version import __version__
from brainlocus.core import FormatError, Mask, Parcellation, Volume
from brainlocus.core.errors import import_extra
from brainlocus.io.atomic import atomic_path
from brainlocus.io.label_names import read_label_table
from brainlocus.io.nifti_header import NiftiHeader, read_header

__all__ = [
    "is_nifti",
    "read_mask",
    "read_parcellation",
    "read_volume",
    "sidecar_path",
    "write_dataset_description",
    "write_derivative",
    "write_mask",
    "write_parcellation",
    "write_volume",
]

BIDS_VERSION = "1.10.0"
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
        The file is absent, not NIfTI, truncated, not three-dimensional, or has a slope without an intercept (a
        slope of 0 or NaN says that the values are as stored). NaN voxels are not an error here.
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
        File of names, in any form of `brainlocus.io.read_label_table`. By default the image's own JSON sidecar
        (as `write_parcellation` writes it) or, failing that, the BIDS table of the same name (``*_dseg.tsv``).

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
    names = read_label_table(lookup) if lookup is not None else _read_names(sidecar_path(path))
    beside = sidecar_path(path).with_suffix(".tsv")
    if not names and lookup is None and beside.is_file():
        names = read_label_table(beside)
    return Parcellation(labels.astype(kind), affine, names)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image in the type it has in memory."""
    _save(volume.data, volume.affine, path)


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask as 8-bit integers."""
    _save(mask.data.astype(np.uint8), mask.affine, path)


def write_parcellation(parcellation: Parcellation, path: Path) -> None:
    """Write labels, and a JSON sidecar: ``{"labels": {"1": "C32_1", ...}, "vanished": ["C32_7", ...]}``.

    Names without a voxel are listed as vanished, where there are any.
    """
    _save(_compact(parcellation), parcellation.affine, path)
    content: dict[str, Any] = {"labels": {str(k): name for k, name in sorted(parcellation.names.items())}}
    present = set(np.unique(parcellation.labels).tolist())
    vanished = [name for k, name in sorted(parcellation.names.items()) if k and k not in present]
    if vanished:
        content["vanished"] = vanished
    with atomic_path(sidecar_path(path)) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_derivative(
    image: Volume | Mask | Parcellation, path: Path, sidecar: Mapping[str, Any], *, like: NiftiHeader | None = None
) -> None:
    """Write an image with its JSON sidecar, as BIDS derivatives are.

    The sidecar is written first, so that an image that is there has one. Equal images give equal bytes.

    Parameters
    ----------
    image
        A volume is written as 32-bit floats with its quantity as the intent's name, a mask as 8-bit integers, labels as
        8-, 16- or 32-bit integers.
    sidecar
        Keys of BIDS and of ours. Numbers that are not finite become null, paths text; the unit of a volume is added as
        ``Units``.
    like
        Header of the image that this one was computed from: orientation codes and qform are kept. Without it sform and
        qform are both set, in scanner coordinates.
    """
    data: Shaped[np.ndarray, "x y z"]
    content = dict(sidecar)
    if isinstance(image, Volume):
        data, intent, name = image.data.astype(np.float32, copy=False), "estimate", image.quantity
        content = {**({"Units": image.unit} if image.unit else {}), **content}
    elif isinstance(image, Mask):
        data, intent, name = image.data.astype(np.uint8), "label", "mask"
    else:
        data, intent, name = _compact(image), "label", "labels"
    with atomic_path(sidecar_path(path)) as partial:
        partial.write_text(_json(content), encoding="utf-8")
    _save(data, image.affine, path, intent=(intent, name[:15]), like=like, scanner=True)


def write_dataset_description(
    folder: Path,
    *,
    name: str,
    dataset_type: str = "derivative",
    generated_by: Sequence[Mapping[str, Any]] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write ``dataset_description.json`` of a BIDS dataset.

    Parameters
    ----------
    dataset_type
        ``raw`` or ``derivative``.
    generated_by
        Entries of ``GeneratedBy`` besides brainlocus and its version, which always comes first.
    more
        Further keys: ``SourceDatasets``, ``HowToAcknowledge`` ...
    """
    content = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": dataset_type,
        "GeneratedBy": [{"Name": "brainlocus", "Version": __version__}, *generated_by],
        **(more or {}),
    }
    with atomic_path(folder / "dataset_description.json") as partial:
        partial.write_text(_json(content), encoding="utf-8")


def _compact(parcellation: Parcellation) -> Integer[np.ndarray, "x y z"]:
    """Return labels in the smallest type that NIfTI viewers read everywhere, as they do not int8 and int64."""
    labels = parcellation.labels
    largest = int(labels.max(initial=0))
    return labels.astype(next(t for t in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(t).max))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Return what JSON can hold: numbers that are not finite become None, NumPy and paths become plain."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _load(path: Path, dtype: type[np.floating[Any]]) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    header = read_header(path)
    if len(header.shape) != 3:
        raise FormatError(
            f"{path}: expected a three-dimensional image, found shape {header.shape}. Split it into volumes."
        )
    image = import_extra("nibabel", extra="imaging").load(path)
    try:
        data = np.asarray(image.dataobj, dtype=dtype).reshape(header.shape)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise FormatError(f"{path}: the voxels cannot be read, the file is truncated or damaged: {error}") from error
    return data, header.affine


def _save(
    data: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    path: Path,
    *,
    intent: tuple[str, str] | None = None,
    like: NiftiHeader | None = None,
    scanner: bool = False,
) -> None:
    nibabel = import_extra("nibabel", extra="imaging")
    if not is_nifti(path):
        raise ValueError(f"Image names must end in .nii or .nii.gz, got {path.name!r}.")
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    if intent is not None:
        image.header.set_intent(intent[0], name=intent[1])
    if like is not None:
        image.set_qform(affine if like.qform is None else like.qform, code=like.qform_code)
        image.set_sform(affine, code=like.sform_code)
    elif scanner:
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
    with atomic_path(path) as partial:
        nibabel.save(image, partial)


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
