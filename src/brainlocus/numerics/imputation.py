"""Quality of imputed genotypes on the people analysed: IMPUTE's INFO from probabilities, MaCH's r2 from dosages.

With ``e_i = P1 + 2 P2``, ``f_i = P1 + 4 P2`` of person i and ``theta = sum e_i / 2n``::

    INFO = 1 - sum(f_i - e_i^2) / (2 n theta (1 - theta))        1 where theta is 0 or 1
    r2   = (sum e_i^2 / n - (2 theta)^2) / (2 theta (1 - theta))

over the n people with a call. INFO is the information about the allele frequency relative to known genotypes, r2 the
variance of the dosages relative to that expected in Hardy-Weinberg proportions.

References
----------
Marchini & Howie (2010), Nature Reviews Genetics 11:499 (10.1038/nrg2796), supplement; Li et al. (2010), Genetic
Epidemiology 34:816 (10.1002/gepi.20533).
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32
from numba import njit

from brainlocus.core.genotypes import GenotypeSource, ProbabilityBlock, ProbabilitySource, SelectedGenotypes, runs

__all__ = ["impute_info", "mach_r2", "mach_r2_of_sums", "read_probabilities"]


def read_probabilities(source: GenotypeSource, start: int, stop: int) -> ProbabilityBlock | None:
    """Return probabilities of variants `start` up to but not including `stop`; None when the source knows none."""
    if isinstance(source, ProbabilitySource):
        return source.read_probabilities(start, stop)
    if not isinstance(source, SelectedGenotypes) or not isinstance(source.source, ProbabilitySource):
        return None
    parts = [source.source.read_probabilities(*run) for run in runs(source.variant_indices[start:stop])]
    empty = np.empty((0, source.sample_indices.size), dtype=np.float32)
    people = source.sample_indices
    return ProbabilityBlock(
        start,
        np.concatenate([empty, *(part.one[:, people] for part in parts)]),
        np.concatenate([empty, *(part.two[:, people] for part in parts)]),
    )


def impute_info(
    one: Float32[np.ndarray, "variants samples"], two: Float32[np.ndarray, "variants samples"]
) -> Float[np.ndarray, " variants"]:
    """Return IMPUTE's INFO; NaN where nobody has a call, 1 where the allele is absent or fixed.

    Parameters
    ----------
    one, two
        Probabilities of one and two copies; NaN = missing.
    """
    sums = np.empty((one.shape[0], 3))
    _sum_probabilities(one, two, sums)
    n, total, spread = sums.T
    return _one_where_fixed(1 - _over(spread, total, n), total, n)


def mach_r2(dosage: Float32[np.ndarray, "variants samples"]) -> Float[np.ndarray, " variants"]:
    """Return MaCH's r2; NaN where nobody has a call or the allele is absent or fixed.

    Parameters
    ----------
    dosage
        Copies of the effect allele in [0, 2]; NaN = missing.
    """
    sums = np.empty((dosage.shape[0], 3))
    _sum_dosages(dosage, sums)
    n, total, spread = sums.T
    return mach_r2_of_sums(n, total, spread)


def mach_r2_of_sums(
    n: Float[np.ndarray, " variants"], total: Float[np.ndarray, " variants"], spread: Float[np.ndarray, " variants"]
) -> Float[np.ndarray, " variants"]:
    """Return MaCH's r2 of people with a call, sum of dosages, and sum of their squares about the mean."""
    return _over(spread, total, n)


@njit(cache=True, nogil=True)
@no_type_check
def _sum_probabilities(one, two, sums):  # noqa: ANN001, ANN202
    """Fill people with a call, sum of e and sum of f - e^2."""
    for j in range(one.shape[0]):
        n = total = spread = 0.0
        for i in range(one.shape[1]):
            p1, p2 = np.float64(one[j, i]), np.float64(two[j, i])
            if p1 == p1:
                e = p1 + 2.0 * p2
                n += 1.0
                total += e
                spread += p1 + 4.0 * p2 - e * e
        sums[j, 0], sums[j, 1], sums[j, 2] = n, total, spread


@njit(cache=True, nogil=True)
@no_type_check
def _sum_dosages(dosage, sums):  # noqa: ANN001, ANN202
    """Fill people with a call, sum of dosages and sum of squares around their mean."""
    for j in range(dosage.shape[0]):
        n = total = spread = 0.0
        for i in range(dosage.shape[1]):
            e = np.float64(dosage[j, i])
            if e == e:
                n += 1.0
                total += e
        mean = total / max(n, 1.0)
        for i in range(dosage.shape[1]):
            e = np.float64(dosage[j, i])
            if e == e:
                spread += (e - mean) ** 2
        sums[j, 0], sums[j, 1], sums[j, 2] = n, total, spread


def _over(
    spread: Float[np.ndarray, " variants"], total: Float[np.ndarray, " variants"], n: np.ndarray
) -> Float[np.ndarray, " variants"]:
    """Return a sum of squares over its expectation ``2 n theta (1 - theta)``; NaN where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        theta = total / (2 * n)
        expected = 2 * n * theta * (1 - theta)
        return np.where(expected > 0, spread / expected, np.nan)


def _one_where_fixed(
    info: Float[np.ndarray, " variants"], total: Float[np.ndarray, " variants"], n: np.ndarray
) -> Float[np.ndarray, " variants"]:
    return np.where((n > 0) & ((total <= 0) | (total >= 2 * n)), 1.0, info)
