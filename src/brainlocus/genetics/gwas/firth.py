r"""Firth logistic regression: a penalty that keeps estimates finite and nearly unbiased where cases or alleles are few.

The penalised likelihood adds half the log-determinant of the information, Jeffreys' prior::

    l*(b) = l(b) + ln det I(b) / 2      U*_r = sum_i (y_i - mu_i + h_i (1/2 - mu_i)) x_ir      h_i = w_i x_i' I^-1 x_i

The test of one coefficient is the penalised likelihood ratio ``2 (l*(b) - l*(b with 0))``, the penalty of both from the
whole matrix. Its approximate form leaves the covariates at their effects in the penalised model without the variant,
as an offset, and fits the one effect of ``g~``, the dosage with the covariates projected out in the weights of the
model without it::

    g~ = g - C (C'WC)^-1 C'W g        l*(b) = l(b) + ln (sum w g~^2) / 2

References
----------
Firth (1993), 10.1093/biomet/80.1.27; Heinze & Schemper (2002), 10.1002/sim.1047; Mbatchou et al. (2021),
10.1038/s41588-021-00870-7.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from brainlocus.genetics.gwas._cases import CONVERGED, firth_test

__all__ = ["FirthFit", "fit_firth"]


@dataclass(frozen=True, slots=True, eq=False)
class FirthFit:
    """A penalised fit and the test of its last coefficient."""

    coefficients: Float[np.ndarray, " columns"]
    """Log-odds per unit; NaN unless `status` is ok."""
    standard_error: float
    """Of the last coefficient, from the inverse information."""
    chi2: float
    """Penalised likelihood ratio of the last coefficient, one degree of freedom."""
    log_likelihood: float
    """With its penalty."""
    status: Literal["ok", "not_converged"]


def fit_firth(
    matrix: Float[np.ndarray, "samples columns"],
    cases: Float[np.ndarray, " samples"],
    *,
    offset: Float[np.ndarray, " samples"] | None = None,
) -> FirthFit:
    """Fit Firth's logistic regression and test the last column.

    Parameters
    ----------
    matrix
        Complete, with an intercept if one is wanted. A column that the ones before it make up gets no effect.
    cases
        1 for a case, 0 for a control.
    offset
        Known part of the log-odds; 0 when None.

    References
    ----------
    Heinze & Schemper (2002), Stat. Med. 21:2409.

    Examples
    --------
    >>> exposed = np.repeat([1.0, 0.0], [4, 16])  # all exposed are cases: the plain estimate is infinite
    >>> cases = np.repeat([1.0, 0.0], [8, 12])
    >>> fit = fit_firth(np.column_stack([np.ones(20), exposed]), cases)
    >>> fit.coefficients.round(3).tolist(), round(fit.chi2, 3)
    ([-1.022, 3.219], 6.867)
    """
    xt = np.ascontiguousarray(matrix.T, dtype=np.float64)
    known = np.zeros(cases.size) if offset is None else np.asarray(offset, dtype=np.float64)
    b = np.zeros(xt.shape[0])
    status, error, chi2, value = firth_test(xt, np.asarray(cases, dtype=np.float64), known, b)
    if status != CONVERGED:
        return FirthFit(np.full(b.size, np.nan), math.nan, math.nan, math.nan, "not_converged")
    return FirthFit(b, error, chi2, value, "ok")
