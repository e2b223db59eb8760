r"""Bias and inflation of a scan's test statistics: an empirical null fitted to all of them.

Data flow::

    z of all features --fit_empirical_null--> EmpiricalNull
    z, EmpiricalNull --corrected_z--> z with the null at N(0, 1)

Most features of a scan are not associated, so that their z show what the null really is: N(mu0, s0^2) in the place of
N(0, 1). The z are taken as a mixture of it and of two tails::

    z ~ p0 N(mu0, s0^2) + p1 N(mu1, s1^2) + p2 N(mu2, s2^2)

with the conjugate priors of van Iterson et al. ::

    p ~ Dirichlet(90, 5, 5)    1 / s_j^2 ~ Gamma(1.28, rate 0.36)    mu_j ~ N(l_j, s_j^2 / k_j)
    l = (0, 3, -3)             k = (1000, 100, 100)

They weigh as much as a few thousand tests. The posterior's mode is found by expectation-maximisation on a histogram of
z (bins of 0.01), where the E step shares the counts of each bin among the components and the M step is ::

    mu_j = (k_j l_j + N_j mean_j) / (k_j + N_j)       p_j = (N_j + g_j - 1) / (N + sum g - 3)
    s_j^2 = (2 * 0.36 + S_j + k_j N_j / (k_j + N_j) (mean_j - l_j)^2) / (2 * 1.28 + N_j + 3)

with N_j, mean_j and S_j the number, mean and sum of squares about the mean of a component. The published program draws
from this posterior (Gibbs) where this takes its mode, which needs no random numbers.

References
----------
van Iterson et al. (2017), Genome Biol. 18:19; Devlin & Roeder (1999), Biometrics 55:997 (lambda).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.numerics.tails import MEDIAN_CHI2, z_from_neg_log10_p

__all__ = ["EmpiricalNull", "corrected_z", "fit_empirical_null", "inflation"]

_WIDTH = 0.01
_REACH = 20.0
"""z beyond the median by more than this count as this: they are of a tail anyway."""
_ALPHA, _BETA = 1.28, 0.36
_PLACE = np.array([0.0, 3.0, -3.0])
_STRENGTH = np.array([1000.0, 100.0, 100.0])
_SHARES = np.array([90.0, 5.0, 5.0])
_MAD = 1.482602218505602
"""Standard deviation of a normal over its median absolute deviation."""
_ITERATIONS = 5_000
_TOLERANCE = 1e-9
"""Largest change of a parameter at which the iteration ends."""
_FEWEST = 100


@dataclass(frozen=True, slots=True)
class EmpiricalNull:
    """Null distribution of a scan; NaN where there are too few tests."""

    bias: float
    """mu0, which is 0 in theory."""
    inflation: float
    """s0, which is 1 in theory."""
    null_share: float
    """p0."""
    n_tests: int
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Mixture:
    share: Float64[np.ndarray, " three"]
    mean: Float64[np.ndarray, " three"]
    variance: Float64[np.ndarray, " three"]


def inflation(neg_log10_p: Float[np.ndarray, " tests"]) -> float:
    """Return lambda: the chi-square of the median p over the median chi-square; NaN of no test.

    Examples
    --------
    >>> round(inflation(np.array([0.1, 0.30103, 0.9])), 3)
    1.0
    """
    known = neg_log10_p[np.isfinite(neg_log10_p)]
    if not known.size:
        return float("nan")
    return float(z_from_neg_log10_p(np.array([np.median(known)]))[0] ** 2 / MEDIAN_CHI2)


def corrected_z(z: Float[np.ndarray, " tests"], null: EmpiricalNull) -> Float64[np.ndarray, " tests"]:
    """Return (z - bias) / inflation."""
    return np.asarray((z - null.bias) / null.inflation)


def fit_empirical_null(z: Float[np.ndarray, " tests"]) -> EmpiricalNull:
    """Return bias and inflation of z statistics.

    Parameters
    ----------
    z
        NaN is no test. Fewer than 100 tests give NaN.

    Examples
    --------
    >>> from scipy.special import ndtri
    >>> null = fit_empirical_null(0.2 + 1.3 * ndtri((np.arange(20_000) + 0.5) / 20_000))
    >>> round(null.bias, 1), round(null.inflation, 1)
    (0.2, 1.3)
    """
    known = np.asarray(z[np.isfinite(z)], dtype=np.float64)
    if known.size < _FEWEST:
        return EmpiricalNull(np.nan, np.nan, np.nan, int(known.size), 0, False)
    centre = float(np.median(known))
    edges = centre + np.arange(-_REACH - _WIDTH / 2, _REACH + _WIDTH, _WIDTH)
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    filled = np.flatnonzero(counts)
    values, weights = (edges[filled] + edges[filled + 1]) / 2, counts[filled].astype(np.float64)
    spread = max(_MAD * float(np.median(np.abs(known - centre))), _WIDTH)
    mixture = _Mixture(
        _SHARES / _SHARES.sum(), np.array([centre, centre + 3 * spread, centre - 3 * spread]), np.full(3, spread**2)
    )
    iterations, change = 0, np.inf
    while change >= _TOLERANCE and iterations < _ITERATIONS:
        iterations += 1
        fresh = _maximise(values, weights, _shares(values, mixture))
        change = max(
            float(np.abs(getattr(fresh, name) - getattr(mixture, name)).max()) for name in ("share", "mean", "variance")
        )
        mixture = fresh
    return EmpiricalNull(
        float(mixture.mean[0]),
        float(np.sqrt(mixture.variance[0])),
        float(mixture.share[0]),
        int(known.size),
        iterations,
        change < _TOLERANCE,
    )


def _shares(values: Float64[np.ndarray, " bins"], mixture: _Mixture) -> Float64[np.ndarray, "three bins"]:
    """Return the probability that a test of each bin is of each component."""
    distance = (values[None, :] - mixture.mean[:, None]) ** 2 / mixture.variance[:, None]
    log_density = np.log(mixture.share)[:, None] - 0.5 * (np.log(mixture.variance)[:, None] + distance)
    log_density -= log_density.max(axis=0)
    density = np.exp(log_density)
    return np.asarray(density / density.sum(axis=0))


def _maximise(
    values: Float64[np.ndarray, " bins"],
    weights: Float64[np.ndarray, " bins"],
    shares: Float64[np.ndarray, "three bins"],
) -> _Mixture:
    held = shares * weights
    count = held.sum(axis=1)
    mean = (held @ values) / np.maximum(count, 1e-300)
    squares = (held * (values[None, :] - mean[:, None]) ** 2).sum(axis=1)
    between = _STRENGTH * count / (_STRENGTH + count) * (mean - _PLACE) ** 2
    return _Mixture(
        (count + _SHARES - 1) / (count.sum() + _SHARES.sum() - _SHARES.size),
        (_STRENGTH * _PLACE + count * mean) / (_STRENGTH + count),
        (2 * _BETA + squares + between) / (2 * _ALPHA + count + 3),
    )
