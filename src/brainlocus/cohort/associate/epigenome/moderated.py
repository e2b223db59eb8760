r"""Moderated t: residual variances of many features drawn towards a common one (limma's empirical Bayes).

Data flow::

    variances, df --fit_variance_prior--> VariancePrior
    beta, unscaled, variances, df, VariancePrior --moderate--> Moderated

The variance s_g^2 of a feature with d_g degrees of freedom is taken as sigma_g^2 chi^2(d_g) / d_g, and 1 / sigma_g^2 as
chi^2(d0) / (d0 s0^2). With e = log s_g^2 - psi(d_g / 2) + log(d_g / 2) over G features::

    psi'(d0 / 2) = sum (e - mean e)^2 / (G - 1) - mean psi'(d_g / 2)
    s0^2 = exp(mean e + psi(d0 / 2) - log(d0 / 2))

d0 is infinite, and s0^2 the mean of s_g^2, where the right side is not positive. Then ::

    variance = (d0 s0^2 + d_g s_g^2) / (d0 + d_g)     df = min(d0 + d_g, sum of all d_g)

References
----------
Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3:3, section 6.2; Ritchie et al. (2015), Nucleic Acids Res. 43:e47 (limma).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import digamma, polygamma

from brainlocus.numerics import neg_log10_p_from_t

__all__ = ["Moderated", "VariancePrior", "fit_variance_prior", "moderate"]

_LEAST = 1e-5
"""Share of the median that a variance is at least, before its logarithm is taken (limma's)."""
_NEWTON = 60
_LARGE, _SMALL = 1e7, 1e-6
"""Where trigamma(y) is 1 / y^2 or 1 / y, its inverse is given by that."""


@dataclass(frozen=True, slots=True)
class VariancePrior:
    """What variances are drawn to, and how strongly."""

    degrees_of_freedom: float
    """d0: 0 leaves variances as they are, infinite makes them equal."""
    variance: float
    """s0^2; NaN where there is nothing to estimate it from."""
    pooled: float
    """Sum of the degrees of freedom of all features, which those of a test do not exceed."""


@dataclass(frozen=True, slots=True, eq=False)
class Moderated:
    """Tests with moderated variances; NaN where there was no estimate."""

    standard_error: Float64[np.ndarray, " features"]
    t: Float64[np.ndarray, " features"]
    degrees_of_freedom: Float64[np.ndarray, " features"]
    neg_log10_p: Float64[np.ndarray, " features"]


def _inverse_trigamma(x: float) -> float:
    """Return y with trigamma(y) = x > 0, by Newton's method on 1 / trigamma, which is convex (limma's appendix)."""
    if x > _LARGE:
        return 1.0 / math.sqrt(x)
    if x < _SMALL:
        return 1.0 / x
    y = 0.5 + 1.0 / x
    for _ in range(_NEWTON):
        value = float(polygamma(1, y))
        step = value * (1.0 - value / x) / float(polygamma(2, y))
        y += step
        if abs(step) <= 1e-15 * y:
            break
    return y


def fit_variance_prior(
    variance: Float[np.ndarray, " features"], degrees_of_freedom: Float[np.ndarray, " features"]
) -> VariancePrior:
    """Return the common variance and its weight.

    Parameters
    ----------
    variance
        Residual variances; NaN is left out. A variance of exactly 0 counts as a hundred-thousandth of the median.

    Examples
    --------
    >>> prior = fit_variance_prior(np.array([1.0, 2.0, 4.0, 8.0, 0.5]), np.full(5, 10.0))
    >>> round(prior.degrees_of_freedom, 3), round(prior.variance, 3)
    (2.896, 1.511)
    """
    known = np.isfinite(variance) & np.isfinite(degrees_of_freedom) & (degrees_of_freedom > 0)
    s2 = np.asarray(variance[known], dtype=np.float64)
    df = np.asarray(degrees_of_freedom[known], dtype=np.float64)
    pooled = float(df.sum())
    if s2.size < 2 or not (s2 > 0).any():
        return VariancePrior(0.0, float(s2[0]) if s2.size else math.nan, pooled)
    middle = float(np.median(s2)) or 1.0
    s2 = np.maximum(s2, _LEAST * middle)
    e = np.log(s2) - digamma(df / 2) + np.log(df / 2)
    left = float(e.var(ddof=1) - polygamma(1, df / 2).mean())
    if not left > 0:
        return VariancePrior(math.inf, float(s2.mean()), pooled)
    d0 = 2.0 * _inverse_trigamma(left)
    return VariancePrior(d0, float(np.exp(e.mean() + digamma(d0 / 2) - math.log(d0 / 2))), pooled)


def moderate(
    beta: Float[np.ndarray, " features"],
    unscaled: Float[np.ndarray, " features"],
    variance: Float[np.ndarray, " features"],
    degrees_of_freedom: Float[np.ndarray, " features"],
    prior: VariancePrior | None,
) -> Moderated:
    """Return t with moderated variances and degrees of freedom, or as they are where there is no prior.

    Parameters
    ----------
    unscaled
        Standard error over residual standard deviation.
    """
    d0 = 0.0 if prior is None else prior.degrees_of_freedom
    if prior is None or d0 == 0:
        posterior, df = variance, degrees_of_freedom
    elif math.isinf(d0):
        posterior = np.where(np.isfinite(variance), prior.variance, np.nan)
        df = np.where(np.isfinite(variance), prior.pooled, np.nan)
    else:
        posterior = (d0 * prior.variance + degrees_of_freedom * variance) / (d0 + degrees_of_freedom)
        df = np.minimum(d0 + degrees_of_freedom, prior.pooled)
    standard_error = unscaled * np.sqrt(posterior)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = beta / standard_error
    return Moderated(
        np.asarray(standard_error), np.asarray(t), np.asarray(df, dtype=np.float64), neg_log10_p_from_t(t, df)
    )
