"""Histograms of all tests of a scan: Q-Q quantiles and genomic inflation without keeping the tests.

-log10 p is counted in bins of 0.01 and the equivalent chi-square (one degree of freedom) in bins of 1/512, block by
block, so that lambda_GC and Q-Q curves of thousands of traits take some kilobytes each.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from brainlocus.genetics.gwas import _kernels
from brainlocus.genetics.gwas.method import Tallies
from brainlocus.numerics.tails import neg_log10_p_from_t, neg_log10_p_from_z

__all__ = ["QQ_BIN_WIDTH", "empty_tallies", "lambda_gc", "tally_p", "tally_t"]

QQ_BIN_WIDTH = 0.01
_QQ_BINS = 4001
"""-log10 p up to 40; the last bin holds everything above."""
_CHI2_BIN_WIDTH = 1.0 / 512.0
_CHI2_BINS = 4096
_EXACT_BELOW_DF = 200.0
"""Below these degrees of freedom the histogram takes exact p-values, above Wallace's normal deviate."""
_MEDIAN_CHI2 = 0.454936423119572
"""Median of chi-square with one degree of freedom."""


def empty_tallies(n_traits: int) -> Tallies:
    """Return histograms without tests."""
    return Tallies(np.zeros((n_traits, _QQ_BINS), dtype=np.int64), np.zeros((n_traits, _CHI2_BINS), dtype=np.int64))


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
    _kernels.bin_statistics(t, df, group_of, table, step, QQ_BIN_WIDTH, _CHI2_BIN_WIDTH, tallies.qq, tallies.chi2)


def tally_p(neg_log10_p: Float[np.ndarray, "variants traits"], tallies: Tallies) -> None:
    """Add a block of tests by their p-values; NaN is no test."""
    tested = ~np.isnan(neg_log10_p)
    traits, p = np.broadcast_to(np.arange(tallies.qq.shape[0]), neg_log10_p.shape)[tested], neg_log10_p[tested]
    np.add.at(tallies.qq, (traits, np.minimum(p / QQ_BIN_WIDTH, _QQ_BINS - 1).astype(np.int64)), 1)
    table, step = _normal_table()
    z2 = np.interp(p, table, np.arange(table.size) * step) ** 2
    np.add.at(tallies.chi2, (traits, np.minimum(z2 / _CHI2_BIN_WIDTH, _CHI2_BINS - 1).astype(np.int64)), 1)


def lambda_gc(chi2_counts: Int[np.ndarray, "traits bins"]) -> Float[np.ndarray, " traits"]:
    """Return the genomic inflation of each trait: median chi-square / 0.4549, interpolated within its bin.

    NaN without tests, infinite when the median lies beyond the last bin (a chi-square of 8).

    References
    ----------
    Devlin & Roeder (1999), Biometrics 55:997.
    """
    result = np.full(chi2_counts.shape[0], np.nan)
    for k, counts in enumerate(chi2_counts):
        cumulative = np.cumsum(counts)
        total = int(cumulative[-1])
        if not total:
            continue
        place = int(np.searchsorted(cumulative, total / 2.0))
        before = int(cumulative[place - 1]) if place else 0
        median = _CHI2_BIN_WIDTH * (place + (total / 2.0 - before) / int(counts[place]))
        result[k] = np.inf if place == counts.size - 1 else median / _MEDIAN_CHI2
    return result


@lru_cache(maxsize=1)
def _normal_table() -> tuple[Float[np.ndarray, " grid"], float]:
    """Return -log10 p of the normal deviates 0, step, 2 step ... up to the last bin."""
    step = 1.0 / 1024.0
    return neg_log10_p_from_z(np.arange(0.0, 13.5, step)), step
