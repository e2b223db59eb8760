"""Compiled loops of the case-control pair scans: bit-packed genotype tables and their log-linear models."""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from brainlocus.numerics.bits import popcount

__all__ = ["boost_tile", "fill_planes", "interaction_lr"]

_MAX_STEPS = 500
_TOLERANCE = 1e-9
"""Largest relative change of a cell by a round of proportional fitting at which it has converged."""


@njit(cache=True, nogil=True)
@no_type_check
def fill_planes(dosage, case, planes):  # noqa: ANN001, ANN202
    """Fill bit planes (variant, status, genotype, word) of rounded calls; missing calls are in none."""
    filled = [0, 0]
    for i in range(dosage.shape[1]):
        status = 1 if case[i] else 0
        at = filled[status]
        filled[status] += 1
        for j in range(dosage.shape[0]):
            value = dosage[j, i]
            if value == value:
                planes[j, status, np.intp(value + 0.5), at >> 6] |= np.uint64(1) << np.uint64(at & 63)


@njit(cache=True, nogil=True)
@no_type_check
def _kirkwood_lr(table, pair, first, second, entropy):  # noqa: ANN001, ANN202
    """Return twice the log-likelihood ratio of the table to Kirkwood's superposition approximation.

    ``p_ijk = pi_ij. pi_i.k pi_.jk / (pi_i.. pi_.j. pi_..k)`` scaled to sum to 1. It has the form of the
    homogeneous-association model without being its maximum, so the ratio is never below the exact one. Counts are
    whole numbers, so ``entropy[n] = n ln n`` is looked up.
    """
    a0 = a1 = a2 = b0 = b1 = b2 = s0 = s1 = 0.0
    sums = 0.0
    for i in range(3):
        for j in range(3):
            pair[i, j] = table[i, j, 0] + table[i, j, 1]
            sums += entropy[int(table[i, j, 0])] + entropy[int(table[i, j, 1])] - entropy[int(pair[i, j])]
    for k in range(2):
        for i in range(3):
            first[i, k] = table[i, 0, k] + table[i, 1, k] + table[i, 2, k]
            second[i, k] = table[0, i, k] + table[1, i, k] + table[2, i, k]
            sums -= entropy[int(first[i, k])] + entropy[int(second[i, k])]
    a0, a1, a2 = first[0, 0] + first[0, 1], first[1, 0] + first[1, 1], first[2, 0] + first[2, 1]
    b0, b1, b2 = second[0, 0] + second[0, 1], second[1, 0] + second[1, 1], second[2, 0] + second[2, 1]
    s0, s1 = first[0, 0] + first[1, 0] + first[2, 0], first[0, 1] + first[1, 1] + first[2, 1]
    total = s0 + s1
    if s0 == 0.0 or s1 == 0.0:
        return 0.0
    for margin in (a0, a1, a2, b0, b1, b2, s0, s1):
        sums += entropy[int(margin)]
    mass = 0.0
    ra = (1.0 / a0 if a0 > 0.0 else 0.0, 1.0 / a1 if a1 > 0.0 else 0.0, 1.0 / a2 if a2 > 0.0 else 0.0)
    rb = (1.0 / b0 if b0 > 0.0 else 0.0, 1.0 / b1 if b1 > 0.0 else 0.0, 1.0 / b2 if b2 > 0.0 else 0.0)
    rs = (1.0 / s0, 1.0 / s1)
    for k in range(2):
        part = 0.0
        for i in range(3):
            row = 0.0
            for j in range(3):
                row += pair[i, j] * second[j, k] * rb[j]
            part += row * first[i, k] * ra[i]
        mass += part * rs[k]
    return 2.0 * (sums + total * math.log(mass / total))


@njit(cache=True, nogil=True)
@no_type_check
def interaction_lr(table, fitted, first, second):  # noqa: ANN001, ANN202
    """Return twice the log-likelihood ratio of the table to homogeneous association, by proportional fitting.

    The model keeps the three two-way margins; `first` and `second` hold the genotype x status ones.
    """
    fitted[:] = 1.0
    for _ in range(_MAX_STEPS):
        change = 0.0
        for i in range(3):
            for j in range(3):
                have, want = fitted[i, j, 0] + fitted[i, j, 1], table[i, j, 0] + table[i, j, 1]
                ratio = want / have if have > 0.0 else 0.0
                fitted[i, j, 0] *= ratio
                fitted[i, j, 1] *= ratio
        for i in range(3):
            for k in range(2):
                have = fitted[i, 0, k] + fitted[i, 1, k] + fitted[i, 2, k]
                ratio = first[i, k] / have if have > 0.0 else 0.0
                for j in range(3):
                    fitted[i, j, k] *= ratio
        for j in range(3):
            for k in range(2):
                have = fitted[0, j, k] + fitted[1, j, k] + fitted[2, j, k]
                ratio = second[j, k] / have if have > 0.0 else 0.0
                change = max(change, abs(ratio - 1.0) if have > 0.0 else 0.0)
                for i in range(3):
                    fitted[i, j, k] *= ratio
        if change < _TOLERANCE:
            break
    lr = 0.0
    for i in range(3):
        for j in range(3):
            for k in range(2):
                if table[i, j, k] > 0.0 and fitted[i, j, k] > 0.0:
                    lr += table[i, j, k] * math.log(table[i, j, k] / fitted[i, j, k])
    return max(2.0 * lr, 0.0)


@njit(cache=True, nogil=True)
@no_type_check
def _seen(table, side):  # noqa: ANN001, ANN202
    """Return how many genotypes of the first (0) or second (1) variant somebody has, less one."""
    seen = -1
    for g in range(3):
        total = 0.0
        for other in range(3):
            for k in range(2):
                total += table[g, other, k] if side == 0 else table[other, g, k]
        seen += 1 if total > 0.0 else 0
    return max(seen, 0)


@njit(cache=True, nogil=True)
@no_type_check
def boost_tile(row_planes, column_planes, todo, screen, lr, df, work):  # noqa: ANN001, ANN202
    """Fill the exact interaction ratio of pairs whose screening value passes, 0 elsewhere and -1 where not tested.

    Also its degrees of freedom: (genotypes seen of the one - 1) x (of the other - 1). `work` is (table, fitted, pair,
    first, second).
    """
    table, fitted, pair, first, second = work
    people = 64 * row_planes.shape[3] * 2
    entropy = np.zeros(people + 1)
    for n in range(2, people + 1):
        entropy[n] = n * math.log(n)
    for r in range(row_planes.shape[0]):
        for c in range(column_planes.shape[0]):
            lr[r, c] = -1.0
            if not todo[r, c]:
                continue
            for k in range(2):
                for i in range(3):
                    for j in range(3):
                        count = 0
                        for w in range(row_planes.shape[3]):
                            count += popcount(row_planes[r, k, i, w] & column_planes[c, k, j, w])
                        table[i, j, k] = count
            lr[r, c] = 0.0
            df[r, c] = _seen(table, 0) * _seen(table, 1)
            if _kirkwood_lr(table, pair, first, second, entropy) > screen:
                lr[r, c] = interaction_lr(table, fitted, first, second)
