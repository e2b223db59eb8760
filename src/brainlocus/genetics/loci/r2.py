"""Linkage disequilibrium between two variants: r2 of allele counts and of haplotypes.

References
----------
Rogers & Huff (2009), 10.1534/genetics.108.093153 (counts); Hill (1974), 10.1038/hdy.1974.89, and Gaunt et al.
(2007), 10.1186/1471-2105-8-428 (the cubic of the haplotype likelihood).
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

__all__ = ["haplotype_r2", "pairwise_r2"]


def pairwise_r2(
    dosage: Float32[np.ndarray, " samples"], others: Float32[np.ndarray, "variants samples"]
) -> Float64[np.ndarray, " variants"]:
    """Return the squared correlation of one variant with others over the people called in both.

    NaN where either is constant among these people.

    Examples
    --------
    >>> x = np.array([0, 1, 2, 1], dtype=np.float32)
    >>> pairwise_r2(x, np.stack([2 - x, x * 0])).tolist()
    [1.0, nan]
    """
    here = ~np.isnan(dosage)
    x, there = dosage[here], others[:, here]
    known = ~np.isnan(there)
    y = np.where(known, there, np.float32(0))
    ones = known.astype(np.float32)
    # Sums of 0, 1, 2 are exact in float32 up to 2^24, that is 4 million people.
    n, sx, sxx = (np.asarray(ones @ c, dtype=np.float64) for c in (np.ones_like(x), x, x * x))
    sy, syy = y.sum(axis=1, dtype=np.float64), (y * y).sum(axis=1, dtype=np.float64)
    sxy = np.asarray(y @ x, dtype=np.float64)
    covariance, vx, vy = n * sxy - sx * sy, n * sxx - sx * sx, n * syy - sy * sy
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((vx > 0) & (vy > 0), covariance**2 / (vx * vy), np.nan)


def haplotype_r2(
    dosage: Float32[np.ndarray, " samples"], others: Float32[np.ndarray, "variants samples"]
) -> Float64[np.ndarray, " variants"]:
    """Return r2 of the most likely haplotype frequencies, given unphased calls and random mating.

    Only double heterozygotes are ambiguous. With h their share of all haplotypes halved, x of it on the
    haplotypes 11 and 22, and f the certain shares, the likelihood is stationary where::

        x (f12 + h - x) (f21 + h - x) = (h - x) (f11 + x) (f22 + x)

    Among the roots in [0, h] and both ends the one of largest likelihood counts. Dosages are rounded to
    calls. NaN where either variant is constant among the people called in both.
    """
    result = np.empty(others.shape[0])
    _haplotype_r2(np.nan_to_num(np.rint(dosage), nan=3.0).astype(np.int8), others, result)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _haplotype_r2(x, others, result):  # noqa: ANN001, ANN202 - numba
    for j in range(others.shape[0]):
        table = np.zeros((3, 3))
        for i in range(x.size):
            value = others[j, i]
            if x[i] != 3 and value == value:
                table[x[i], int(value + 0.5)] += 1.0
        result[j] = _table_r2(table)


@njit(cache=True, nogil=True)
@no_type_check
def _table_r2(table):  # noqa: ANN001, ANN202 - numba
    """Return r2 from counts of calls (copies of the first variant's allele, of the second's)."""
    total = 2.0 * table.sum()
    if total == 0.0:
        return np.nan
    f11 = (2.0 * table[2, 2] + table[2, 1] + table[1, 2]) / total
    f12 = (2.0 * table[2, 0] + table[2, 1] + table[1, 0]) / total
    f21 = (2.0 * table[0, 2] + table[0, 1] + table[1, 2]) / total
    f22 = (2.0 * table[0, 0] + table[0, 1] + table[1, 0]) / total
    h = table[1, 1] / total
    p, q = f11 + f12 + h, f11 + f21 + h
    variance = p * (1.0 - p) * q * (1.0 - q)
    if variance <= 0.0:
        return np.nan
    best, best_likelihood = 0.0, -np.inf
    for x in _stationary(f11, f12, f21, f22, h):
        likelihood = _log_likelihood(f11, f12, f21, f22, h, x)
        if likelihood > best_likelihood:
            best, best_likelihood = x, likelihood
    d = f11 + best - p * q
    return d * d / variance


@njit(cache=True, nogil=True)
@no_type_check
def _stationary(f11, f12, f21, f22, h):  # noqa: ANN001, ANN202 - numba
    """Return both ends of [0, h] and the roots of the cubic inside, found between its turning points."""
    # (x)(a - x)(b - x) - (h - x)(f11 + x)(f22 + x) with a = f12 + h, b = f21 + h: 2 x^3 + c2 x^2 + c1 x + c0.
    a, b = f12 + h, f21 + h
    c2 = -(a + b) + (f11 + f22) - h
    c1 = a * b + f11 * f22 - h * (f11 + f22)
    c0 = -h * f11 * f22
    edges = [0.0, h]
    inner = c2 * c2 - 6.0 * c1
    if inner > 0.0:
        root = np.sqrt(inner)
        for turn in ((-c2 - root) / 6.0, (-c2 + root) / 6.0):
            if 0.0 < turn < h:
                edges.append(turn)
    edges.sort()
    found = [0.0, h]
    for k in range(len(edges) - 1):
        low, high = edges[k], edges[k + 1]
        at_low = ((2.0 * low + c2) * low + c1) * low + c0
        at_high = ((2.0 * high + c2) * high + c1) * high + c0
        if at_low * at_high > 0.0:
            continue
        for _ in range(80):
            middle = 0.5 * (low + high)
            value = ((2.0 * middle + c2) * middle + c1) * middle + c0
            if (value > 0.0) == (at_high > 0.0):
                high = middle
            else:
                low = middle
        found.append(0.5 * (low + high))
    return found


@njit(cache=True, nogil=True)
@no_type_check
def _log_likelihood(f11, f12, f21, f22, h, x):  # noqa: ANN001, ANN202 - numba
    """Return the log-likelihood per haplotype when x of h lies on 11 and 22."""
    p11, p12, p21, p22 = f11 + x, f12 + h - x, f21 + h - x, f22 + x
    total = 0.0
    for f, p in ((f11, p11), (f12, p12), (f21, p21), (f22, p22)):
        if f > 0.0:
            total += f * np.log(p)
    both = p11 * p22 + p12 * p21
    if h > 0.0:
        total += h * np.log(both) if both > 0.0 else -np.inf
    return total
