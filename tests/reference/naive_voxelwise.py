"""Voxel-wise association read literally: one statsmodels regression a voxel and target."""

import numpy as np
import statsmodels.api as sm

__all__ = ["naive_voxelwise"]


def independent(covariates):
    """Return the intercept and the covariates that are no combination of those before."""
    kept = np.ones((covariates.shape[0], 1))
    for column in covariates.T:
        longer = np.column_stack([kept, column])
        kept = longer if np.linalg.matrix_rank(longer) == longer.shape[1] else kept
    return kept


def naive_voxelwise(values, targets, covariates):
    """Return the estimates as arrays of targets x voxels, NaN without a regression."""
    names = ("n", "beta", "standard_error", "r", "t", "neg_log10_p", "degrees_of_freedom")
    found = {name: np.full((targets.shape[1], values.shape[1]), np.nan) for name in names}
    known = np.isfinite(covariates).all(axis=1)
    for k in range(targets.shape[1]):
        for v in range(values.shape[1]):
            rows = known & np.isfinite(targets[:, k]) & np.isfinite(values[:, v])
            found["n"][k, v] = rows.sum()
            y, others = values[rows, v].astype(np.float64), independent(covariates[rows])
            design = np.column_stack([targets[rows, k], others])
            if rows.sum() < 3 or np.ptp(y) == 0 or rows.sum() <= np.linalg.matrix_rank(design):
                continue
            if np.linalg.matrix_rank(design) == np.linalg.matrix_rank(others):
                continue
            fit = sm.OLS(y, design).fit()
            found["beta"][k, v], found["standard_error"][k, v] = fit.params[0], fit.bse[0]
            found["t"][k, v], found["degrees_of_freedom"][k, v] = fit.tvalues[0], fit.df_resid
            found["neg_log10_p"][k, v] = -np.log10(fit.pvalues[0])
            found["r"][k, v] = fit.tvalues[0] / np.sqrt(fit.tvalues[0] ** 2 + fit.df_resid)
    return found
