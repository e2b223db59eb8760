r"""-log10 p of counts: hypergeometric and binomial upper tails, without underflow.

Method: the probability of the smallest count of the tail in logarithms, times a sum of ratios of neighbouring
probabilities (each term is one product)::

    ln P(X >= k) = ln p(k) + ln(1 + p(k+1)/p(k) + p(k+2)/p(k) + ...)

Where k is not above the mean, ``1 - P(X <= k - 1)`` by the same sum downwards. ``p(k)`` is Loader's saddle-point form:
deviances and Stirling errors in place of factorials, whose logarithms would cancel to 1e-11 for tens of thousands of
genes.

References
----------
Loader (2000), Fast and accurate computation of binomial probabilities; hypergeometric in its terms: R's dhyper.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from scipy.special import bdtrc

__all__ = ["neg_log10_p_from_binomial", "neg_log10_p_from_hypergeometric"]

_LN10 = math.log(10.0)
_HALF_LN_2PI = 0.9189385332046727
_STIRLING_ERRORS = np.array(
    [
        0.0,
        0.08106146679532725822,
        0.04134069595540929410,
        0.02767792568499833915,
        0.02079067210376509312,
        0.01664469118982119216,
        0.01387612882307074800,
        0.01189670994589177010,
        0.01041126526197209650,
        0.00925546218271273292,
        0.00833056343336287126,
        0.00757367548795184079,
        0.00694284010720952987,
        0.00640899418800420707,
        0.00595137011275884774,
        0.00555473355196280137,
    ]
)
"""ln n! - ln(sqrt(2 pi n) (n / e)^n) for n of 1 to 15; 0 at 0."""
_NEGLIGIBLE = 1e-17
"""Terms below this share of the sum are left out."""
_SAFE = 1e-280
"""Binomial tails down to this are left to the incomplete beta function."""


@njit(cache=True)
@no_type_check
def _stirling_error(n):  # noqa: ANN001, ANN202
    if n <= 15.0:
        return _STIRLING_ERRORS[int(n)]
    u = 1.0 / (n * n)
    series = 1.0 / 1260.0 - u * (1.0 / 1680.0 - u * (1.0 / 1188.0 - u * (691.0 / 360360.0)))
    return (1.0 / 12.0 - u * (1.0 / 360.0 - u * series)) / n


@njit(cache=True)
@no_type_check
def _deviance(x, expected):  # noqa: ANN001, ANN202
    """Return x ln(x / expected) + expected - x, without cancellation where the two are close."""
    if abs(x - expected) < 0.1 * (x + expected):
        v = (x - expected) / (x + expected)
        total = (x - expected) * v
        term = 2.0 * x * v
        for j in range(1, 1000):
            term *= v * v
            further = total + term / (2 * j + 1)
            if further == total:
                break
            total = further
        return total
    return x * math.log(x / expected) + expected - x


@njit(cache=True)
@no_type_check
def _ln_binomial(x, n, p, q):  # noqa: ANN001, ANN202
    """Return the logarithm of the binomial probability of x out of n; p + q = 1, both positive."""
    if x == 0.0:
        return -_deviance(n, n * q) - n * p if p < 0.1 else n * math.log(q)
    if x == n:
        return -_deviance(n, n * p) - n * q if q < 0.1 else n * math.log(p)
    core = _stirling_error(n) - _stirling_error(x) - _stirling_error(n - x)
    core -= _deviance(x, n * p) + _deviance(n - x, n * q)
    return core - _HALF_LN_2PI - 0.5 * (math.log(x) + math.log1p(-x / n))


@njit(cache=True)
@no_type_check
def _ln_hypergeometric(k, drawn, special, total):  # noqa: ANN001, ANN202
    """Return the logarithm of the probability of k special among the drawn."""
    if drawn == 0.0 or drawn == total:
        return 0.0
    p, q = drawn / total, (total - drawn) / total
    mine = _ln_binomial(k, special, p, q) if special else 0.0
    others = _ln_binomial(drawn - k, total - special, p, q) if total > special else 0.0
    return mine + others - _ln_binomial(drawn, total, p, q)


@njit(cache=True, nogil=True)
@no_type_check
def _hypergeometric_tails(k, drawn, special, total, result):  # noqa: ANN001, ANN202
    for i in range(k.size):
        x, n, m, size = float(k[i]), float(drawn[i]), float(special[i]), float(total[i])
        low, high = max(0.0, n + m - size), min(n, m)
        if x <= low:
            result[i] = 0.0
            continue
        if x > high:
            result[i] = math.inf
            continue
        upwards = x > n * m / size
        j = x if upwards else x - 1.0
        first = _ln_hypergeometric(j, n, m, size)
        term, summed = 1.0, 1.0
        while j < high if upwards else j > low:
            if upwards:
                term *= (m - j) * (n - j) / ((j + 1.0) * (size - m - n + j + 1.0))
                j += 1.0
            else:
                term *= j * (size - m - n + j) / ((m - j + 1.0) * (n - j + 1.0))
                j -= 1.0
            summed += term
            if term < _NEGLIGIBLE * summed:
                break
        ln_tail = first + math.log(summed)
        result[i] = max(0.0, -(ln_tail if upwards else math.log1p(-math.exp(ln_tail))) / _LN10)


def neg_log10_p_from_hypergeometric(
    n_overlap: Int[np.ndarray, " *shape"],
    n_drawn: Int[np.ndarray, " *shape"] | int,
    n_special: Int[np.ndarray, " *shape"] | int,
    n_total: Int[np.ndarray, " *shape"] | int,
) -> Float[np.ndarray, " *shape"]:
    """Return -log10 of the probability of an overlap of at least `n_overlap`.

    Parameters
    ----------
    n_overlap
        Special ones among the drawn.
    n_drawn, n_special, n_total
        Drawn without replacement, special, and in all; broadcast against `n_overlap`.

    Returns
    -------
    array
        Relative error at most 1e-13 beyond p = 0.1, also where p underflows; infinite for an overlap
        that is impossible.

    Raises
    ------
    ValueError
        More drawn or special than there are in all, or a negative number.

    Examples
    --------
    >>> neg_log10_p_from_hypergeometric(np.array([0, 4, 300]), 300, 300, 20000).round(4).tolist()
    [0.0, 0.1795, 674.8444]
    """
    shape = np.shape(n_overlap)
    columns = [
        np.ascontiguousarray(np.broadcast_to(np.asarray(column, dtype=np.int64), shape)).ravel()
        for column in (n_overlap, n_drawn, n_special, n_total)
    ]
    overlap, drawn, special, total = columns
    if overlap.size and (min(c.min() for c in columns) < 0 or (drawn > total).any() or (special > total).any()):
        raise ValueError("Expected numbers from 0, with no more drawn or special than there are in all.")
    result = np.empty(overlap.size)
    _hypergeometric_tails(overlap, drawn, special, total, result)
    return result.reshape(shape)


@njit(cache=True, nogil=True)
@no_type_check
def _binomial_tail(x, n, p):  # noqa: ANN001, ANN202
    """Return ln P(X >= x), for x above the mean."""
    first = _ln_binomial(x, n, p, 1.0 - p)
    odds = p / (1.0 - p)
    term, summed, j = 1.0, 1.0, x
    while j < n:
        term *= (n - j) / (j + 1.0) * odds
        j += 1.0
        summed += term
        if term < _NEGLIGIBLE * summed:
            break
    return first + math.log(summed)


def neg_log10_p_from_binomial(n_successes: int, n_trials: int, probability: float) -> float:
    """Return -log10 of the probability of at least `n_successes`; NaN without a trial.

    Raises
    ------
    ValueError
        More successes than trials, or a probability that is not between 0 and 1.

    Examples
    --------
    >>> round(neg_log10_p_from_binomial(8, 10, 0.5), 4), round(neg_log10_p_from_binomial(9_000, 10_000, 0.5), 1)
    (1.2621, 1600.3)
    """
    if not (0 <= n_successes <= n_trials and 0.0 < probability < 1.0):
        raise ValueError(
            f"Expected successes of 0 to the {n_trials} trials and a probability between 0 and 1, found {n_successes} "
            f"and {probability}."
        )
    if n_trials == 0:
        return math.nan
    if n_successes == 0:
        return 0.0
    tail = float(bdtrc(n_successes - 1, n_trials, probability))
    if tail > _SAFE:
        return max(0.0, -math.log10(tail))
    return float(-_binomial_tail(float(n_successes), float(n_trials), probability) / _LN10)
