"""Values of regions on the cortex: which region a name means, and which a face of the mesh belongs to.

Names of regions are looked up in tables, never taken apart: a name that is in none has no place on the map, and is
reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from brainlocus.core.surfaces import Surface, SurfaceLabels

__all__ = [
    "DESIKAN_KILLIANY",
    "SUBCORTEX",
    "RegionMatches",
    "border_edges",
    "desikan_killiany_codes",
    "enigma_regions",
    "face_codes",
    "face_values",
    "match_regions",
    "subcortical_labels",
]

DESIKAN_KILLIANY = (
    "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "corpuscallosum", "cuneus", "entorhinal", "fusiform",
    "inferiorparietal", "inferiortemporal", "isthmuscingulate", "lateraloccipital", "lateralorbitofrontal", "lingual",
    "medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral", "parsopercularis", "parsorbitalis",
    "parstriangularis", "pericalcarine", "postcentral", "posteriorcingulate", "precentral", "precuneus",
    "rostralanteriorcingulate", "rostralmiddlefrontal", "superiorfrontal", "superiorparietal", "superiortemporal",
    "supramarginal", "frontalpole", "temporalpole", "transversetemporal", "insula",
)  # fmt: skip
"""Labels of FreeSurfer's aparc (Desikan et al. 2006) in the order of its table of colours, where 0 is unknown."""

SUBCORTEX = (
    "Accumbens-area", "Amygdala", "Caudate", "Hippocampus", "Pallidum", "Putamen", "Thalamus-Proper", "VentralDC",
    "Lateral-Ventricle", "Inf-Lat-Vent", "Cerebellum-Cortex", "Cerebellum-White-Matter",
)  # fmt: skip
"""Structures of FreeSurfer's aseg that each side has, without ``Left-`` or ``Right-``."""

_MIDLINE = (
    "Brain-Stem", "3rd-Ventricle", "4th-Ventricle", "CC_Posterior", "CC_Mid_Posterior", "CC_Central", "CC_Mid_Anterior",
    "CC_Anterior",
)  # fmt: skip
_ENIGMA_SUBCORTEX = {
    "accumb": "Accumbens-area", "amyg": "Amygdala", "caud": "Caudate", "hippo": "Hippocampus", "pal": "Pallidum",
    "put": "Putamen", "thal": "Thalamus-Proper", "LatVent": "Lateral-Ventricle",
}  # fmt: skip


def desikan_killiany_codes() -> dict[int, str]:
    """Return the codes of ENIGMA's fsaverage5 labels: 1 to 35 left, 36 to 70 right, in the order of FreeSurfer."""
    n = len(DESIKAN_KILLIANY)
    left = {k + 1: f"lh_{name}" for k, name in enumerate(DESIKAN_KILLIANY)}
    return left | {k + 1 + n: f"rh_{name}" for k, name in enumerate(DESIKAN_KILLIANY)}


def subcortical_labels() -> tuple[str, ...]:
    """Return the aseg labels that the panel of bars can show."""
    return (*(f"{side}-{name}" for side in ("Left", "Right") for name in SUBCORTEX), *_MIDLINE)


def enigma_regions() -> dict[str, str]:
    """Return the labels of the names in ENIGMA's tables: ``L_bankssts``, ``Laccumb``, ``RLatVent`` ...."""
    found: dict[str, str] = {}
    for letter, side, hemisphere in (("L", "Left", "lh"), ("R", "Right", "rh")):
        found |= {f"{letter}_{name}": f"{hemisphere}_{name}" for name in DESIKAN_KILLIANY if name != "corpuscallosum"}
        found |= {f"{letter}{short}": f"{side}-{name}" for short, name in _ENIGMA_SUBCORTEX.items()}
    return found


@dataclass(frozen=True, slots=True, eq=False)
class RegionMatches:
    """What became of names, in their order."""

    label: tuple[str, ...]
    """Label on the map; empty where there is none."""
    matched: Bool[np.ndarray, " names"]


def match_regions(names: Sequence[str], table: Mapping[str, str], known: frozenset[str]) -> RegionMatches:
    """Return the label of every name: the name itself where it is one, else what the table says it is.

    Parameters
    ----------
    known
        Labels of the map. A label that the table gives but the map lacks does not match.
    """
    labels = tuple(name if name in known else table.get(name, "") for name in names)
    return RegionMatches(labels, np.array([label in known for label in labels], dtype=bool))


def face_codes(surface: Surface, labels: SurfaceLabels) -> Int64[np.ndarray, " faces"]:
    """Return the code of every face: that of two of its vertices or more, of the first where all three differ."""
    corner = np.asarray(labels.code, dtype=np.int64)[surface.faces]
    code: Int64[np.ndarray, " faces"] = np.where(corner[:, 1] == corner[:, 2], corner[:, 1], corner[:, 0])
    return code


def face_values(
    codes: Int[np.ndarray, " faces"], names: Mapping[int, str], values: Mapping[str, float]
) -> tuple[Float64[np.ndarray, " faces"], Bool[np.ndarray, " faces"]]:
    """Return the value of every face (NaN: none), and whether it lies in a region at all."""
    found = np.full(codes.shape, np.nan)
    inside = np.zeros(codes.shape, dtype=bool)
    for code, name in names.items():
        chosen = codes == code
        inside |= chosen
        if name in values:
            found[chosen] = values[name]
    return found, inside


def border_edges(
    surface: Surface, codes: Int[np.ndarray, " faces"]
) -> tuple[Int64[np.ndarray, "edges 2"], Int64[np.ndarray, "edges 2"]]:
    """Return the edges between faces of different codes: their two vertices, and their two faces."""
    faces = np.asarray(surface.faces, dtype=np.int64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(faces.shape[0]), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    paired = np.flatnonzero((edges[1:] == edges[:-1]).all(axis=1))
    sides = np.sort(np.column_stack([owner[paired], owner[paired + 1]]), axis=1)
    differ = codes[sides[:, 0]] != codes[sides[:, 1]]
    return edges[paired[differ]], sides[differ]
