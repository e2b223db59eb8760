"""Reliability of measures over repeated scans: correlation, intraclass correlation, within-subject spread.

Data flow::

    values (people, sessions, measures) --measure_reliability--> Reliability    (all measures at once)

Two-way analysis of variance of the people who have every session, measure by measure, with n people, k sessions and the
mean squares of people (MSR), sessions (MSC), error (MSE)::

    ICC(2,1) = (MSR - MSE) / (MSR + (k - 1) MSE + k (MSC - MSE) / n)    agreement: a shift between sessions counts
    ICC(3,1) = (MSR - MSE) / (MSR + (k - 1) MSE)                        consistency: it does not

Their intervals are those of the F distribution (Shrout & Fleiss 1979, McGraw & Wong 1996). The within-subject
standard deviation is the root of the people's mean variance over sessions, shifts included (Bland & Altman 1996).
Correlation and Bland-Altman limits are between the first and the last session.

Bootstrap intervals draw people with replacement. All that the statistics need of a draw are weighted sums over people,
so that a matrix product of draws and people gives them for all measures at once.

References
----------
Shrout & Fleiss (1979), Psychol Bull 86:420; McGraw & Wong (1996), Psychol Methods 1:30; Bland & Altman (1986), Lancet
327:307; Bland & Altman (1996), BMJ 313:744; Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped
from scipy.stats import f as f_distribution

from brainlocus.core import ResultTable

__all__ = ["Interval", "Reliability", "measure_reliability", "reliability_results"]

_NORMAL_95 = 1.959963984540054
"""Limits of agreement hold 95 % of the differences, whatever the confidence of the intervals."""
_BYTES_PER_DRAW_BLOCK = 1 << 26
_CONSTANT = 1e-12
"""Share of the squared values below which spread is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Bounds of a statistic of every measure; NaN where there are none."""

    lower: Float64[np.ndarray, " measures"]
    upper: Float64[np.ndarray, " measures"]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Statistics of every measure; NaN where the status is not ``ok``."""

    n: Int[np.ndarray, " measures"]
    """People with every session."""
    n_sessions: int
    r: Float64[np.ndarray, " measures"]
    """Pearson's, first and last session."""
    r_bootstrap: Interval
    icc_2_1: Float64[np.ndarray, " measures"]
    icc_2_1_interval: Interval
    icc_2_1_bootstrap: Interval
    icc_3_1: Float64[np.ndarray, " measures"]
    icc_3_1_interval: Interval
    icc_3_1_bootstrap: Interval
    within_subject_sd: Float64[np.ndarray, " measures"]
    coefficient_of_variation: Float64[np.ndarray, " measures"]
    """Within-subject standard deviation over the absolute mean; NaN where the mean is 0."""
    bias: Float64[np.ndarray, " measures"]
    """Mean of last less first session."""
    limits: Interval
    """Bias less and plus 1.96 standard deviations of the differences."""
    status: Shaped[np.ndarray, " measures"]


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums over (weighted) people of values that are centred by measure; leading axis: draws."""

    n: Float64[np.ndarray, "draws measures"]
    total: Float64[np.ndarray, "draws measures"]
    """Of people's totals over sessions."""
    total_square: Float64[np.ndarray, "draws measures"]
    square: Float64[np.ndarray, "draws measures"]
    """Of all squared values."""
    sessions: Float64[np.ndarray, "sessions draws measures"]
    first_square: Float64[np.ndarray, "draws measures"]
    last_square: Float64[np.ndarray, "draws measures"]
    product: Float64[np.ndarray, "draws measures"]


def measure_reliability(
    values: Float64[np.ndarray, "people sessions measures"],
    *,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    min_people: int = 3,
    rng: np.random.Generator | None = None,
) -> Reliability:
    """Return the reliability of every measure.

    Parameters
    ----------
    values
        NaN is missing; a person counts for a measure when every session has it.
    n_bootstrap
        Draws of people; 0 for no bootstrap intervals.
    min_people
        Measures with fewer have a status.
    rng
        Of the draws; seed 0 by default.

    Raises
    ------
    ValueError
        Fewer than two sessions, or a confidence outside (0, 1).

    Examples
    --------
    >>> ratings = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    >>> found = measure_reliability(ratings[:, :, None], n_bootstrap=0)
    >>> float(found.icc_2_1[0].round(2)), float(found.icc_3_1[0].round(2))
    (0.29, 0.71)
    """
    n_people, k, _ = values.shape
    if k < 2:
        raise ValueError(f"Reliability needs two sessions or more, got {k}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    complete = np.isfinite(values).all(axis=1)
    n = complete.sum(axis=0).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(complete, np.where(complete[:, None], values, 0.0).mean(axis=1), 0.0).sum(axis=0) / n
    centred = np.where(complete[:, None, :], values - mean, 0.0)
    scale = np.where(complete[:, None, :], values**2, 0.0).sum(axis=(0, 1))
    status = _statuses(n, (centred**2).sum(axis=(0, 1)), scale, min_people)
    sums = _sums(np.ones((1, n_people)), complete, centred)
    squares = _mean_squares(sums, k)
    r, icc_2, icc_3 = (values[0] for values in _statistics(sums, squares, k))
    ok = status == "ok"

    def kept(*arrays: Float64[np.ndarray, " measures"]) -> list[Float64[np.ndarray, " measures"]]:
        return [np.where(ok, array, np.nan) for array in arrays]

    bounds = _bootstrap(complete, centred, n_bootstrap, confidence, rng)
    intervals = _f_intervals(squares, icc_2, n.astype(np.float64), k, confidence)
    difference = centred[:, -1] - centred[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.sqrt((np.where(complete, centred.var(axis=1, ddof=1), 0.0)).sum(axis=0) / n)
        variation = np.where(mean != 0, within / np.abs(mean), np.nan)
        bias = difference.sum(axis=0) / n
        spread = np.sqrt(np.where(complete, (difference - bias) ** 2, 0.0).sum(axis=0) / (n - 1))
    within, variation, bias, low, high = kept(
        within, variation, bias, bias - _NORMAL_95 * spread, bias + _NORMAL_95 * spread
    )
    r, icc_2, icc_3 = kept(r, icc_2, icc_3)
    return Reliability(
        n=n,
        n_sessions=k,
        r=r,
        r_bootstrap=Interval(*kept(*bounds[0])),
        icc_2_1=icc_2,
        icc_2_1_interval=Interval(*kept(*intervals[0])),
        icc_2_1_bootstrap=Interval(*kept(*bounds[1])),
        icc_3_1=icc_3,
        icc_3_1_interval=Interval(*kept(*intervals[1])),
        icc_3_1_bootstrap=Interval(*kept(*bounds[2])),
        within_subject_sd=within,
        coefficient_of_variation=variation,
        bias=bias,
        limits=Interval(low, high),
        status=status,
    )


def reliability_results(
    found: Reliability, *, measures: Sequence[str], units: Sequence[str], sessions: Sequence[str]
) -> ResultTable:
    """Return the table of `associate reliability`: a row a measure.

    Parameters
    ----------
    sessions
        Labels in order; correlation and limits are between the first and the last.
    """
    count = len(measures)
    return ResultTable(
        {
            "measure": np.array(measures, dtype=np.str_),
            "unit": np.array(units, dtype=np.str_),
            "n": found.n,
            "n_sessions": np.full(count, found.n_sessions, dtype=np.int64),
            "first_session": np.full(count, sessions[0]),
            "last_session": np.full(count, sessions[-1]),
            "r": found.r,
            "r_lower": found.r_bootstrap.lower,
            "r_upper": found.r_bootstrap.upper,
            "icc_2_1": found.icc_2_1,
            "icc_2_1_lower": found.icc_2_1_interval.lower,
            "icc_2_1_upper": found.icc_2_1_interval.upper,
            "icc_2_1_bootstrap_lower": found.icc_2_1_bootstrap.lower,
            "icc_2_1_bootstrap_upper": found.icc_2_1_bootstrap.upper,
            "icc_3_1": found.icc_3_1,
            "icc_3_1_lower": found.icc_3_1_interval.lower,
            "icc_3_1_upper": found.icc_3_1_interval.upper,
            "icc_3_1_bootstrap_lower": found.icc_3_1_bootstrap.lower,
            "icc_3_1_bootstrap_upper": found.icc_3_1_bootstrap.upper,
            "within_subject_sd": found.within_subject_sd,
            "coefficient_of_variation": found.coefficient_of_variation,
            "bias": found.bias,
            "limit_lower": found.limits.lower,
            "limit_upper": found.limits.upper,
            "status": found.status,
        }
    )


def _statuses(
    n: Int[np.ndarray, " measures"],
    spread: Float64[np.ndarray, " measures"],
    scale: Float64[np.ndarray, " measures"],
    min_people: int,
) -> Shaped[np.ndarray, " measures"]:
    status = np.full(n.shape, "ok", dtype="U64")
    status[spread <= _CONSTANT * scale] = "the measure is constant"
    for k in np.flatnonzero(n < min_people):
        status[k] = f"{n[k]} people with every session, {min_people} needed"
    return status


def _sums(
    weights: Float64[np.ndarray, "draws people"],
    complete: Bool[np.ndarray, "people measures"],
    centred: Float64[np.ndarray, "people sessions measures"],
) -> _Sums:
    total, first, last = centred.sum(axis=1), centred[:, 0], centred[:, -1]
    return _Sums(
        n=weights @ complete,
        total=weights @ total,
        total_square=weights @ total**2,
        square=weights @ (centred**2).sum(axis=1),
        sessions=np.stack([weights @ centred[:, j] for j in range(centred.shape[1])]),
        first_square=weights @ first**2,
        last_square=weights @ last**2,
        product=weights @ (first * last),
    )


def _mean_squares(sums: _Sums, k: int) -> tuple[Float64[np.ndarray, "draws measures"], ...]:
    """Return the mean squares of people, sessions and error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        common = sums.total**2 / (sums.n * k)
        people = sums.total_square / k - common
        sessions = (sums.sessions**2).sum(axis=0) / sums.n - common
        error = np.maximum(sums.square - common - people - sessions, 0.0)
        return people / (sums.n - 1), sessions / (k - 1), error / ((sums.n - 1) * (k - 1))


def _statistics(
    sums: _Sums, squares: tuple[Float64[np.ndarray, "draws measures"], ...], k: int
) -> tuple[Float64[np.ndarray, "draws measures"], ...]:
    """Return r, ICC(2,1) and ICC(3,1)."""
    msr, msc, mse = squares
    first, last = sums.sessions[0], sums.sessions[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = sums.product - first * last / sums.n
        r = covariance / np.sqrt((sums.first_square - first**2 / sums.n) * (sums.last_square - last**2 / sums.n))
        icc_2 = (msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / sums.n)
        icc_3 = (msr - mse) / (msr + (k - 1) * mse)
    return np.clip(r, -1.0, 1.0), icc_2, icc_3


def _f_intervals(
    squares: tuple[Float64[np.ndarray, "draws measures"], ...],
    rho: Float64[np.ndarray, " measures"],
    n: Float64[np.ndarray, " measures"],
    k: int,
    confidence: float,
) -> tuple[tuple[Float64[np.ndarray, " measures"], ...], ...]:
    """Return the bounds of ICC(2,1) (McGraw & Wong 1996, table 7, case 2) and of ICC(3,1) (case 3)."""
    msr, msc, mse = (square[0] for square in squares)
    at = 1.0 - (1.0 - confidence) / 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = msr / mse
        people, errors = n - 1, (n - 1) * (k - 1)
        low, high = ratio / f_distribution.ppf(at, people, errors), ratio * f_distribution.ppf(at, errors, people)
        third = ((low - 1) / (low + k - 1), (high - 1) / (high + k - 1))
        fj = msc / mse
        inner = n * (1 + (k - 1) * rho) - k * rho
        df = (k - 1) * (n - 1) * (k * rho * fj + inner) ** 2 / ((n - 1) * k**2 * rho**2 * fj**2 + inner**2)
        upper_f, lower_f = f_distribution.ppf(at, people, df), f_distribution.ppf(at, df, people)
        rest = k * msc + (k * n - k - n) * mse
        second = (
            n * (msr - upper_f * mse) / (upper_f * rest + n * msr),
            n * (lower_f * msr - mse) / (rest + n * lower_f * msr),
        )
        exact = mse <= 0  # no error: both bounds are the estimate
    return (
        (np.where(exact, rho, second[0]), np.where(exact, rho, second[1])),
        (np.where(exact, 1.0, third[0]), np.where(exact, 1.0, third[1])),
    )


def _bootstrap(
    complete: Bool[np.ndarray, "people measures"],
    centred: Float64[np.ndarray, "people sessions measures"],
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator | None,
) -> list[tuple[Float64[np.ndarray, " measures"], Float64[np.ndarray, " measures"]]]:
    """Return percentile bounds of r, ICC(2,1) and ICC(3,1)."""
    n_people, k, n_measures = centred.shape
    nothing = np.full(n_measures, np.nan)
    if n_bootstrap < 1 or n_people < 2:
        return [(nothing, nothing)] * 3
    source = rng if rng is not None else np.random.default_rng(0)
    block = max(1, _BYTES_PER_DRAW_BLOCK // (8 * (n_people + (k + 8) * n_measures)))
    drawn: list[tuple[Float64[np.ndarray, "draws measures"], ...]] = []
    for start in range(0, n_bootstrap, block):
        count = min(block, n_bootstrap - start)
        people = source.integers(0, n_people, size=(count, n_people))
        flat = people + n_people * np.arange(count)[:, None]
        weights = np.bincount(flat.ravel(), minlength=count * n_people).reshape(count, n_people).astype(np.float64)
        sums = _sums(weights, complete, centred)
        drawn.append(_statistics(sums, _mean_squares(sums, k), k))
    tails = 100.0 * np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    bounds = []
    for which in range(3):
        draws = np.concatenate([part[which] for part in drawn])
        known = np.isfinite(draws).any(axis=0)
        both = np.full((2, n_measures), np.nan)
        both[:, known] = np.nanpercentile(np.where(np.isfinite(draws), draws, np.nan)[:, known], tails, axis=0)
        bounds.append((both[0], both[1]))
    return bounds
