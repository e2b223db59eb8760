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
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

from brainlocus.genetics.gwas._newton import CONVERGED, maximise

__all__ = ["FirthFit", "fit_firth"]

MAX_ITERATIONS = 50
MAX_STEP = 5.0
"""Largest change of a coefficient in one step; the likelihood can be flat far from its top."""


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


@njit(cache=True, nogil=True)
@no_type_check
def firth_test(xt, y, offset, b):  # noqa: ANN001, ANN202
    """Fit in place from `b`; return status, standard error and likelihood ratio of the last column, and l*."""
    p = xt.shape[0]
    null = b.copy()
    null[p - 1] = 0.0
    null_status, null_value, _ = maximise(xt, y, offset, null, p - 1, True, MAX_ITERATIONS, MAX_STEP, np.zeros((0, 0)))
    status, value, lower = maximise(xt, y, offset, b, p, True, MAX_ITERATIONS, MAX_STEP, np.zeros((0, 0)))
    pivot = lower[p - 1, p - 1]
    if pivot == 0.0:
        return 1, np.nan, np.nan, value
    return max(status, null_status), 1.0 / pivot, max(2.0 * (value - null_value), 0.0), value
