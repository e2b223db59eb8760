"""One regression a pair, with loops."""

import numpy as np
from scipy import stats


def residuals(values, covariates):
    """Residuals on the intercept and covariates, on the rows where the value is present."""
    out = np.full(values.shape, np.nan)
    rows = ~np.isnan(values)
    design = np.column_stack([np.ones(rows.sum()), covariates[rows]])
    out[rows] = values[rows] - design @ np.linalg.lstsq(design, values[rows], rcond=None)[0]
    return out


def naive_pair(trait, phenotype, covariates, *, exact):
    """Return n, r, t, beta, se, df of one pair."""
    rows = ~np.isnan(trait) & ~np.isnan(phenotype)
    if exact:
        trait, phenotype = np.where(rows, trait, np.nan), np.where(rows, phenotype, np.nan)
    y, x = residuals(trait, covariates)[rows], residuals(phenotype, covariates)[rows]
    y, x = y - y.mean(), x - x.mean()
    n = int(rows.sum())
    design = (
        np.column_stack([np.ones(n), covariates[rows]]) if exact else np.column_stack([np.ones(len(trait)), covariates])
    )
    df = n - np.linalg.matrix_rank(design) - 1
    r = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    t = r * np.sqrt(df / (1 - r * r))
    beta = float(x @ y / (x @ x))
    return n, r, t, beta, abs(beta / t), df, 2 * stats.t.sf(abs(t), df)
