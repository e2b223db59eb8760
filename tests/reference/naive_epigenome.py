"""Epigenome-wide association read literally: one least squares a pair, one draw at a time."""

import numpy as np


def naive_pair(feature, trait, covariates, outcome="feature"):
    """Return n, df, beta, standard error and residual variance of one regression, of people who have everything."""
    rows = np.isfinite(feature) & np.isfinite(trait) & np.isfinite(covariates).all(axis=1)
    y, x = (feature, trait) if outcome == "feature" else (trait, feature)
    design = np.column_stack([x[rows], np.ones(rows.sum()), covariates[rows]])
    rank = np.linalg.matrix_rank(design)
    beta = np.linalg.lstsq(design, y[rows], rcond=None)[0]
    df = rows.sum() - rank
    s2 = ((y[rows] - design @ beta) ** 2).sum() / df
    error = np.sqrt(s2 * np.linalg.pinv(design.T @ design, rcond=1e-12)[0, 0])
    return rows.sum(), df, beta[0], error, s2


def naive_winsorise(values, reach):
    """Return values clipped to the quartiles and `reach` interquartile ranges, feature by feature."""
    out = np.array(values, dtype=float)
    for row in out:
        known = row[~np.isnan(row)]
        if known.size:
            first, third = np.percentile(known, [25, 75])
            if third > first:
                row[:] = np.clip(row, first - reach * (third - first), third + reach * (third - first))
    return out


def gibbs_null(z, rng, *, draws=1500, burn=500):
    """Return draws of p0, mu0 and s0 from the posterior of the three normals, on a histogram of z."""
    counts, edges = np.histogram(z, 2000)
    x = ((edges[1:] + edges[:-1]) / 2)[counts > 0]
    counts = counts[counts > 0]
    place, strength, weight = np.array([0.0, 3.0, -3.0]), np.array([1000.0, 100.0, 100.0]), np.array([90.0, 5.0, 5.0])
    share, mean, variance = weight / weight.sum(), np.array([np.median(z), 3.0, -3.0]), np.full(3, z.var())
    kept = []
    for number in range(draws):
        log_p = np.log(share)[:, None] - 0.5 * np.log(variance)[:, None]
        log_p = log_p - 0.5 * (x - mean[:, None]) ** 2 / variance[:, None]
        p = np.exp(log_p - log_p.max(axis=0))
        held = rng.multinomial(counts, (p / p.sum(axis=0)).T).T
        n = held.sum(axis=1)
        centre = (held @ x) / np.maximum(n, 1)
        squares = (held * (x - centre[:, None]) ** 2).sum(axis=1)
        share = rng.dirichlet(weight + n)
        rate = 0.36 + 0.5 * squares + 0.5 * strength * n / (strength + n) * (centre - place) ** 2
        variance = rate / rng.gamma(1.28 + n / 2)
        mean = rng.normal((strength * place + n * centre) / (strength + n), np.sqrt(variance / (strength + n)))
        if number >= burn:
            kept.append([share[0], mean[0], np.sqrt(variance[0])])
    return np.array(kept)


def naive_part(beta, error, correlation, i, j):
    """Return B and S of features i to j by inverting their covariance, the more cautious of two correlations."""
    found = []
    for r in (np.eye(j + 1 - i), correlation[i : j + 1, i : j + 1]):
        covariance = np.outer(error[i : j + 1], error[i : j + 1]) * (r + 0.05 * np.eye(j + 1 - i))
        inverse = np.linalg.inv(covariance)
        one = np.ones(j + 1 - i)
        total = one @ inverse @ one
        found.append((one @ inverse @ beta[i : j + 1] / total, 1 / np.sqrt(total)))
    return min(found, key=lambda bs: abs(bs[0] / bs[1]))
