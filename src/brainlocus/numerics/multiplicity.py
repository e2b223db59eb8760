"""Corrections for many tests, from -log10 p.

With p-values in ascending order, ``p(1) <= ... <= p(m)``, and m tests::

    Bonferroni          min(1, m p(i))
    Holm                max over j <= i of min(1, (m - j + 1) p(j))
    Benjamini-Hochberg  min over j >= i of min(1, m p(j) / j)
    Benjamini-Yekutieli the same with m (1 + 1/2 + ... + 1/m) in place of m

NaN is no test: it is not counted and stays NaN. A table that holds the smallest p-values only is corrected with the
`n_tests` of the whole: those it lacks are taken to be larger than those it has.

References
----------
Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289; Benjamini & Yekutieli (2001), Ann. Stat. 29:1165;
Holm (1979), Scand. J. Stat. 6:65.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

__all__ = ["benjamini_hochberg_q", "benjamini_yekutieli_q", "bonferroni_p", "holm_p", "scoped"]

_EULER = 0.5772156649015329
_SUMMED = 1 << 16
"""Terms of the harmonic number that are added one by one; the series has 1e-15 from far fewer on."""


def bonferroni_p(
    neg_log10_p: Float[np.ndarray, " tests"], *, n_tests: int | None = None
) -> Float[np.ndarray, " tests"]:
    """Return p times the number of tests with a result, at most 1; NaN stays NaN and is not a test.

    Parameters
    ----------
    n_tests
        Tests of the whole, where `neg_log10_p` has only some of them; by default those of `neg_log10_p`.

    Raises
    ------
    ValueError
        `n_tests` is smaller than the number of tests given.
    """
    tested = _count(int((~np.isnan(neg_log10_p)).sum()), n_tests)
    return np.asarray(np.minimum(10.0 ** (np.log10(max(tested, 1)) - neg_log10_p), 1.0))


def holm_p(neg_log10_p: Float[np.ndarray, " tests"], *, n_tests: int | None = None) -> Float[np.ndarray, " tests"]:
    """Return Holm's step-down adjusted p; NaN stays NaN and is not a test.

    Parameters and errors are as those of `bonferroni_p`.

    Examples
    --------
    >>> holm_p(-np.log10(np.array([0.01, 0.04, 0.03, np.nan]))).round(3).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    order = _ascending(neg_log10_p)
    tested = _count(order.size, n_tests)
    left = tested - np.arange(order.size)
    running = np.minimum.accumulate(neg_log10_p[order] - np.log10(left))
    return _placed(running, order, neg_log10_p)


def benjamini_hochberg_q(
    neg_log10_p: Float[np.ndarray, " tests"], *, n_tests: int | None = None
) -> Float[np.ndarray, " tests"]:
    """Return Benjamini-Hochberg q-values; NaN stays NaN and is not a test.

    Parameters and errors are as those of `bonferroni_p`.

    Examples
    --------
    >>> benjamini_hochberg_q(-np.log10(np.array([0.01, 0.04, 0.03, np.nan]))).round(3).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    order = _ascending(neg_log10_p)
    return _placed(_step_up(neg_log10_p[order], _count(order.size, n_tests)), order, neg_log10_p)


def benjamini_yekutieli_q(
    neg_log10_p: Float[np.ndarray, " tests"], *, n_tests: int | None = None
) -> Float[np.ndarray, " tests"]:
    """Return Benjamini-Yekutieli q-values, valid under any dependence; NaN stays NaN and is not a test.

    Parameters and errors are as those of `bonferroni_p`.

    Examples
    --------
    >>> benjamini_yekutieli_q(-np.log10(np.array([0.01, 0.04, 0.03, np.nan]))).round(4).tolist()
    [0.055, 0.0733, 0.0733, nan]
    """
    order = _ascending(neg_log10_p)
    tested = _count(order.size, n_tests)
    log_q = _step_up(neg_log10_p[order], tested) - np.log10(_harmonic(max(tested, 1)))
    return _placed(log_q, order, neg_log10_p)


def scoped(
    function: Callable[[Float[np.ndarray, " tests"]], Float[np.ndarray, " tests"]],
    neg_log10_p: Float[np.ndarray, " tests"],
    codes: Int[np.ndarray, " coded"],
) -> Float[np.ndarray, " tests"]:
    """Return a correction made within groups of tests: per phenotype, per modality, per phenotype and tissue ...

    Parameters
    ----------
    function
        One of the corrections above.
    codes
        Group of each test; a test with a negative code is in no group and gets NaN.

    Raises
    ------
    ValueError
        Codes and p-values differ in number.

    Examples
    --------
    >>> p = -np.log10(np.array([0.01, 0.04, 0.03]))
    >>> scoped(bonferroni_p, p, np.array([0, 1, 0])).round(3).tolist()
    [0.02, 0.04, 0.06]
    """
    if codes.shape != neg_log10_p.shape:
        raise ValueError(f"Expected a group for each of {neg_log10_p.size} tests, found {codes.size}.")
    corrected = np.full(neg_log10_p.shape, np.nan)
    order = np.argsort(codes, kind="stable")
    order = order[np.searchsorted(codes[order], 0) :]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for group in np.split(order, starts[1:]) if order.size else []:
        corrected[group] = function(neg_log10_p[group])
    return corrected


def _count(found: int, n_tests: int | None) -> int:
    if n_tests is None:
        return found
    if n_tests < found:
        raise ValueError(f"n_tests must be the tests of the whole, at least the {found} given; found {n_tests}.")
    return n_tests


def _ascending(neg_log10_p: Float[np.ndarray, " tests"]) -> Int[np.ndarray, " tested"]:
    """Return the tests with a result, smallest p first."""
    tested = np.flatnonzero(~np.isnan(neg_log10_p))
    return tested[np.argsort(-neg_log10_p[tested], kind="stable")]


def _step_up(ordered: Float[np.ndarray, " tested"], n_tests: int) -> Float[np.ndarray, " tested"]:
    """Return -log10 of Benjamini-Hochberg q, of -log10 p in descending order."""
    log_q = ordered - np.log10(n_tests / np.arange(1, ordered.size + 1))
    return np.asarray(np.maximum.accumulate(log_q[::-1])[::-1])


def _placed(
    neg_log10_adjusted: Float[np.ndarray, " tested"],
    order: Int[np.ndarray, " tested"],
    neg_log10_p: Float[np.ndarray, " tests"],
) -> Float[np.ndarray, " tests"]:
    adjusted = np.full(neg_log10_p.shape, np.nan)
    adjusted[order] = np.minimum(10.0**-neg_log10_adjusted, 1.0)
    return adjusted


def _harmonic(n: int) -> float:
    """Return 1 + 1/2 + ... + 1/n; beyond `_SUMMED` by the asymptotic series (DLMF 2.10.8), good to 1e-16."""
    if n <= _SUMMED:
        return float((1.0 / np.arange(1, n + 1)).sum())
    return float(np.log(n) + _EULER + 1 / (2 * n) - 1 / (12 * n**2))
