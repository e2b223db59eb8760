r"""Methylation as numbers to be analysed: beta to M and back, winsorised values.

M values are ``log2((beta + a) / (1 - beta + a))`` with a = 0.001, which keeps betas of 0 and 1 finite. Winsorised
values are those of a feature brought to ``Q1 - k IQR`` and ``Q3 + k IQR`` where they lie beyond, with Q1 and Q3 its
quartiles (type 7) and IQR their difference.

References
----------
Du et al. (2010), BMC Bioinformatics 11:587; Tukey (1977), Exploratory Data Analysis, 2D.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

__all__ = ["OFFSET", "Winsorised", "beta_values", "m_values", "winsorise"]

OFFSET = 0.001
"""Added to both shares, so that M is within ±9.97."""


@dataclass(frozen=True, slots=True, eq=False)
class Winsorised:
    """Values brought to the limits of their feature."""

    values: Float64[np.ndarray, "features people"]
    n_changed: Int[np.ndarray, " features"]


def m_values(beta: Float[np.ndarray, "features people"]) -> Float64[np.ndarray, "features people"]:
    """Return M values of betas in [0, 1]; NaN stays NaN.

    Examples
    --------
    >>> m_values(np.array([[0.0, 0.5, 0.75]])).round(3).tolist()
    [[-9.967, 0.0, 1.581]]
    """
    values = np.asarray(beta, dtype=np.float64)
    ratio = values + OFFSET
    ratio /= (1.0 + OFFSET) - values
    return np.asarray(np.log2(ratio, out=ratio))


def beta_values(m: Float[np.ndarray, "features people"]) -> Float64[np.ndarray, "features people"]:
    """Return the betas of M values, of those made with the same offset.

    Examples
    --------
    >>> beta_values(m_values(np.array([[0.0, 0.3, 1.0]]))).round(12).tolist()
    [[0.0, 0.3, 1.0]]
    """
    power = np.exp2(np.asarray(m, dtype=np.float64))
    return np.asarray((power * (1.0 + OFFSET) - OFFSET) / (1.0 + power))


def winsorise(values: Float[np.ndarray, "features people"], *, reach: float = 3.0) -> Winsorised:
    """Bring values beyond the quartiles by more than `reach` interquartile ranges to that limit, per feature.

    A feature whose quartiles are equal, so that any other value would lie beyond, is left as it is.

    Parameters
    ----------
    values
        NaN is missing and stays so.

    Raises
    ------
    ValueError
        `reach` is not positive.

    Examples
    --------
    >>> winsorise(np.array([[1.0, 2.0, 3.0, 4.0, 50.0]]), reach=1.5).values.tolist()
    [[1.0, 2.0, 3.0, 4.0, 7.0]]
    """
    if not reach > 0:
        raise ValueError(f"Winsorising needs a positive number of interquartile ranges, found {reach}.")
    numbers = np.asarray(values, dtype=np.float64)
    changed = np.zeros(numbers.shape[0], dtype=np.int64)
    # Sorting whole rows is several times faster than selecting four places of them; NaN goes last.
    ordered = np.sort(numbers, axis=1)
    count = np.full(numbers.shape[0], numbers.shape[1])
    if ordered.size:
        lacking = np.flatnonzero(np.isnan(ordered[:, -1]))
        count[lacking] -= np.isnan(ordered[lacking]).sum(axis=1)
    known = np.flatnonzero(count > 0)
    first, third = (_quantile(ordered, known, count[known], share) for share in (0.25, 0.75))
    spread = third - first
    spread[~(spread > 0)] = np.inf
    low, high = first - reach * spread, third + reach * spread
    beyond = (ordered[known, 0] < low) | (ordered[known, count[known] - 1] > high)
    if beyond.any():
        rows, low, high = known[beyond], low[beyond, None], high[beyond, None]
        some = numbers[rows]
        changed[rows] = ((some < low) | (some > high)).sum(axis=1)
        numbers = numbers.copy() if np.may_share_memory(numbers, values) else numbers
        numbers[rows] = np.clip(some, low, high)
    return Winsorised(numbers, changed)


def _quantile(
    ordered: Float64[np.ndarray, "features people"],
    rows: Int[np.ndarray, " known"],
    count: Int[np.ndarray, " known"],
    share: float,
) -> Float64[np.ndarray, " known"]:
    """Return a quantile (type 7) of the first `count` values of sorted rows."""
    place = share * (count - 1)
    below = place.astype(np.int64)
    lower, upper = ordered[rows, below], ordered[rows, np.minimum(below + 1, count - 1)]
    return np.asarray(lower + (place - below) * (upper - lower))
