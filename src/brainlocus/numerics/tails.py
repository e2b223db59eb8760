r"""-log10 p of t, normal and chi-square statistics, without underflow.

Method: ``I_x(a, b)`` with ``x = df / (df + t^2)``, ``a = df / 2``, ``b = 1/2`` in logarithms::

    ln p = a ln x + b ln(1 - x) - ln a - ln Beta(a, b) + ln F(x; a, b)

where F is the continued fraction of the incomplete beta function, evaluated by Lentz's method as modified
by Thompson and Barnett. Where the fraction converges slowly or cancels (``t^2 <= 3 df / (df + 3)``, or
``t^2 <= 12`` for df above 1e4) p is above 5e-4 and ``1 - I_{1-x}(1/2, df/2)`` loses nothing.

References
----------
Press et al. (2007), Numerical Recipes, section 6.4; Thompson & Barnett (1986), J. Comput. Phys. 64:490;
NIST Digital Library of Mathematical Functions, 8.17.22.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy.special import betainc, erfinv, gammaincc, gammaln, log_ndtr

__all__ = ["MEDIAN_CHI2", "neg_log10_p_from_chi2", "neg_log10_p_from_t", "neg_log10_p_from_z", "z_from_neg_log10_p"]

MEDIAN_CHI2 = 0.454936423119572
"""Median of chi-square with one degree of freedom: the denominator of genomic inflation."""
_TINY = 1e-300
_TOLERANCE = 1e-15
_MAX_TERMS = 200
_LARGE_DF = 1e4
_BODY_T2 = 12.0
"""For df above `_LARGE_DF` the fraction is used from t^2 = 12 (p about 5e-4): below, ``1 - x ~ t^2 / df`` is so
small that the fraction's first denominator would lose up to 1e-10, while ``1 - I`` still has 12 digits."""
_LN10 = math.log(10.0)
_MAX_NEWTON = 30
_SMALL_TAIL = 1e-200
"""Upper tails below this are computed in logarithms."""


@njit(cache=True)
@no_type_check
def _ln_beta_half(a: float) -> float:
    """Return ``ln Beta(a, 1/2)`` to full precision for a from 1/2 to 1e8.

    ``lgamma(a) - lgamma(a + 1/2)`` cancels for large a, so from a = 20 on the asymptotic series of the
    ratio is used (DLMF 5.11.13); its first omitted term is below 1e-16 there.
    """
    half_ln_pi = 0.5723649429247001
    if a < 20.0:
        return math.lgamma(a) + half_ln_pi - math.lgamma(a + 0.5)
    u = 1.0 / a
    u2 = u * u
    # ln Gamma(a + 1/2) - ln Gamma(a) = ln(a)/2 + series
    series = u * (
        -1.0 / 8.0
        + u2
        * (1.0 / 192.0 + u2 * (-1.0 / 640.0 + u2 * (17.0 / 14336.0 + u2 * (-31.0 / 18432.0 + u2 * (691.0 / 180224.0)))))
    )
    return half_ln_pi - 0.5 * math.log(a) - series


@njit(cache=True)
@no_type_check
def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return F(x; a, b) of DLMF 8.17.22 by the modified Lentz method."""
    c = 1.0
    d = 1.0 - (a + b) * x / (a + 1.0)
    if abs(d) < _TINY:
        d = _TINY
    d = 1.0 / d
    fraction = d
    for m in range(1, _MAX_TERMS + 1):
        term = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 + term * d
        c = 1.0 + term / c
        if abs(d) < _TINY:
            d = _TINY
        if abs(c) < _TINY:
            c = _TINY
        d = 1.0 / d
        fraction *= d * c
        term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 + term * d
        c = 1.0 + term / c
        if abs(d) < _TINY:
            d = _TINY
        if abs(c) < _TINY:
            c = _TINY
        d = 1.0 / d
        step = d * c
        fraction *= step
        if abs(step - 1.0) < _TOLERANCE:
            break
    return fraction


@njit(cache=True)
@no_type_check
def _ln_p_tail(t: float, df: float) -> float:
    """Return ln of the two-sided p, or NaN."""
    t2 = t * t
    if not t2 > (_BODY_T2 if df > _LARGE_DF else 3.0 * df / (df + 3.0)):
        return math.nan
    if math.isinf(t2):
        return -math.inf
    a = 0.5 * df
    ln_x = -math.log1p(t2 / df)
    x = df / (df + t2)
    ln_1mx = -math.log1p(df / t2)
    return a * ln_x + 0.5 * ln_1mx - math.log(a) - _ln_beta_half(a) + math.log(_continued_fraction(a, 0.5, x))


@njit(cache=True, nogil=True)
@no_type_check
def _ln_p_tails(t, df, ln_p):  # noqa: ANN001, ANN202
    """Fill ln of the two-sided p by the continued fraction; NaN where the body formula is to be used."""
    for k in range(t.size):
        ln_p[k] = _ln_p_tail(t[k], df[k])


def neg_log10_p_from_t(
    t: Float[np.ndarray, "*shape"] | float, df: Float[np.ndarray, "*broadcast"] | float
) -> Float[np.ndarray, "*shape"]:
    r"""Return -log10 of the two-sided p-value of Student's t.

    Parameters
    ----------
    t
        Statistic; NaN gives NaN, infinite gives infinity.
    df
        Degrees of freedom, broadcast against `t`; NaN where not positive.

    Returns
    -------
    array
        Relative error at most 1e-10 for |t| up to 1e4 and df from 1 to 1e7, far beyond where p
        underflows.

    Examples
    --------
    >>> neg_log10_p_from_t(np.array([0.0, 8.0, 100.0]), 390.0).round(3).tolist()
    [0.0, 13.843, 279.368]
    """
    t_array = np.abs(np.asarray(t, dtype=np.float64))
    df_array = np.broadcast_to(np.asarray(df, dtype=np.float64), t_array.shape)
    valid_df = np.where(df_array > 0, df_array, np.nan)
    flat_t, flat_df = t_array.ravel(), valid_df.ravel()
    result = np.empty(flat_t.size)
    _ln_p_tails(flat_t, flat_df, result)
    result /= -_LN10
    body = np.isnan(result) & ~np.isnan(flat_t) & ~np.isnan(flat_df)
    if body.any():
        t2, dof = flat_t[body] ** 2, flat_df[body]
        result[body] = -np.log1p(-betainc(0.5, 0.5 * dof, t2 / (dof + t2))) / _LN10
    return result.reshape(t_array.shape)


def neg_log10_p_from_z(z: Float[np.ndarray, "*shape"] | float) -> Float[np.ndarray, "*shape"]:
    """Return -log10 of the two-sided p-value of a standard normal statistic; NaN gives NaN.

    Examples
    --------
    >>> neg_log10_p_from_z(np.array([1.959964, 40.0])).round(4).tolist()
    [1.301, 349.136]
    """
    z_array = np.abs(np.asarray(z, dtype=np.float64))
    return np.asarray(-(log_ndtr(-z_array) + math.log(2.0)) / _LN10)


def z_from_neg_log10_p(neg_log10_p: Float[np.ndarray, "*shape"] | float) -> Float[np.ndarray, "*shape"]:
    """Return |z| of a two-sided p-value given as -log10 p; NaN gives NaN, infinite gives infinity.

    Newton's method on ``log_ndtr(-z) = ln(p / 2)``, from ``sqrt(2 ln(10) m)``, which is above the root; the relative
    error is below 1e-12 for p down to 1e-300000. Near p = 1, where the logarithm is flat, from the inverse error
    function of 1 - p.

    Examples
    --------
    >>> z_from_neg_log10_p(np.array([0.0, 1.3010299956639813, 349.136])).round(4).tolist()
    [0.0, 1.96, 40.0]
    """
    m = np.asarray(neg_log10_p, dtype=np.float64)
    target = -m * _LN10 - math.log(2.0)
    usable = np.isfinite(m) & (m > 0.5)
    z = np.sqrt(2.0 * _LN10 * np.where(usable, m, 1.0))
    goal = np.where(usable, target, float(-_LN10 - math.log(2.0)))
    for _ in range(_MAX_NEWTON):
        tail = log_ndtr(-z)
        # d log_ndtr(-z) / dz = -phi(z) / Phi(-z)
        slope = -np.exp(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - tail)
        step = (tail - goal) / slope
        z = z - step
        if np.all(np.abs(step) <= 1e-15 * z):
            break
    with np.errstate(invalid="ignore"):
        body = math.sqrt(2.0) * erfinv(-np.expm1(-m * _LN10))
    far = np.isposinf(m)
    return np.asarray(np.where(far, np.inf, np.where(usable, z, np.where(m >= 0, body, np.nan))))


def neg_log10_p_from_chi2(
    chi2: Float[np.ndarray, "*shape"] | float, df: Float[np.ndarray, "*broadcast"] | float = 1.0
) -> Float[np.ndarray, "*shape"]:
    """Return -log10 of the upper tail of chi-square.

    One degree of freedom goes through the normal tail, others where p is below 1e-200 through the continued fraction of
    the incomplete gamma function in logarithms (DLMF 8.9.2): neither underflows.

    Examples
    --------
    >>> neg_log10_p_from_chi2(np.array([5.991465, 4000.0]), 2.0).round(4).tolist()
    [1.301, 868.589]
    """
    x = np.maximum(np.asarray(chi2, dtype=np.float64), 0.0)
    freedom = np.broadcast_to(np.asarray(df, dtype=np.float64), x.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = gammaincc(freedom / 2.0, x / 2.0)
        general = np.asarray(-np.log10(tail))
    far = (tail < _SMALL_TAIL) & np.isfinite(x) & (freedom > 0)
    if far.any():
        general[far] = _neg_log10_gamma_tail(freedom[far] / 2.0, x[far] / 2.0)
    return np.where(freedom == 1.0, neg_log10_p_from_z(np.sqrt(x)), general)


def _neg_log10_gamma_tail(
    a: Float[np.ndarray, " tests"], x: Float[np.ndarray, " tests"]
) -> Float[np.ndarray, " tests"]:
    """Return -log10 of the regularised upper incomplete gamma function far in its tail, by Lentz's method."""
    b = x + 1.0 - a
    c = np.full(x.shape, 1.0 / _TINY)
    d = 1.0 / b
    fraction = d.copy()
    for k in range(1, _MAX_TERMS + 1):
        numerator = k * (a - k)
        b = b + 2.0
        d = 1.0 / (numerator * d + b)
        c = b + numerator / c
        step = c * d
        fraction *= step
        if np.all(np.abs(step - 1.0) < _TOLERANCE):
            break
    return np.asarray((x - a * np.log(x) + gammaln(a) - np.log(fraction)) / _LN10)
