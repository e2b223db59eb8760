"""Compiled loops of the linear scan."""

from typing import no_type_check

import numpy as np
from numba import njit

__all__ = [
    "bin_statistics",
    "dot_pairs",
    "sum_listed",
    "sum_missing",
    "t_statistics",
    "take_out_missing",
    "tests_beyond",
]

_RANK_TOLERANCE = 1e-9
_MIN_TRAIT_SHARE = 1e-12
"""Share of a trait's variance that must be left among the people with a call; below, it is rounding (W is a float64
difference from 1). As `linear._MIN_TRAIT_SHARE` among all people."""


@njit(cache=True, nogil=True)
@no_type_check
def sum_missing(rows, start, people, right, member):  # noqa: ANN001, ANN202
    """Return, for each listed variant, the sum of the right-hand side over members without a call."""
    sums = np.zeros((rows.size, right.shape[1]))
    for a in range(rows.size):
        for b in range(start[rows[a]], start[rows[a] + 1]):
            i = people[b]
            if member[i] != 0.0:
                for k in range(right.shape[1]):
                    sums[a, k] += right[i, k]
    return sums


@njit(cache=True, nogil=True)
@no_type_check
def sum_listed(counts, start, people, listed, inside, copy):  # noqa: ANN001, ANN202
    """Return, for each variant, total, squares and missing calls of the listed people.

    Total and squares are of observed counts; `copy`, when it has columns, gets the counts, fills included.
    """
    sums = np.zeros((counts.shape[0], 3))
    keep = copy.shape[1] > 0
    for j in range(counts.shape[0]):
        total = 0.0
        squares = 0.0
        for a in range(listed.size):
            value = counts[j, listed[a]]
            if keep:
                copy[j, a] = value
            wide = np.float64(value)
            total += wide
            squares += wide * wide
        holes = 0
        for b in range(start[j], start[j + 1]):
            if inside[people[b]]:
                wide = np.float64(counts[j, people[b]])
                total -= wide
                squares -= wide * wide
                holes += 1
        sums[j, 0] = total
        sums[j, 1] = squares
        sums[j, 2] = holes
    return sums


@njit(cache=True, nogil=True)
@no_type_check
def tests_beyond(t, unstable, limit):  # noqa: ANN001, ANN202
    """Return row and column of the tests with |t| at least `limit`, and of all tests of unstable rows."""
    found = 0
    for j in range(t.shape[0]):
        if unstable[j]:
            found += t.shape[1]
        else:
            for k in range(t.shape[1]):
                found += abs(t[j, k]) >= limit
    rows, columns = np.empty(found, dtype=np.int64), np.empty(found, dtype=np.int64)
    at = 0
    for j in range(t.shape[0]):
        for k in range(t.shape[1]):
            if unstable[j] or abs(t[j, k]) >= limit:
                rows[at] = j
                columns[at] = k
                at += 1
    return rows, columns


@njit(cache=True, nogil=True)
@no_type_check
def dot_pairs(counts, right, rows, columns):  # noqa: ANN001, ANN202
    """Return the sum of products of listed rows of counts and of the right-hand side (traits x samples)."""
    sums = np.empty(rows.size)
    for a in range(rows.size):
        total = 0.0
        for i in range(counts.shape[1]):
            total += counts[rows[a], i] * right[columns[a], i]
        sums[a] = total
    return sums


@njit(cache=True, nogil=True)
@no_type_check
def take_out_missing(rows, start, people, q, y, observed, b, score, squares):  # noqa: ANN001, ANN202
    """Return score, V, W and rank of complete-case regression: sums with the missing people taken out.

    With Q orthonormal and y orthogonal to it over everyone (W = 1), leaving out the people M::

        A = I - sum_M q q'    D = -sum_M q y'    E = 1 - sum_M y^2
        V = g'g - b'A^-1 b    S = g'y - b'A^-1 D    W = E - diag(D'A^-1 D)

    A column without variance left among the others' complement is passed over and lowers the rank.
    """
    n_rows, rank, n_traits = rows.size, q.shape[1], y.shape[1]
    out_s, out_v = np.empty((n_rows, n_traits)), np.empty(n_rows)
    out_w, out_rank = np.empty((n_rows, n_traits)), np.empty(n_rows)
    for a in range(n_rows):
        gram = np.eye(rank)
        cross = np.zeros((rank, n_traits))
        left = np.ones(n_traits)
        for m in range(start[rows[a]], start[rows[a] + 1]):
            i = people[m]
            if observed[i] == 0.0:
                continue
            for c in range(rank):
                for d in range(c + 1):
                    gram[c, d] -= q[i, c] * q[i, d]
                for k in range(n_traits):
                    cross[c, k] -= q[i, c] * y[i, k]
            for k in range(n_traits):
                left[k] -= y[i, k] * y[i, k]
        half_b = b[a].copy()
        found = 0
        # Cholesky factor in place, solving along: half_b = L^-1 b, cross = L^-1 D.
        for c in range(rank):
            pivot = gram[c, c]
            for d in range(c):
                pivot -= gram[c, d] * gram[c, d]
            if pivot <= _RANK_TOLERANCE:
                for e in range(rank):
                    if e >= c:
                        gram[e, c] = 0.0
                half_b[c] = 0.0
                cross[c, :] = 0.0
                continue
            found += 1
            root = np.sqrt(pivot)
            gram[c, c] = root
            for e in range(c + 1, rank):
                value = gram[e, c]
                for d in range(c):
                    value -= gram[e, d] * gram[c, d]
                gram[e, c] = value / root
            for d in range(c):
                half_b[c] -= gram[c, d] * half_b[d]
                for k in range(n_traits):
                    cross[c, k] -= gram[c, d] * cross[d, k]
            half_b[c] /= root
            for k in range(n_traits):
                cross[c, k] /= root
        out_v[a] = squares[a]
        for c in range(rank):
            out_v[a] -= half_b[c] * half_b[c]
        for k in range(n_traits):
            s, w = score[a, k], left[k]
            for c in range(rank):
                s -= half_b[c] * cross[c, k]
                w -= cross[c, k] * cross[c, k]
            out_s[a, k] = s
            out_w[a, k] = w
        out_rank[a] = found
    return out_s, out_v, out_w, out_rank


@njit(cache=True, nogil=True)
@no_type_check
def t_statistics(score, v, df, w, group_of, sign, t):  # noqa: ANN001, ANN202
    """Fill t; NaN where V is NaN or the trait has no variance left. `w` has one row or one per variant."""
    several = w.shape[0] > 1
    for j in range(score.shape[0]):
        for k in range(score.shape[1]):
            g = group_of[k]
            w_jk = w[j, k] if several else w[0, k]
            if not (v[j, g] > 0.0 and w_jk > _MIN_TRAIT_SHARE and df[j, g] > 0.0):
                t[j, k] = np.nan
                continue
            r2 = score[j, k] * score[j, k] / (v[j, g] * w_jk)
            rest = max(1.0 - r2, 1e-16)
            magnitude = np.sqrt(r2 * df[j, g] / rest)
            t[j, k] = magnitude if score[j, k] * sign[j] >= 0 else -magnitude


@njit(cache=True, nogil=True)
@no_type_check
def bin_statistics(t, df, group_of, table, table_step, fine, coarse, counts):  # noqa: ANN001, ANN202
    """Add every test to the histogram of -log10 p, whose bins are `fine` wide up to 1 and `coarse` above.

    t becomes a normal deviate by Wallace (1959), Ann. Math. Stat. 30:1121, eq. 5.1 ::

        z = (8 df + 1) / (8 df + 3) sqrt(df ln(1 + t^2 / df))

    whose relative error is below 1e-4 / df for the df above 200 it is used for; for t^2 below df / 20 the logarithm is
    its series, which is 3e-9 off at most. -log10 p of z comes from a table.
    """
    last, end = counts.shape[1] - 1, table.size - 1
    for j in range(t.shape[0]):
        for k in range(t.shape[1]):
            value = np.float64(t[j, k])
            if value != value:
                continue
            nu = df[j, group_of[k]]
            u = value * value / nu
            log1p = u * (1.0 - u * (0.5 - u * (1.0 / 3.0 - u * (0.25 - u * 0.2)))) if u < 0.05 else np.log1p(u)
            place = (8.0 * nu + 1.0) / (8.0 * nu + 3.0) * np.sqrt(nu * log1p) / table_step
            if not place < end:
                counts[k, last] += 1
            else:
                below = int(place)
                p = table[below] + (place - below) * (table[below + 1] - table[below])
                at = p / fine if p < 1.0 else 1.0 / fine + (p - 1.0) / coarse
                counts[k, int(min(at, last))] += 1
