"""Exact test of Hardy-Weinberg proportions.

Given the allele counts, the number of heterozygotes h has, with n_AA and n_BB the homozygotes that go with h::

    P(h - 2) = P(h) h (h - 1) / (4 (n_AA + 1) (n_BB + 1))      P(h + 2) = P(h) 4 n_AA n_BB / ((h + 2) (h + 1))

and p is the sum of all P(h) not above that observed. Weights are kept as a mantissa and a power of two, so
that p far below 1e-300 keeps its digits.

References
----------
Wigginton et al. (2005), 10.1086/429864, eq. 2; mid-p: Graffelman & Moreno (2013), 10.1515/sagmb-2012-0039.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

__all__ = ["hwe_neg_log10_p"]

_TIE = 1.0 + 2.0**-40
_BIG, _BIG_EXPONENT = 2.0**600, 600
_LN2, _LN10 = np.log(2.0), np.log(10.0)


def hwe_neg_log10_p(
    n_hom_effect: Int[np.ndarray, " variants"],
    n_het: Int[np.ndarray, " variants"],
    n_hom_other: Int[np.ndarray, " variants"],
    *,
    mid_p: bool = False,
) -> Float[np.ndarray, " variants"]:
    """Return -log10 p of the exact Hardy-Weinberg test.

    Parameters
    ----------
    n_hom_effect, n_het, n_hom_other
        Genotype counts.
    mid_p
        Subtract half of the probability of the counts as likely as those observed.

    Returns
    -------
    array
        0 for variants with one allele or no calls (log10 2 for one allele with `mid_p`: p is 1/2).

    Examples
    --------
    >>> hwe_neg_log10_p(np.array([57]), np.array([14]), np.array([50])).round(6).tolist()
    [18.254765]
    """
    result = np.empty(n_het.size)
    _exact_tests(n_hom_effect.astype(np.int64), n_het.astype(np.int64), n_hom_other.astype(np.int64), mid_p, result)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _exact_tests(n_hom_effect, n_het, n_hom_other, mid_p, result):  # noqa: ANN001, ANN202 - numba
    for j in range(n_het.size):
        result[j] = _exact_test(n_hom_effect[j], n_het[j], n_hom_other[j], mid_p)


@njit(cache=True, nogil=True)
@no_type_check
def _exact_test(n_one, h_observed, n_two, mid_p):  # noqa: ANN001, ANN202 - numba
    rare_hom, common_hom = min(n_one, n_two), max(n_one, n_two)
    n = rare_hom + h_observed + common_hom
    rare = 2 * rare_hom + h_observed
    if n == 0:
        return 0.0
    if rare == 0:
        return _LN2 / _LN10 if mid_p else 0.0
    # Walk both ways from the observed count, whose weight is 1; the mode may be enormous relative to it.
    tail, ties = 1.0, 1.0
    total_mantissa, total_exponent = 1.0, 0
    for direction in (-1, 1):
        weight, exponent = 1.0, 0
        h, aa, bb = float(h_observed), float(rare_hom), float(common_hom)
        while True:
            if direction < 0:
                if h < 2:
                    break
                weight *= h * (h - 1.0) / (4.0 * (aa + 1.0) * (bb + 1.0))
                h, aa, bb = h - 2.0, aa + 1.0, bb + 1.0
            else:
                if aa < 1:
                    break
                weight *= 4.0 * aa * bb / ((h + 2.0) * (h + 1.0))
                h, aa, bb = h + 2.0, aa - 1.0, bb - 1.0
            if weight > _BIG:
                weight /= _BIG
                exponent += _BIG_EXPONENT
            elif exponent > 0 and weight < 1.0:
                weight *= _BIG
                exponent -= _BIG_EXPONENT
            if exponent == 0 and weight <= _TIE:
                tail += weight
                if weight >= 1.0 / _TIE:
                    ties += weight
                if weight < 1e-40 * tail:
                    break  # unimodal: all that follows is smaller still
            # total += weight * 2^exponent
            if exponent > total_exponent:
                total_mantissa = total_mantissa * 2.0 ** max(total_exponent - exponent, -1000)
                total_exponent = exponent
            if total_exponent - exponent < 1000:
                total_mantissa += weight * 2.0 ** (exponent - total_exponent)
    if mid_p:
        tail -= 0.5 * ties
    ln_p = np.log(tail) - np.log(total_mantissa) - total_exponent * _LN2
    return max(-ln_p / _LN10, 0.0)
