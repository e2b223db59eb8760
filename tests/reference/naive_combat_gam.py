"""ComBat-GAM read literally: one penalised regression a feature and weight, B-splines by their recursion."""

from itertools import pairwise

import numpy as np
from scipy.integrate import quad

from tests.reference.naive_combat import naive_effects


def b_spline(k, degree, t, x):
    """Value of the k-th B-spline of knots t at x (de Boor 1978, chapter IX)."""
    if degree == 0:
        last = t[k] < t[k + 1] == t[-1] and x == t[-1]
        return float(t[k] <= x < t[k + 1] or last)
    left = right = 0.0
    if t[k + degree] > t[k]:
        left = (x - t[k]) / (t[k + degree] - t[k]) * b_spline(k, degree - 1, t, x)
    if t[k + degree + 1] > t[k + 1]:
        right = (t[k + degree + 1] - x) / (t[k + degree + 1] - t[k + 1]) * b_spline(k + 1, degree - 1, t, x)
    return left + right


def second_derivative(k, t, x):
    """Second derivative of the k-th cubic B-spline: differences of lower ones, twice."""

    def first(j, degree):
        return [
            (j + i, sign * degree / (t[j + i + degree] - t[j + i]))
            for i, sign in ((0, 1.0), (1, -1.0))
            if t[j + i + degree] > t[j + i]
        ]

    return sum(a * b * b_spline(m, 1, t, x) for j, a in first(k, 3) for m, b in first(j, 2))


def naive_combat_gam(y, site, age, linear, grid):
    """Return the harmonised features, the chosen weights and the effective degrees of freedom of the whole model."""
    low, high = age.min(), age.max()
    t = np.concatenate([[low] * 4, [np.quantile(age, q / 7) for q in range(1, 7)], [high] * 4])
    splines = np.array([[b_spline(k, 3, t, x) for k in range(10)] for x in age])
    edges = np.unique(t)
    penalty = np.zeros((10, 10))
    for i in range(10):
        for j in range(i + 1):
            penalty[i, j] = penalty[j, i] = sum(
                quad(lambda x, i=i, j=j: second_derivative(i, t, x) * second_derivative(j, t, x), a, b)[0]
                for a, b in pairwise(edges)
            )
    sites = sorted(set(site))
    one_hot = np.array([[float(s == name) for name in sites] for s in site])
    # The splines sum to the constant, which the sites have: one is left out.
    design = np.hstack([one_hot, linear, splines[:, 1:]])
    k, n = len(sites), len(y)
    whole = np.zeros((design.shape[1],) * 2)
    whole[-9:, -9:] = penalty[1:, 1:]
    fits = []
    for weight in grid:
        inverse = np.linalg.inv(design.T @ design + weight * whole)
        fits.append((inverse @ design.T, np.trace(design @ inverse @ design.T)))
    b, chosen, edf = np.empty((design.shape[1], y.shape[1])), [], []
    for v in range(y.shape[1]):
        scores = [n * ((y[:, v] - design @ (hat @ y[:, v])) ** 2).sum() / (n - e) ** 2 for hat, e in fits]
        best = int(np.argmin(scores))
        b[:, v], _ = fits[best][0] @ y[:, v], chosen.append(grid[best])
        edf.append(fits[best][1])
    alpha = sum((site == s).mean() * b[i] for i, s in enumerate(sites))
    preserved = design[:, k:] @ b[k:]
    sigma = np.sqrt(((y - design @ b) ** 2).mean(axis=0))
    return naive_effects(y, site, alpha, preserved, sigma), np.array(chosen), np.array(edf)
