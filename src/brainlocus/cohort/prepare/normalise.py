"""Normalising transforms of one column at a time.

References
----------
Blom (1958), Statistical Estimates and Transformed Beta-Variables; McCaw et al. (2020), Biometrics 76:1262.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import ndtri

from brainlocus.numerics import rank_normal

__all__ = ["Method", "QuantileMap", "apply_quantile_map", "fit_quantile_map", "normalise", "standardise"]

Method = Literal["rank", "quantile", "none"]

MIN_DISTINCT = 10
"""Columns with no more distinct values are standardised only: ranks of a few levels say nothing more."""
MAX_QUANTILES = 1_000
CLIP = 1e-7
"""Smallest and largest probability of the quantile transform: about 5.2 standard deviations."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantileMap:
    """Quantiles of the training values, to map new ones."""

    quantiles: Float64[np.ndarray, " quantiles"]
    probabilities: Float64[np.ndarray, " quantiles"]


def normalise(values: Float[np.ndarray, " samples"], *, method: Method = "rank") -> Float64[np.ndarray, " samples"]:
    """Return a column with mean 0 and variance 1, made normal by ranks or quantiles where asked.

    Columns with at most ten distinct values are only standardised. NaN stays NaN.

    Examples
    --------
    >>> normalise(np.array([0.0, 1.0, 1.0, 0.0, np.nan])).round(3).tolist()
    [-0.866, 0.866, 0.866, -0.866, nan]
    """
    column = np.asarray(values, dtype=np.float64)
    distinct = np.unique(column[~np.isnan(column)]).size
    if method == "rank" and distinct > MIN_DISTINCT:
        column = rank_normal(column)
    elif method == "quantile" and distinct > MIN_DISTINCT:
        column = apply_quantile_map(fit_quantile_map(column), column)
    return column if method == "none" else standardise(column)


def standardise(values: Float[np.ndarray, " samples"]) -> Float64[np.ndarray, " samples"]:
    """Return the column centred and scaled to variance 1 (ddof 1); a constant column becomes 0, NaN stays NaN."""
    column = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(column)
    if int(present.sum()) < 2:
        return np.where(present, 0.0, np.nan)
    spread = float(column[present].std(ddof=1))
    centred = column - float(column[present].mean())
    return centred / spread if spread > 0 else np.where(present, 0.0, np.nan)


def fit_quantile_map(values: Float[np.ndarray, " samples"]) -> QuantileMap:
    """Return the quantiles of a column, as many as people up to 1,000.

    Raises
    ------
    ValueError
        No value is present.
    """
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    if not present.size:
        raise ValueError("A column without values has no quantiles.")
    probabilities = np.linspace(0.0, 1.0, min(MAX_QUANTILES, present.size))
    return QuantileMap(np.quantile(present, probabilities), probabilities)


def apply_quantile_map(fitted: QuantileMap, values: Float[np.ndarray, " samples"]) -> Float64[np.ndarray, " samples"]:
    """Return ``Phi^-1(F(x))`` with F interpolated between the quantiles and clipped at 1e-7.

    Ties get the middle of their range of F (the mean of interpolation from below and from above), as in
    scikit-learn's QuantileTransformer.
    """
    column = np.asarray(values, dtype=np.float64)
    below = np.interp(column, fitted.quantiles, fitted.probabilities)
    above = -np.interp(-column, -fitted.quantiles[::-1], -fitted.probabilities[::-1])
    result: Float64[np.ndarray, " samples"] = ndtri(np.clip(0.5 * (below + above), CLIP, 1.0 - CLIP))
    result[np.isnan(column)] = np.nan
    return result
