"""Nested cross-validation: penalties are chosen inside each training set, correlations are those of held-out people.

Data flow::

    outer training set --inner folds--> held-out r of the first mode under each penalty --one standard error--> penalty
    outer training set, penalty --fit--> modes --> correlation of the two variates in the outer fold's held-out people

Everything is done for a list of outcomes (Y, or permutations of it) at a time, a training set after the other, so that
what depends on X alone is done once for all of them.

References
----------
Breiman et al. (1984), Classification and Regression Trees, 3.4.3 (one standard error); Varma & Simon (2006), BMC
Bioinformatics 7:91 (nested cross-validation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.cohort.multivariate.folds import FoldPlan, Split
from brainlocus.cohort.multivariate.model import FittedModes, Method, mode_correlations
from brainlocus.cohort.multivariate.preparation import standardise

__all__ = [
    "HeldOut",
    "Outcomes",
    "PairedTables",
    "choose_penalty",
    "cross_validate_modes",
    "held_out_interval",
    "out_of_fold",
]

FEWEST_GROUPS = 5
"""Groups a fold needs to be drawn as wholes: of one or two there is next to nothing to draw."""


@dataclass(frozen=True, slots=True, eq=False)
class PairedTables:
    """Two tables of the same people, and what is to be taken out of both."""

    x: Float64[np.ndarray, "people columns_x"]
    """NaN: filled with the mean of the training people."""
    y: Float64[np.ndarray, "people columns_y"]
    covariates: Float64[np.ndarray, "people covariates"]
    """Complete; may have no columns."""


@runtime_checkable
class Outcomes(Protocol):
    """Several Y for the same X."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Float64[np.ndarray, "people columns_y"]: ...


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What cross-validation found for each outcome."""

    r_test: Float64[np.ndarray, "outcomes folds modes"]
    r_train: Float64[np.ndarray, "outcomes folds modes"]
    penalty: Int[np.ndarray, "outcomes folds"]
    """Index of the penalty of each outer fold."""
    modes: tuple[FittedModes, ...]
    """Of the first outcome, by fold; its variates are those in `scores`."""

    @property
    def mean(self) -> Float64[np.ndarray, "outcomes modes"]:
        """Mean over folds of the held-out correlation."""
        return np.asarray(self.r_test.mean(axis=1))


def cross_validate_modes(
    method: Method,
    tables: PairedTables,
    outcomes: Outcomes,
    plan: FoldPlan,
    n_modes: int,
    *,
    penalties: Int[np.ndarray, " folds"] | None = None,
    progress: Callable[[], None] | None = None,
) -> HeldOut:
    """Return held-out correlations of every outcome.

    Parameters
    ----------
    penalties
        Index of the penalty of each outer fold; None: chosen by inner cross-validation, for each outcome anew.
    progress
        Called after every training set.
    """
    count = len(outcomes)
    shape = (count, len(plan.outer), n_modes)
    r_test, r_train = np.zeros(shape), np.zeros(shape)
    chosen = np.zeros(shape[:2], dtype=np.int64)
    first: list[FittedModes] = []
    for fold, split in enumerate(plan.outer):
        if penalties is not None:
            chosen[:, fold] = penalties[fold]
        elif len(method.penalties) > 1:
            chosen[:, fold] = choose_penalty(method, tables, outcomes, plan.inner[fold], progress=progress)
        x = standardise(tables.x, tables.covariates, split.train, split.test)
        prepared = method.prepare(x, weights=False)
        for index in range(count):
            y = standardise(outcomes[index], tables.covariates, split.train, split.test)
            (modes,) = prepared.fit(y, [method.penalties[chosen[index, fold]]], n_modes)
            r_test[index, fold] = mode_correlations(modes.x_test, modes.y_test)
            r_train[index, fold] = mode_correlations(modes.x_train, modes.y_train)
            if index == 0:
                first.append(modes)
        if progress is not None:
            progress()
    return HeldOut(r_test, r_train, chosen, tuple(first))


def choose_penalty(
    method: Method,
    tables: PairedTables,
    outcomes: Outcomes,
    splits: Sequence[Split],
    *,
    progress: Callable[[], None] | None = None,
) -> Int[np.ndarray, " outcomes"]:
    """Return the index of the penalty for each outcome: the strongest within one standard error of the best.

    Penalties are judged by the mean over the folds of the held-out correlation of the first mode.
    """
    scores = np.zeros((len(outcomes), len(splits), len(method.penalties)))
    for fold, split in enumerate(splits):
        x = standardise(tables.x, tables.covariates, split.train, split.test)
        prepared = method.prepare(x, weights=False)
        for index in range(len(outcomes)):
            y = standardise(outcomes[index], tables.covariates, split.train, split.test)
            for k, modes in enumerate(prepared.fit(y, method.penalties, 1)):
                scores[index, fold, k] = mode_correlations(modes.x_test, modes.y_test)[0]
        if progress is not None:
            progress()
    return _one_standard_error(scores)


def _one_standard_error(
    scores: Float64[np.ndarray, "outcomes folds penalties"],
) -> Int[np.ndarray, " outcomes"]:
    mean = scores.mean(axis=1)
    error = scores.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    best = mean.argmax(axis=1)
    rows = np.arange(mean.shape[0])
    enough = mean >= (mean[rows, best] - error[rows, best])[:, None]
    return np.asarray(mean.shape[1] - 1 - enough[:, ::-1].argmax(axis=1), dtype=np.int64)


def out_of_fold(
    held: HeldOut, plan: FoldPlan, final: FittedModes
) -> tuple[Float64[np.ndarray, "people modes"], Float64[np.ndarray, "people modes"]]:
    """Return the held-out variates of everyone, of X and of Y, in standard deviations of the training people.

    Folds have the signs of the model of everyone. Correlations are those within folds: the folds' models differ.
    """
    variates = np.zeros((2, *final.x_train.shape))
    for modes, split in zip(held.modes, plan.outer, strict=True):
        sign = np.sign(mode_correlations(modes.x_train, final.x_train[split.train]))
        sign = np.where(sign == 0, 1.0, sign)
        sides = ((modes.x_train, modes.x_test), (modes.y_train, modes.y_test))
        for k, (train, test) in enumerate(sides):
            spread = train.std(axis=0)
            variates[k, split.test] = sign * test / np.where(spread > 0, spread, 1.0)
    return variates[0], variates[1]


def held_out_interval(
    held: HeldOut,
    plan: FoldPlan,
    groups: Int[np.ndarray, " people"],
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Float64[np.ndarray, "bounds modes"]:
    """Return lower and upper percentiles of the mean held-out correlation over draws of held-out people.

    Groups are drawn as wholes, within folds; people are where a fold has fewer than 5 groups (sites). The fitted models
    stay as they are: the interval is that of the correlation of these models, not of models of other training people.
    """
    total = np.zeros((draws, held.r_test.shape[2]))
    for modes, split in zip(held.modes, plan.outer, strict=True):
        _, codes = np.unique(groups[split.test], return_inverse=True)
        if int(codes.max()) + 1 < FEWEST_GROUPS:
            codes = np.arange(split.test.size)
        n_groups = int(codes.max()) + 1
        times = rng.multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=draws)[:, codes].astype(np.float64)
        total += _weighted_correlation(times, modes.x_test, modes.y_test)
    tail = 100.0 * (1.0 - confidence) / 2.0
    return np.asarray(np.percentile(total / len(plan.outer), [tail, 100.0 - tail], axis=0))


def _weighted_correlation(
    weights: Float64[np.ndarray, "draws people"],
    x: Float64[np.ndarray, "people modes"],
    y: Float64[np.ndarray, "people modes"],
) -> Float64[np.ndarray, "draws modes"]:
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    n = weights.sum(axis=1, keepdims=True)
    mean_a, mean_b = weights @ a / n, weights @ b / n
    covariance = weights @ (a * b) / n - mean_a * mean_b
    below = np.sqrt((weights @ (a * a) / n - mean_a**2).clip(0) * (weights @ (b * b) / n - mean_b**2).clip(0))
    varies = below > np.finfo(float).tiny
    return np.asarray(np.divide(covariance, below, out=np.zeros_like(covariance), where=varies))
