"""Slow drift: principal components of traits smoothed along the date or the time of day, within a site.

The smoothed value of a trait at time t is ``sum_i K(t - t_i) y_i / sum_i K(t - t_i)`` over the people who have it, with
K a Gaussian of standard deviation sigma. The components are those of the people x traits matrix of smoothed values,
centred, that together have 99 % of its variance.

References
----------
Alfaro-Almagro et al. (2021), NeuroImage 224:117002; Nadaraya (1964), Theory Probab. Appl. 9:141.
"""

import numpy as np
from jaxtyping import Float64

from brainlocus.cohort.prepare.normalise import standardise

__all__ = ["DATE_SIGMA_YEARS", "TIME_SIGMA_SHARE", "drift_components", "smooth_along"]

DATE_SIGMA_YEARS = 0.1
TIME_SIGMA_SHARE = 0.1
"""Of the range of the times of day."""
VARIANCE_SHARE = 0.99
MAX_TIMES = 4_096
"""Distinct times up to which the kernel is exact; beyond, times are rounded to a fiftieth of sigma."""
BINS_PER_SIGMA = 50
NO_VARIANCE = 1e-24
"""Variance of smoothed traits, whose own is 1, below which there is no drift."""


def smooth_along(
    times: Float64[np.ndarray, " samples"], traits: Float64[np.ndarray, "samples traits"], sigma: float
) -> Float64[np.ndarray, "samples traits"]:
    """Return the smoothed traits at every person's time.

    Parameters
    ----------
    times
        Complete; in the unit of `sigma`.
    traits
        NaN is missing; a trait that nobody has is 0.

    Examples
    --------
    >>> smooth_along(np.array([0.0, 0.0, 9.0]), np.array([[1.0], [3.0], [7.0]]), 0.1).ravel().tolist()
    [2.0, 2.0, 7.0]
    """
    distinct, code = np.unique(times, return_inverse=True)
    if distinct.size > MAX_TIMES:
        width = sigma / BINS_PER_SIGMA
        distinct, code = np.unique(np.round(times / width), return_inverse=True)
        distinct = distinct * width
    present = ~np.isnan(traits)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(distinct.size))
    sums = np.add.reduceat(np.where(present, traits, 0.0)[order], starts, axis=0)
    counts = np.add.reduceat(present[order].astype(np.float64), starts, axis=0)
    kernel = np.exp(-0.5 * ((distinct[:, None] - distinct[None, :]) / sigma) ** 2)
    weight = kernel @ counts
    smoothed = np.divide(kernel @ sums, weight, out=np.zeros(sums.shape), where=weight > 0)
    return np.asarray(smoothed[code])


def drift_components(
    times: Float64[np.ndarray, " samples"], traits: Float64[np.ndarray, "samples traits"], sigma: float
) -> Float64[np.ndarray, "samples components"]:
    """Return the z-scored components of the smoothed traits; no columns where there is no drift to see.

    Parameters
    ----------
    traits
        On one scale (variance 1), so that none rules the components by its unit; NaN is missing.
    """
    empty = np.empty((times.size, 0))
    if times.size < 3 or not sigma > 0 or np.ptp(times) == 0:
        return empty
    smoothed = smooth_along(times, traits, sigma)
    centred = smoothed - smoothed.mean(axis=0)
    tall = centred.shape[0] >= centred.shape[1]
    values, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if values[0] <= NO_VARIANCE * centred.size:
        return empty
    count = 1 + int(np.searchsorted(np.cumsum(values) / values.sum(), VARIANCE_SHARE * (1 - 1e-12)))
    scores = centred @ vectors[:, :count] if tall else vectors[:, :count]
    return np.column_stack([standardise(scores[:, k]) for k in range(count)])
