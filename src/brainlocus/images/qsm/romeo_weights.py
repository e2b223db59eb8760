"""How far the phase step between two neighbours can be trusted: the edge weights of ROMEO.

For the edge between neighbours i, j = i + e_a, with h = i - e_a and k = j + e_a its continuations::

    phase coherence      1 - |w(phi_j - phi_i)| / pi
    echo coherence       max(0, 1 - |w(phi_j - phi_i) - w(phi'_j - phi'_i) TE / TE'|)      phi' at another echo time TE'
    linearity            max(0, 1 - |w(phi_h - 2 phi_i + phi_j)| / 2) * max(0, 1 - |w(phi_i - 2 phi_j + phi_k)| / 2)
    magnitude similarity (min(M_i, M_j) / max(M_i, M_j))^2

and the weight is the product of 0.1 + 0.9 v over the factors v that the input allows. Where a continuation lies outside
the mask its linearity is taken as 0.9, neither good nor bad.

References
----------
Dymerska, Eckstein et al. (2021), Magn Reson Med 85:2294 (ROMEO).
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numba import njit

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.wrapping import wrap_angle

__all__ = ["romeo_voxel_quality", "romeo_weights", "series_weights"]


def romeo_weights(
    phase_rad: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    magnitude: Float32[np.ndarray, "x y z"] | None = None,
    other_phase_rad: Float32[np.ndarray, "x y z"] | None = None,
    echo_time_ratio: float = 1.0,
) -> UInt8[np.ndarray, "x y z 3"]:
    """Return the weight of the edge from each voxel to the next along x, y and z: 1 (poor) to 255 (sure), 0 for none.

    Parameters
    ----------
    phase_rad
        Wrapped; an edge needs both ends in the mask and finite.
    magnitude
        Leaves out magnitude similarity when None.
    other_phase_rad
        Phase at another echo time; leaves out echo coherence when None. Finite, or the edge counts as incoherent.
    echo_time_ratio
        Echo time of `phase_rad` over that of `other_phase_rad`.
    """
    weights = np.zeros((*phase_rad.shape, 3), dtype=np.uint8)
    _weigh(
        phase_rad,
        mask & np.isfinite(phase_rad),
        magnitude is not None,
        phase_rad if magnitude is None else magnitude,
        other_phase_rad is not None,
        phase_rad if other_phase_rad is None else other_phase_rad,
        np.float32(echo_time_ratio),
        weights,
    )
    return weights


def series_weights(
    series: GradientEcho, mask: Bool[np.ndarray, "x y z"], *, echo: int = 0
) -> UInt8[np.ndarray, "x y z 3"]:
    """Return the weights of an echo, judged together with the next one (the last: with the one before)."""
    times = series.acquisition.echo_time_s
    inside = mask & series.valid
    phase, magnitude = series.phase_rad[echo], series.magnitude[echo]
    if len(times) == 1:
        return romeo_weights(phase, inside, magnitude=magnitude)
    other = echo + 1 if echo + 1 < len(times) else echo - 1
    ratio = times[echo] / times[other]
    return romeo_weights(
        phase, inside, magnitude=magnitude, other_phase_rad=series.phase_rad[other], echo_time_ratio=ratio
    )


def romeo_voxel_quality(weights: UInt8[np.ndarray, "x y z 3"]) -> Float32[np.ndarray, "x y z"]:
    """Return the mean weight of a voxel's edges in [0, 1]; 0 for a voxel without edges.

    The mean is over the edges that exist, so that the rim of a mask is not worse for being a rim.
    """
    quality = np.zeros(weights.shape[:3], dtype=np.float32)
    _mean_of_edges(weights, quality)
    return quality


@njit(cache=True, nogil=True)
@no_type_check
def _bend(before: np.float32, middle: np.float32, after: np.float32) -> np.float32:
    return np.float32(max(np.float32(0), 1 - abs(wrap_angle(before - 2 * middle + after)) / 2))


@njit(cache=True, nogil=True)
@no_type_check
def _weigh(
    phase: np.ndarray,
    mask: np.ndarray,
    with_magnitude: bool,
    magnitude: np.ndarray,
    with_other: bool,
    other: np.ndarray,
    ratio: np.float32,
    weights: np.ndarray,
) -> None:
    size = mask.shape
    for x in range(size[0]):
        for y in range(size[1]):
            for z in range(size[2]):
                if not mask[x, y, z]:
                    continue
                for axis in range(3):
                    dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                    u, v, w = x + dx, y + dy, z + dz
                    if u == size[0] or v == size[1] or w == size[2] or not mask[u, v, w]:
                        continue
                    here, there = phase[x, y, z], phase[u, v, w]
                    step = wrap_angle(there - here)
                    weight = 0.1 + 0.9 * (1 - abs(step) / np.pi)
                    if with_other:
                        other_step = wrap_angle(other[u, v, w] - other[x, y, z])
                        gap = abs(step - other_step * ratio)
                        weight *= 0.1 + 0.9 * (1 - gap if gap < 1 else 0.0)
                    line = 0.9
                    if x >= dx and y >= dy and z >= dz and mask[x - dx, y - dy, z - dz]:
                        line = _bend(phase[x - dx, y - dy, z - dz], here, there)
                    u2, v2, w2 = u + dx, v + dy, w + dz
                    if u2 < size[0] and v2 < size[1] and w2 < size[2] and mask[u2, v2, w2]:
                        line *= _bend(here, there, phase[u2, v2, w2])
                    else:
                        line *= 0.9
                    weight *= 0.1 + 0.9 * line
                    if with_magnitude:
                        a, b = magnitude[x, y, z], magnitude[u, v, w]
                        large = max(a, b)
                        similarity = (min(a, b) / large) ** 2 if large > 0 else 0.0
                        weight *= 0.1 + 0.9 * similarity
                    weights[x, y, z, axis] = max(1, int(np.rint(255 * weight)))


@njit(cache=True, nogil=True)
@no_type_check
def _mean_of_edges(weights: np.ndarray, quality: np.ndarray) -> None:
    nx, ny, nz, _ = weights.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                total, edges = 0, 0
                for axis in range(3):
                    dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                    forward = weights[x, y, z, axis]
                    total += forward
                    edges += int(forward > 0)
                    if x >= dx and y >= dy and z >= dz:
                        backward = weights[x - dx, y - dy, z - dz, axis]
                        total += backward
                        edges += int(backward > 0)
                if edges > 0:
                    quality[x, y, z] = total / (255.0 * edges)
