"""How far each voxel's phase can be trusted: 1 where it varies smoothly, 0 where it is noise.

Three measures by name, all from wrapped phase, all in [0, 1]::

    coherence           |sum_{y in N(x)} exp(i phi(y))| / #N(x),  N the mask's voxels within 2 mm of x
    second-difference   1 - min(1, D / (pi sqrt 13)),
                        D^2 = sum over the 13 opposite pairs of neighbours d of
                              [w(phi(x - d) - phi(x)) - w(phi(x) - phi(x + d))]^2
    romeo               mean of the weights of the voxel's edges (`romeo_weights`)

Coherence falls with the field's gradient and with the echo time; the second difference sees no constant gradient.

References
----------
Abdul-Rahman et al. (2007), Appl Opt 46:6623 (second difference); Dymerska, Eckstein et al. (2021), Magn Reson Med
85:2294 (ROMEO); Wang et al. (2022), Nat Neurosci 25:818 (the use of a reliability in [0, 1]; its formula is ours).
"""

from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float32
from numba import njit

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.romeo_weights import romeo_voxel_quality, series_weights
from brainlocus.images.qsm.wrapping import wrap_angle

__all__ = ["ReliabilityMethod", "phase_coherence", "phase_reliability", "romeo_quality", "second_difference"]

ReliabilityMethod = Literal["coherence", "second-difference", "romeo"]

N_PAIRS = 13
"""Opposite pairs among the 26 neighbours."""


def phase_reliability(
    series: GradientEcho,
    mask: Bool[np.ndarray, "x y z"],
    *,
    method: ReliabilityMethod = "coherence",
    radius_mm: float = 2.0,
) -> Float32[np.ndarray, "echoes x y z"]:
    """Return the reliability of every echo within the mask, 0 outside and where the series is not valid.

    Parameters
    ----------
    method
        See the module's text.
    radius_mm
        Of the coherence's ball.

    Examples
    --------
    >>> from brainlocus.core import Grid
    >>> from brainlocus.core.gradient_echo import Acquisition
    >>> acquisition = Acquisition.of(Grid((6, 6, 6), np.eye(4)), (0.01,), 3.0)
    >>> phase = np.zeros((1, 6, 6, 6), dtype=np.float32)
    >>> phase[0, 3, 3, 3] = np.pi
    >>> mask = np.ones((6, 6, 6), dtype=bool)
    >>> reliability = phase_reliability(GradientEcho(phase, np.ones_like(phase), mask, acquisition), mask)
    >>> bool(reliability[0, 3, 3, 3] < reliability[0, 0, 0, 0])
    True
    """
    inside = mask & series.valid
    if method == "romeo":
        return np.stack([romeo_quality(series, mask, echo=echo) for echo in range(len(series.phase_rad))])
    if method == "second-difference":
        return np.stack([second_difference(phase, inside) for phase in series.phase_rad])
    size = series.acquisition.voxel_size_mm
    return np.stack([phase_coherence(phase, inside, size, radius_mm=radius_mm) for phase in series.phase_rad])


def phase_coherence(
    phase_rad: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    *,
    radius_mm: float = 2.0,
) -> Float32[np.ndarray, "x y z"]:
    """Return the length of the mean of exp(i phase) over the mask's voxels within `radius_mm`; 0 outside the mask.

    Voxels larger than the radius have no neighbours within it and would all be 1; the radius is then raised to the
    second smallest voxel edge, so that four neighbours count.

    Examples
    --------
    >>> flat = np.zeros((4, 4, 4), dtype=np.float32)
    >>> float(phase_coherence(flat, np.ones(flat.shape, dtype=bool), (1.0, 1.0, 1.0)).min())
    1.0
    """
    # A hair more than the radius, so that voxels exactly at it count whatever the rounding.
    radius = max(radius_mm, sorted(voxel_size_mm)[1]) * (1 + 1e-6)
    reach = [int(radius / h) for h in voxel_size_mm]
    offsets = np.argwhere(np.ones([2 * r + 1 for r in reach], dtype=bool)) - reach
    apart = np.linalg.norm(offsets * np.asarray(voxel_size_mm), axis=1)
    offsets = offsets[apart <= radius]
    around = [(r, r) for r in reach]
    inside = np.pad(mask & np.isfinite(phase_rad), around)
    phase = np.pad(phase_rad, around)
    vectors = np.zeros((*inside.shape, 2), dtype=np.float32)
    _unit_vectors(phase.ravel(), inside.ravel(), vectors.reshape(-1, 2))
    strides = np.array([inside.shape[1] * inside.shape[2], inside.shape[2], 1])
    coherence = np.zeros(inside.shape, dtype=np.float32)
    _resultant(vectors.reshape(-1, 2), inside.ravel(), offsets @ strides, coherence.ravel())
    return np.ascontiguousarray(coherence[tuple(slice(r, r + n) for r, n in zip(reach, mask.shape, strict=True))])


def second_difference(
    phase_rad: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "x y z"]:
    """Return the reliability by second differences; 0 outside the mask and where no opposite pair lies in it.

    Where some of the 13 pairs leave the mask, D^2 is 13 times the mean over the others.
    """
    inside = np.pad(mask & np.isfinite(phase_rad), 1)
    phase = np.pad(phase_rad, 1)
    strides = np.array([inside.shape[1] * inside.shape[2], inside.shape[2], 1])
    offsets = (np.argwhere(np.ones((3, 3, 3), dtype=bool)) - 1)[N_PAIRS + 1 :]
    reliability = np.zeros(inside.shape, dtype=np.float32)
    _second_differences(phase.ravel(), inside.ravel(), offsets @ strides, reliability.ravel())
    return np.ascontiguousarray(reliability[1:-1, 1:-1, 1:-1])


def romeo_quality(
    series: GradientEcho, mask: Bool[np.ndarray, "x y z"], *, echo: int = 0
) -> Float32[np.ndarray, "x y z"]:
    """Return ROMEO's voxel quality of an echo, judged together with the next (the last: with the one before)."""
    return romeo_voxel_quality(series_weights(series, mask, echo=echo))


@njit(cache=True, nogil=True)
@no_type_check
def _unit_vectors(phase: np.ndarray, inside: np.ndarray, vectors: np.ndarray) -> None:
    for voxel in range(phase.size):
        if inside[voxel]:
            vectors[voxel, 0] = np.cos(phase[voxel])
            vectors[voxel, 1] = np.sin(phase[voxel])


@njit(cache=True, nogil=True)
@no_type_check
def _resultant(vectors: np.ndarray, inside: np.ndarray, offsets: np.ndarray, coherence: np.ndarray) -> None:
    for voxel in range(inside.size):
        if not inside[voxel]:
            continue
        real, imaginary, n = 0.0, 0.0, 0
        for offset in offsets:
            real += vectors[voxel + offset, 0]
            imaginary += vectors[voxel + offset, 1]
            n += int(inside[voxel + offset])
        coherence[voxel] = min(1.0, np.sqrt(real * real + imaginary * imaginary) / n)


@njit(cache=True, nogil=True)
@no_type_check
def _second_differences(phase: np.ndarray, inside: np.ndarray, offsets: np.ndarray, reliability: np.ndarray) -> None:
    for voxel in range(inside.size):
        if not inside[voxel]:
            continue
        total, pairs = 0.0, 0
        for offset in offsets:
            if inside[voxel - offset] and inside[voxel + offset]:
                bend = wrap_angle(phase[voxel - offset] - phase[voxel]) - wrap_angle(
                    phase[voxel] - phase[voxel + offset]
                )
                total += bend * bend
                pairs += 1
        if pairs > 0:
            reliability[voxel] = 1 - min(1.0, np.sqrt(total / pairs) / np.pi)
