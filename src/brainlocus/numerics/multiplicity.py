"""Corrections for many tests, from -log10 p.

References
----------
Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["benjamini_hochberg_q", "bonferroni_p"]


def bonferroni_p(neg_log10_p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return p times the number of tests with a result, at most 1; NaN stays NaN and is not a test."""
    n_tests = int(np.isfinite(neg_log10_p).sum() + np.isposinf(neg_log10_p).sum())
    return np.asarray(np.minimum(10.0 ** (np.log10(max(n_tests, 1)) - neg_log10_p), 1.0))


def benjamini_hochberg_q(neg_log10_p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return Benjamini-Hochberg q-values; NaN stays NaN and is not a test.

    Examples
    --------
    >>> benjamini_hochberg_q(-np.log10(np.array([0.01, 0.04, 0.03, np.nan]))).round(3).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    q = np.full(neg_log10_p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(neg_log10_p))
    if not tested.size:
        return q
    order = tested[np.argsort(-neg_log10_p[tested], kind="stable")]
    log_q = neg_log10_p[order] - np.log10(tested.size / np.arange(1, tested.size + 1))
    running = np.maximum.accumulate(log_q[::-1])[::-1]
    q[order] = np.minimum(10.0**-running, 1.0)
    return q
