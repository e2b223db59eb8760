"""Corrections for many tests, read literally: loops over p-values."""


def harmonic(n):
    return sum(1.0 / k for k in range(1, n + 1))


def _ranked(p):
    return sorted(range(len(p)), key=lambda k: p[k])


def holm(p, m):
    adjusted = [1.0] * len(p)
    order = _ranked(p)
    for i, test in enumerate(order, 1):
        adjusted[test] = max(min(1.0, (m - j + 1) * p[order[j - 1]]) for j in range(1, i + 1))
    return adjusted


def benjamini_hochberg(p, m, factor=1.0):
    adjusted = [1.0] * len(p)
    order = _ranked(p)
    for i, test in enumerate(order, 1):
        adjusted[test] = min(min(1.0, factor * m * p[order[j - 1]] / j) for j in range(i, len(p) + 1))
    return adjusted


def benjamini_yekutieli(p, m):
    return benjamini_hochberg(p, m, harmonic(m))
