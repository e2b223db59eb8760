"""From the phase of several echoes to one field.

With phase phi_n at echo time TE_n, W_n = TE_n exp(-TE_n / T2*) / sum_m TE_m exp(-TE_m / T2*)::

    phase       f = sum_n W_n phi_n / (2 pi sum_n W_n TE_n)               what UK Biobank describes
    frequency   f = sum_n W_n phi_n / (2 pi TE_n)                         Wu et al. (2012)
    snr         f = sum_n TE_n M_n^2 phi_n / (2 pi sum_n TE_n^2 M_n^2)    least variance, voxel by voxel

All are f = sum_n c_n phi_n / 2 pi with sum_n c_n TE_n = 1, exact for phase in proportion to the echo time, and have the
standard deviation (1 / 2 pi) sqrt(sum_n (c_n sigma / M_n)^2), since phase has that of sigma / M_n.

References
----------
Wu et al. (2012), NeuroImage 59:297; Wang et al. (2022), Nat Neurosci 25:818; Conturo & Smith (1990), Magn Reson Med
15:420 (noise of phase).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.wrapping import TWO_PI
from brainlocus.numerics.orientation import slice_axis

__all__ = ["EchoWeighting", "FieldEstimate", "combine_echoes", "echo_weights", "magnitude_noise"]

EchoWeighting = Literal["phase", "frequency", "snr"]

AIR_MARGIN_MM = 10.0
"""Air starts this far from the mask."""

LEAST_AIR = 1000
"""Voxels of air that an estimate of noise needs."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldEstimate:
    """A field and its noise."""

    field_ppm: Float32[np.ndarray, "x y z"]
    """Relative to the main field; 0 outside the mask."""
    standard_deviation_ppm: Float32[np.ndarray, "x y z"]
    """Predicted from the magnitude's noise; infinite outside the mask and where an echo has no signal."""
    effective_echo_time_s: float
    """At which the field's phase has the noise of the combination's: sum W_n TE_n; ``snr``: median over the mask."""
    noise_sd: float
    """Standard deviation of the magnitude's noise, in its units; NaN when it could not be estimated."""


def echo_weights(echo_time_s: tuple[float, ...], t2star_s: float = 0.040) -> tuple[float, ...]:
    """Return W_n, which sum to 1.

    Examples
    --------
    >>> [round(w, 6) for w in echo_weights((0.0094, 0.020))]
    [0.379888, 0.620112]
    """
    times = np.asarray(echo_time_s)
    weights = times * np.exp(-times / t2star_s)
    return tuple(float(w) for w in weights / weights.sum())


def combine_echoes(
    unwrapped_rad: Float32[np.ndarray, "echoes x y z"],
    series: GradientEcho,
    mask: Bool[np.ndarray, "x y z"],
    *,
    weighting: EchoWeighting = "phase",
    t2star_s: float = 0.040,
    noise_sd: float | None = None,
) -> FieldEstimate:
    """Combine unwrapped echoes into a field in ppm.

    Parameters
    ----------
    unwrapped_rad
        As from `unwrap_series`, phase in proportion to the echo time up to what the unwrapping leaves.
    weighting
        See the module's text.
    t2star_s
        Of the weights W_n.
    noise_sd
        Standard deviation of the magnitude's noise; None: `magnitude_noise` of the last echo.

    Raises
    ------
    ValueError
        The numbers of echoes differ.

    Examples
    --------
    A field of 0.1 ppm at 3 T, 12.77 Hz.

    >>> from brainlocus.core import Grid
    >>> from brainlocus.core.gradient_echo import Acquisition
    >>> acquisition = Acquisition.of(Grid((2, 2, 2), np.eye(4)), (0.01, 0.02), 3.0)
    >>> phase = np.ones((2, 2, 2, 2), dtype=np.float32)
    >>> phase *= np.array([0.01, 0.02], dtype=np.float32).reshape(2, 1, 1, 1) * np.float32(2 * np.pi * 12.7732)
    >>> mask = np.ones((2, 2, 2), dtype=bool)
    >>> series = GradientEcho(phase, np.ones_like(phase), mask, acquisition)
    >>> found = combine_echoes(phase, series, mask, noise_sd=0.01)
    >>> round(float(found.field_ppm[0, 0, 0]), 5)
    0.1
    """
    acquisition = series.acquisition
    times = acquisition.echo_time_s
    if len(unwrapped_rad) != len(times):
        raise ValueError(f"Expected {len(times)} unwrapped echoes, as the series has; found {len(unwrapped_rad)}.")
    if noise_sd is None:
        noise_sd = magnitude_noise(series.magnitude[-1], mask, acquisition.voxel_size_mm)
    inside = mask & series.valid
    magnitude = series.magnitude[:, inside]
    share, effective = _shares(magnitude, times, weighting, t2star_s)
    to_ppm = 1 / (TWO_PI * acquisition.hz_per_ppm)
    total = np.zeros(magnitude.shape[1], dtype=np.float64)
    variance = np.zeros(magnitude.shape[1], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        for c, phase, size in zip(share, unwrapped_rad, magnitude, strict=True):
            total += c * phase[inside]
            # An echo without weight adds no noise, whatever its magnitude.
            variance += np.where(c > 0, (c * noise_sd / size) ** 2, 0.0)
    field = np.zeros(inside.shape, dtype=np.float32)
    field[inside] = total * to_ppm
    deviation = np.full(inside.shape, np.inf, dtype=np.float32)
    deviation[inside] = np.sqrt(variance) * to_ppm
    return FieldEstimate(field, deviation, effective, noise_sd)


def magnitude_noise(
    magnitude: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
) -> float:
    """Return the standard deviation of the noise of one part (real or imaginary) of the signal.

    The smaller of two estimates, for each can be too large. From the air, 10 mm and more from the mask: its magnitude
    follows a Rayleigh distribution, so sigma^2 is half its mean square; voxels beyond 4 sigma (scalp, ghosts) are taken
    out until none is left; too large where coils were summed as squares, absent where air was set to 0. From the mask:
    the median size of the differences d = (a - b - c + d) / 2 of squares of in-plane neighbours, over 0.6745; anatomy
    adds to it a little. NaN where neither can be had.
    """
    return float(np.fmin(_air_noise(magnitude, mask, voxel_size_mm), _tissue_noise(magnitude, mask, voxel_size_mm)))


def _air_noise(magnitude: np.ndarray, mask: np.ndarray, voxel_size_mm: tuple[float, float, float]) -> float:
    reach = [2 * max(1, round(AIR_MARGIN_MM / h)) + 1 for h in voxel_size_mm]
    outside = magnitude[ndimage.maximum_filter(mask.view(np.uint8), size=reach) == 0]
    air = np.sort(outside[outside > 0].astype(np.float64))
    if air.size < LEAST_AIR or air.size < 0.5 * outside.size:
        return float("nan")
    squares = np.cumsum(air**2)
    n = air.size
    while True:
        sigma = float(np.sqrt(squares[n - 1] / (2 * n)))
        fewer = int(np.searchsorted(air, 4 * sigma))
        if fewer >= n:
            return sigma
        n = fewer


def _tissue_noise(magnitude: np.ndarray, mask: np.ndarray, voxel_size_mm: tuple[float, float, float]) -> float:
    across = slice_axis(voxel_size_mm)
    magnitude, mask = np.moveaxis(magnitude, across, 2), np.moveaxis(mask, across, 2)
    both = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    if not both.any():
        return float("nan")
    corners = magnitude[:-1, :-1] - magnitude[1:, :-1] - magnitude[:-1, 1:] + magnitude[1:, 1:]
    return float(np.median(np.abs(corners[both])) / (2 * 0.6745))


def _shares(
    magnitude: np.ndarray, times: tuple[float, ...], weighting: EchoWeighting, t2star_s: float
) -> tuple[list[np.ndarray], float]:
    """Return c_n, a number or one a voxel, and the effective echo time."""
    weights = echo_weights(times, t2star_s)
    mean_time = float(np.dot(weights, times))
    if weighting == "phase":
        return [np.asarray(w / mean_time) for w in weights], mean_time
    if weighting == "frequency":
        return [np.asarray(w / t) for w, t in zip(weights, times, strict=True)], mean_time
    first = sum(t * size.astype(np.float64) ** 2 for t, size in zip(times, magnitude, strict=True))
    second = sum(t * t * size.astype(np.float64) ** 2 for t, size in zip(times, magnitude, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = [
            np.where(second > 0, t * size.astype(np.float64) ** 2 / second, 1 / (t * len(times)))
            for t, size in zip(times, magnitude, strict=True)
        ]
        effective = np.median(second[first > 0] / first[first > 0]) if np.any(first > 0) else mean_time
    return share, float(effective)
