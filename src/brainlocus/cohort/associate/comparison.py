r"""Two modalities that measure the same regions of the same people, compared by what they are associated with.

Of a pair of region and phenotype let a and b be -log10 p in the first and the second modality. Bland and Altman's
coordinates and the angle of specificity (Wang et al. 2022) are ::

    x = (a + b) / 2    y = a - b    theta = atan2(y, x)

``theta`` is +63.4 degrees where only the first is associated (b = 0), 0 where both are equally, -63.4 where only the
second is. "Significant in one, not in the other" is not a difference: with the correlation r_ab of the two measures,
Williams' t tests that the two correlations with one phenotype differ in the same people ::

    t = (r_a - r_b) sqrt( (n - 1)(1 + r_ab) / (2 (n - 1)/(n - 3) |R| + (r_a + r_b)^2 / 4 (1 - r_ab)^3) ),  df = n - 3
    |R| = 1 - r_a^2 - r_b^2 - r_ab^2 + 2 r_a r_b r_ab

For partial correlations n is the number of people less that of the covariates.

`agreement` compares raw values instead: bias, limits of agreement with their intervals, and the slope of the difference
on the mean, which is not 0 where the disagreement grows with the value.

References
----------
Wang et al. (2022), Nat. Neurosci. 25:818; Williams (1959), J. R. Stat. Soc. B 21:396; Steiger (1980), Psychol. Bull.
87:245; Bland & Altman (1999), Stat. Methods Med. Res. 8:135.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from scipy import stats

from brainlocus.numerics import neg_log10_p_from_t

__all__ = [
    "Agreement",
    "Difference",
    "agreement",
    "bland_altman_coordinates",
    "correlation_difference",
    "measure_correlation",
]

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Whether two correlations with one phenotype differ; NaN where there is no test."""

    t: Float64[np.ndarray, " pairs"]
    """Positive where the first is the larger."""
    degrees_of_freedom: Float64[np.ndarray, " pairs"]
    neg_log10_p: Float64[np.ndarray, " pairs"]


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Agreement of two measures of the same quantity, first less second; NaN where the status is not ``ok``."""

    n: Int[np.ndarray, " measures"]
    bias: Float64[np.ndarray, " measures"]
    bias_lower: Float64[np.ndarray, " measures"]
    bias_upper: Float64[np.ndarray, " measures"]
    limit_lower: Float64[np.ndarray, " measures"]
    limit_upper: Float64[np.ndarray, " measures"]
    """Bias less and plus 1.96 standard deviations of the differences."""
    limit_error: Float64[np.ndarray, " measures"]
    """Half the width of the interval of either limit."""
    slope: Float64[np.ndarray, " measures"]
    """Of the difference on the mean."""
    slope_neg_log10_p: Float64[np.ndarray, " measures"]
    r: Float64[np.ndarray, " measures"]
    """Pearson's."""
    status: Shaped[np.ndarray, " measures"]


def bland_altman_coordinates(
    first: Float[np.ndarray, " pairs"], second: Float[np.ndarray, " pairs"]
) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return mean and difference of two -log10 p, and the angle of specificity in degrees.

    Examples
    --------
    >>> [float(v[0].round(3)) for v in bland_altman_coordinates(np.array([8.0]), np.array([0.0]))]
    [4.0, 8.0, 63.435]
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    mean, difference = (a + b) / 2.0, a - b
    angle = np.degrees(np.arctan2(difference, mean))
    return mean, difference, np.where(np.isnan(mean), np.nan, angle)


def correlation_difference(
    r_first: Float[np.ndarray, " pairs"],
    r_second: Float[np.ndarray, " pairs"],
    r_between: Float[np.ndarray, " pairs"],
    n: Float[np.ndarray, " pairs"],
) -> Difference:
    """Test that two correlations with the same phenotype differ, in the same people (Williams' t).

    Parameters
    ----------
    r_between
        Correlation of the two measures; NaN, or 1 in absolute value, gives no test.
    n
        People, less the covariates of partial correlations; below 4 there is no test.
    """
    a, b, c, n = (np.asarray(v, dtype=np.float64) for v in (r_first, r_second, r_between, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        determinant = np.maximum(1.0 - a * a - b * b - c * c + 2.0 * a * b * c, 0.0)
        spread = 2.0 * (n - 1.0) / (n - 3.0) * determinant + (a + b) ** 2 / 4.0 * (1.0 - c) ** 3
        t = (a - b) * np.sqrt((n - 1.0) * (1.0 + c) / spread)
    df = n - 3.0
    usable = (n > 3) & (np.abs(c) < 1.0) & np.isfinite(t)
    t, df = np.where(usable, t, np.nan), np.where(usable, df, np.nan)
    return Difference(t, df, neg_log10_p_from_t(t, df))


def measure_correlation(
    first: Float64[np.ndarray, "people measures"], second: Float64[np.ndarray, "people measures"]
) -> Float64[np.ndarray, " measures"]:
    """Return Pearson's correlation of two measures column by column, over the people who have both.

    NaN where fewer than three people have both, or one is constant.
    """
    both = np.isfinite(first) & np.isfinite(second)
    n = both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (_centred(v, both, n) for v in (first, second))
        r = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.where(n >= 3, np.clip(r, -1.0, 1.0), np.nan)


def _centred(
    values: Float64[np.ndarray, "people measures"],
    both: Shaped[np.ndarray, "people measures"],
    n: Int[np.ndarray, " measures"],
) -> Float64[np.ndarray, "people measures"]:
    filled = np.where(both, values, 0.0)
    return np.where(both, filled - filled.sum(axis=0) / n, 0.0)


def agreement(
    first: Float64[np.ndarray, "people measures"],
    second: Float64[np.ndarray, "people measures"],
    *,
    confidence: float = 0.95,
    min_people: int = 3,
) -> Agreement:
    """Return Bland and Altman's figures of every measure.

    Parameters
    ----------
    first, second
        The same people and measures; NaN is missing, and a person counts who has both.

    Raises
    ------
    ValueError
        `min_people` is below 3, or `confidence` is not between 0 and 1.
    """
    if min_people < 3 or not 0.0 < confidence < 1.0:
        raise ValueError(f"Expected 3 people or more and a confidence within (0, 1), found {min_people}, {confidence}.")
    both = np.isfinite(first) & np.isfinite(second)
    n = both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(both, first - second, 0.0)
        bias = difference.sum(axis=0) / n
        left = np.where(both, difference - bias, 0.0)
        middle = _centred((first + second) / 2.0, both, n)
        spread = np.sqrt((left**2).sum(axis=0) / (n - 1.0))
        quantile = stats.t.ppf((1.0 + confidence) / 2.0, np.maximum(n - 1, 1))
        error = quantile * spread / np.sqrt(n)
        limit_error = quantile * spread * np.sqrt(1.0 / n + _NORMAL_95**2 / (2.0 * (n - 1.0)))
        square, product = (middle**2).sum(axis=0), (left * middle).sum(axis=0)
        slope = product / square
        rest = np.maximum((left**2).sum(axis=0) - slope * product, 0.0)
        t = slope / np.sqrt(rest / (n - 2.0) / square)
    status = np.full(n.shape, "ok", dtype="U40")
    status[spread <= 0] = "no difference"
    status[square <= 0] = "no variance"
    status[n < min_people] = f"fewer than {min_people} people"
    ok = (status == "ok") | (status == "no difference")
    bias, error, limits, limit_error, slope = (
        np.where(ok, v, np.nan) for v in (bias, error, _NORMAL_95 * spread, limit_error, slope)
    )
    return Agreement(
        n=n.astype(np.int64),
        bias=bias,
        bias_lower=bias - error,
        bias_upper=bias + error,
        limit_lower=bias - limits,
        limit_upper=bias + limits,
        limit_error=limit_error,
        slope=slope,
        slope_neg_log10_p=neg_log10_p_from_t(
            np.where(status == "ok", t, np.nan), np.where(status == "ok", n - 2.0, np.nan)
        ),
        r=measure_correlation(first, second),
        status=status,
    )
