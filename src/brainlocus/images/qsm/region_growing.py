"""Exact unwrapping by quality-guided region growing (the queue of ROMEO).

Data flow::

    phase, mask --romeo_weights--> an 8-bit weight an edge
    phase, mask, weights --unwrap_region_growing--> phase + 2 pi n, n an integer in every voxel

From a seed the best edge that leaves the grown region is taken, and the voxel at its far end unwrapped to its
neighbour::

    phi_j <- phi_j - 2 pi round((phi_j - phi_i) / 2 pi)

Weights have 255 values, so the queue is that many stacks and a step costs O(1): the whole O(voxels). Each connected
part (six neighbours) grows from its own seed.

References
----------
Dymerska, Eckstein et al. (2021), Magn Reson Med 85:2294; Abdul-Rahman et al. (2007), Appl Opt 46:6623 (best path).
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numba import njit
from scipy import ndimage

from brainlocus.images.qsm.romeo_weights import romeo_voxel_quality, romeo_weights
from brainlocus.images.qsm.wrapping import TWO_PI
from brainlocus.numerics.cropping import bounding_box

__all__ = ["unwrap_region_growing"]

N_BINS = 256
"""Weights 0 to 255, one stack each."""


def unwrap_region_growing(
    phase_rad: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    weights: UInt8[np.ndarray, "x y z 3"] | None = None,
) -> Float32[np.ndarray, "x y z"]:
    """Return the phase unwrapped within a mask: in every voxel the input plus a multiple of 2 pi.

    Parameters
    ----------
    phase_rad
        Wrapped, any range. A not finite voxel of the mask stays NaN and nothing grows through it.
    weights
        As from `romeo_weights`; None: from the phase alone. A weight of 0 within the mask counts as the worst.

    Returns
    -------
    :
        0 outside the mask. The largest part's median lies within [-pi, pi]; every other part's median lies within pi of
        the largest part's.

    Raises
    ------
    ValueError
        The mask is empty, or all its voxels are NaN.

    Examples
    --------
    >>> ramp = np.arange(24, dtype=np.float32).reshape(-1, 1, 1) * np.ones((1, 3, 2), dtype=np.float32)
    >>> wrapped = np.angle(np.exp(1j * ramp)).astype(np.float32)
    >>> found = unwrap_region_growing(wrapped, np.ones(ramp.shape, dtype=bool))
    >>> bool(np.abs((found - found[0, 0, 0]) - (ramp - ramp[0, 0, 0])).max() < 1e-4)
    True
    """
    finite = np.isfinite(phase_rad)
    grown = mask & finite
    if not grown.any():
        raise ValueError("Unwrapping: the mask has no voxel with a finite phase. Check the mask and the phase image.")
    box = bounding_box(grown)
    # A rim of voxels outside the mask spares the loops every check of bounds.
    inside = np.pad(grown[box], 1)
    phase = np.pad(np.where(grown[box], phase_rad[box], np.float32(0)), 1)
    if weights is None:
        weights = romeo_weights(phase_rad, grown)
    edges = np.pad(weights[box], ((1, 1), (1, 1), (1, 1), (0, 0)))
    parts, n_parts = ndimage.label(inside)
    quality = romeo_voxel_quality(edges)
    unwrapped = np.zeros(inside.shape, dtype=np.float32)
    seeds = _best_voxels(quality.ravel(), parts.ravel(), n_parts)
    _grow(phase.ravel(), inside.ravel(), edges.reshape(-1, 3), _strides(inside.shape), seeds, unwrapped.ravel())
    _align_parts(unwrapped, parts, n_parts)
    result = np.zeros(phase_rad.shape, dtype=np.float32)
    result[box] = unwrapped[1:-1, 1:-1, 1:-1]
    if not finite.all():
        result[mask & ~finite] = np.nan
    return result


def _strides(shape: tuple[int, ...]) -> np.ndarray:
    return np.array([shape[1] * shape[2], shape[2], 1])


def _align_parts(unwrapped: np.ndarray, parts: np.ndarray, n_parts: int) -> None:
    """Shift each part by a multiple of 2 pi, in place."""
    if n_parts == 1:
        inside = unwrapped[parts > 0]
        centre = float(np.median(inside))
        turns = np.rint(centre / TWO_PI)
        if turns:
            unwrapped[parts > 0] = (inside.astype(np.float64) - turns * TWO_PI).astype(np.float32)
        return
    labels = np.arange(1, n_parts + 1)
    medians = np.asarray(ndimage.median(unwrapped, parts, labels), dtype=np.float64)
    largest = int(np.argmax(np.bincount(parts.ravel(), minlength=n_parts + 1)[1:]))
    turns = np.rint(medians / TWO_PI)
    centre = medians[largest] - TWO_PI * turns[largest]
    turns = np.rint((medians - centre) / TWO_PI)
    shift = np.concatenate([[0.0], turns * TWO_PI])
    unwrapped[...] = (unwrapped.astype(np.float64) - shift[parts]).astype(np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def _best_voxels(quality: np.ndarray, parts: np.ndarray, n_parts: int) -> np.ndarray:
    seeds = np.full(n_parts, -1, dtype=np.int64)
    for voxel in range(parts.size):
        part = parts[voxel] - 1
        if part >= 0 and (seeds[part] < 0 or quality[voxel] > quality[seeds[part]]):
            seeds[part] = voxel
    return seeds


@njit(cache=True, nogil=True)
@no_type_check
def _grow(
    phase: np.ndarray,
    inside: np.ndarray,
    weights: np.ndarray,
    strides: np.ndarray,
    seeds: np.ndarray,
    unwrapped: np.ndarray,
) -> None:
    """Grow every seed's part; an edge is 3 * (its lower voxel) + axis and enters its stack at most once."""
    visited = np.zeros(inside.size, dtype=np.bool_)
    head = np.full(N_BINS, -1, dtype=np.int32)
    below = np.empty(3 * inside.size, dtype=np.int32)
    for seed in seeds:
        new = seed
        unwrapped[new] = phase[new]
        best = -1
        while True:
            visited[new] = True
            for axis in range(3):
                if inside[new + strides[axis]] and not visited[new + strides[axis]]:
                    weight = np.int64(weights[new, axis])
                    below[3 * new + axis] = head[weight]
                    head[weight] = 3 * new + axis
                    best = max(best, weight)
                lower = new - strides[axis]
                if inside[lower] and not visited[lower]:
                    weight = np.int64(weights[lower, axis])
                    below[3 * lower + axis] = head[weight]
                    head[weight] = 3 * lower + axis
                    best = max(best, weight)
            new = -1
            while best >= 0 and new < 0:
                edge = np.int64(head[best])
                if edge < 0:
                    best -= 1
                    continue
                head[best] = below[edge]
                low = edge // 3
                high = low + strides[edge - 3 * low]
                if not visited[low]:
                    new, old = low, high
                elif not visited[high]:
                    new, old = high, low
            if new < 0:
                break
            value = np.float64(phase[new])
            unwrapped[new] = value - TWO_PI * np.rint((value - unwrapped[old]) / TWO_PI)
