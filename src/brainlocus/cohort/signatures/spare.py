r"""SPARE: an individual's disease signature as the decision value of a linear support vector machine.

Data flow::

    people --held_out_splits--> repeats of train and test rows
    training rows --_fit_steps--> harmonise, residualise (on controls), scale     (per repeat, training rows only)
    Gram matrix of all rows --_choose_cost--> C by inner cross-validation          (training rows only)
    train_spare --> SpareResult: out-of-sample decision values, performance, and a final model on everyone

Nothing of a held-out person enters what their score is made from: harmonisation, covariate effects, scaling, C and
weights are all fitted on the training rows of the repeat. Harmonisation must not preserve the diagnosis.

References
----------
Davatzikos et al. (2009), Brain 132:2026 (SPARE); Haufe et al. (2014), NeuroImage 87:96 (patterns);
Nadeau & Bengio (2003), Mach. Learn. 52:239 (variance of repeated hold-out).
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

from brainlocus.core.errors import import_extra

__all__ = [
    "FittedHarmoniser",
    "Harmoniser",
    "SpareModel",
    "SpareOptions",
    "SparePerformance",
    "SpareResult",
    "apply_spare",
    "cohens_d",
    "held_out_splits",
    "mean_scores",
    "train_spare",
]

DEFAULT_COSTS = tuple(float(10.0 ** (k / 2)) for k in range(-12, 5))
"""C from 1e-6 to 1e2 in half decades."""
MAX_SOLVER_STEPS = 500_000
INNER_SOLVER_STEPS = 20_000
"""libsvm needs millions of steps at large C on classes that overlap. The inner fits only rank the values of C, and
those that win settle within a few thousand steps; fits that give scores have the larger limit and are counted."""


@runtime_checkable
class FittedHarmoniser(Protocol):
    """Site effects that were estimated on training people."""

    def apply(
        self,
        features: Float64[np.ndarray, "samples features"],
        batch: Shaped[np.ndarray, " samples"],
        covariates: Float64[np.ndarray, "samples covariates"],
    ) -> Float64[np.ndarray, "samples features"]:
        """Return the features without site effects."""


@runtime_checkable
class Harmoniser(Protocol):
    """Estimates site effects, on training people only."""

    def fit(
        self,
        features: Float64[np.ndarray, "samples features"],
        batch: Shaped[np.ndarray, " samples"],
        covariates: Float64[np.ndarray, "samples covariates"],
    ) -> FittedHarmoniser:
        """Return the fitted site effects."""


@dataclass(frozen=True, slots=True)
class SpareOptions:
    """How the signature is trained and judged."""

    repeats: int = 100
    """Stratified hold-outs of the outer loop."""
    test_share: float = 0.2
    inner_folds: int = 10
    costs: tuple[float, ...] = DEFAULT_COSTS


@dataclass(frozen=True, slots=True, eq=False)
class SpareModel:
    """Weights and all that must be done to new features before they are used."""

    weights: Float64[np.ndarray, " features"]
    intercept: float
    centre: Float64[np.ndarray, " features"]
    spread: Float64[np.ndarray, " features"]
    covariate_effects: Float64[np.ndarray, "columns features"]
    """Rows: intercept, then covariates; estimated on controls. No rows when there are no covariates."""
    cost: float
    """C chosen by inner cross-validation."""
    harmoniser: FittedHarmoniser | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SparePerformance:
    """Out-of-sample figures, one a repeat."""

    balanced_accuracy: Float64[np.ndarray, " repeats"]
    auc: Float64[np.ndarray, " repeats"]
    sensitivity: Float64[np.ndarray, " repeats"]
    specificity: Float64[np.ndarray, " repeats"]
    cohens_d: Float64[np.ndarray, " repeats"]
    n_train: int
    n_test: int

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean, sd over repeats and Nadeau-Bengio standard error of every figure.

        The repeats' test sets overlap, so the sd over repeats divided by their root is too small; the corrected
        standard error is ``sd sqrt(1/J + n_test/n_train)``.
        """
        figures = ("balanced_accuracy", "auc", "sensitivity", "specificity", "cohens_d")
        result: dict[str, dict[str, float]] = {}
        for name in figures:
            values: Float64[np.ndarray, " repeats"] = getattr(self, name)
            sd = float(values.std(ddof=1)) if values.size > 1 else float("nan")
            factor = np.sqrt(1.0 / values.size + self.n_test / self.n_train)
            result[name] = {"mean": float(values.mean()), "sd": sd, "standard_error": sd * float(factor)}
        return result


@dataclass(frozen=True, slots=True, eq=False)
class SpareResult:
    """What training gives."""

    model: SpareModel
    """Fitted on everyone; judge it by `performance`, not by its own scores."""
    performance: SparePerformance
    repeat: Int[np.ndarray, " scores"]
    row: Int[np.ndarray, " scores"]
    """Row of the held-out person."""
    score: Float64[np.ndarray, " scores"]
    """Their decision value; positive is patient-like."""
    costs: Float64[np.ndarray, " repeats"]
    """C chosen in each repeat."""
    pattern: Float64[np.ndarray, " features"]
    """``cov(Z) w`` of the final model: which features go with the score (Haufe)."""
    n_unsettled: int
    """Fits of the outer loop that reached the solver's step limit."""


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Preparation fitted on training rows."""

    harmoniser: FittedHarmoniser | None
    covariate_effects: Float64[np.ndarray, "columns features"]
    centre: Float64[np.ndarray, " features"]
    spread: Float64[np.ndarray, " features"]


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    features: Float64[np.ndarray, "samples features"]
    diagnosis: Int[np.ndarray, " samples"]
    covariates: Float64[np.ndarray, "samples covariates"]
    batch: Shaped[np.ndarray, " samples"]
    preserved: Float64[np.ndarray, "samples preserved"]


def train_spare(
    features: Float[np.ndarray, "samples features"],
    diagnosis: Shaped[np.ndarray, " samples"],
    *,
    generator: np.random.Generator,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    batch: Shaped[np.ndarray, " samples"] | None = None,
    harmoniser: Harmoniser | None = None,
    preserved: Float[np.ndarray, "samples preserved"] | None = None,
    options: SpareOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> SpareResult:
    """Train a signature and estimate its performance without leakage.

    Parameters
    ----------
    features
        Complete.
    diagnosis
        1 patient, 0 control.
    covariates
        Effects estimated on the training controls and taken from everyone; complete.
    batch
        Site of each person; the hold-outs are stratified by it, and the harmoniser uses it.
    harmoniser
        Fitted within every training set; None leaves the sites as they are.
    preserved
        Covariates the harmoniser keeps, `covariates` when None. Never the diagnosis.
    progress
        Called with 1 after each repeat.

    Raises
    ------
    MissingExtraError
        scikit-learn is absent.
    ValueError
        NaN (feature named by number), a diagnosis other than 0 and 1, classes too small for the folds, or a
        harmoniser without sites.
    """
    chosen = options if options is not None else SpareOptions()
    data = _checked(features, diagnosis, covariates, batch, preserved, harmoniser, chosen)
    scores: list[Float64[np.ndarray, " test"]] = []
    rows: list[Int[np.ndarray, " test"]] = []
    figures: list[tuple[float, float, float, float, float]] = []
    costs: list[float] = []
    n_unsettled = 0
    splits = list(
        held_out_splits(
            data.diagnosis, data.batch, repeats=chosen.repeats, share=chosen.test_share, generator=generator
        )
    )
    for train, test in splits:
        z = _apply_steps(_fit_steps(data, train, harmoniser), data)
        gram = z[train] @ z[train].T
        cost = _choose_cost(gram, data.diagnosis[train], chosen, generator)
        decide = _fit_machine(gram, data.diagnosis[train], cost)
        score = decide.decision_function(z[test] @ z[train].T)
        n_unsettled += int(decide.fit_status_ != 0 or decide.n_iter_.max() >= MAX_SOLVER_STEPS)
        scores.append(score)
        rows.append(test)
        costs.append(cost)
        figures.append(_judge(score, data.diagnosis[test]))
        if progress is not None:
            progress(1)
    model, pattern = _final_model(data, harmoniser, chosen, generator)
    table = np.array(figures)
    performance = SparePerformance(
        table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4], splits[0][0].size, splits[0][1].size
    )
    return SpareResult(
        model=model,
        performance=performance,
        repeat=np.repeat(np.arange(len(rows)), [r.size for r in rows]).astype(np.int64),
        row=np.concatenate(rows),
        score=np.concatenate(scores),
        costs=np.array(costs),
        pattern=pattern,
        n_unsettled=n_unsettled,
    )


def apply_spare(
    model: SpareModel,
    features: Float[np.ndarray, "samples features"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    batch: Shaped[np.ndarray, " samples"] | None = None,
    preserved: Float[np.ndarray, "samples preserved"] | None = None,
) -> Float64[np.ndarray, " samples"]:
    """Return the decision values of new people; NaN where a feature or covariate is missing.

    Raises
    ------
    ValueError
        Another number of features or covariates than the model's, or no sites for a model that harmonises.
    """
    values = np.asarray(features, dtype=np.float64)
    n_samples = values.shape[0]
    design = np.empty((n_samples, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    expected = max(model.covariate_effects.shape[0] - 1, 0)
    if values.shape[1] != model.weights.size or design.shape[1] != expected:
        raise ValueError(
            f"The model has {model.weights.size} features and {expected} covariates, found {values.shape[1]} and "
            f"{design.shape[1]}."
        )
    kept = design if preserved is None else np.asarray(preserved, dtype=np.float64)
    scores = np.full(n_samples, np.nan)
    usable = ~(np.isnan(values).any(axis=1) | np.isnan(design).any(axis=1) | np.isnan(kept).any(axis=1))
    if not usable.any():
        return scores
    if model.harmoniser is not None and batch is None:
        raise ValueError("The model removes site effects; give the site of every person.")
    sites = np.zeros(n_samples, dtype=np.str_) if batch is None else batch.astype(np.str_)
    nobody = np.zeros(int(usable.sum()), dtype=np.int64)  # the diagnosis plays no part in applying
    data = _Data(values[usable], nobody, design[usable], sites[usable], kept[usable])
    steps = _Steps(model.harmoniser, model.covariate_effects, model.centre, model.spread)
    scores[usable] = _apply_steps(steps, data) @ model.weights + model.intercept
    return scores


def held_out_splits(
    diagnosis: Int[np.ndarray, " samples"],
    batch: Shaped[np.ndarray, " samples"],
    *,
    repeats: int,
    share: float,
    generator: np.random.Generator,
) -> Iterator[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]:
    """Yield train and test rows, stratified by diagnosis and site.

    Every stratum gives `share` of its people, rounded up or down at random but never all of them; so a site in
    a test set is always in its training set.
    """
    strata = np.char.add(np.char.add(batch.astype(np.str_), "\x1f"), diagnosis.astype(np.str_))
    _, codes = np.unique(strata, return_inverse=True)
    members = [np.flatnonzero(codes == k) for k in range(int(codes.max()) + 1)]
    wanted = round(share * diagnosis.size)
    for _ in range(repeats):
        sizes = _test_sizes(np.array([m.size for m in members]), wanted, generator)
        chosen = [generator.choice(m, size=size, replace=False) for m, size in zip(members, sizes, strict=True)]
        test = np.sort(np.concatenate(chosen))
        yield np.setdiff1d(np.arange(diagnosis.size), test), test


def cohens_d(scores: Float64[np.ndarray, " samples"], diagnosis: Int[np.ndarray, " samples"]) -> float:
    """Return ``(mean1 - mean0)`` over the pooled standard deviation.

    Examples
    --------
    >>> cohens_d(np.array([1.0, 3.0, 4.0, 6.0]), np.array([0, 0, 1, 1])).__round__(3)
    2.121
    """
    one, zero = scores[diagnosis == 1], scores[diagnosis == 0]
    pooled = ((one.size - 1) * one.var(ddof=1) + (zero.size - 1) * zero.var(ddof=1)) / (one.size + zero.size - 2)
    return float((one.mean() - zero.mean()) / np.sqrt(pooled))


def _test_sizes(
    counts: Int[np.ndarray, " strata"], wanted: int, generator: np.random.Generator
) -> Int[np.ndarray, " strata"]:
    """Return test people per stratum that sum to `wanted` where possible, below the whole of each stratum."""
    exact = counts * wanted / counts.sum()
    sizes = np.floor(exact).astype(np.int64)
    open_strata = np.flatnonzero(sizes + 1 < counts)
    missing = min(wanted - int(sizes.sum()), open_strata.size)
    remainder = (exact - sizes)[open_strata] + 1e-9
    extra = generator.choice(open_strata, size=missing, replace=False, p=remainder / remainder.sum())
    sizes[extra] += 1
    return np.asarray(np.minimum(sizes, np.maximum(counts - 1, 0)))


def _checked(
    features: Float[np.ndarray, "samples features"],
    diagnosis: Shaped[np.ndarray, " samples"],
    covariates: Float[np.ndarray, "samples covariates"] | None,
    batch: Shaped[np.ndarray, " samples"] | None,
    preserved: Float[np.ndarray, "samples preserved"] | None,
    harmoniser: Harmoniser | None,
    options: SpareOptions,
) -> _Data:
    values = np.asarray(features, dtype=np.float64)
    n_samples = values.shape[0]
    design = np.empty((n_samples, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"Features must be complete and finite; feature {int(bad.any(axis=0).argmax()) + 1} is not, and "
            f"{int(bad.any(axis=1).sum())} people are concerned. Remove or impute them."
        )
    if not np.isfinite(design).all():
        raise ValueError(f"{int((~np.isfinite(design)).any(axis=1).sum())} people lack a covariate; remove them.")
    found = np.unique(diagnosis)
    if not np.array_equal(found, [0, 1]):
        raise ValueError(f"Diagnosis must be 0 (control) or 1 (patient), both present; found {found[:5].tolist()}.")
    labels = diagnosis.astype(np.int64)
    smallest = int(np.bincount(labels).min())
    needed = int(np.ceil(options.inner_folds / (1.0 - options.test_share))) + 1
    if smallest < needed:
        raise ValueError(f"The smaller class has {smallest} people; {options.inner_folds} folds need {needed}.")
    if harmoniser is not None and batch is None:
        raise ValueError("Harmonisation was asked for without sites.")
    sites = np.full(n_samples, "") if batch is None else batch.astype(np.str_)
    kept = design if preserved is None else np.asarray(preserved, dtype=np.float64)
    return _Data(values, labels, design, sites, kept)


def _fit_steps(data: _Data, train: Int[np.ndarray, " train"], harmoniser: Harmoniser | None) -> _Steps:
    values = data.features[train]
    fitted = None
    if harmoniser is not None:
        fitted = harmoniser.fit(values, data.batch[train], data.preserved[train])
        values = fitted.apply(values, data.batch[train], data.preserved[train])
    effects = np.empty((0, values.shape[1]))
    if data.covariates.shape[1]:
        controls = data.diagnosis[train] == 0
        design = _with_intercept(data.covariates[train])
        effects = np.linalg.lstsq(design[controls], values[controls], rcond=None)[0]
        values = values - design @ effects
    spread = values.std(axis=0, ddof=1)
    # A feature that does not vary in the training set carries nothing.
    spread[spread <= 1e-12 * np.abs(values).max(axis=0)] = np.inf
    return _Steps(fitted, effects, values.mean(axis=0), spread)


def _apply_steps(steps: _Steps, data: _Data) -> Float64[np.ndarray, "samples features"]:
    values = data.features
    if steps.harmoniser is not None:
        values = steps.harmoniser.apply(values, data.batch, data.preserved)
    if steps.covariate_effects.shape[0]:
        values = values - _with_intercept(data.covariates) @ steps.covariate_effects
    return np.asarray((values - steps.centre) / steps.spread)


def _with_intercept(covariates: Float64[np.ndarray, "samples covariates"]) -> Float64[np.ndarray, "samples columns"]:
    return np.hstack([np.ones((covariates.shape[0], 1)), covariates])


def _fit_machine(
    gram: Float64[np.ndarray, "train train"],
    diagnosis: Int[np.ndarray, " train"],
    cost: float,
    *,
    max_steps: int = MAX_SOLVER_STEPS,
) -> Any:
    """Return a fitted support vector machine on a precomputed Gram matrix."""
    svm = import_extra("sklearn.svm", extra="ml")
    exceptions = import_extra("sklearn.exceptions", extra="ml")
    machine = svm.SVC(C=cost, kernel="precomputed", class_weight="balanced", max_iter=max_steps, cache_size=500)
    with warnings.catch_warnings():
        # The step limit is counted and reported in `SpareResult.n_unsettled`.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        return machine.fit(gram, diagnosis)


def _choose_cost(
    gram: Float64[np.ndarray, "train train"],
    diagnosis: Int[np.ndarray, " train"],
    options: SpareOptions,
    generator: np.random.Generator,
) -> float:
    """Return the C with the best balanced accuracy, averaged over inner folds; the smallest of equals."""
    if len(options.costs) == 1:
        return options.costs[0]
    folds = _folds(diagnosis, options.inner_folds, generator)
    accuracy = np.zeros((len(options.costs), options.inner_folds))
    for fold in range(options.inner_folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inner, cross = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
        for k, cost in enumerate(options.costs):
            machine = _fit_machine(inner, diagnosis[train], cost, max_steps=INNER_SOLVER_STEPS)
            score = machine.decision_function(cross)
            accuracy[k, fold] = _judge(score, diagnosis[test])[0]
    return options.costs[int(accuracy.mean(axis=1).argmax())]


def _folds(
    diagnosis: Int[np.ndarray, " train"], count: int, generator: np.random.Generator
) -> Int[np.ndarray, " train"]:
    folds = np.empty(diagnosis.size, dtype=np.int64)
    for label in (0, 1):
        members = generator.permutation(np.flatnonzero(diagnosis == label))
        folds[members] = np.arange(members.size) % count
    return folds


def _judge(
    score: Float64[np.ndarray, " test"], diagnosis: Int[np.ndarray, " test"]
) -> tuple[float, float, float, float, float]:
    """Return balanced accuracy, area under the ROC curve, sensitivity, specificity and Cohen's d."""
    patient: Bool[np.ndarray, " test"] = diagnosis == 1
    sensitivity = float((score[patient] > 0).mean())
    specificity = float((score[~patient] <= 0).mean())
    above = score[patient][:, None] - score[~patient][None, :]
    auc = float((above > 0).mean() + 0.5 * (above == 0).mean())
    enough = min(int(patient.sum()), int((~patient).sum())) > 1
    d = cohens_d(score, diagnosis) if enough and np.ptp(score) > 0 else float("nan")
    return (sensitivity + specificity) / 2.0, auc, sensitivity, specificity, d


def _final_model(
    data: _Data, harmoniser: Harmoniser | None, options: SpareOptions, generator: np.random.Generator
) -> tuple[SpareModel, Float64[np.ndarray, " features"]]:
    everyone = np.arange(data.diagnosis.size)
    steps = _fit_steps(data, everyone, harmoniser)
    z = _apply_steps(steps, data)
    gram = z @ z.T
    cost = _choose_cost(gram, data.diagnosis, options, generator)
    machine = _fit_machine(gram, data.diagnosis, cost)
    weights = machine.dual_coef_[0] @ z[machine.support_]
    centred = z - z.mean(axis=0)
    pattern = centred.T @ (centred @ weights) / (z.shape[0] - 1)
    model = SpareModel(
        weights,
        float(machine.intercept_[0]),
        steps.centre,
        steps.spread,
        steps.covariate_effects,
        cost,
        steps.harmoniser,
    )
    return model, pattern


def mean_scores(
    result: SpareResult, n_samples: int
) -> tuple[Float64[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Return each person's mean held-out score and how many there are; NaN where never held out."""
    counts = np.bincount(result.row, minlength=n_samples)
    sums = np.bincount(result.row, weights=result.score, minlength=n_samples)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts.astype(np.int64)
