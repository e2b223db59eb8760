"""Naive kinship, pruning and unrelated sets: loops over pairs, windows and subsets."""

import itertools

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
    stays = np.array([np.nanvar(row) > 0 if (~np.isnan(row)).any() else False for row in dosage])
    with np.errstate(invalid="ignore"):
        share = np.array([np.nanmean(row) / 2 if (~np.isnan(row)).any() else 0 for row in dosage])
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
                        if stays[j] and naive_r2(dosage[i], dosage[j]) > r2:
                            again = True
                            stays[i if maf[i] < maf[j] - 1e-12 else j] = False
                            break
    return stays


def naive_unrelated(n, pairs, weight):
    """Return the independent set of most people, then of largest weight, then of the first people."""
    sets = []
    for chosen in itertools.product([0, 1], repeat=n):
        if not any(chosen[a] and chosen[b] for a, b in pairs):
            sets.append((sum(chosen), sum(w for w, c in zip(weight, chosen, strict=True) if c), chosen))
    return np.array(max(sets)[2], dtype=bool)
