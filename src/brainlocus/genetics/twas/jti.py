r"""Joint-tissue imputation (JTI): the expression model of one tissue, trained on all tissues that resemble it.

Every sample of tissue t has the weight :math:`w_t = e_t^a d_t^b`, with the similarity *e* of its expression and *d*
of its DNase profile to the target tissue (the target itself: 1), and powers *a*, *b* from 1, 4, 16, 64. Tissues with
:math:`w_t < 0.1` are left out. For each pair of powers

.. math:: \min_{b_0, b} \frac{1}{2 \sum w} \sum_{i, t} w_t (y_{it} - b_0 - x_i' b)^2
          + \lambda \left[ \frac{1 - m}{2} \lVert b \rVert_2^2 + m \lVert b \rVert_1 \right]

is fitted over a stretch of lambdas around the best one of the target tissue alone. Folds are of donors, the same for
all pairs; a pair is judged by the correlation of the out-of-fold predictions with expression in the target tissue.

A donor has the same dosages in every tissue, so the sum over a donor's samples is that of one row with weight
:math:`W_i = \sum_t w_t` and expression :math:`\bar y_i = \sum_t w_t y_{it} / W_i`, but for a constant: the joint fit of
49 tissues is as large as the number of donors, not of samples. This is exact.

References
----------
Zhou et al. (2020), Nat Genet 52:1239, 10.1038/s41588-020-0706-2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from brainlocus.genetics.twas.folds import draw_folds, gene_rng
from brainlocus.genetics.twas.training import PATIENCE, correlation, dosage_covariance
from brainlocus.numerics.elastic_net_cv import CrossValidation, cross_validate

__all__ = ["JtiModel", "JtiSettings", "check_similarity", "tissue_weights", "train_jti"]


@dataclass(frozen=True, slots=True)
class JtiSettings:
    """How joint models are trained and which are kept."""

    mixing: float = 0.5
    """Of the joint fit; the published script uses 1 (the lasso), its text says elastic net."""
    start_mixing: float = 0.5
    """Of the fit of the target tissue that gives the lambdas."""
    powers: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    min_weight: float = 0.1
    """Tissues with a smaller weight are left out."""
    folds: int = 5
    steps_around: int = 10
    """Points of the target tissue's path on either side of its best that the joint fits try."""
    max_variables: int | None = 200
    """A path ends before the step at which more variants than this have had a weight (``pmax`` of the script)."""
    min_r: float = 0.1
    """A model is kept when r is above this..."""
    max_p: float = 0.05
    """... and its p below this."""
    decimals: int | None = 3
    """Dosages are rounded to this many; None: not."""
    patience: float | None = PATIENCE
    """Of the path of the target tissue; None: all of it."""
    ridge_by_sd: bool = False
    """As glmnet (see `brainlocus.numerics.elastic_net_cv.cross_validate`)."""


@dataclass(frozen=True, slots=True, eq=False)
class JtiModel:
    """The model of one gene in one tissue, or why there is none."""

    status: str
    """As of `ElasticNetModel`."""
    n: int
    """People with expression in the target tissue."""
    n_donors: int
    """People with expression in any tissue of the model."""
    n_tissues: int
    """Tissues with a weight in the best pair, the target among them."""
    n_variants: int
    """Variants of the chosen window."""
    window: int
    """Which of the windows was chosen; -1 when nothing was fitted."""
    variants: Int[np.ndarray, " chosen"]
    """Rows of the dosages with a weight, ascending; empty unless the status is ok."""
    weights: Float[np.ndarray, " chosen"]
    """SD of expression per copy of the effect allele."""
    covariance: Float[np.ndarray, "chosen chosen"]
    """Of their dosages among all donors (n - 1)."""
    r: float
    """Out-of-fold predictions against expression in the target tissue, of the best pair."""
    neg_log10_p: float
    """Of r, two-sided t-test."""
    single_tissue_r: float
    """The same without any other tissue: the same folds, lambdas and penalty."""
    similarity_power: float
    dnase_power: float
    penalty: float
    """Lambda of the model."""


def check_similarity(values: Float[np.ndarray, "tissues tissues"], names: Sequence[str], what: str) -> None:
    """Refuse similarities that are missing, below 0 or above 1, or of a tissue with itself other than 1.

    Raises
    ------
    ValueError
        With the tissues.
    """
    for wrong, saying in (
        (np.isnan(values), "is missing"),
        (values < 0, "is negative"),
        (values > 1 + 1e-6, "is above 1"),
        (np.eye(values.shape[0], dtype=bool) & (np.abs(values - 1) > 1e-6), "is not 1"),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            raise ValueError(
                f"{what} of {names[row]} and {names[column]} {saying} ({values[row, column]:g}); expected values from "
                "0 to 1, and 1 on the diagonal."
            )


def tissue_weights(
    similarity: Float[np.ndarray, " tissues"],
    dnase: Float[np.ndarray, " tissues"],
    powers: tuple[float, float],
    min_weight: float = 0.1,
) -> Float[np.ndarray, " tissues"]:
    """Return the weight of the samples of each tissue; 0 where it is left out.

    Examples
    --------
    >>> tissue_weights(np.array([1.0, 0.9, 0.5]), np.ones(3), (4.0, 1.0)).round(4).tolist()
    [1.0, 0.6561, 0.0]
    """
    weights = similarity ** powers[0] * dnase ** powers[1]
    return np.where(weights >= min_weight, weights, 0.0)


def train_jti(
    dosage: Float[np.ndarray, "variants donors"],
    expression: Float[np.ndarray, "tissues donors"],
    target: int,
    similarity: Float[np.ndarray, " tissues"],
    dnase: Float[np.ndarray, " tissues"],
    *,
    gene: str,
    seed: int = 0,
    settings: JtiSettings = JtiSettings(),
    windows: Sequence[Bool[np.ndarray, " variants"]] = (),
) -> JtiModel:
    """Train the model of one gene in the target tissue on the samples of all tissues.

    Parameters
    ----------
    dosage
        Copies of the effect allele, complete (see `cis_dosage`).
    expression
        Of each tissue from `adjust_expression`; NaN where a donor has no sample.
    target
        Row of the tissue the model is for.
    similarity, dnase
        Of each tissue with the target, from 0 to 1; the target itself 1.
    windows
        Sets of variants of which the one with the smallest cross-validated error in the target tissue is used; the
        first of equals. Default: all.

    Raises
    ------
    ValueError
        A similarity out of range.

    References
    ----------
    Zhou et al. (2020), Nat Genet 52:1239.
    """
    for values, what in ((similarity, "similarity"), (dnase, "DNase similarity")):
        if np.isnan(values).any() or (values < 0).any() or (values > 1 + 1e-6).any():
            raise ValueError(f"The {what} of tissues must lie in 0 to 1, found {values.tolist()}.")
    known = ~np.isnan(expression)
    if settings.decimals is not None:
        dosage = np.round(dosage, settings.decimals)
    sets = [w for w in (windows or [np.ones(dosage.shape[0], dtype=bool)]) if w.sum() >= 2]
    status = _nothing_to_fit(
        expression[target], int(max((w.sum() for w in windows), default=dosage.shape[0])), settings
    )
    n, n_donors = int(known[target].sum()), int(known.any(axis=0).sum())
    if status or not sets:
        offered = int(max((w.sum() for w in windows), default=dosage.shape[0]))
        return _empty(status or "one_variant", n, n_donors, offered)
    rng = gene_rng(seed, gene)
    folds = _donor_folds(known, settings.folds, rng)
    single_folds = draw_folds(n, settings.folds, rng)
    window, lambdas = _start(dosage, expression[target], sets, single_folds, settings)
    used = next(k for k, w in enumerate(windows) if w is sets[window]) if windows else 0
    rows = np.flatnonzero(sets[window])
    donors = np.flatnonzero(known.any(axis=0))
    x = np.ascontiguousarray(dosage[np.ix_(rows, donors)])
    return _joint(x, rows, expression[:, donors], folds[donors], target, similarity, dnase, lambdas, used, settings)


def _donor_folds(
    known: Bool[np.ndarray, "tissues donors"], n_folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " donors"]:
    """Return the fold of each donor with a sample, -1 of the others."""
    folds = np.full(known.shape[1], -1, dtype=np.int64)
    donors = np.flatnonzero(known.any(axis=0))
    folds[donors] = draw_folds(donors.size, n_folds, rng)
    return folds


def _start(
    dosage: Float[np.ndarray, "variants donors"],
    expression: Float[np.ndarray, " donors"],
    sets: Sequence[Bool[np.ndarray, " variants"]],
    folds: Int[np.ndarray, " people"],
    settings: JtiSettings,
) -> tuple[int, Float[np.ndarray, " lambdas"]]:
    """Return the window whose single-tissue fit has the smallest error, and the lambdas around its best."""
    people = np.flatnonzero(~np.isnan(expression))
    y = expression[people]
    best, number, lambdas = np.inf, 0, np.zeros(0)
    for k, rows in enumerate(sets):
        x = np.ascontiguousarray(dosage[np.ix_(np.flatnonzero(rows), people)])
        (fit,) = cross_validate(
            x, y[None], np.ones((1, y.size)), folds[None],
            mixing=settings.start_mixing, patience=settings.patience, ridge_by_sd=settings.ridge_by_sd,
        )  # fmt: skip
        if fit.best >= 0 and fit.errors[fit.best] < best:
            best, number = float(fit.errors[fit.best]), k
            first = max(0, fit.best - settings.steps_around)
            lambdas = fit.lambdas[first : fit.best + settings.steps_around + 1]
    return number, lambdas


def _joint(
    x: Float[np.ndarray, "variants donors"],
    rows: Int[np.ndarray, " variants"],
    expression: Float[np.ndarray, "tissues donors"],
    folds: Int[np.ndarray, " donors"],
    target: int,
    similarity: Float[np.ndarray, " tissues"],
    dnase: Float[np.ndarray, " tissues"],
    lambdas: Float[np.ndarray, " lambdas"],
    window: int,
    settings: JtiSettings,
) -> JtiModel:
    """Try all pairs of powers and return the model of the best."""
    alone = np.zeros(similarity.size)
    alone[target] = 1.0
    pairs = list(product(settings.powers, settings.powers if (dnase < 1).any() else settings.powers[:1]))
    by_pair = [tissue_weights(similarity, dnase, pair, settings.min_weight) for pair in pairs]
    # Large powers leave the same tissues with the same weights: fit each set of weights once.
    distinct = {w.tobytes(): w for w in [*by_pair, alone]}
    order = {key: k for k, key in enumerate(distinct)}
    outcomes, weights, spread = _donor_rows(expression, np.stack(list(distinct.values())))
    fits = cross_validate(
        x, outcomes, weights, np.where(weights > 0, folds, -1),
        mixing=settings.mixing, spread=spread, lambdas=np.tile(lambdas, (weights.shape[0], 1)),
        max_variables=settings.max_variables, ridge_by_sd=settings.ridge_by_sd,
    )  # fmt: skip
    scores = [_score(fit, expression[target]) for fit in fits]
    places = [order[w.tobytes()] for w in by_pair]
    best = int(np.argmax([scores[k][0] for k in places]))
    fit, (r, neg_log10_p) = fits[places[best]], scores[places[best]]
    kept = r > settings.min_r and neg_log10_p > -np.log10(settings.max_p)
    status = "not_predictive" if not kept else "ok" if fit.support.size else "no_variant_chosen"
    chosen = fit.support if status == "ok" else fit.support[:0]
    return JtiModel(
        status,
        int((~np.isnan(expression[target])).sum()),
        int((weights[places[best]] > 0).sum()),
        int((by_pair[best] > 0).sum()),
        rows.size,
        window,
        rows[chosen],
        fit.coefficients[: chosen.size],
        dosage_covariance(x[chosen]),
        r,
        neg_log10_p,
        scores[order[alone.tobytes()]][0],
        pairs[best][0],
        pairs[best][1],
        float(fit.lambdas[fit.best]) if fit.best >= 0 else np.nan,
    )


def _donor_rows(
    expression: Float[np.ndarray, "tissues donors"], tissue: Float[np.ndarray, "pairs tissues"]
) -> tuple[Float[np.ndarray, "pairs donors"], Float[np.ndarray, "pairs donors"], Float[np.ndarray, "pairs donors"]]:
    """Return the mean and sum of weights of each donor's samples, weighted by tissue, and their variance."""
    known = ~np.isnan(expression)
    filled = np.where(known, expression, 0.0)
    weights = tissue @ known.astype(np.float64)
    used = weights > 0
    mean = np.divide(tissue @ filled, weights, out=np.zeros_like(weights), where=used)
    square = np.divide(tissue @ filled**2, weights, out=np.zeros_like(weights), where=used)
    return mean, weights, np.maximum(square - mean**2, 0.0)


def _score(fit: CrossValidation, observed: Float[np.ndarray, " donors"]) -> tuple[float, float]:
    known = ~np.isnan(observed)
    if fit.best < 0:
        return 0.0, 0.0
    return correlation(fit.out_of_fold[known], observed[known])


def _nothing_to_fit(target: Float[np.ndarray, " donors"], n_variants: int, settings: JtiSettings) -> str:
    y = target[~np.isnan(target)]
    if y.size == 0 or np.ptp(y) == 0:
        return "constant_expression"
    if y.size < max(settings.folds, 4):
        return "few_people"
    return {0: "no_variants", 1: "one_variant"}.get(n_variants, "")


def _empty(status: str, n: int, n_donors: int, n_variants: int) -> JtiModel:
    none = np.zeros(0, dtype=np.int64)
    nan = np.nan
    return JtiModel(
        status, n, n_donors, 0, n_variants, -1, none, np.zeros(0), np.zeros((0, 0)), nan, nan, nan, nan, nan, nan
    )
