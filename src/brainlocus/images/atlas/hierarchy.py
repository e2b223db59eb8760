"""How the parcels of atlases at several scales lie in each other.

Data flow::

    labels of a coarse and a fine scale --link_scales--> ScaleLink      (each pair of neighbouring scales)
    ScaleLinks --grow_tree--> AtlasTree --newick, nested--> text, JSON

With O_cf the voxels of the coarse parcel c and the fine parcel f together, the parent of f is argmax_c O_cf and its
containment max_c O_cf / |f|. Atlases that were fitted one by one are in general not nested: a parcel whose parent has
less than half of it has a parent in name only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from brainlocus.core.text import newick_name
from brainlocus.images.atlas.labels import component_name
from brainlocus.numerics.partitions import joint_counts, rand_of_counts

__all__ = ["LOOSE", "AtlasTree", "ScaleLink", "ScaleParcels", "grow_tree", "link_scales", "link_scales_peak_bytes"]

LOOSE = 0.5
"""Containment below which a parcel counts as cut between parents: no parent has most of it."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleParcels:
    """One scale of an atlas."""

    scale: int
    """Number of parcels, vanished ones included."""
    labels: Int[np.ndarray, " voxels"]
    """0 outside, else 1 to `scale`; the voxels of all scales are the same, in the same order."""
    names: tuple[str, ...] = ()
    """Names of parcels 1 to `scale`; by default ``C32_1`` ..."""

    def name(self, label: int) -> str:
        """Return the name of a parcel."""
        return self.names[label - 1] if self.names else component_name(self.scale, label)


@dataclass(frozen=True, slots=True, eq=False)
class ScaleLink:
    """How the parcels of a fine scale lie in those of a coarse one."""

    coarse: int
    fine: int
    sizes: Int64[np.ndarray, " fine"]
    """Voxels of each fine parcel; 0 where it has vanished."""
    parents: Int64[np.ndarray, " fine"]
    """Coarse parcel that has most of the fine one, the lowest of equals; 0 where none has any of it."""
    containment: Float64[np.ndarray, " fine"]
    """Share of the fine parcel that its parent has; NaN where the parcel has vanished."""
    mean_containment: float
    """Mean of the containment, weighted by volume."""
    adjusted_rand: float
    """Of the two scales, over voxels that have a parcel in both."""
    n_voxels: int
    """Voxels of the fine scale."""
    n_coarse_only: int
    """Voxels of the coarse scale that have no parcel in the fine one."""

    @property
    def loose(self) -> Bool[np.ndarray, " fine"]:
        """Parcels of which no parent has half."""
        return np.asarray((self.sizes > 0) & (np.nan_to_num(self.containment, nan=1.0) < LOOSE))


@dataclass(frozen=True, slots=True, eq=False)
class AtlasTree:
    """The parcels of all scales, each below its parent in the next coarser scale."""

    scales: tuple[ScaleParcels, ...]
    """From coarse to fine."""
    links: tuple[ScaleLink, ...]
    """Between neighbouring scales."""

    def sizes(self, level: int) -> Int64[np.ndarray, " parcels"]:
        """Return the voxels of each parcel of a scale."""
        parcels = self.scales[level]
        counts: Int64[np.ndarray, " parcels"] = np.bincount(parcels.labels, minlength=parcels.scale + 1)[1:]
        return counts.astype(np.int64, copy=False)

    def order(self, level: int) -> Int64[np.ndarray, " present"]:
        """Return the parcels of a scale that have voxels, from left to right: below their parents, the large first."""
        sizes = self.sizes(level)
        present = np.flatnonzero(sizes)
        if level == 0:
            return present[np.argsort(-sizes[present], kind="stable")] + 1
        place = np.full(self.scales[level - 1].scale + 1, np.iinfo(np.int64).max)
        above = self.order(level - 1)
        place[above] = np.arange(above.size)
        ranks = place[self.links[level - 1].parents[present]]
        return present[np.lexsort((-sizes[present], ranks))] + 1

    def newick(self) -> str:
        """Return the tree as Newick text; each branch has length 1, so that parcels of a scale are level.

        Parcels that no coarser parcel overlaps hang from the root beside the coarsest scale.

        References
        ----------
        Olsen (1990), Interpretation of Newick's 8:45 tree format.
        """
        text = [""] * (self.scales[-1].scale + 1)
        loose: list[str] = []
        for level in range(len(self.scales) - 1, -1, -1):
            nodes = {k: f"{text[k]}{newick_name(self.scales[level].name(k))}:1" for k in self.order(level).tolist()}
            if level == 0:
                return f"({','.join([*nodes.values(), *loose])});"
            below: list[list[str]] = [[] for _ in range(self.scales[level - 1].scale + 1)]
            for k, node in nodes.items():
                parent = int(self.links[level - 1].parents[k - 1])
                (below[parent] if parent else loose).append(node)
            text = [f"({','.join(children)})" if children else "" for children in below]
        raise AssertionError

    def nested(self, voxel_volume_mm3: float) -> list[dict[str, Any]]:
        """Return the coarsest parcels, each with its children, for JSON."""
        below: dict[int, list[dict[str, Any]]] = {}
        loose: list[dict[str, Any]] = []
        for level in range(len(self.scales) - 1, -1, -1):
            volumes = self.sizes(level) * voxel_volume_mm3
            nodes = {k: self._node(level, k, volumes, below.get(k, [])) for k in self.order(level).tolist()}
            if level == 0:
                return [*nodes.values(), *loose]
            below = {}
            for k, node in nodes.items():
                parent = int(self.links[level - 1].parents[k - 1])
                (below.setdefault(parent, []) if parent else loose).append(node)
        raise AssertionError

    def _node(
        self, level: int, label: int, volumes: Float64[np.ndarray, " parcels"], children: list[dict[str, Any]]
    ) -> dict[str, Any]:
        parcels = self.scales[level]
        node: dict[str, Any] = {"name": parcels.name(label), "scale": parcels.scale, "label": label}
        node["volume_mm3"] = float(volumes[label - 1])
        if level:
            node["containment"] = float(self.links[level - 1].containment[label - 1])
        return node | ({"children": children} if children else {})


def link_scales_peak_bytes(n_voxels: int, coarse: int, fine: int) -> int:
    """Return the memory of `link_scales`: joint labels and their counts, with the float64 copies of the latter."""
    return 4 * 8 * n_voxels + 4 * 8 * (coarse + 1) * (fine + 1)


def link_scales(coarse: ScaleParcels, fine: ScaleParcels) -> ScaleLink:
    """Return parent and containment of every fine parcel, and how alike the two scales are.

    Raises
    ------
    ValueError
        The scales have different voxels, or no voxel has a parcel in both.

    Examples
    --------
    >>> halves = ScaleParcels(2, np.array([1, 1, 1, 2, 2, 2]))
    >>> thirds = ScaleParcels(3, np.array([1, 1, 2, 2, 3, 3]))
    >>> link = link_scales(halves, thirds)
    >>> link.parents.tolist(), link.containment.tolist(), round(link.mean_containment, 3)
    ([1, 1, 2], [1.0, 0.5, 1.0], 0.833)
    """
    if coarse.labels.size != fine.labels.size:
        raise ValueError(
            f"Scales of one atlas have the same voxels; found {coarse.labels.size} and {fine.labels.size}."
        )
    counts = joint_counts(coarse.labels, fine.labels, coarse.scale + 1, fine.scale + 1)
    overlap = counts[1:, 1:]
    if not overlap.any():
        raise ValueError(f"No voxel has a parcel in both scale {coarse.scale} and scale {fine.scale}.")
    sizes = counts[:, 1:].sum(axis=0)
    best = overlap.max(axis=0)
    with np.errstate(invalid="ignore"):
        containment = np.where(sizes > 0, best / np.maximum(sizes, 1), np.nan)
    return ScaleLink(
        coarse=coarse.scale,
        fine=fine.scale,
        sizes=sizes,
        parents=np.where(best > 0, overlap.argmax(axis=0) + 1, 0).astype(np.int64),
        containment=containment,
        mean_containment=float(best.sum() / sizes.sum()),
        adjusted_rand=rand_of_counts(overlap),
        n_voxels=int(sizes.sum()),
        n_coarse_only=int(counts[1:, 0].sum()),
    )


def grow_tree(scales: Sequence[ScaleParcels]) -> AtlasTree:
    """Return the tree of an atlas from its scales, which are put in order from coarse to fine.

    Raises
    ------
    ValueError
        Fewer than two scales, or two of the same number of parcels.
    """
    ordered = sorted(scales, key=lambda s: s.scale)
    numbers = [s.scale for s in ordered]
    if len(ordered) < 2 or len(set(numbers)) < len(numbers):
        raise ValueError(f"A hierarchy needs two or more different scales, found {numbers}.")
    return AtlasTree(tuple(ordered), tuple(link_scales(a, b) for a, b in pairwise(ordered)))
