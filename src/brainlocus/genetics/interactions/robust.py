"""Ordinary least squares with heteroscedasticity-consistent errors, one trait at a time: what hits are refitted with.

::

    b = (X'X)^-1 X'y      V_OLS = s^2 (X'X)^-1      V_HC3 = (X'X)^-1 X' diag(e_i^2 / (1 - h_i)^2) X (X'X)^-1

References
----------
MacKinnon & White (1985), J. Econometrics 29:305; Long & Ervin (2000), Am. Stat. 54:217.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["LeastSquares", "fit_least_squares"]

_RANK_TOLERANCE = 1e-9
_FULL_LEVERAGE = 1e-10
"""1 - leverage below which a person's residual is 0 whatever the trait: HC3 is not defined."""


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquares:
    """One fitted regression."""

    beta: Float[np.ndarray, " columns"]
    covariance: Float[np.ndarray, "columns columns"]
    """Of equal error variances."""
    robust: Float[np.ndarray, "columns columns"]
    """HC3; NaN when somebody is fitted exactly by one column."""
    degrees_of_freedom: int
    residual_ss: float


def fit_least_squares(
    design: Float[np.ndarray, "people columns"], trait: Float[np.ndarray, " people"]
) -> LeastSquares | None:
    """Return the regression of a trait on the columns of a design, intercept among them.

    Returns
    -------
    LeastSquares or None
        None when the columns are collinear or there are not more people than columns.

    Examples
    --------
    >>> x = np.column_stack([np.ones(4), [0.0, 1.0, 2.0, 3.0]])
    >>> fit = fit_least_squares(x, np.array([1.0, 3.0, 5.0, 7.0]))
    >>> fit.beta.round(6).tolist(), fit.degrees_of_freedom
    ([1.0, 2.0], 2)
    """
    n, p = design.shape
    if n <= p:
        return None
    scale = np.sqrt((design**2).sum(axis=0))
    if not (scale > 0).all():
        return None
    q, r = np.linalg.qr(design / scale)
    if np.abs(np.diag(r)).min() < _RANK_TOLERANCE:
        return None
    inverse = np.linalg.inv(r) / scale[:, None]
    beta = inverse @ (q.T @ trait)
    residual = trait - design @ beta
    residual_ss = float(residual @ residual)
    left = 1.0 - (q**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(left > _FULL_LEVERAGE, residual / left, np.nan) ** 2
    return LeastSquares(
        beta,
        residual_ss / (n - p) * (inverse @ inverse.T),
        inverse @ ((q * weight[:, None]).T @ q) @ inverse.T,
        n - p,
        residual_ss,
    )
