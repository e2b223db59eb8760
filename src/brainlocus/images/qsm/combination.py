"""Phase offsets and receive coils: MCPC-3D-S.

Data flow::

    ChannelSource --pass 1, coil by coil--> H --unwrap exactly--> dphi
                  --pass 2, coil by coil--> offset of the coil --> Z --> Combination
    GradientEcho (already combined) ---- the same with one coil ----> OffsetRemoval

With magnitude M and phase phi of coil c and echo e, at echo times TE_e::

    H = sum_c M_1c M_2c exp(i (phi_2c - phi_1c)),     dphi = arg H, unwrapped
    phi0_c = arg( G * [ w exp(i (phi_1c - dphi TE_1 / (TE_2 - TE_1))) ] )
    Z_e = sum_c M_ec^2 exp(i (phi_ec - phi0_c)),      phase = arg Z_e, magnitude = sqrt |Z_e|

In H the offsets of the coils cancel. dphi must be unwrapped *exactly* (an error of 2 pi is an error of
2 pi TE_1 / (TE_2 - TE_1) in the offset); its median is taken within [-pi, pi]. w = sqrt |H| inside the mask and 0
outside. G is a Gaussian of 8 mm, corrected for its bias at the rim of the mask (`smooth_phase`). What remains is a
phase in proportion to the echo time.

Single echo: there is no dphi. Coils are then aligned to a virtual reference coil V = sum_c S_c exp(-i arg S_c(centre)),
phi0_c = arg(G * [S_c conj(V)]); the phase keeps V's own smooth offset, which background removal has to take. A combined
single echo is left as it is.

References
----------
Eckstein, Dymerska et al. (2018), Magn Reson Med 79:2996 (MCPC-3D-S, bipolar correction); Parker, Payne et al. (2014),
Magn Reson Med 72:563 (virtual reference coil).
"""

from dataclasses import dataclass, replace
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Complex64, Float32
from numba import njit

from brainlocus.core.gradient_echo import Acquisition, ChannelSource, GradientEcho, iter_channels
from brainlocus.images.qsm.bipolar import correct_bipolar
from brainlocus.images.qsm.region_growing import unwrap_region_growing
from brainlocus.images.qsm.romeo_weights import romeo_weights
from brainlocus.images.qsm.smoothing import smooth_phase
from brainlocus.images.qsm.wrapping import wrap_angle

__all__ = ["Combination", "OffsetRemoval", "OffsetStatus", "combine_channels", "remove_phase_offset"]

OffsetStatus = Literal["removed", "removed, bipolar corrected", "bipolar not corrected", "single echo"]
"""What became of the phase offset.

``bipolar not corrected``: two echoes of alternating readouts; the offset was removed, but its part that changes sign
cannot be told from a field gradient and stays. ``single echo``: nothing was removed.
"""

REFERENCE_RADIUS_MM = 10.0
"""Ball around the centre of the mask over which a single echo's coils are first aligned."""


@dataclass(frozen=True, slots=True, eq=False)
class OffsetRemoval:
    """A series without its phase offset."""

    series: GradientEcho
    """Phase in proportion to the echo time, wrapped; magnitude as it was."""
    offset_rad: Float32[np.ndarray, "x y z"]
    """What was subtracted from every echo, wrapped; 0 for a single echo."""
    status: OffsetStatus


@dataclass(frozen=True, slots=True, eq=False)
class Combination:
    """Coils combined into one series."""

    series: GradientEcho
    quality: Float32[np.ndarray, "x y z"]
    """Q = |Z_e| / sum_c M_ec^2 in [0, 1], the worst echo: 1 where all coils agree on the phase; 0 without signal."""
    median_quality: float
    """Over the mask; above 0.95 where all is well."""
    status: OffsetStatus


def remove_phase_offset(
    series: GradientEcho,
    mask: Bool[np.ndarray, "x y z"],
    *,
    smoothing_mm: float = 8.0,
    bipolar: bool = False,
) -> OffsetRemoval:
    """Remove what the phase of a combined series has at echo time 0.

    Parameters
    ----------
    mask
        Where there is tissue; the offset is estimated there and extrapolated smoothly.
    smoothing_mm
        Standard deviation of the Gaussian that smooths the offset.
    bipolar
        Readouts alternate their direction. With three echoes or more the alternating part is removed too; see
        `OffsetStatus` for two.

    Raises
    ------
    ValueError
        No voxel of the mask has a valid phase.

    Examples
    --------
    A phase of 1 rad at echo time 0 and of 50 rad/s.

    >>> from brainlocus.core import Grid
    >>> acquisition = Acquisition.of(Grid((8, 8, 8), np.eye(4)), (0.01, 0.02), 3.0)
    >>> phase = np.ones((2, 8, 8, 8), dtype=np.float32) * np.array([1.5, 2.0], dtype=np.float32).reshape(2, 1, 1, 1)
    >>> mask = np.ones((8, 8, 8), dtype=bool)
    >>> removed = remove_phase_offset(GradientEcho(phase, np.ones_like(phase), mask, acquisition), mask)
    >>> removed.series.phase_rad[:, 4, 4, 4].round(4).tolist(), round(float(removed.offset_rad[4, 4, 4]), 4)
    ([0.5, 1.0], 1.0)
    """
    acquisition = series.acquisition
    if len(acquisition.echo_time_s) < 2:
        return OffsetRemoval(series, np.zeros(series.valid.shape, dtype=np.float32), "single echo")
    product = np.zeros(series.valid.shape, dtype=np.complex64)
    _add_hermitian(series.phase_rad, series.magnitude, product)
    scaled, weight = _scaled_difference(product, mask & series.valid, acquisition)
    offset = _smooth_offset(series.phase_rad[0], scaled, weight, acquisition, smoothing_mm)
    phase = np.empty_like(series.phase_rad)
    _subtract(series.phase_rad, offset, phase)
    phase[:, ~series.valid] = 0
    cleaned = replace(series, phase_rad=phase)
    cleaned, status = _after_bipolar(cleaned, mask, smoothing_mm, bipolar=bipolar)
    return OffsetRemoval(cleaned, np.angle(offset), status)


def combine_channels(
    source: ChannelSource,
    mask: Bool[np.ndarray, "x y z"],
    *,
    smoothing_mm: float = 8.0,
    bipolar: bool = False,
) -> Combination:
    """Combine uncombined coils, reading each twice and holding one at a time.

    Parameters
    ----------
    mask, smoothing_mm, bipolar
        As of `remove_phase_offset`.

    Raises
    ------
    ValueError
        No voxel of the mask has signal.
    """
    acquisition = source.acquisition
    n_echoes = len(acquisition.echo_time_s)
    summed = np.zeros((n_echoes, *acquisition.shape), dtype=np.complex64)
    power = np.zeros((n_echoes, *acquisition.shape), dtype=np.float32)
    if n_echoes == 1:
        reference = _virtual_reference(source, mask)
        scaled, weight = np.angle(reference), np.abs(reference) * mask
    else:
        product = np.zeros(acquisition.shape, dtype=np.complex64)
        for coil in iter_channels(source):
            _add_hermitian(coil.phase_rad, coil.magnitude, product)
        scaled, weight = _scaled_difference(product, mask & (product != 0), acquisition)
        del product
    for coil in iter_channels(source):
        offset = _smooth_offset(coil.phase_rad[0], scaled, weight, acquisition, smoothing_mm)
        _add_coil(coil.phase_rad, coil.magnitude, offset, summed, power)
    del scaled, weight
    series, quality = _combined(summed, power, acquisition)
    series, status = _after_bipolar(series, mask, smoothing_mm, bipolar=bipolar)
    inside = quality[mask & series.valid]
    return Combination(series, quality, float(np.median(inside)) if inside.size else float("nan"), status)


def _combined(
    summed: Complex64[np.ndarray, "echoes x y z"], power: Float32[np.ndarray, "echoes x y z"], acquisition: Acquisition
) -> tuple[GradientEcho, np.ndarray]:
    size = np.abs(summed)
    with np.errstate(invalid="ignore", divide="ignore"):
        quality = np.where(power > 0, np.minimum(size / power, np.float32(1)), np.float32(0)).min(axis=0)
    np.sqrt(size, out=size)
    valid = np.asarray((power > 0).all(axis=0))
    return GradientEcho(np.angle(summed), size, valid, acquisition), quality


def _after_bipolar(
    series: GradientEcho, mask: np.ndarray, smoothing_mm: float, *, bipolar: bool
) -> tuple[GradientEcho, OffsetStatus]:
    n_echoes = len(series.acquisition.echo_time_s)
    if n_echoes == 1:
        return series, "single echo"
    if not bipolar:
        return series, "removed"
    if n_echoes == 2:
        return series, "bipolar not corrected"
    return correct_bipolar(series, mask, smoothing_mm=smoothing_mm), "removed, bipolar corrected"


def _scaled_difference(
    product: Complex64[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], acquisition: Acquisition
) -> tuple[np.ndarray, np.ndarray]:
    """Return dphi TE_1 / (TE_2 - TE_1) and the weights sqrt |H|, both 0 outside the mask."""
    first, second = acquisition.echo_time_s[:2]
    weight = np.sqrt(np.abs(product))
    difference = np.angle(product)
    edges = romeo_weights(difference, mask, magnitude=weight)
    scaled = unwrap_region_growing(difference, mask, edges)
    scaled *= np.float32(first / (second - first))
    weight[~mask] = 0
    return scaled, weight


def _smooth_offset(
    phase: np.ndarray, scaled: np.ndarray, weight: np.ndarray, acquisition: Acquisition, smoothing_mm: float
) -> Complex64[np.ndarray, "x y z"]:
    """Return exp(i phi0) up to a positive factor."""
    vector = np.empty(phase.shape, dtype=np.complex64)
    _offset_vector(phase, scaled, weight, vector)
    return smooth_phase(vector, acquisition.voxel_size_mm, smoothing_mm)


def _virtual_reference(source: ChannelSource, mask: np.ndarray) -> Complex64[np.ndarray, "x y z"]:
    """Return the sum of single-echo coils, each turned so that its phase vanishes around the centre of the mask."""
    if not mask.any():
        raise ValueError("Channel combination: the mask is empty. Expected at least one voxel; check the mask.")
    sizes = source.acquisition.voxel_size_mm
    inside = np.argwhere(mask) * np.asarray(sizes)
    apart = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
    centre = np.zeros(mask.shape, dtype=bool)
    centre[mask] = apart <= max(REFERENCE_RADIUS_MM, float(apart.min()))
    total = np.zeros(mask.shape, dtype=np.complex64)
    for coil in iter_channels(source):
        signal = coil.magnitude[0] * np.exp(1j * coil.phase_rad[0])
        middle = complex(signal[centre].sum(dtype=np.complex128))
        turn = middle.conjugate() / abs(middle) if middle else 1.0
        total += signal * np.complex64(turn)
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _add_hermitian(phase: np.ndarray, magnitude: np.ndarray, product: np.ndarray) -> None:
    for x in range(product.shape[0]):
        for y in range(product.shape[1]):
            for z in range(product.shape[2]):
                size = magnitude[0, x, y, z] * magnitude[1, x, y, z]
                angle = phase[1, x, y, z] - phase[0, x, y, z]
                product[x, y, z] += size * complex(np.cos(angle), np.sin(angle))


@njit(cache=True, nogil=True)
@no_type_check
def _offset_vector(phase: np.ndarray, scaled: np.ndarray, weight: np.ndarray, vector: np.ndarray) -> None:
    for x in range(phase.shape[0]):
        for y in range(phase.shape[1]):
            for z in range(phase.shape[2]):
                if weight[x, y, z] > 0:
                    angle = phase[x, y, z] - scaled[x, y, z]
                    vector[x, y, z] = weight[x, y, z] * complex(np.cos(angle), np.sin(angle))
                else:
                    vector[x, y, z] = 0


@njit(cache=True, nogil=True)
@no_type_check
def _subtract(phase: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    for x in range(offset.shape[0]):
        for y in range(offset.shape[1]):
            for z in range(offset.shape[2]):
                angle = np.float32(np.arctan2(offset[x, y, z].imag, offset[x, y, z].real))
                for echo in range(phase.shape[0]):
                    out[echo, x, y, z] = wrap_angle(phase[echo, x, y, z] - angle)


@njit(cache=True, nogil=True)
@no_type_check
def _add_coil(
    phase: np.ndarray, magnitude: np.ndarray, offset: np.ndarray, summed: np.ndarray, power: np.ndarray
) -> None:
    for echo in range(phase.shape[0]):
        for x in range(offset.shape[0]):
            for y in range(offset.shape[1]):
                for z in range(offset.shape[2]):
                    turn = offset[x, y, z]
                    length = np.sqrt(turn.real * turn.real + turn.imag * turn.imag)
                    turn = complex(turn.real / length, -turn.imag / length) if length > 0 else complex(1.0, 0.0)
                    squared = magnitude[echo, x, y, z] * magnitude[echo, x, y, z]
                    angle = phase[echo, x, y, z]
                    summed[echo, x, y, z] += squared * complex(np.cos(angle), np.sin(angle)) * turn
                    power[echo, x, y, z] += squared
