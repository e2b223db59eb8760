"""Naive genotype statistics: loops and exact rationals."""

from fractions import Fraction
from math import comb

import numpy as np


def naive_hwe(n_one, n_het, n_two, *, mid_p=False):
    """Return the exact Hardy-Weinberg p as a fraction: every possible number of heterozygotes, in full."""
    n, a = n_one + n_het + n_two, 2 * n_one + n_het

    def probability(het):
        return Fraction(2**het * comb(n, het) * comb(n - het, (a - het) // 2), comb(2 * n, a))

    possible = [h for h in range(a % 2, min(a, 2 * n - a) + 1, 2)]
    observed = probability(n_het)
    p = sum((probability(h) for h in possible if probability(h) <= observed), Fraction(0))
    if mid_p:
        p -= sum((probability(h) for h in possible if probability(h) == observed), Fraction(0)) / 2
    return p


def naive_hwe_x(m_a, m_b, f_aa, f_ab, f_bb, *, mid_p=False):
    """Return the joint exact p of X as a fraction: every table with as many copies of A (Graffelman & Weir 2016)."""
    men, women, copies = m_a + m_b, f_aa + f_ab + f_bb, m_a + 2 * f_aa + f_ab

    def probability(males, het):
        aa = (copies - males - het) // 2
        ways = comb(men, males) * 2**het * comb(women, het) * comb(women - het, aa)
        return Fraction(ways, comb(men + 2 * women, copies))

    tables = [
        (males, het)
        for males in range(max(0, copies - 2 * women), min(men, copies) + 1)
        for het in range(women + 1)
        if (copies - males - het) % 2 == 0 and 0 <= (copies - males - het) // 2 <= women - het
    ]
    observed = probability(m_a, f_ab)
    found = [probability(*table) for table in tables]
    assert sum(found) == 1
    p = sum((value for value in found if value <= observed), Fraction(0))
    if mid_p:
        p -= sum((value for value in found if value == observed), Fraction(0)) / 2
    return p


def naive_grm(dosage, *, scale, missing):
    """Return the GRM one pair at a time."""
    n = dosage.shape[1]
    total, count = np.zeros((n, n)), np.zeros((n, n))
    for row in dosage.astype(float):
        called = ~np.isnan(row)
        mean = row[called].mean()
        x = np.where(called, row - mean, 0.0)
        sd = np.sqrt(mean * (1 - mean / 2)) if scale == "expected" else np.sqrt((x**2).sum() / n)
        if sd < 1e-9:
            continue
        for i in range(n):
            for j in range(n):
                if missing == "mean" or (called[i] and called[j]):
                    total[i, j] += x[i] * x[j] / sd**2
                    count[i, j] += 1
    return total / count, count


def naive_r2(x, y):
    """Return the squared correlation over pairwise-complete people."""
    both = ~(np.isnan(x) | np.isnan(y))
    return np.corrcoef(x[both], y[both])[0, 1] ** 2


def naive_haplotype_r2(x, y, *, rounds=20_000):
    """Return r2 of haplotype frequencies by expectation-maximisation from many starts, keeping the likeliest."""
    both = ~(np.isnan(x) | np.isnan(y))
    table = np.zeros((3, 3))
    for a, b in zip(x[both].astype(int), y[both].astype(int), strict=True):
        table[a, b] += 1
    best = (-np.inf, np.nan)
    n = table.sum()
    p, q = (table.sum(1) @ [0, 1, 2]) / (2 * n), (table.sum(0) @ [0, 1, 2]) / (2 * n)
    for start in np.linspace(0.01, 0.99, 7):
        f11 = max(0.0, p + q - 1) + start * (min(p, q) - max(0.0, p + q - 1))
        for _ in range(rounds):
            f12, f21, f22 = p - f11, q - f11, 1 - p - q + f11
            share = f11 * f22 / (f11 * f22 + f12 * f21) if f11 * f22 + f12 * f21 > 0 else 0.5
            new = (2 * table[2, 2] + table[2, 1] + table[1, 2] + share * table[1, 1]) / (2 * n)
            if abs(new - f11) < 1e-15:
                break
            f11 = new
        f = np.array([[1 - p - q + f11, q - f11], [p - f11, f11]])
        likelihood = 0.0
        for a in range(3):
            for b in range(3):
                chance = sum(
                    f[a1, b1] * f[a - a1, b - b1]
                    for a1 in (0, 1)
                    for b1 in (0, 1)
                    if 0 <= a - a1 <= 1 and 0 <= b - b1 <= 1
                )
                if table[a, b]:
                    likelihood += table[a, b] * np.log(max(chance, 1e-300))
        if likelihood > best[0] + 1e-9:
            best = (likelihood, (f11 - p * q) ** 2 / (p * (1 - p) * q * (1 - q)))
    return best[1]


def naive_bgen(ploidy, values, bits, *, phased, flip):
    """Probabilities of one and two copies of the second allele (of the first: `flip`), from stored whole numbers.

    BGEN 1.3 specification: unphased diploids store P(AA), P(AB), phased ones P(A) of each haplotype, haploids P(A). A
    haploid's allele counts twice.
    """
    one, two = [], []
    for code, stored in zip(ploidy, values, strict=True):
        if code & 0x80:
            one.append(np.nan)
            two.append(np.nan)
            continue
        p = [v / (2**bits - 1) for v in stored]
        if code == 1:
            none, single, both = p[0], 0.0, 1 - p[0]
        elif phased:
            none, both = p[0] * p[1], (1 - p[0]) * (1 - p[1])
            single = p[0] * (1 - p[1]) + (1 - p[0]) * p[1]
        else:
            none, single, both = p[0], p[1], 1 - p[0] - p[1]
        one.append(single)
        two.append(none if flip else both)
    return np.array(one), np.array(two)


def naive_info(one, two):
    """IMPUTE's INFO of one variant: methods/gwas.md section 1, read literally."""
    e = [p1 + 2 * p2 for p1, p2 in zip(one, two, strict=True) if p1 == p1]
    f = [p1 + 4 * p2 for p1, p2 in zip(one, two, strict=True) if p1 == p1]
    n = len(e)
    theta = sum(e) / (2 * n)
    if theta in (0, 1):
        return 1.0
    return 1 - sum(fi - ei**2 for fi, ei in zip(f, e, strict=True)) / (2 * n * theta * (1 - theta))


def naive_mach_r2(dosage):
    """Variance of the dosages over 2 theta (1 - theta)."""
    e = [d for d in dosage if d == d]
    theta = sum(e) / (2 * len(e))
    if theta in (0, 1):
        return float("nan")
    return sum((d - 2 * theta) ** 2 for d in e) / len(e) / (2 * theta * (1 - theta))
