"""Clusters of a map: voxels beyond a threshold that share faces, positive and negative separately.

A cluster's size is its number of voxels, its mass the sum of what its values have beyond the threshold, |t| - threshold
(Bullmore et al. 1999; nilearn's definition, too).

References
----------
Bullmore et al. (1999), IEEE Trans. Med. Imaging 18:32; Nichols & Holmes (2002), Hum. Brain Mapp. 15:1.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int
from numba import njit

from brainlocus.cohort.associate.tfce import FaceNeighbours

__all__ = ["Clusters", "find_clusters", "largest_cluster"]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Clusters of a map, the one with the largest mass first."""

    label: Int[np.ndarray, " voxels"]
    """Which cluster a voxel is in, from 0; -1 for none."""
    sign: Int[np.ndarray, " clusters"]
    size: Int[np.ndarray, " clusters"]
    """Voxels."""
    mass: Float64[np.ndarray, " clusters"]
    peak: Int[np.ndarray, " clusters"]
    """Voxel with the largest absolute value."""


def find_clusters(values: Float[np.ndarray, " voxels"], neighbours: FaceNeighbours, *, threshold: float) -> Clusters:
    """Return the clusters of voxels with an absolute value above a threshold; NaN is outside.

    Examples
    --------
    >>> from brainlocus.cohort.associate import face_neighbours
    >>> neighbours = face_neighbours(np.ones((5, 1, 1), dtype=bool))
    >>> found = find_clusters(np.array([4.0, 5.0, 0.0, -4.0, 4.0]), neighbours, threshold=3.0)
    >>> found.label.tolist(), found.size.tolist(), found.mass.tolist(), found.sign.tolist()
    ([0, 0, -1, 1, 2], [2, 1, 1], [3.0, 1.0, 1.0], [1, -1, 1])
    """
    clean = np.asarray(values, dtype=np.float64)
    label, size, mass, peak = _flood(clean, neighbours.index, threshold)
    order = np.argsort(-mass, kind="stable")
    place = np.empty(order.size + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(order.size), -1
    return Clusters(place[label], np.sign(clean[peak[order]]).astype(np.int64), size[order], mass[order], peak[order])


def largest_cluster(
    values: Float[np.ndarray, " voxels"], neighbours: FaceNeighbours, *, threshold: float
) -> tuple[int, float]:
    """Return the largest size and the largest mass of a cluster of either sign, 0 where there is none."""
    _, size, mass, _ = _flood(np.asarray(values, dtype=np.float64), neighbours.index, threshold)
    return int(size.max(initial=0)), float(mass.max(initial=0.0))


@njit(cache=True, nogil=True)
@no_type_check
def _flood(
    values: Float64[np.ndarray, " voxels"], neighbours: Int[np.ndarray, "voxels 6"], threshold: float
) -> tuple[
    Int[np.ndarray, " voxels"],
    Int[np.ndarray, " clusters"],
    Float64[np.ndarray, " clusters"],
    Int[np.ndarray, " clusters"],
]:
    n = values.size
    label = np.full(n, -1, dtype=np.int64)
    beyond = 0
    for v in range(n):
        if abs(values[v]) > threshold:
            beyond += 1
    size, peak = np.zeros(beyond, dtype=np.int64), np.zeros(beyond, dtype=np.int64)
    mass = np.zeros(beyond)
    waiting = np.empty(beyond, dtype=np.int64)
    found = 0
    for first in range(n):
        if label[first] >= 0 or not abs(values[first]) > threshold:
            continue
        label[first] = found
        waiting[0], n_waiting = first, 1
        peak[found] = first
        while n_waiting:
            n_waiting -= 1
            v = waiting[n_waiting]
            size[found] += 1
            mass[found] += abs(values[v]) - threshold
            if abs(values[v]) > abs(values[peak[found]]):
                peak[found] = v
            for side in range(6):
                u = neighbours[v, side]
                if u < 0 or label[u] >= 0 or not abs(values[u]) > threshold:
                    continue
                if (values[u] > 0) == (values[first] > 0):
                    label[u] = found
                    waiting[n_waiting] = u
                    n_waiting += 1
        found += 1
    return label, size[:found], mass[:found], peak[:found]
