"""Exact test of Hardy-Weinberg proportions.

Given the allele counts, the number of heterozygotes h has, with n_AA and n_BB the homozygotes that go with h::

    P(h - 2) = P(h) h (h - 1) / (4 (n_AA + 1) (n_BB + 1))      P(h + 2) = P(h) 4 n_AA n_BB / ((h + 2) (h + 1))

and p is the sum of all P(h) not above that observed. Weights are kept as a mantissa and a power of two, so
that p far below 1e-300 keeps its digits.

On X, men's alleles and women's genotypes are tested together: given n_A copies of A among n_t = n_m + 2 n_f
chromosomes, with m_A and m_B the men of either allele and h the heterozygous women,::

    P(m_A, h) = n_A! n_B! n_m! n_f! 2^h / (n_t! m_A! m_B! f_AA! h! f_BB!)

so that unequal frequencies of the sexes count against equilibrium as women out of Hardy-Weinberg proportions do. For
one m_A the sum over h is hypergeometric, T(m_A + 1) / T(m_A) = m_B (n_A - m_A) / ((m_A + 1) (f_B + 1)) with f_B the
copies of B among women, and only its tails are walked; tables of n people cost about n steps, not n^2.

References
----------
Wigginton et al. (2005), 10.1086/429864, eq. 2; mid-p: Graffelman & Moreno (2013), 10.1515/sagmb-2012-0039; X:
Graffelman & Weir (2016), 10.1038/hdy.2016.20, eq. 5.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

__all__ = ["hwe_neg_log10_p", "hwe_x_neg_log10_p"]

_TIE = 1.0 + 2.0**-40
_JOINT_TIE = 1.0 + 2.0**-36
"""Tables of both sexes are reached by longer walks, whose rounding adds up."""
_NEGLIGIBLE = 1e-20
"""Share of a sum below which what is left of a falling series does not change it."""
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


def hwe_x_neg_log10_p(
    male_effect: Int[np.ndarray, " variants"],
    male_other: Int[np.ndarray, " variants"],
    female_hom_effect: Int[np.ndarray, " variants"],
    female_het: Int[np.ndarray, " variants"],
    female_hom_other: Int[np.ndarray, " variants"],
    *,
    mid_p: bool = False,
) -> Float[np.ndarray, " variants"]:
    """Return -log10 p of the exact test of men's alleles and women's genotypes on X together.

    Parameters
    ----------
    male_effect, male_other
        Men with the effect allele, and with the other.
    female_hom_effect, female_het, female_hom_other
        Genotype counts of women.
    mid_p
        Subtract half of the probability of the tables as likely as that observed.

    Returns
    -------
    array
        That of `hwe_neg_log10_p` without men; 0 for variants with one allele, without women or without calls (log10 2
        with `mid_p`, where there are calls).

    Examples
    --------
    >>> counts = (np.array([c]) for c in (40, 20, 20, 30, 20))
    >>> (10 ** -hwe_x_neg_log10_p(*counts)).round(6).tolist()
    [0.042998]
    """
    given = (male_effect, male_other, female_hom_effect, female_het, female_hom_other)
    result = np.empty(female_het.size)
    _joint_tests(np.stack([c.astype(np.int64) for c in given], axis=1), mid_p, result)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _joint_tests(tables, mid_p, result):  # noqa: ANN001, ANN202 - numba
    for j in range(result.size):
        result[j] = _joint_test(tables[j].astype(np.float64), mid_p)


@njit(cache=True, nogil=True)
@no_type_check
def _joint_test(table, mid_p):  # noqa: ANN001, ANN202 - numba
    if table.sum() == 0.0:
        return 0.0
    # Everything is relative to the table observed; the column of its m_A first, then those of more A and of more B.
    swapped = table[np.array([1, 0, 4, 3, 2])]
    column, exponent = _column_total(table)
    total, total_exponent = column, exponent
    one = np.array([1.0, 0.0])
    tail, ties = _column_tails(table.copy(), table.copy(), one, one.copy(), column, exponent)
    for first in (table, swapped):
        part_tail, part_ties, part, part_exponent = _more_columns(first, column, exponent, tail)
        tail += part_tail
        ties += part_ties
        if part_exponent > total_exponent:
            total, total_exponent = total * 2.0 ** max(total_exponent - part_exponent, -1000.0), part_exponent
        if total_exponent - part_exponent < 1000.0:
            total += part * 2.0 ** (part_exponent - total_exponent)
    if mid_p:
        tail -= 0.5 * ties
    ln_p = np.log(tail) - np.log(total) - total_exponent * _LN2
    return max(-ln_p / _LN10, 0.0)


@njit(cache=True, nogil=True)
@no_type_check
def _rescaled(weight, exponent):  # noqa: ANN001, ANN202 - numba
    """Keep a weight above 1 within the range of doubles; exponents are multiples of 600 and never negative."""
    if weight > _BIG:
        return weight / _BIG, exponent + _BIG_EXPONENT
    if exponent > 0 and weight < 1.0:
        return weight * _BIG, exponent - _BIG_EXPONENT
    return weight, exponent


@njit(cache=True, nogil=True)
@no_type_check
def _column_total(table):  # noqa: ANN001, ANN202 - numba
    """Return the sum over the heterozygous women of one m_A, relative to the table given, and its power of two."""
    total, total_exponent = 1.0, 0.0
    for direction in (-1, 1):
        point, weight, exponent = table.copy(), 1.0, 0.0
        while True:
            ratio = _step_ratio(point, direction)
            if ratio == 0.0:
                break
            _step(point, direction)
            weight, exponent = _rescaled(weight * ratio, exponent)
            if exponent > total_exponent:
                total, total_exponent = total * 2.0 ** max(total_exponent - exponent, -1000.0), exponent
            if total_exponent - exponent < 1000.0:
                total += weight * 2.0 ** (exponent - total_exponent)
            if ratio < 1.0 and exponent == 0.0 and weight < 1e-40:
                break
    return total, total_exponent


@njit(cache=True, nogil=True)
@no_type_check
def _step_ratio(point, direction):  # noqa: ANN001, ANN202 - numba
    """Return P of two heterozygous women more (or fewer) over P; 0 where there is no such table."""
    aa, h, bb = point[2], point[3], point[4]
    if direction > 0:
        return 4.0 * aa * bb / ((h + 2.0) * (h + 1.0))
    return h * (h - 1.0) / (4.0 * (aa + 1.0) * (bb + 1.0))


@njit(cache=True, nogil=True)
@no_type_check
def _step(point, direction):  # noqa: ANN001, ANN202 - numba
    point[2] -= direction
    point[3] += 2.0 * direction
    point[4] -= direction


@njit(cache=True, nogil=True)
@no_type_check
def _next_column(point, weight):  # noqa: ANN001, ANN202 - numba
    """Move to one man more with A, in place; the caller knows that there is such a table."""
    men, aa, h, bb = point[1] / (point[0] + 1.0), point[2], point[3], point[4]
    # Of the two neighbours the one nearer in probability.
    if aa == 0.0 or (h > 0.0 and h * h >= 4.0 * aa * bb):
        ratio = men * h / (2.0 * (bb + 1.0))
        point[3], point[4] = h - 1.0, bb + 1.0
    else:
        ratio = men * 2.0 * aa / (h + 1.0)
        point[2], point[3] = aa - 1.0, h + 1.0
    point[0] += 1.0
    point[1] -= 1.0
    weight[0], weight[1] = _rescaled(weight[0] * ratio, weight[1])


@njit(cache=True, nogil=True)
@no_type_check
def _to_boundary(point, weight, direction):  # noqa: ANN001, ANN202 - numba
    """Move to the table nearest the mode, on the side of `direction`, that is no likelier than that observed.

    Returns 0 when there is none on that side, 1 when there is, 2 when even the mode is none.
    """
    while True:  # to the side, as far as it is uphill or too likely
        ratio = _step_ratio(point, direction)
        if ratio == 0.0 or (ratio < 1.0 and weight[1] == 0.0 and weight[0] <= _JOINT_TIE):
            break
        _step(point, direction)
        weight[0], weight[1] = _rescaled(weight[0] * ratio, weight[1])
    if weight[1] > 0.0 or weight[0] > _JOINT_TIE:
        return 0
    while True:  # back towards the mode
        ratio = _step_ratio(point, -direction)
        if ratio < 1.0:
            return 2
        if weight[0] * ratio > _JOINT_TIE:
            return 1
        _step(point, -direction)
        weight[0] *= ratio


@njit(cache=True, nogil=True)
@no_type_check
def _column_tails(low, high, low_weight, high_weight, column, exponent):  # noqa: ANN001, ANN202 - numba
    """Return the sum of what a column has no likelier than the table observed, and of the ties among it."""
    tail = ties = 0.0
    for direction in (-1, 1):
        point, weight = (low, low_weight) if direction < 0 else (high, high_weight)
        found = _to_boundary(point, weight, direction)
        if found == 2:
            side, ties = _walk(point, weight[0], -1)
            ties += _walk(point, weight[0], 1)[1] - (weight[0] if weight[0] * _JOINT_TIE >= 1.0 else 0.0)
            return column * 2.0**exponent, ties
        if found == 1:
            side, tied = _walk(point, weight[0], direction)
            tail += side
            ties += tied
    return tail, ties


@njit(cache=True, nogil=True)
@no_type_check
def _walk(point, weight, direction):  # noqa: ANN001, ANN202 - numba
    """Return the sum of a table and those beyond it, and of those among them that tie with the one observed."""
    walker, total, ties = point.copy(), 0.0, 0.0
    while True:
        total += weight
        if weight * _JOINT_TIE >= 1.0:
            ties += weight
        weight *= _step_ratio(walker, direction)
        if weight < _NEGLIGIBLE * total:
            return total, ties
        _step(walker, direction)


@njit(cache=True, nogil=True)
@no_type_check
def _more_columns(table, column, exponent, tail_here):  # noqa: ANN001, ANN202 - numba
    """Return tail, ties, total and its power of two of all columns with more men with A."""
    low, high = table.copy(), table.copy()
    low_weight, high_weight = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    tail = ties = total = total_exponent = 0.0
    while True:
        ratio = low[1] * (2.0 * low[2] + low[3]) / ((low[0] + 1.0) * (2.0 * low[4] + low[3] + 1.0))
        if ratio == 0.0:
            break
        _next_column(low, low_weight)
        _next_column(high, high_weight)
        column, exponent = _rescaled(column * ratio, exponent)
        if exponent > total_exponent:
            total, total_exponent = total * 2.0 ** max(total_exponent - exponent, -1000.0), exponent
        if total_exponent - exponent < 1000.0:
            total += column * 2.0 ** (exponent - total_exponent)
        part, tied = _column_tails(low, high, low_weight, high_weight, column, exponent)
        tail += part
        ties += tied
        if ratio < 1.0 and exponent == 0.0 and column < _NEGLIGIBLE * (tail_here + tail):
            break
    return tail, ties, total, total_exponent
