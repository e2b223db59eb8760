"""Naive kinship, pruning and unrelated sets: loops over pairs, windows and subsets."""

import itertools
import warnings

import numpy as np

from tests.reference.genotypes import naive_r2


def naive_kinship(x, y):
    """Return KING-robust kinship of two people and the variants called in both (Manichaikul et al. 2010, eq. 11)."""
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    het_x, het_y = (x == 1).sum(), (y == 1).sum()
    hethet, ibs0 = ((x == 1) & (y == 1)).sum(), (np.abs(x - y) == 2).sum()
    smaller = min(het_x, het_y)
    phi = (hethet - 2 * ibs0) / (2 * smaller) + 0.5 - (het_x + het_y) / (4 * smaller)
    return phi, int(both.sum())


def naive_prune(dosage, chromosome, *, window, step, r2):
    """Return which variants stay: every pair of every window in turn, until no pair of the window is left."""
    dosage, m = dosage.astype(float), len(dosage)
    known = [row[~np.isnan(row)] for row in dosage]
    stays = np.array([bool(row.size) and row.var() > 0 for row in known])
    share = np.array([row.mean() / 2 if row.size else 0 for row in known])
    maf = np.minimum(share, 1 - share)
    for name in dict.fromkeys(chromosome):
        rows = [k for k in range(m) if chromosome[k] == name]
        for start in range(0, len(rows), step):
            inside = rows[start : start + window]
            again = True
            while again:
                again = False
                for a, i in enumerate(inside):
                    if not stays[i]:
                        continue
                    for j in inside[a + 1 :]:
                        if stays[j] and _r2(dosage[i], dosage[j]) > r2:
                            again = True
                            stays[i if maf[i] < maf[j] - 1e-12 else j] = False
                            break
    return stays


def _r2(x, y):
    """Return r2, or NaN without a warning when either is constant among those called in both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return naive_r2(x, y)


def naive_unrelated(n, pairs, weight):
    """Return the independent set of most people, then of largest weight, then of the first people."""
    sets = []
    for chosen in itertools.product([0, 1], repeat=n):
        if not any(chosen[a] and chosen[b] for a, b in pairs):
            sets.append((sum(chosen), sum(w for w, c in zip(weight, chosen, strict=True) if c), chosen))
    return np.array(max(sets)[2], dtype=bool)
