r"""Elastic-net models of expression with nested cross-validation, as PredictDB trains them.

Data flow::

    expression, covariates --adjust_expression--> expression, mean 0 and SD 1     (once per tissue)
    dosage near a gene, expression --train_elastic_net--> ElasticNetModel         (once per gene)

Model: of n people with standardised expression y and dosages x of the variants in the window,

.. math:: \min_{b_0, b} \frac{1}{2n} \sum_i (y_i - b_0 - x_i' b)^2
          + \lambda \left[ \frac{1 - a}{2} \lVert b \rVert_2^2 + a \lVert b \rVert_1 \right]

with dosages standardised inside (1/n) and weights returned per copy of the effect allele. Lambda has the smallest mean
squared error in 10-fold cross-validation. Performance comes from five outer folds, each predicted by a model whose
lambda was chosen without it: r of each fold, their mean ``rho_avg``, and Stouffer's sum of
:math:`\operatorname{atanh}(r) \sqrt{n_f - 3}`.

References
----------
Gamazon et al. (2015), Nat Genet 47:1091, 10.1038/ng.3367; Zou & Hastie (2005), J R Stat Soc B 67:301.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import chdtrc, ndtr

from brainlocus.genetics.twas.folds import draw_folds, gene_rng
from brainlocus.numerics.elastic_net_cv import CrossValidation, cross_validate
from brainlocus.numerics.projection import covariate_basis, project_out
from brainlocus.numerics.tails import neg_log10_p_from_t, neg_log10_p_from_z

__all__ = [
    "PATIENCE",
    "ElasticNetModel",
    "ElasticNetSettings",
    "adjust_expression",
    "correlation",
    "dosage_covariance",
    "nested_folds",
    "nested_model",
    "train_elastic_net",
]

PATIENCE = 0.1
"""A path of lambdas ends when its error is this share above the smallest (`numerics.elastic_net_cv`)."""
_FEWEST_IN_FOLD = 4
"""People of an outer fold: Fisher's z has a standard error from four on."""
_LARGEST_R = 1.0 - 1e-12
_CONSTANT = 1e-8
"""Expression whose SD is below this share of its largest absolute value is constant but for rounding."""


@dataclass(frozen=True, slots=True)
class ElasticNetSettings:
    """How models are trained and which are kept."""

    mixing: float = 0.5
    """1 is the lasso, towards 0 the ridge."""
    folds: int = 10
    outer_folds: int = 5
    min_rho: float = 0.1
    """A model is kept when ``rho_avg`` is above this..."""
    max_p: float = 0.05
    """... and p below this."""
    patience: float | None = PATIENCE
    """None: the whole path of lambdas, whatever its error."""
    ridge_by_sd: bool = False
    """As glmnet (see `brainlocus.numerics.elastic_net_cv.cross_validate`)."""


@dataclass(frozen=True, slots=True, eq=False)
class ElasticNetModel:
    """The model of one gene, or why there is none."""

    status: str
    """``ok``; ``not_predictive``: below the limits; ``no_variant_chosen``: all weights are 0; ``no_variants``,
    ``one_variant``, ``few_people``, ``constant_expression``: nothing was fitted."""
    n: int
    """People."""
    n_variants: int
    """Variants that were offered."""
    variants: Int[np.ndarray, " chosen"]
    """Rows of the dosages with a weight, ascending; empty unless the status is ok."""
    weights: Float[np.ndarray, " chosen"]
    """SD of expression per copy of the effect allele."""
    covariance: Float[np.ndarray, "chosen chosen"]
    """Of their dosages (n - 1)."""
    rho_avg: float
    """Mean correlation of prediction and expression in the outer folds."""
    rho_sd: float
    """Standard deviation (n - 1) of it over the folds."""
    r2: float
    """Mean over the outer folds of 1 - RSS/TSS; TSS about 0, the mean of all."""
    z: float
    """Stouffer's sum of the folds' Fisher z."""
    neg_log10_p: float
    """Of z, two-sided."""
    fisher_p: float
    """Fisher's combination of the p-values of the folds; a fold with a constant prediction has p = 1."""
    penalty: float
    """Lambda of the model on all people."""
    cv_r2: float
    """Share of the variance that the 10 folds of that model predict, at its lambda (optimistic)."""

    @property
    def pvalue(self) -> float:
        """Two-sided p of z; 0 below 1e-308."""
        return float(2.0 * ndtr(-abs(self.z)))


def adjust_expression(
    expression: Float[np.ndarray, "genes people"], covariates: Float[np.ndarray, "people covariates"] | None
) -> Float[np.ndarray, "genes people"]:
    """Return the residuals of expression on covariates and an intercept, with mean 0 and SD 1 (n - 1) by gene.

    Parameters
    ----------
    expression
        NaN where a person has no value, who is then left out of that gene's regression.
    covariates
        Complete; None: the intercept only.

    Returns
    -------
    numpy.ndarray
        NaN where it was NaN, and for whole genes that are constant or whose people are too few for the covariates.
    """
    n_people = expression.shape[1]
    matrix = np.empty((n_people, 0)) if covariates is None else covariates
    adjusted = np.full(expression.shape, np.nan)
    known = ~np.isnan(expression)
    patterns, inverse = np.unique(known, axis=0, return_inverse=True)
    for number, mask in enumerate(patterns):
        genes = np.flatnonzero(inverse.ravel() == number)
        if mask.sum() < matrix.shape[1] + 3:
            continue
        values = expression[np.ix_(genes, np.flatnonzero(mask))]
        residual = project_out(covariate_basis(matrix[mask]).q, values.T).T
        sd = residual.std(axis=1, ddof=1)
        varies = sd > _CONSTANT * np.abs(values).max(axis=1)
        residual /= np.where(varies, sd, np.nan)[:, None]
        adjusted[np.ix_(genes, np.flatnonzero(mask))] = residual
    return adjusted


def correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return Pearson's r and -log10 of the p-value of its t-test; 0 and 0 when either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    if scale <= 1e-12 * max(x.size, 1):
        return 0.0, 0.0
    r = float(np.clip(x @ y / scale, -_LARGEST_R, _LARGEST_R))
    if x.size < 3:
        return r, 0.0
    t = r * np.sqrt((x.size - 2) / (1.0 - r * r))
    return r, float(neg_log10_p_from_t(np.array([t]), float(x.size - 2))[0])


def dosage_covariance(dosage: Float[np.ndarray, "variants people"]) -> Float[np.ndarray, "variants variants"]:
    """Return the covariance of dosages (n - 1)."""
    centred = dosage - dosage.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T / (dosage.shape[1] - 1))


def nested_folds(
    n: int, settings: ElasticNetSettings, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " people"], Int[np.ndarray, "fits people"]]:
    """Return the outer fold of each person, and the inner folds: a row without each outer fold, the last of everyone.

    People of the outer fold that is left out have inner fold -1.
    """
    outer = draw_folds(n, settings.outer_folds, rng)
    inner = np.full((settings.outer_folds + 1, n), -1, dtype=np.int64)
    for k in range(settings.outer_folds + 1):
        people = np.flatnonzero(outer != k)
        inner[k, people] = draw_folds(people.size, settings.folds, rng)
    return outer, inner


def train_elastic_net(
    dosage: Float[np.ndarray, "variants people"],
    expression: Float[np.ndarray, " people"],
    *,
    gene: str,
    seed: int = 0,
    settings: ElasticNetSettings = ElasticNetSettings(),
) -> ElasticNetModel:
    """Train the model of one gene and judge it by nested cross-validation.

    Parameters
    ----------
    dosage
        Copies of the effect allele, complete (see `cis_dosage`).
    expression
        From `adjust_expression`, NaN for people without a value; they are left out.
    gene
        Its id, which with `seed` decides the folds.

    References
    ----------
    Gamazon et al. (2015), Nat Genet 47:1091.
    """
    people = np.flatnonzero(~np.isnan(expression))
    y = np.ascontiguousarray(expression[people])
    n, n_variants = people.size, dosage.shape[0]
    status = _nothing_to_fit(n, n_variants, y, settings)
    if status:
        return _empty(status, n, n_variants)
    x = dosage if n == expression.size else np.ascontiguousarray(dosage[:, people])
    outer, inner = nested_folds(n, settings, gene_rng(seed, gene))
    model = nested_model(x, y, outer, inner, settings)
    if model.variants.size == 0:
        return _without_weights(model, "no_variant_chosen")
    if not (model.rho_avg > settings.min_rho and model.neg_log10_p > -np.log10(settings.max_p)):
        return _without_weights(model, "not_predictive")
    return model


def nested_model(
    x: Float[np.ndarray, "variants people"],
    y: Float[np.ndarray, " people"],
    outer: Int[np.ndarray, " people"],
    inner: Int[np.ndarray, "fits people"],
    settings: ElasticNetSettings,
) -> ElasticNetModel:
    """Return the model on everyone and its performance in the outer folds, whether it is to be kept or not.

    Parameters
    ----------
    outer, inner
        From `nested_folds`.
    """
    fits = [
        cross_validate(
            x, y[None], (folds >= 0).astype(np.float64)[None], folds[None],
            mixing=settings.mixing, patience=settings.patience, ridge_by_sd=settings.ridge_by_sd,
        )[0]
        for folds in inner
    ]  # fmt: skip
    return _model(x, y, fits[-1], y.size, _performance(y, outer, fits[:-1]))


def _nothing_to_fit(n: int, n_variants: int, y: Float[np.ndarray, " people"], settings: ElasticNetSettings) -> str:
    if n == 0 or np.ptp(y) == 0:
        return "constant_expression"
    smallest_training = n - -(-n // settings.outer_folds)
    if n < _FEWEST_IN_FOLD * settings.outer_folds or smallest_training < settings.folds:
        return "few_people"
    return {0: "no_variants", 1: "one_variant"}.get(n_variants, "")


def _performance(
    y: Float[np.ndarray, " people"], outer: Int[np.ndarray, " people"], fits: list[CrossValidation]
) -> dict[str, float]:
    r, r2, z, strength = [], [], [], 0.0
    for k, fit in enumerate(fits):
        held = outer == k
        observed = y[held]
        # A path of no step: every coefficient is 0, and the prediction is the mean of the others.
        predicted = fit.in_sample[held] if fit.best >= 0 else np.full(observed.size, y[~held].mean())
        found, neg_log10_p = correlation(predicted, observed)
        r.append(found)
        r2.append(1.0 - float(((observed - predicted) ** 2).sum() / (observed**2).sum()))
        z.append(float(np.arctanh(found)) * np.sqrt(observed.size - 3))
        strength += neg_log10_p
    combined = float(np.sum(z) / np.sqrt(len(fits)))
    return {
        "rho_avg": float(np.mean(r)),
        "rho_sd": float(np.std(r, ddof=1)),
        "r2": float(np.mean(r2)),
        "z": combined,
        "neg_log10_p": float(neg_log10_p_from_z(np.array([combined]))[0]),
        "fisher_p": float(chdtrc(2 * len(fits), 2.0 * np.log(10.0) * strength)),
    }


def _model(
    x: Float[np.ndarray, "variants people"],
    y: Float[np.ndarray, " people"],
    final: CrossValidation,
    n: int,
    performance: dict[str, float],
) -> ElasticNetModel:
    fitted = final.best >= 0
    return ElasticNetModel(
        "ok",
        n,
        x.shape[0],
        final.support,
        final.coefficients,
        dosage_covariance(x[final.support]),
        penalty=float(final.lambdas[final.best]) if fitted else np.nan,
        cv_r2=1.0 - float(final.errors[final.best]) / float(np.mean(y**2)) if fitted else np.nan,
        **performance,
    )


def _without_weights(model: ElasticNetModel, status: str) -> ElasticNetModel:
    none = _empty(status, model.n, model.n_variants)
    numbers = {name: getattr(model, name) for name in _NUMBERS}
    return ElasticNetModel(status, model.n, model.n_variants, none.variants, none.weights, none.covariance, **numbers)


_NUMBERS = ("rho_avg", "rho_sd", "r2", "z", "neg_log10_p", "fisher_p", "penalty", "cv_r2")


def _empty(status: str, n: int, n_variants: int) -> ElasticNetModel:
    return ElasticNetModel(
        status, n, n_variants, np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 0)),
        **dict.fromkeys(_NUMBERS, np.nan),
    )  # fmt: skip
