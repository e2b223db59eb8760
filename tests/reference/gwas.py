"""Naive association: one literal least-squares fit per variant and trait."""

import numpy as np
from scipy import stats


def naive_linear(dosage, trait, covariates, missing="exact"):
    """Return beta, standard error, t, df, -log10 p of ``trait ~ 1 + covariates + dosage``, person by person."""
    keep = ~np.isnan(trait)
    g, y, c = dosage[keep].astype(float), trait[keep], covariates[keep]
    if missing == "mean":
        called = ~np.isnan(g)
        n = called.sum()
        g = np.where(called, g, g[called].mean())
    else:
        called = ~np.isnan(g)
        g, y, c = g[called], y[called], c[called]
        n = g.size
    x = np.column_stack([np.ones(g.size), c, g])
    rank = np.linalg.matrix_rank(x[:, :-1])
    coefficients, _, _, _ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ coefficients
    df = n - rank - 1
    variance = residual @ residual / df
    inverse = np.linalg.pinv(x.T @ x)
    error = np.sqrt(variance * inverse[-1, -1])
    t = coefficients[-1] / error
    return coefficients[-1], error, t, df, -(stats.t.logsf(abs(t), df) + np.log(2)) / np.log(10)
