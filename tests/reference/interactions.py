"""Naive interactions: one literal regression at a time, by statsmodels."""

import numpy as np
import statsmodels.api as sm


def naive_pair(first, second, trait, covariates):
    """Return beta, standard error and t of the product of two complete dosages."""
    x = np.column_stack([np.ones(trait.size), covariates, first, second, first * second])
    fit = sm.OLS(trait, x).fit()
    return fit.params[-1], fit.bse[-1], fit.tvalues[-1]


def gxe_columns(dosage, exposure, covariates, *, square):
    """Return the full design; the last two columns are g and g e."""
    e = exposure - exposure.mean()
    g = dosage.astype(float) - dosage.astype(float).mean()
    c = covariates - covariates.mean(axis=0)
    parts = [np.ones(e.size), c, e, *([e**2] if square else []), e[:, None] * c, g[:, None] * c, g, g * e]
    return np.column_stack(parts)


def naive_gxe(dosage, trait, exposure, covariates, *, square, errors="HC3", weights=None):
    """Return the statsmodels fit with the given errors."""
    x = gxe_columns(dosage, exposure, covariates, square=square)
    if weights is not None:
        return sm.WLS(trait, x, weights=weights).fit()
    return sm.OLS(trait, x).fit(cov_type=errors, use_t=True) if errors == "HC3" else sm.OLS(trait, x).fit()
