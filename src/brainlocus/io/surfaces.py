"""Surface meshes and their labels: GIFTI, FreeSurfer's own formats, and lists of numbers.

Labels of both hemispheres come as two files, left first, or as one list of numbers, left then right::

    lh.aparc.annot, rh.aparc.annot              FreeSurfer, with names
    lh.label.gii, rh.label.gii                  GIFTI, with names
    aparc_fsa5.csv                              a number a vertex; names by a table of codes
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from brainlocus.core.errors import FormatError, SchemaError, import_extra
from brainlocus.core.surfaces import HEMISPHERES, Hemisphere, Surface, SurfaceLabels
from brainlocus.io.arrow_tables import read_arrow

__all__ = ["SurfaceKind", "read_fsaverage5", "read_label_codes", "read_surface", "read_surface_labels"]

SurfaceKind = Literal["inflated", "pial", "white"]
_NILEARN = {"inflated": "infl", "pial": "pial", "white": "white"}
_NO_REGION = frozenset({"", "unknown", "???", "corpuscallosum", "medial_wall", "medialwall", "none"})
"""Names that FreeSurfer's parcellations give to what is not cortex."""
_TEXT = (".csv", ".txt", ".tsv", ".1d")


def read_surface(path: Path) -> Surface:
    """Return a mesh: GIFTI (``.gii``, ``.gii.gz``), else FreeSurfer geometry (``lh.pial``).

    Raises
    ------
    FormatError
        Missing, or neither.
    """
    if not path.is_file():
        raise FormatError(f"Surface: expected a mesh at {path}, found nothing. Check the path.")
    try:
        if ".gii" in path.suffixes:
            image: Any = import_extra("nibabel", extra="imaging").load(path)
            points = image.agg_data("NIFTI_INTENT_POINTSET")
            faces = image.agg_data("NIFTI_INTENT_TRIANGLE")
        else:
            freesurfer: Any = import_extra("nibabel.freesurfer", extra="imaging")
            points, faces = freesurfer.read_geometry(str(path))
        vertices, triangles = np.asarray(points, dtype=np.float64), np.asarray(faces, dtype=np.int64)
        if vertices.ndim != 2 or triangles.ndim != 2 or vertices.shape[1] != 3 or triangles.shape[1] != 3:
            raise ValueError(f"points of {vertices.shape} and faces of {triangles.shape}")
        return Surface(vertices, triangles)
    except (ValueError, OSError, EOFError, IndexError, KeyError, *_broken_file_errors()) as error:
        raise FormatError(f"{path}: expected a surface mesh (GIFTI or FreeSurfer), found {error}.") from error


def _broken_file_errors() -> tuple[type[Exception], ...]:
    from xml.parsers.expat import ExpatError

    filebasedimages: Any = import_extra("nibabel.filebasedimages", extra="imaging")
    return ExpatError, filebasedimages.ImageFileError


def read_fsaverage5(kind: SurfaceKind) -> tuple[Surface, Surface]:
    """Return the left and right fsaverage5 meshes that nilearn brings along."""
    datasets: Any = import_extra("nilearn.datasets", extra="imaging")
    paths = datasets.fetch_surf_fsaverage("fsaverage5")
    left, right = (read_surface(Path(paths[f"{_NILEARN[kind]}_{side}"])) for side in ("left", "right"))
    return left, right


def read_label_codes(path: Path) -> dict[int, str]:
    """Return what the codes of a list of labels mean, from a table with columns ``code`` and ``label``.

    Raises
    ------
    FormatError, SchemaError
        Not such a table, a code that is no whole number, or one twice.
    """
    table = read_arrow(path)
    for name in ("code", "label"):
        if name not in table.column_names:
            raise SchemaError(f"{path}: expected columns code and label, found {', '.join(table.column_names)}.")
    found: dict[int, str] = {}
    pairs = zip(table.column("code").to_pylist(), table.column("label").to_pylist(), strict=True)
    for line, (code, label) in enumerate(pairs, 2):
        try:
            number = int(str(code))
        except ValueError:
            raise FormatError(f"{path}, line {line}: expected a whole number as code, found {code!r}.") from None
        if number in found:
            raise SchemaError(f"{path}, line {line}: code {number} is there twice.")
        found[number] = str(label or "").strip()
    return found


def read_surface_labels(
    paths: Sequence[Path], *, codes: Mapping[int, str] | None = None
) -> tuple[SurfaceLabels, SurfaceLabels]:
    """Return the labels of the left and the right hemisphere.

    Parameters
    ----------
    paths
        Left and right, or one list of numbers for both.
    codes
        Names of the codes of lists of numbers, with or without ``lh_`` or ``rh_`` before them.

    Raises
    ------
    FormatError, SchemaError
        Not readable; the hemispheres are in the other order; numbers without names; a name of the other hemisphere.
    """
    if len(paths) == 1 and _is_list(paths[0]):
        numbers = _read_numbers(paths[0])
        if numbers.size % 2:
            raise FormatError(f"{paths[0]}: expected as many labels left as right, found {numbers.size} in all.")
        halves = np.split(numbers, 2)
        left, right = (_coded(half, codes, side, paths[0]) for half, side in zip(halves, HEMISPHERES, strict=True))
        return left, right
    if len(paths) != 2:
        raise SchemaError(
            f"Labels: expected two files, left and right, or one list of numbers for both, found {len(paths)} files."
        )
    for path, other in zip(paths, ("rh", "lh"), strict=True):
        if path.name.lower().startswith(f"{other}."):
            raise SchemaError(f"Labels: expected left, then right, found {paths[0].name}, {paths[1].name}.")
    left, right = (_one_side(path, codes, side) for path, side in zip(paths, HEMISPHERES, strict=True))
    return left, right


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in _TEXT


def _read_numbers(path: Path) -> Int[np.ndarray, " vertices"]:
    if not path.is_file():
        raise FormatError(f"Labels: expected a file at {path}, found nothing. Check the path.")
    try:
        words = path.read_text(encoding="utf-8-sig").replace(",", " ").split()
        values = np.array(words, dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: expected a whole number a vertex, found {error}.") from None
    if not values.size or not np.array_equal(values, np.rint(values)):
        raise FormatError(f"{path}: expected a whole number a vertex, found {values.size} values.")
    return values.astype(np.int64)


def _coded(
    numbers: Int[np.ndarray, " vertices"], codes: Mapping[int, str] | None, side: Hemisphere, path: Path
) -> SurfaceLabels:
    if codes is None:
        raise SchemaError(f"{path}: a list of numbers needs a table of what they mean (columns code, label).")
    present = np.unique(numbers)
    unknown = [int(code) for code in present if code != 0 and int(code) not in codes]
    if unknown:
        some = ", ".join(map(str, unknown[:5]))
        raise SchemaError(f"{path}: {len(unknown)} codes of the {side} have no name in the table: {some}.")
    names = {int(code): codes[int(code)] for code in present if int(code) in codes}
    return SurfaceLabels(numbers, _named(names, side, path))


def _named(names: Mapping[int, str], side: Hemisphere, path: Path) -> dict[int, str]:
    """Return names with their hemisphere before them, without those of no region."""
    other = "rh_" if side == "lh" else "lh_"
    found = {}
    for code, name in names.items():
        if name.startswith(other):
            raise SchemaError(f"{path}: a vertex of the {side} has the label {name}. Are left and right swapped?")
        plain = name.removeprefix(f"{side}_")
        if plain.lower() not in _NO_REGION:
            found[int(code)] = f"{side}_{plain}"
    return found


def _one_side(path: Path, codes: Mapping[int, str] | None, side: Hemisphere) -> SurfaceLabels:
    if _is_list(path):
        return _coded(_read_numbers(path), codes, side, path)
    if not path.is_file():
        raise FormatError(f"Labels: expected a file at {path}, found nothing. Check the path.")
    try:
        if ".gii" in path.suffixes:
            image: Any = import_extra("nibabel", extra="imaging").load(path)
            code = np.asarray(image.darrays[0].data, dtype=np.int64).ravel()
            names = {int(k): str(v) for k, v in image.labeltable.get_labels_as_dict().items()}
        else:
            freesurfer: Any = import_extra("nibabel.freesurfer", extra="imaging")
            labels, _, texts = freesurfer.read_annot(str(path))
            code = np.asarray(labels, dtype=np.int64)
            names = {k: text.decode("utf-8") for k, text in enumerate(texts)}
    except (ValueError, OSError, EOFError, IndexError, KeyError, AttributeError, *_broken_file_errors()) as error:
        raise FormatError(f"{path}: expected labels (.annot, .label.gii or a list of numbers): {error}.") from error
    return SurfaceLabels(code, _named(names, side, path))
