"""All echoes of a series unwrapped: each by its Laplacian, or exactly, in space once and then in time.

The exact route needs the phase offset removed, so that phase grows in proportion to the echo time. The first echo is
unwrapped in space (`unwrap_region_growing`, ROMEO weights of two echoes); each further one follows in time, predicted
by the straight line through 0 that fits those before it::

    f = sum_k TE_k phi_k / sum_k TE_k^2,     phi_n <- phi_n - 2 pi round((phi_n - f TE_n) / 2 pi)

Spatial unwrapping leaves a multiple n of 2 pi open in each connected part. Proportionality settles it: of the n from -2
to 2 the one that maximises the mean of cos(phi_2 - (phi_1 + 2 pi n) TE_2 / TE_1) is taken, and of equals (an integer
TE_2 / TE_1 tells nothing) the one with the smallest median.

References
----------
Dymerska, Eckstein et al. (2021), Magn Reson Med 85:2294.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.laplacian import unwrap_laplacian
from brainlocus.images.qsm.region_growing import unwrap_region_growing
from brainlocus.images.qsm.romeo_weights import series_weights
from brainlocus.images.qsm.wrapping import TWO_PI

__all__ = ["residual_wraps", "unwrap_series"]

TURNS = (0, 1, -1, 2, -2)
"""Multiples of 2 pi that are tried for each part."""

TIE = 0.02
"""Mean cosines that differ by less say nothing: noise of 0.2 rad lowers the mean cosine by that."""


def unwrap_series(
    series: GradientEcho,
    mask: Bool[np.ndarray, "x y z"],
    *,
    method: Literal["laplacian", "romeo"] = "laplacian",
    workers: int = 1,
) -> Float32[np.ndarray, "echoes x y z"]:
    """Return every echo unwrapped in rad, 0 outside the mask and where the series is not valid.

    Parameters
    ----------
    series
        With its phase offset removed (`remove_phase_offset`, `combine_channels`) where `method` is ``romeo`` and there
        is more than one echo.
    method
        ``laplacian``: smooth, off by a harmonic field, not equal to the input modulo 2 pi. ``romeo``: equal to the
        input modulo 2 pi and in proportion to the echo time.
    workers
        Threads of the transforms.

    Raises
    ------
    ValueError
        No voxel of the mask is valid.

    Examples
    --------
    >>> from brainlocus.core import Grid
    >>> from brainlocus.core.gradient_echo import Acquisition
    >>> acquisition = Acquisition.of(Grid((24, 4, 4), np.eye(4)), (0.01, 0.02), 3.0)
    >>> ramp = np.arange(24, dtype=np.float32).reshape(-1, 1, 1) * np.ones((1, 4, 4), dtype=np.float32) - 11.5
    >>> true = np.stack([ramp, 2 * ramp]) * np.float32(0.7)
    >>> mask = np.ones(ramp.shape, dtype=bool)
    >>> wrapped = np.angle(np.exp(1j * true)).astype(np.float32)
    >>> found = unwrap_series(GradientEcho(wrapped, np.ones_like(true), mask, acquisition), mask, method="romeo")
    >>> bool(np.abs(found - true).max() < 1e-4)
    True
    """
    inside = mask & series.valid
    unwrapped = np.zeros(series.phase_rad.shape, dtype=np.float32)
    if method == "laplacian":
        size = series.acquisition.voxel_size_mm
        for echo, phase in enumerate(series.phase_rad):
            unwrapped[echo] = unwrap_laplacian(phase, size, mask=inside, workers=workers)
            unwrapped[echo][~inside] = 0
        return unwrapped
    times = series.acquisition.echo_time_s
    first = unwrap_region_growing(series.phase_rad[0], inside, series_weights(series, inside))
    if len(times) > 1:
        first = _settle_turns(first, series.phase_rad[1], inside, times[1] / times[0])
    unwrapped[0] = first
    moment = first[inside].astype(np.float64) * times[0]
    squares = times[0] ** 2
    for echo in range(1, len(times)):
        wrapped = series.phase_rad[echo][inside].astype(np.float64)
        predicted = moment * (times[echo] / squares)
        follows = wrapped - TWO_PI * np.rint((wrapped - predicted) / TWO_PI)
        unwrapped[echo][inside] = follows
        moment += follows * times[echo]
        squares += times[echo] ** 2
    return unwrapped


def residual_wraps(
    unwrapped_rad: Float32[np.ndarray, "echoes x y z"], mask: Bool[np.ndarray, "x y z"]
) -> tuple[int, ...]:
    """Return, for each echo, how many pairs of neighbours in the mask still differ by more than pi.

    Exact unwrapping leaves them only around noise and where phase truly changes by more than pi between voxels; many of
    them mark a mask that reaches into air.

    Examples
    --------
    >>> phase = np.array([0.0, 1.0, 7.3, 7.4], dtype=np.float32).reshape(1, 1, 1, 4)
    >>> residual_wraps(phase, np.ones((1, 1, 4), dtype=bool))
    (1,)
    """
    counts = []
    for echo in unwrapped_rad:
        total = 0
        for axis in range(3):
            near, far = np.moveaxis(mask, axis, 0)[:-1], np.moveaxis(mask, axis, 0)[1:]
            step = np.abs(np.diff(np.moveaxis(echo, axis, 0), axis=0))
            total += int(np.count_nonzero((step > np.pi) & near & far))
        counts.append(total)
    return tuple(counts)


def _settle_turns(first: np.ndarray, second: np.ndarray, inside: np.ndarray, ratio: float) -> np.ndarray:
    """Return the first echo with each part shifted by the multiple of 2 pi that the second echo agrees with best."""
    parts, n_parts = ndimage.label(inside)
    labels = parts[inside]
    phase = first[inside].astype(np.float64)
    residual = second[inside] - phase * ratio
    counts = np.bincount(labels, minlength=n_parts + 1)
    agreement = np.array(
        [
            np.bincount(labels, np.cos(residual - TWO_PI * n * ratio), minlength=n_parts + 1) / np.maximum(counts, 1)
            for n in TURNS
        ]
    )
    # The order of TURNS is that of growing medians: the first of equals wins.
    good = agreement >= agreement.max(axis=0) - TIE
    chosen = np.array(TURNS)[good.argmax(axis=0)]
    result = first.copy()
    result[inside] = (phase + TWO_PI * chosen[labels]).astype(np.float32)
    return result
