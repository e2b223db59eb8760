"""Names of brain structures: what FreeSurfer, FIRST and BIDS label images call them, and what we call them.

A region is ``left_putamen``: side and structure. Label images say which number is which by names (a ``dseg.tsv``: any
order of side and structure, FreeSurfer's ``Left-Putamen`` or FIRST's ``L_Puta``) or, without names, by the numbers that
FreeSurfer's ``aseg`` and FSL's FIRST share (FreeSurferColorLUT.txt).
"""

import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from brainlocus.core import FormatError, Mask, Parcellation, check_same_grid

__all__ = [
    "REGIONS",
    "STRUCTURES",
    "add_regions",
    "canonical_name",
    "choroid_plexus",
    "lateral_ventricles",
    "region_labels",
    "white_matter",
]

STRUCTURES = (
    "accumbens",
    "amygdala",
    "caudate",
    "hippocampus",
    "pallidum",
    "putamen",
    "substantia_nigra",
    "thalamus",
)
REGIONS = tuple(f"{side}_{structure}" for structure in STRUCTURES for side in ("left", "right"))
"""The sixteen regions of the UK Biobank measures (Wang et al. 2022)."""

_WORDS = {
    "accumbens": ("accumbens", "accu", "nac", "nacc"),
    "amygdala": ("amygdala", "amyg"),
    "caudate": ("caudate", "caud"),
    "hippocampus": ("hippocampus", "hipp", "hippo"),
    "pallidum": ("pallidum", "pallidus", "pall"),
    "putamen": ("putamen", "puta", "put"),
    "substantia_nigra": ("nigra", "sn"),
    "thalamus": ("thalamus", "thal", "tha"),
    "red_nucleus": ("red",),
    "dentate": ("dentate",),
}
_SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}
_HARMLESS = frozenset(("area", "proper", "nucleus", "nuclei", "nucl", "globus", "substantia", "hemisphere", "first"))
"""Words a structure's name may have besides; any other means that the label is something else (a subfield, cortex)."""

_FREESURFER = {
    10: "left_thalamus",
    11: "left_caudate",
    12: "left_putamen",
    13: "left_pallidum",
    17: "left_hippocampus",
    18: "left_amygdala",
    26: "left_accumbens",
    49: "right_thalamus",
    50: "right_caudate",
    51: "right_putamen",
    52: "right_pallidum",
    53: "right_hippocampus",
    54: "right_amygdala",
    58: "right_accumbens",
}
_VENTRICLES, _CHOROID = (4, 43), (31, 63)
_WHITE_MATTER = (2, 41)
_TISSUE_NAMES = {
    2: "left_cerebral_white_matter",
    4: "left_lateral_ventricle",
    31: "left_choroid_plexus",
    41: "right_cerebral_white_matter",
    43: "right_lateral_ventricle",
    63: "right_choroid_plexus",
}
_UNNAMED_OTHERS = frozenset(
    (2, 3, 4, 5, 7, 8, 14, 15, 16, 24, 28, 30, 31, 41, 42, 43, 44, 46, 47, 60, 62, 63, 72, 77, 80, 85)
)
"""Further labels of ``aseg``; with `_FREESURFER` enough to tell such an image from one of other numbers."""


def canonical_name(name: str) -> str:
    """Return ``left_putamen`` for any usual spelling of it, ``""`` for what is none of the known structures.

    Examples
    --------
    >>> canonical_name("Left-Thalamus-Proper"), canonical_name("R_Puta"), canonical_name("Left-Cerebral-Cortex")
    ('left_thalamus', 'right_putamen', '')
    """
    words = [word for word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]
    sides = {_SIDES[word] for word in words if word in _SIDES}
    structures = {key for key, known in _WORDS.items() for word in words if word in known}
    known_words = {word for known in _WORDS.values() for word in known}
    strange = [word for word in words if word not in known_words and word not in _SIDES and word not in _HARMLESS]
    if len(sides) != 1 or len(structures) != 1 or strange:
        return ""
    return f"{sides.pop()}_{structures.pop()}"


def region_labels(parcellation: Parcellation, regions: Iterable[str] = REGIONS) -> dict[str, int]:
    """Return the label of every wanted region that the parcellation knows, in the order wanted.

    Raises
    ------
    FormatError
        None is known, or two labels have one region's name.
    """
    found: dict[str, int] = {}
    for label, name in sorted(_names(parcellation).items()):
        if not name:
            continue
        if name in found:
            raise FormatError(f"Labels {found[name]} and {label} are both called {name}; expected one label a region.")
        found[name] = label
    wanted = {name: found[name] for name in regions if name in found}
    if not wanted:
        shown = list(parcellation.names.values())[:6] or np.unique(parcellation.labels)[:12].tolist()
        raise FormatError(
            "The label image has none of the subcortical regions. Expected names such as 'Left-Putamen' in its "
            f"dseg.tsv, or FreeSurfer's numbers (12 left putamen, 51 right); found {shown}."
        )
    return wanted


def add_regions(parcellation: Parcellation, others: Parcellation) -> Parcellation:
    """Return a parcellation with the regions of another one drawn over it, such as an atlas's substantia nigra.

    The added labels get new numbers, so that both keep their names.

    Raises
    ------
    AlignmentError
        The other lies on another grid.
    FormatError
        A region is in both.
    """
    check_same_grid(others.grid, parcellation.grid, what="The added label image")
    # The result has names, so that what was known by its number alone needs one now.
    known = _names(parcellation)
    usual = parcellation.names or (_TISSUE_NAMES if any(known.values()) else {})
    names = {label: name or usual.get(label, "") for label, name in known.items()}
    first = 1 + max(int(parcellation.labels.max(initial=0)), max(parcellation.names, default=0))
    labels: Int[np.ndarray, "x y z"] = parcellation.labels.astype(np.int32)
    for number, (label, name) in enumerate(sorted(_names(others).items())):
        called = name or others.names.get(label, f"added_{label}")
        if called in names.values():
            raise FormatError(f"Both label images have {called}; expected it in one. Remove it from the other.")
        names[first + number] = called
        labels[others.labels == label] = first + number
    return Parcellation(labels, parcellation.affine, {label: name for label, name in names.items() if name})


def lateral_ventricles(parcellation: Parcellation) -> Mask:
    """Return the lateral ventricles without their choroid plexus, empty where the parcellation has none."""
    return _found(parcellation, _VENTRICLES, ("lateral", "ventricle"), ("inf", "inferior", "temp", "temporal"))


def choroid_plexus(parcellation: Parcellation) -> Mask:
    """Return the choroid plexus, empty where the parcellation has none."""
    return _found(parcellation, _CHOROID, ("choroid", "plexus"), ())


def white_matter(parcellation: Parcellation) -> Mask:
    """Return the cerebral white matter, empty where the parcellation has none."""
    return _found(parcellation, _WHITE_MATTER, ("white", "matter"), ("cerebellum", "cerebellar", "hypointensities"))


def _names(parcellation: Parcellation) -> dict[int, str]:
    """Return the canonical name (or ``""``) of every label, by its name or, where there are none, its number."""
    present = [int(label) for label in np.unique(parcellation.labels) if label > 0]
    if parcellation.names:
        return {label: canonical_name(parcellation.names.get(label, "")) for label in {*present, *parcellation.names}}
    known = {*_FREESURFER, *_UNNAMED_OTHERS}
    # Parcellations of other kinds number their parcels from 1; of aseg most voxels' labels are known here.
    usual = {label for label in present if label < 100}
    if usual and not usual <= known:
        return dict.fromkeys(present, "")
    return {label: _FREESURFER.get(label, "") for label in present}


def _found(
    parcellation: Parcellation, numbers: tuple[int, ...], words: tuple[str, ...], without: tuple[str, ...]
) -> Mask:
    if parcellation.names:
        split = {label: re.split(r"[^a-z]+", name.lower()) for label, name in parcellation.names.items()}
        numbers = tuple(
            label
            for label, parts in split.items()
            if all(any(part.startswith(word) for part in parts) for word in words)
            and not any(part in without for part in parts)
        )
    return Mask(np.isin(parcellation.labels, numbers), parcellation.affine)
