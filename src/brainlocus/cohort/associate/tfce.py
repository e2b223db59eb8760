"""Threshold-free cluster enhancement of maps (TFCE).

At each of 100 heights h in equal steps up to the largest |value|, a voxel at or above h gains e^0.5 h^2, e being the
size of its cluster (neighbours share a face). Negative values are enhanced alike, with their sign. As in FSL and
nilearn the sum is not multiplied by the step.

All heights are worked through from the top: voxels join clusters in a union-find forest, each root collects what its
cluster gains, and a root that comes under another keeps the difference, so a voxel's value is the sum along its path.

References
----------
Smith & Nichols (2009), NeuroImage 44:83.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numba import njit

__all__ = ["STEPS", "FaceNeighbours", "enhance_clusters", "face_neighbours"]

STEPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class FaceNeighbours:
    """Which voxels of a mask share a face."""

    index: Int[np.ndarray, "voxels 6"]
    """Place among the mask's voxels, -1 for none."""


def face_neighbours(mask: Bool[np.ndarray, "x y z"]) -> FaceNeighbours:
    """Return the neighbours of a mask's voxels, which are in C order."""
    place = np.full(np.array(mask.shape) + 2, -1, dtype=np.int32)
    inner = (slice(1, -1),) * 3
    place[inner][mask] = np.arange(int(mask.sum()), dtype=np.int32)
    index = np.empty((int(mask.sum()), 6), dtype=np.int32)
    for axis in range(3):
        for k, step in enumerate((-1, 1)):
            index[:, 2 * axis + k] = np.roll(place, -step, axis=axis)[inner][mask]
    return FaceNeighbours(index)


def enhance_clusters(
    values: Float[np.ndarray, " voxels"],
    neighbours: FaceNeighbours,
    *,
    extent_power: float = 0.5,
    height_power: float = 2.0,
) -> Float64[np.ndarray, " voxels"]:
    """Return the enhanced values of a map, with their sign; NaN counts as 0.

    Examples
    --------
    >>> mask = np.ones((3, 1, 1), dtype=bool)
    >>> bool(enhance_clusters(np.array([1.0, 1.0, -0.5]), face_neighbours(mask))[2] < 0)
    True
    """
    clean = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0)
    top = float(np.abs(clean).max(initial=0.0))
    if top == 0.0:
        return np.zeros(clean.size)
    heights = np.linspace(0.0, top, STEPS + 1)[1:]
    gains = heights**height_power
    positive = _enhance(np.searchsorted(heights, clean, side="right"), neighbours.index, gains, extent_power)
    negative = _enhance(np.searchsorted(heights, -clean, side="right"), neighbours.index, gains, extent_power)
    return np.asarray(positive - negative)


@njit(cache=True, nogil=True)
@no_type_check
def _enhance(
    level: Int[np.ndarray, " voxels"],
    neighbours: Int[np.ndarray, "voxels 6"],
    gains: Float64[np.ndarray, " heights"],
    extent_power: float,
) -> Float64[np.ndarray, " voxels"]:
    n, n_levels = level.size, gains.size
    counts = np.zeros(n_levels + 2, dtype=np.int64)
    for v in range(n):
        counts[level[v]] += 1
    # Voxels from the highest level down; those of level 0 take no part.
    start = np.zeros(n_levels + 2, dtype=np.int64)
    for j in range(n_levels - 1, -1, -1):
        start[j] = start[j + 1] + counts[j + 1]
    ordered = np.empty(start[0], dtype=np.int64)
    filled = np.zeros(n_levels + 2, dtype=np.int64)
    for v in range(n):
        j = level[v]
        if j > 0:
            ordered[start[j] + filled[j]] = v
            filled[j] += 1
    parent = np.full(n, -1, dtype=np.int64)
    size = np.zeros(n, dtype=np.int64)
    gained = np.zeros(n)
    roots = np.empty(start[0], dtype=np.int64)
    n_roots = 0
    for j in range(n_levels, 0, -1):
        for k in range(start[j], start[j - 1]):
            v = ordered[k]
            parent[v] = v
            size[v] = 1
            roots[n_roots] = v
            n_roots += 1
            for side in range(6):
                u = neighbours[v, side]
                if u < 0 or parent[u] < 0:
                    continue
                a, b = v, u
                while parent[a] != a:
                    a = parent[a]
                while parent[b] != b:
                    b = parent[b]
                if a == b:
                    continue
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                gained[b] -= gained[a]
        kept = 0
        for k in range(n_roots):
            v = roots[k]
            if parent[v] == v:
                gained[v] += size[v] ** extent_power * gains[j - 1]
                roots[kept] = v
                kept += 1
        n_roots = kept
    result = np.zeros(n)
    for k in range(start[0]):
        v = ordered[k]
        total = gained[v]
        u = v
        while parent[u] != u:
            u = parent[u]
            total += gained[u]
        result[v] = total
    return result
