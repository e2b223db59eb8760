"""Parametric ComBat read literally from Johnson, Li & Rabinovic (2007), one site and feature at a time."""

import numpy as np


def naive_combat(y, site, covariates, tolerance=1e-4):
    sites = sorted(set(site))
    one_hot = np.array([[float(s == t) for t in sites] for s in site])
    design = np.hstack([one_hot, covariates])
    b = np.linalg.inv(design.T @ design) @ design.T @ y
    k = len(sites)
    alpha = sum((site == s).mean() * b[i] for i, s in enumerate(sites))
    sigma = np.sqrt(((y - design @ b) ** 2).mean(axis=0))
    return naive_effects(y, site, alpha, covariates @ b[k:], sigma, tolerance)


def naive_effects(y, site, alpha, preserved, sigma, tolerance=1e-4):
    z = (y - alpha - preserved) / sigma
    out = np.empty_like(y)
    for s in sorted(set(site)):
        rows = site == s
        data = z[rows]
        m = rows.sum()
        g_hat, d_hat = data.mean(axis=0), data.var(axis=0, ddof=1)
        g_bar, t2 = g_hat.mean(), g_hat.var(ddof=1)
        mean, var = d_hat.mean(), d_hat.var(ddof=1)
        a, bb = (mean**2 + 2 * var) / var, (mean * var + mean**3) / var
        g, d = g_hat.copy(), d_hat.copy()
        while True:
            g_new = (m * t2 * g_hat + d * g_bar) / (m * t2 + d)
            d_new = (bb + 0.5 * ((data - g_new) ** 2).sum(axis=0)) / (m / 2 + a - 1)
            change = max(np.abs((g_new - g) / g).max(), np.abs((d_new - d) / d).max())
            g, d = g_new, d_new
            if change < tolerance:
                break
        out[rows] = sigma * (data - g) / np.sqrt(d) + alpha + preserved[rows]
    return out
