"""Histogram of all tests of a scan: Q-Q quantiles and genomic inflation without keeping the tests.

-log10 p is counted block by block, in bins of 0.001 up to 1 (the median, hence lambda_GC) and of 0.01 above (the Q-Q
curve), so that a trait takes some kilobytes.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

from brainlocus.genetics.gwas import _kernels
from brainlocus.genetics.gwas.method import Tallies
from brainlocus.numerics.tails import MEDIAN_CHI2, neg_log10_p_from_t, neg_log10_p_from_z

__all__ = ["QQ_BIN_WIDTH", "empty_tallies", "lambda_gc", "qq_counts", "tally_p", "tally_t"]

QQ_BIN_WIDTH = 0.01
_FINE = 0.001
_N_FINE = 1000
_BINS = 4901
"""-log10 p up to 40; the last bin holds everything above."""
_EXACT_BELOW_DF = 200.0
"""Below these degrees of freedom the histogram takes exact p-values, above Wallace's normal deviate."""


def empty_tallies(n_traits: int) -> Tallies:
    """Return a histogram without tests."""
    return Tallies(np.zeros((n_traits, _BINS), dtype=np.int64))


def tally_t(
    t: Float[np.ndarray, "variants traits"],
    degrees_of_freedom: Float[np.ndarray, "variants groups"],
    residual_variance: Float[np.ndarray, "variants groups"],
    group_of: Int[np.ndarray, " traits"],
    tallies: Tallies,
) -> None:
    """Add a block of t statistics; NaN is no test.

    Each variant's own degrees of freedom choose the way, so that blocks change nothing.
    """
    df = degrees_of_freedom
    few = np.where(np.isnan(residual_variance), np.inf, df).min(axis=1, initial=np.inf) < _EXACT_BELOW_DF
    if few.any():
        tally_p(neg_log10_p_from_t(t[few].astype(np.float64), df[few][:, group_of]), tallies)
        t, df = t[~few], df[~few]
    table, step = _normal_table()
    _kernels.bin_statistics(t, df, group_of, table, step, _FINE, QQ_BIN_WIDTH, tallies.counts)


def tally_p(neg_log10_p: Float[np.ndarray, "variants traits"], tallies: Tallies) -> None:
    """Add a block of tests by their p-values; NaN is no test."""
    tested = ~np.isnan(neg_log10_p)
    traits, p = np.broadcast_to(np.arange(tallies.counts.shape[0]), neg_log10_p.shape)[tested], neg_log10_p[tested]
    at = np.where(p < 1.0, p / _FINE, _N_FINE + (p - 1.0) / QQ_BIN_WIDTH)
    np.add.at(tallies.counts, (traits, np.minimum(at, _BINS - 1).astype(np.int64)), 1)


def qq_counts(tallies: Tallies) -> Int[np.ndarray, "traits bins"]:
    """Return the tests per `QQ_BIN_WIDTH` of -log10 p; the last bin is open."""
    counts = tallies.counts
    per = round(QQ_BIN_WIDTH / _FINE)
    low = counts[:, :_N_FINE].reshape(counts.shape[0], -1, per).sum(axis=2)
    return np.asarray(np.hstack([low, counts[:, _N_FINE:]]))


def lambda_gc(tallies: Tallies) -> Float[np.ndarray, " traits"]:
    """Return the genomic inflation of each trait: chi-square of the median p / 0.4549.

    The median is interpolated within its bin, uniform in p; a bin holds 0.1 % of the tests there.
    NaN without tests, infinite when the median lies beyond the last bin (-log10 p of 40).

    References
    ----------
    Devlin & Roeder (1999), Biometrics 55:997.
    """
    edges = np.concatenate([_FINE * np.arange(_N_FINE), 1.0 + QQ_BIN_WIDTH * np.arange(_BINS - _N_FINE + 1)])
    result = np.full(tallies.counts.shape[0], np.nan)
    for k, counts in enumerate(tallies.counts):
        cumulative = np.cumsum(counts)
        total = int(cumulative[-1])
        if not total:
            continue
        place = int(np.searchsorted(cumulative, total / 2.0))
        before = int(cumulative[place - 1]) if place else 0
        largest, smallest = 10.0 ** -edges[place], 10.0 ** -edges[place + 1]
        p = largest - (largest - smallest) * (total / 2.0 - before) / int(counts[place])
        result[k] = np.inf if place == counts.size - 1 else ndtri(p / 2.0) ** 2 / MEDIAN_CHI2
    return result


@lru_cache(maxsize=1)
def _normal_table() -> tuple[Float[np.ndarray, " grid"], float]:
    """Return -log10 p of the normal deviates 0, step, 2 step ... up to the last bin."""
    step = 1.0 / 1024.0
    return neg_log10_p_from_z(np.arange(0.0, 13.5, step)), step
