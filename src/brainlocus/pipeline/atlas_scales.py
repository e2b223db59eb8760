"""The scales of an atlas from label files: what the commands on finished atlases share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from brainlocus.core import FormatError, Grid, Parcellation, SchemaError, check_same_grid
from brainlocus.images.atlas import component_name
from brainlocus.io import read_parcellation

__all__ = ["AtlasScale", "label_files", "read_scales"]


@dataclass(frozen=True, slots=True, eq=False)
class AtlasScale:
    """One scale of an atlas and where it was read."""

    path: Path
    scale: int
    """Number of parcels, vanished ones included."""
    parcellation: Parcellation
    """With a name for every parcel from 1 to `scale`."""

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return self.parcellation.grid


def label_files(path: Path) -> tuple[Path, ...]:
    """Return a labels file, or those of a folder of ``atlas fit`` from coarse to fine.

    Raises
    ------
    FormatError
        The folder has none.
    """
    if not path.is_dir():
        return (path,)
    found = [p for p in path.glob("C*/labels.nii.gz") if p.parent.name[1:].isdigit()]
    if not found:
        raise FormatError(f"{path}: expected C*/labels.nii.gz below the folder, found none. Give a labels file.")
    return tuple(sorted(found, key=lambda p: int(p.parent.name[1:])))


def read_scales(paths: Sequence[Path], *, what: str, least: int = 1) -> list[AtlasScale]:
    """Return the scales of an atlas, from coarse to fine, all on one grid.

    The number of a scale is that of its name (``C32/labels.nii.gz``, ``MuSIC_C32.nii.gz``) where no label is larger,
    else the largest label that occurs or has a name.

    Parameters
    ----------
    paths
        Label files and folders of ``atlas fit``.
    what
        What the command calls them, for messages.
    least
        Fewest scales.

    Raises
    ------
    FormatError
        A file holds no labels, or none but background.
    AlignmentError
        Another grid than the first.
    SchemaError
        Too few scales, or two of the same number.
    """
    files = [file for path in paths for file in label_files(path)]
    scales = sorted((_read_scale(file) for file in files), key=lambda s: s.scale)
    for one in scales[1:]:
        check_same_grid(one.grid, scales[0].grid, what=str(one.path))
    for first, second in pairwise(scales):
        if first.scale == second.scale:
            raise SchemaError(
                f"{what}: expected different scales, found {first.path} and {second.path} both with {first.scale} "
                "parcels. Give each scale once."
            )
    if len(scales) < least:
        raise SchemaError(
            f"{what}: expected {least} scales or more, found {len(scales)} ({', '.join(str(s.path) for s in scales)}). "
            "Give a folder of atlas fit with several scales, or several label files."
        )
    return scales


def _read_scale(path: Path) -> AtlasScale:
    parcellation = read_parcellation(path)
    largest = int(parcellation.labels.max(initial=0))
    if not largest:
        raise FormatError(f"{path}: expected labels from 1 up, found background only. Check that it is the right file.")
    named = re.fullmatch(r"(?:.*_)?C(\d+)", path.name.removesuffix(".gz").removesuffix(".nii"))
    named = named or re.fullmatch(r"C(\d+)", path.parent.name)
    scale = int(named[1]) if named and int(named[1]) >= largest else max(largest, *parcellation.names, 0)
    names = {k: parcellation.names.get(k, component_name(scale, k)) for k in range(1, scale + 1)}
    return AtlasScale(path, scale, Parcellation(parcellation.labels, parcellation.affine, names))
