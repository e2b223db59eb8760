r"""MR-JTI: the causal effect of a gene's expression on a phenotype, with a term for variants that may be pleiotropic.

Data flow::

    Instruments --mr_jti--> MrJtiResult
        lasso at the lambda of repeated cross-validation, then 500 residual bootstraps at that lambda

Model. Variants are ordered by their p in the GWAS; the first q of them (p < 0.05) get an indicator. With every column
and y scaled to mean 0 and variance 1::

    gwas_beta = b_1 eqtl_beta + b_2 ldscore + sum_{j <= q} b_{2+j} [variant is j] + error

by the lasso in which the first two columns are not penalised. Coefficients below 1 / (number of columns) in size are
set to 0. The bootstrap resamples the centred residuals of the fit before that; each draw is fitted again along a path
of its own and read at the same lambda, between two lambdas of its path by linear interpolation.

The estimate is the mean of the draws, as published. The interval is the basic bootstrap, ``2 b - Q(1 - a/2)`` to
``2 b - Q(a/2)`` with b the thresholded lasso coefficient. Where a term is 0 in most draws, both quantiles are 0 and
that interval is the point 2 b, which looks significant whatever the evidence; percentile intervals and the share of
draws in which the term is not 0 (`selection_frequency`) are beside it for that reason.

References
----------
Zhou et al. (2020), 10.1038/s41588-020-0706-2; Chatterjee & Lahiri (2011), 10.1198/jasa.2011.tm10159 (residual bootstrap
of the thresholded lasso).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from brainlocus.core.instruments import Instruments
from brainlocus.numerics.elastic_net import (
    elastic_net_path,
    elastic_net_paths,
    lambda_path,
    standardise_columns,
)

__all__ = ["MR_JTI_CAUTION", "MrJtiResult", "MrJtiSettings", "mr_jti"]

MR_JTI_CAUTION = (
    "A variant whose term is 0 in most bootstrap draws has the basic interval 2b - 0, which looks significant: judge "
    "it by the percentile interval and the selection frequency."
)
_PLEIOTROPY_P = 0.05
"""Variants with a smaller GWAS p get an indicator (Zhou et al. 2020)."""
_DRAWS_PER_TAIL = 5.0
"""Draws that each tail of an interval should hold: the advice ``B >= 10 / alpha``."""


@dataclass(frozen=True, slots=True)
class MrJtiSettings:
    """Settings of MR-JTI; the defaults are those published, but for the repeats of cross-validation (1).

    Raises
    ------
    ValueError
        A number is out of range.
    """

    bootstrap: int = 500
    folds: int = 5
    repeats: int = 10
    """Cross-validations whose error curves are averaged; the choice of lambda varies less."""
    alpha: float = 0.05
    """Of the intervals: 0.05 over the number of genes tested."""
    min_variants: int = 20
    weighted: bool = False
    """Weight variants by 1 / outcome_se^2."""

    def __post_init__(self) -> None:
        if self.bootstrap < 1 or self.folds < 2 or self.repeats < 1 or not 0 < self.alpha < 1:
            raise ValueError(
                "MR-JTI needs a bootstrap and a cross-validation of 1 or more, 2 folds or more and an alpha between 0 "
                f"and 1, found {self}."
            )
        if self.min_variants <= self.folds:
            raise ValueError(f"MR-JTI needs more variants than folds ({self.folds}), found {self.min_variants}.")


@dataclass(frozen=True, slots=True, eq=False)
class MrJtiResult:
    """Terms of one gene and phenotype: ``expression``, ``ldsc``, then the variants with an indicator.

    Coefficients are on the standardised scale: SD of gwas_beta per SD of the column. Without a result only the first
    term is there.
    """

    terms: Shaped[np.ndarray, " terms"]
    estimate: Float64[np.ndarray, " terms"]
    """Mean over the bootstrap; NaN where there is none."""
    coefficient: Float64[np.ndarray, " terms"]
    """Thresholded lasso coefficient b."""
    lower: Float64[np.ndarray, " terms"]
    """Basic bootstrap."""
    upper: Float64[np.ndarray, " terms"]
    percentile_lower: Float64[np.ndarray, " terms"]
    percentile_upper: Float64[np.ndarray, " terms"]
    selection_frequency: Float64[np.ndarray, " terms"]
    """Share of draws in which the term is not 0."""
    significant: Bool[np.ndarray, " terms"]
    """The basic interval does not hold 0."""
    penalty: float
    """Lambda of the fit; 0 where there is no indicator and so nothing to penalise."""
    n: int
    """Variants with every value."""
    n_pleiotropic: int
    """Indicators, q."""
    scale: float
    """Phenotype units per unit of expression of a coefficient of expression of 1."""
    status: str
    notes: tuple[str, ...] = ()

    @property
    def heterogeneous_share(self) -> float:
        """Share of the variants whose indicator is significant."""
        return float(self.significant[2:].sum() / self.n) if self.status == "ok" else float("nan")

    @property
    def slope(self) -> float:
        """Estimate of expression in phenotype units per unit of expression."""
        return float(self.estimate[0]) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """A standardised regression: columns in `x`, and which of them are penalised."""

    x: Float64[np.ndarray, "variants columns"]
    """Mean 0, variance 1 (n - 1)."""
    y: Float64[np.ndarray, " variants"]
    weights: Float64[np.ndarray, " variants"]
    """Of sum 1."""
    factor: Float64[np.ndarray, " columns"]


def mr_jti(
    instruments: Instruments, settings: MrJtiSettings | None = None, *, rng: np.random.Generator | None = None
) -> MrJtiResult:
    """Return the effect of expression and of the variants with an indicator.

    Parameters
    ----------
    instruments
        With `outcome_p` and `ld_score` (and `outcome_se` when weighted); variants that lack a value are left out.
    rng
        Of folds and draws; seed 0 by default.

    Raises
    ------
    SchemaError
        The instruments lack a column.
    """
    chosen = settings or MrJtiSettings()
    random = np.random.default_rng(0) if rng is None else rng
    needed = ["exposure_beta", "outcome_beta", "outcome_p", "ld_score"]
    usable = np.flatnonzero(instruments.complete(*needed, *(["outcome_se"] if chosen.weighted else [])))
    assert instruments.outcome_p is not None  # noqa: S101, `complete` has seen it
    order = usable[np.argsort(instruments.outcome_p[usable], kind="stable")]
    q = int((instruments.outcome_p[order] < _PLEIOTROPY_P).sum())
    terms = np.array(["expression", "ldsc", *instruments.variants[order[:q]].tolist()], dtype=np.str_)
    if order.size < chosen.min_variants:
        why = f"too few variants: {order.size} have every value, {chosen.min_variants} are needed"
        return _without_result(order.size, q, why)
    for name, text in (("exposure_beta", "effects on expression"), ("outcome_beta", "effects on the phenotype")):
        if np.ptp(getattr(instruments, name)[order]) == 0:
            return _without_result(order.size, q, f"all {text} are equal")
    kept, problem, scale = _prepare(instruments, order, q, chosen.weighted)
    penalty, fit = _fit(problem, chosen, random)
    draws = _bootstrap(problem, fit, penalty, chosen.bootstrap, random)
    notes = []
    if not kept[1]:
        notes.append("ldsc is left out: all LD scores are equal")
    if chosen.alpha / 2 * chosen.bootstrap < 1:
        notes.append(
            f"the interval at alpha {chosen.alpha:.2g} is the range of {chosen.bootstrap} draws; "
            f"{int(np.ceil(2 * _DRAWS_PER_TAIL / chosen.alpha))} are advised"
        )
    return _summarise(terms, kept, fit, draws, penalty, order.size, q, scale, chosen.alpha, tuple(notes))


def _without_result(n: int, q: int, status: str) -> MrJtiResult:
    terms, nan, never = np.array(["expression"]), np.full(1, np.nan), np.zeros(1, dtype=bool)
    return MrJtiResult(terms, nan, nan, nan, nan, nan, nan, nan, never, float("nan"), n, q, float("nan"), status)


def _prepare(
    instruments: Instruments, order: Int64[np.ndarray, " variants"], q: int, weighted: bool
) -> tuple[Bool[np.ndarray, " terms"], _Problem, float]:
    """Return which terms have a column, the standardised regression, and phenotype per expression units."""
    n = order.size
    assert instruments.ld_score is not None  # noqa: S101, `complete` has seen it
    columns = np.column_stack([instruments.exposure_beta[order], instruments.ld_score[order], np.eye(n)[:, :q]])
    kept = np.ptp(columns, axis=0) > 0
    x, y = columns[:, kept], instruments.outcome_beta[order]
    spread_x, spread_y = x.std(axis=0, ddof=1), float(y.std(ddof=1))
    weights = np.full(n, 1.0 / n)
    if weighted:
        assert instruments.outcome_se is not None  # noqa: S101, `complete` has seen it
        weights = instruments.outcome_se[order] ** -2.0
        weights = weights / weights.sum()
    factor = np.r_[np.zeros(2), np.ones(q)][kept]
    standard = _Problem((x - x.mean(axis=0)) / spread_x, (y - y.mean()) / spread_y, weights, factor)
    return kept, standard, spread_y / float(spread_x[0])


def _inner(
    x: Float64[np.ndarray, "variants columns"], weights: Float64[np.ndarray, " variants"]
) -> Float64[np.ndarray, "columns columns"]:
    return np.asarray(x.T @ (x * weights[:, np.newaxis]))


def _fit(
    problem: _Problem, settings: MrJtiSettings, rng: np.random.Generator
) -> tuple[float, Float64[np.ndarray, " columns"]]:
    """Return lambda and the coefficients at it, before thresholds."""
    found = standardise_columns(problem.x, problem.weights)
    centred = problem.y - problem.weights @ problem.y
    gram, xty = _inner(found.x, problem.weights), found.x.T @ (problem.weights * centred)
    if not problem.factor.any():
        return 0.0, np.linalg.solve(gram, xty) / found.scale
    lambdas = lambda_path(xty, 1.0, n=problem.y.size, penalty_factor=problem.factor, gram=gram)
    error = _cross_validated_error(problem, lambdas, settings, rng)
    best = int(np.argmin(error))
    path = elastic_net_path(gram, xty, lambdas[: best + 1], mixing=1.0, penalty_factor=problem.factor)
    return float(lambdas[best]), path.coefficients[best] / found.scale


def _cross_validated_error(
    problem: _Problem, lambdas: Float64[np.ndarray, " lambdas"], settings: MrJtiSettings, rng: np.random.Generator
) -> Float64[np.ndarray, " lambdas"]:
    """Return the mean over folds and repeats of the folds' mean squared errors."""
    n = problem.y.size
    folds = np.arange(n) % settings.folds
    total = np.zeros(lambdas.size)
    for _ in range(settings.repeats):
        fold = rng.permutation(folds)
        for k in range(settings.folds):
            train, test = fold != k, fold == k
            weights = problem.weights[train] / problem.weights[train].sum()
            found = standardise_columns(problem.x[train], weights)
            mean = weights @ problem.y[train]
            path = elastic_net_path(
                _inner(found.x, weights),
                found.x.T @ (weights * (problem.y[train] - mean)),
                lambdas,
                mixing=1.0,
                penalty_factor=problem.factor,
            )
            # An indicator of a held-out variant is constant in the training rows: its coefficient is 0.
            held_out = (problem.x[test] - found.mean) / np.where(found.scale > 0, found.scale, 1.0)
            predicted = mean + held_out @ path.coefficients.T
            total += ((problem.y[test, np.newaxis] - predicted) ** 2).mean(axis=0)
    return total / (settings.folds * settings.repeats)


def _bootstrap(
    problem: _Problem,
    fit: Float64[np.ndarray, " columns"],
    penalty: float,
    draws: int,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "draws columns"]:
    """Return the coefficients of every draw at the same lambda, before thresholds."""
    weights = problem.weights
    found = standardise_columns(problem.x, weights)
    fitted = (problem.x - weights @ problem.x) @ fit
    residual = problem.y - weights @ problem.y - fitted
    residual = residual - residual.mean()
    n = problem.y.size
    drawn = fitted + residual[rng.integers(0, n, (draws, n))]
    drawn -= (drawn @ weights)[:, np.newaxis]
    gram, xty = _inner(found.x, weights), (drawn * weights) @ found.x
    if not problem.factor.any():
        return np.asarray(np.linalg.solve(gram, xty.T).T / found.scale)
    near = np.empty((draws, 2))
    share = np.empty(draws)
    for k in range(draws):
        lambdas = lambda_path(xty[k], 1.0, n=n, penalty_factor=problem.factor, gram=gram)
        near[k], share[k] = _neighbours(lambdas, penalty)
    start = np.broadcast_to(fit * found.scale, xty.shape)
    both = elastic_net_paths(gram, xty, near, mixing=1.0, penalty_factor=problem.factor, start=start).coefficients
    between = share[:, np.newaxis] * both[:, 0] + (1 - share[:, np.newaxis]) * both[:, 1]
    return np.asarray(between / found.scale)


def _neighbours(lambdas: Float64[np.ndarray, " lambdas"], penalty: float) -> tuple[Float64[np.ndarray, " two"], float]:
    """Return the lambdas of a path on both sides of one, and the share of the larger; the path's end beyond it."""
    clipped = min(max(penalty, float(lambdas[-1])), float(lambdas[0]))
    after = min(max(int(np.searchsorted(-lambdas, -clipped)), 1), lambdas.size - 1)
    pair = lambdas[after - 1 : after + 1]
    gap = float(pair[0] - pair[1])
    return pair, (clipped - float(pair[1])) / gap if gap > 0 else 1.0


def _summarise(
    terms: Shaped[np.ndarray, " terms"],
    kept: Bool[np.ndarray, " terms"],
    fit: Float64[np.ndarray, " columns"],
    draws: Float64[np.ndarray, "draws columns"],
    penalty: float,
    n: int,
    q: int,
    scale: float,
    alpha: float,
    notes: tuple[str, ...],
) -> MrJtiResult:
    if q:
        smallest = 1.0 / fit.size
        fit = np.where(np.abs(fit) < smallest, 0.0, fit)
        draws = np.where(np.abs(draws) < smallest, 0.0, draws)
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2], axis=0)

    def placed(values: Float64[np.ndarray, " columns"]) -> Float64[np.ndarray, " terms"]:
        every = np.full(terms.size, np.nan)
        every[kept] = values
        return every

    lower, upper = placed(2 * fit - high), placed(2 * fit - low)
    estimate = placed(draws.mean(axis=0))
    return MrJtiResult(
        terms,
        estimate,
        placed(fit),
        lower,
        upper,
        placed(low),
        placed(high),
        placed((draws != 0).mean(axis=0)),
        lower * upper > 0,
        penalty,
        n,
        q,
        scale,
        "ok",
        notes,
    )
