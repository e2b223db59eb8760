r"""Mendelian randomisation from summary statistics: Wald ratio, inverse-variance weighting, Egger, weighted median.

With x_i and y_i the effects of variant i on expression and on the phenotype, and s_i the standard error of y_i::

    Wald        b = y / x                               se = s / |x|                                      (one variant)
    IVW         b = sum x y / s^2 / sum x^2 / s^2       se = (sum x^2 / s^2)^-1/2
                random effects: that se times max(1, sqrt(Q / (n - 1)))      Q = sum (y - b x)^2 / s^2 ~ chi2(n - 1)
    Egger       y = a + b x with weights 1 / s^2, oriented so that x >= 0; standard errors over min(1, residual sigma)
    median      of the ratios y / x, weights (x / s)^2: at cumulative midpoints p_k = (S_k - w_k / 2) / S_n the ratio is
                interpolated at 1/2; its standard error is that of parametric draws of x and y

IVW holds when every variant acts through expression alone, Egger when the variants' other effects are independent of
their effects on expression, the weighted median when half of the weight is of variants that act through it alone.

References
----------
Burgess, Butterworth & Thompson (2013), 10.1002/gepi.21758 (IVW); Bowden et al. (2015), 10.1093/ije/dyv080 (Egger);
Bowden et al. (2016), 10.1002/gepi.21965 (weighted median); Bowden et al. (2016), 10.1093/ije/dyw220 (I2_GX).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtri, stdtrit

from brainlocus.core.instruments import Instruments
from brainlocus.numerics.tails import neg_log10_p_from_chi2, neg_log10_p_from_t, neg_log10_p_from_z

__all__ = ["CausalEstimate", "Estimator", "Heterogeneity", "causal_estimates", "heterogeneity"]

Estimator = Literal["ivw-fixed", "ivw-random", "egger", "weighted-median"]
_DRAW_BYTES = 1 << 25
_FEWEST = {"ivw-fixed": 2, "ivw-random": 2, "egger": 3, "weighted-median": 3}
"""Variants that an estimator needs."""


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """How far variants disagree about the effect."""

    q: float
    """Cochran's Q (Egger: Rucker's Q'); NaN without a degree of freedom."""
    degrees_of_freedom: int
    neg_log10_p: float
    i2: float
    """Share of Q beyond its expectation, at least 0."""


@dataclass(frozen=True, slots=True)
class CausalEstimate:
    """One estimator's effect of expression on the phenotype; NaN where the status is not ``ok``."""

    method: str
    """An `Estimator`, or ``wald-ratio`` where one variant is all there is."""
    beta: float
    """Phenotype units per unit of expression."""
    standard_error: float
    neg_log10_p: float
    lower: float
    upper: float
    n: int
    """Variants with every value."""
    heterogeneity: Heterogeneity
    intercept: float
    """Egger: mean effect of the variants on the phenotype other than through expression; else NaN."""
    intercept_standard_error: float
    intercept_neg_log10_p: float
    i2_gx: float
    """Egger: 1 less the share by which its slope is diluted; NaN without standard errors of effects on expression."""
    status: str


@dataclass(frozen=True, slots=True, eq=False)
class _Effects:
    """Variants with every value."""

    x: Float64[np.ndarray, " variants"]
    y: Float64[np.ndarray, " variants"]
    se: Float64[np.ndarray, " variants"]
    """Of y."""
    x_se: Float64[np.ndarray, " variants"] | None


def causal_estimates(
    instruments: Instruments,
    methods: Sequence[Estimator] = get_args(Estimator),
    *,
    alpha: float = 0.05,
    reference: Literal["normal", "t"] = "normal",
    draws: int = 1000,
    rng: np.random.Generator | None = None,
) -> tuple[CausalEstimate, ...]:
    """Return the effect of expression by each estimator; the Wald ratio in place of them all for one variant.

    Parameters
    ----------
    instruments
        With `outcome_se`; variants that lack a value are left out.
    alpha
        Intervals hold 1 - alpha.
    reference
        Distribution of estimate over standard error: t has n - 1 degrees of freedom for IVW and n - 2 for Egger. The
        Wald ratio and the median are always compared with the normal.
    draws
        Of the weighted median. Effects on expression are drawn too where their standard errors are known.
    rng
        Of the draws; seed 0 by default.

    Raises
    ------
    SchemaError
        The instruments lack a column.
    """
    effects = _effects(instruments)
    n = effects.x.size
    used = np.count_nonzero(effects.x)
    if n == 1 and used:
        return (_wald_ratio(effects, alpha),)
    found = []
    for method in methods:
        if used < _FEWEST[method]:
            least = _FEWEST[method]
            found.append(_failed(method, n, f"{used} variants with an effect on expression, {least} are needed"))
        elif method == "egger":
            found.append(_egger(effects, alpha, reference))
        elif method == "weighted-median":
            random = np.random.default_rng(0) if rng is None else rng
            found.append(_weighted_median(effects, alpha, draws, random))
        else:
            found.append(_ivw(effects, method, alpha, reference))
    return tuple(found)


def heterogeneity(
    instruments: Instruments, beta: float | None = None
) -> tuple[Heterogeneity, Float64[np.ndarray, " variants"]]:
    """Return Cochran's Q about an effect (that of IVW by default) and each variant's part of it, NaN where missing."""
    effects = _effects(instruments)
    known = instruments.complete("exposure_beta", "outcome_beta", "outcome_se")
    parts = np.full(known.size, np.nan)
    if not effects.x.any():
        return _heterogeneity(float("nan"), 0), parts
    slope = _ivw_beta(effects) if beta is None else beta
    parts[known] = ((effects.y - slope * effects.x) / effects.se) ** 2
    return _heterogeneity(float(np.nansum(parts)), effects.x.size - 1), parts


def _effects(instruments: Instruments) -> _Effects:
    known = instruments.complete("exposure_beta", "outcome_beta", "outcome_se")
    assert instruments.outcome_se is not None  # noqa: S101, `complete` has seen it
    x_se = instruments.exposure_se
    if x_se is not None:
        x_se = x_se[known] if np.isfinite(x_se[known]).all() else None
    return _Effects(
        instruments.exposure_beta[known], instruments.outcome_beta[known], instruments.outcome_se[known], x_se
    )


def _heterogeneity(q: float, freedom: int) -> Heterogeneity:
    if freedom < 1 or not np.isfinite(q):
        return Heterogeneity(float("nan"), max(freedom, 0), float("nan"), float("nan"))
    share = max(0.0, (q - freedom) / q) if q > 0 else 0.0
    return Heterogeneity(q, freedom, float(neg_log10_p_from_chi2(q, float(freedom))), share)


def _estimate(
    method: str,
    beta: float,
    error: float,
    n: int,
    alpha: float,
    spread: Heterogeneity,
    *,
    freedom: int | None = None,
    intercept: tuple[float, float] = (float("nan"), float("nan")),
    i2_gx: float = float("nan"),
) -> CausalEstimate:
    """Return an estimate with its test; `freedom` None: normal."""
    if freedom is None:
        half = -float(ndtri(alpha / 2)) * error
        strength, other = (float(neg_log10_p_from_z(b / s)) for b, s in ((beta, error), intercept))
    else:
        half = -float(stdtrit(freedom, alpha / 2)) * error
        strength, other = (float(neg_log10_p_from_t(b / s, float(freedom))) for b, s in ((beta, error), intercept))
    return CausalEstimate(
        method, beta, error, strength, beta - half, beta + half, n, spread, *intercept, other, i2_gx, "ok"
    )


def _failed(method: str, n: int, status: str) -> CausalEstimate:
    nan = float("nan")
    return CausalEstimate(
        method, nan, nan, nan, nan, nan, n, _heterogeneity(nan, max(n - 1, 0)), nan, nan, nan, nan, status
    )


def _wald_ratio(effects: _Effects, alpha: float) -> CausalEstimate:
    x, y, error = float(effects.x[0]), float(effects.y[0]), float(effects.se[0])
    return _estimate("wald-ratio", y / x, error / abs(x), 1, alpha, _heterogeneity(float("nan"), 0))


def _ivw_beta(effects: _Effects) -> float:
    weight = effects.se**-2.0
    return float((effects.x * effects.y * weight).sum() / (effects.x**2 * weight).sum())


def _ivw(effects: _Effects, method: str, alpha: float, reference: str) -> CausalEstimate:
    n = effects.x.size
    beta = _ivw_beta(effects)
    error = float((effects.x**2 / effects.se**2).sum() ** -0.5)
    spread = _heterogeneity(float((((effects.y - beta * effects.x) / effects.se) ** 2).sum()), n - 1)
    if method == "ivw-random":
        error *= max(1.0, float(np.sqrt(spread.q / (n - 1))))
    return _estimate(method, beta, error, n, alpha, spread, freedom=n - 1 if reference == "t" else None)


def _egger(effects: _Effects, alpha: float, reference: str) -> CausalEstimate:
    n = effects.x.size
    sign = np.where(effects.x < 0, -1.0, 1.0)
    x, y, weight = sign * effects.x, sign * effects.y, effects.se**-2.0
    middle = float((weight * x).sum() / weight.sum())
    spread_x = float((weight * (x - middle) ** 2).sum())
    if spread_x <= 1e-20 * float((weight * x**2).sum()):
        return _failed(
            "egger", n, "all effects on expression are equal, so that intercept and slope cannot be told apart"
        )
    slope = float((weight * (x - middle) * y).sum() / spread_x)
    intercept = float((weight * y).sum() / weight.sum()) - slope * middle
    q = float((weight * (y - intercept - slope * x) ** 2).sum())
    inflation = max(1.0, float(np.sqrt(q / (n - 2))))
    error = inflation * spread_x**-0.5
    intercept_error = inflation * float(np.sqrt(1 / weight.sum() + middle**2 / spread_x))
    return _estimate(
        "egger",
        slope,
        error,
        n,
        alpha,
        _heterogeneity(q, n - 2),
        freedom=n - 2 if reference == "t" else None,
        intercept=(intercept, intercept_error),
        i2_gx=_i2_gx(effects),
    )


def _i2_gx(effects: _Effects) -> float:
    """Return I2 of ``|x| / s``, the regressor of the weighted Egger regression, about its weighted mean."""
    if effects.x_se is None:
        return float("nan")
    ratio, error = np.abs(effects.x) / effects.se, effects.x_se / effects.se
    weight = error**-2.0
    q = float((weight * (ratio - (weight * ratio).sum() / weight.sum()) ** 2).sum())
    return max(0.0, (q - (ratio.size - 1)) / q) if q > 0 else 0.0


def _medians(
    ratios: Float64[np.ndarray, "draws variants"], weights: Float64[np.ndarray, " variants"]
) -> Float64[np.ndarray, " draws"]:
    order = np.argsort(ratios, axis=1)
    ranked = np.take_along_axis(ratios, order, axis=1)
    weight = weights[order]
    midpoint = (np.cumsum(weight, axis=1) - weight / 2) / weights.sum()
    # The first midpoint is below 1/2 and the last above, but for rounding where one variant has all of the weight.
    below = np.clip((midpoint < 0.5).sum(axis=1) - 1, 0, ratios.shape[1] - 2)[:, np.newaxis]
    low, high = (np.take_along_axis(midpoint, below + step, axis=1)[:, 0] for step in (0, 1))
    from_, to = (np.take_along_axis(ranked, below + step, axis=1)[:, 0] for step in (0, 1))
    share = np.clip((0.5 - low) / (high - low), 0.0, 1.0)
    return np.asarray(from_ + share * (to - from_))


def _weighted_median(effects: _Effects, alpha: float, draws: int, rng: np.random.Generator) -> CausalEstimate:
    n = effects.x.size
    used = effects.x != 0
    x, y, error = effects.x[used], effects.y[used], effects.se[used]
    weights = (x / error) ** 2
    beta = float(_medians((y / x)[np.newaxis], weights)[0])
    found = []
    block = max(1, _DRAW_BYTES // (8 * x.size))
    for start in range(0, draws, block):
        size = (min(block, draws - start), x.size)
        drawn_y = rng.normal(y, error, size)
        drawn_x = x if effects.x_se is None else rng.normal(x, effects.x_se[used], size)
        found.append(_medians(drawn_y / drawn_x, weights))
    spread = _heterogeneity(float((((y - beta * x) / error) ** 2).sum()), x.size - 1)
    return _estimate("weighted-median", beta, float(np.concatenate(found).std(ddof=1)), n, alpha, spread)
