r"""Whether modes are more than chance, by permutation of the whole pipeline, and how stable their loadings are.

Permutation: rows of Z'Y change places in the space of the residuals (`residual_space`), ``Y* = Z P Z'Y``, and
everything is done again with Y*: deconfounding and scaling in every training set, the choice of penalties, the fit, the
held-out correlation. The pipeline gives the same for Y and for its residuals, because covariates are taken out of every
training set anyway, so Y* is to the pipeline what Y would be without an association.

Modes are tested in steps. For mode k the part of Z'Y along the Y variates of the modes before it, V, stays in place,
and the rest is permuted: ``Y* = Z (V V' Z'Y + P (I - V V') Z'Y)``; the statistic is the held-out correlation of mode k.
A p is never below that of a mode before (cumulative maximum), and modes after one that is not significant are not
tested.

References
----------
Winkler et al. (2020), NeuroImage 220:117065 (10.1016/j.neuroimage.2020.117065); Freedman & Lane (1983), J. Bus. Econ.
Stat. 1:292; Efron & Tibshirani (1993), An Introduction to the Bootstrap; Meinshausen & Buhlmann (2010), J. R. Stat.
Soc. B 72:417 (stability selection).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.cohort.multivariate.alignment import align_modes
from brainlocus.cohort.multivariate.cross_validation import PairedTables, cross_validate_modes
from brainlocus.cohort.multivariate.folds import FoldPlan
from brainlocus.cohort.multivariate.model import FittedModes, Method, Penalty, column_correlations
from brainlocus.cohort.multivariate.preparation import Standardised, standardise
from brainlocus.cohort.multivariate.residual_space import ResidualSpace, residual_space
from brainlocus.core import Executor
from brainlocus.numerics import permute_people

__all__ = [
    "Exchange",
    "FinalModel",
    "PermutationTest",
    "Resampled",
    "check_exchange",
    "fit_everyone",
    "permutation_shares",
    "permute_modes",
    "resample_modes",
    "with_loadings",
]

Exchange = Literal["free", "within", "whole"]
"""Who changes places: all people, those of a group, or groups of one size as wholes."""


@dataclass(frozen=True, slots=True, eq=False)
class FinalModel:
    """Modes of everyone."""

    modes: FittedModes
    x: Standardised
    y: Standardised
    x_loadings: Float64[np.ndarray, "columns_x modes"]
    """Correlation of the columns with the X variate."""
    y_loadings: Float64[np.ndarray, "columns_y modes"]


def fit_everyone(
    method: Method,
    tables: PairedTables,
    penalty: Penalty,
    n_modes: int,
    rows: Int[np.ndarray, " rows"] | None = None,
) -> FinalModel:
    """Return the model of all people, or of some rows, which may come more than once."""
    used = np.arange(tables.x.shape[0]) if rows is None else rows
    nobody = np.empty(0, dtype=np.int64)
    x = standardise(tables.x, tables.covariates, used, nobody)
    y = standardise(tables.y, tables.covariates, used, nobody)
    (modes,) = method.prepare(x, weights=True).fit(y, [penalty], n_modes)
    return with_loadings(modes, x, y)


def with_loadings(modes: FittedModes, x: Standardised, y: Standardised) -> FinalModel:
    """Return modes of everyone with the loadings of both tables."""
    return FinalModel(
        modes, x, y, column_correlations(x.train, modes.x_train), column_correlations(y.train, modes.y_train)
    )


@dataclass(frozen=True, slots=True, eq=False)
class PermutationTest:
    """Held-out correlations under permutation, mode by mode."""

    observed: Float64[np.ndarray, " modes"]
    null: Float64[np.ndarray, "tested permutations"]
    """A row for each mode that was tested, in order."""
    p: Float64[np.ndarray, " modes"]
    """(1 + as large) / (1 + permutations), cumulative maximum; NaN where not tested."""


@dataclass(frozen=True, slots=True, eq=False)
class _PermutedOutcomes:
    """Y with the rows of a part of its residuals permuted."""

    space: ResidualSpace
    stays: Float64[np.ndarray, "kept columns"]
    moves: Float64[np.ndarray, "kept columns"]
    order: Int[np.ndarray, "permutations kept"]

    def __len__(self) -> int:
        return int(self.order.shape[0])

    def __getitem__(self, index: int, /) -> Float64[np.ndarray, "people columns"]:
        return self.space.restore(self.stays + self.moves[self.order[index]])


def permute_modes(
    method: Method,
    tables: PairedTables,
    plan: FoldPlan,
    observed: Float64[np.ndarray, " modes"],
    final: FinalModel,
    *,
    rng: np.random.Generator,
    permutations: int,
    groups: Int[np.ndarray, " people"] | None = None,
    exchange: Exchange = "free",
    penalties: Int[np.ndarray, " folds"] | None = None,
    alpha: float = 0.05,
    executor: Executor | None = None,
    progress: Callable[[], None] | None = None,
) -> PermutationTest:
    """Return permutation p-values of the held-out correlations.

    Parameters
    ----------
    observed
        Mean held-out correlation of each mode.
    final
        Model of everyone, whose Y variates stay in place when later modes are tested.
    penalties
        None: chosen anew in every permutation. Else the indices of the outer folds' penalties, which were chosen with
        the unpermuted data.
    alpha
        Modes after one with a larger p are not tested.
    executor
        Takes shares of the permutations; None: one after the other.
    progress
        Called after each share of the permutations of a mode (`permutation_shares` of them).

    Raises
    ------
    ValueError
        Nothing can be permuted: no two groups have one size, or none has two people.
    """
    check_exchange(tables, groups, exchange)
    space = residual_space(tables.covariates)
    y = _filled(tables.y)
    rows = space.project(y / np.where(np.isinf(final.y.spread), 1.0, final.y.spread))
    blocks, mode = _blocks(space, groups, exchange)
    p = np.full(observed.size, np.nan)
    null: list[Float64[np.ndarray, " permutations"]] = []
    for k in range(observed.size):
        order = permute_people(rng, rows.shape[0], permutations, blocks=blocks, mode=mode)
        earlier = np.linalg.qr(rows @ final.modes.y_weights[:, :k])[0]
        stays = earlier @ (earlier.T @ rows)
        outcomes = _PermutedOutcomes(space, stays, rows - stays, order)
        null.append(_null(method, tables, outcomes, plan, penalties, k, executor, progress))
        reached = int((null[-1] >= observed[k] - 1e-12).sum())
        p[k] = max((1.0 + reached) / (1.0 + permutations), p[k - 1] if k else 0.0)
        if p[k] > alpha:
            break
    return PermutationTest(observed, np.array(null), p)


def check_exchange(tables: PairedTables, groups: Int[np.ndarray, " people"] | None, exchange: Exchange) -> None:
    """Check, before anything is computed, that there is something to permute.

    Raises
    ------
    ValueError
        No two groups have one size, none has two people, or there are too many covariates.
    """
    space = residual_space(tables.covariates)
    blocks, mode = _blocks(space, groups, exchange)
    try:
        permute_people(np.random.default_rng(0), space.kept.size, 1, blocks=blocks, mode=mode)
    except ValueError as error:
        other = "within groups (sites)" if mode == "whole" else "whole groups or all people"
        raise ValueError(f"{error} Exchange {other} instead.") from None


def _blocks(
    space: ResidualSpace, groups: Int[np.ndarray, " people"] | None, exchange: Exchange
) -> tuple[Int[np.ndarray, " kept"] | None, Literal["within", "whole"]]:
    blocks = None if groups is None or exchange == "free" else groups[space.kept]
    return blocks, "whole" if exchange == "whole" else "within"


def permutation_shares(executor: Executor | None) -> int:
    """Return into how many shares the permutations go: two a worker, because each prepares X anew."""
    return 1 if executor is None else 2 * executor.workers


def _null(
    method: Method,
    tables: PairedTables,
    outcomes: _PermutedOutcomes,
    plan: FoldPlan,
    penalties: Int[np.ndarray, " folds"] | None,
    k: int,
    executor: Executor | None,
    progress: Callable[[], None] | None,
) -> Float64[np.ndarray, " permutations"]:
    """Return the held-out correlation of mode `k` in every permutation."""
    shares = [s for s in np.array_split(outcomes.order, permutation_shares(executor)) if s.shape[0]]
    items = [replace(outcomes, order=share) for share in shares]
    task = partial(_null_share, method, tables, plan, penalties, k)
    found = []
    for part in map(task, items) if executor is None else executor.map(task, items):
        found.append(part)
        if progress is not None:
            progress()
    return np.concatenate(found)


def _null_share(
    method: Method,
    tables: PairedTables,
    plan: FoldPlan,
    penalties: Int[np.ndarray, " folds"] | None,
    k: int,
    outcomes: _PermutedOutcomes,
) -> Float64[np.ndarray, " permutations"]:
    return cross_validate_modes(method, tables, outcomes, plan, k + 1, penalties=penalties).mean[:, k]


def _filled(values: Float64[np.ndarray, "people columns"]) -> Float64[np.ndarray, "people columns"]:
    """Return values with NaN at the column's mean: a permutation moves whole rows, so it needs them whole."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    mean = np.where(missing, 0.0, values).sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
    return np.where(missing, mean, values)


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Loadings and selection over resamples of people, aligned to the model of everyone."""

    x_ratio: Float64[np.ndarray, "columns_x modes"]
    """Loading over its standard deviation over the resamples; NaN where that is 0."""
    y_ratio: Float64[np.ndarray, "columns_y modes"]
    x_frequency: Float64[np.ndarray, "columns_x modes"]
    """Share of the resamples in which the weight is not 0."""
    y_frequency: Float64[np.ndarray, "columns_y modes"]
    x_selected: Float64[np.ndarray, " modes"]
    """Mean number of columns of X with a weight."""
    y_selected: Float64[np.ndarray, " modes"]


def resample_modes(
    method: Method,
    tables: PairedTables,
    penalty: Penalty,
    final: FinalModel,
    groups: Int[np.ndarray, " people"],
    *,
    rng: np.random.Generator,
    draws: int,
    kind: Literal["bootstrap", "half"] = "bootstrap",
    progress: Callable[[], None] | None = None,
) -> Resampled:
    """Fit the model, with its penalty, to resamples of groups of people.

    Parameters
    ----------
    groups
        Drawn as wholes; one of their own for people without relatives.
    kind
        ``bootstrap``: as many groups as there are, with replacement. ``half``: half of them, without (stability
        selection).
    """
    n_modes = final.x_loadings.shape[1]
    reference = np.vstack([final.x_loadings, final.y_loadings])
    sums = np.zeros((3, *reference.shape))
    selected = np.zeros((2, n_modes))
    n_x = final.x_loadings.shape[0]
    for rows in _resamples(groups, rng, draws, kind):
        again = fit_everyone(method, tables, penalty, n_modes, rows)
        loadings = np.vstack([again.x_loadings, again.y_loadings])
        alignment = align_modes(reference, loadings)
        weighs = alignment.apply(np.vstack([again.modes.weights_of_x, again.modes.y_weights])) != 0.0
        aligned = alignment.apply(loadings)
        sums += np.stack([aligned, aligned**2, weighs])
        selected += np.stack([weighs[:n_x].sum(axis=0), weighs[n_x:].sum(axis=0)])
        if progress is not None:
            progress()
    mean = sums[0] / draws
    spread = np.sqrt(np.maximum(sums[1] / draws - mean**2, 0.0) * draws / max(draws - 1, 1))
    ratio = np.divide(reference, spread, out=np.full_like(reference, np.nan), where=spread > 1e-9)
    share = sums[2] / draws
    return Resampled(
        ratio[:n_x], ratio[n_x:], share[:n_x], share[n_x:], selected[0] / draws, selected[1] / draws
    )  # fmt: skip


def _resamples(
    groups: Int[np.ndarray, " people"], rng: np.random.Generator, draws: int, kind: Literal["bootstrap", "half"]
) -> Iterator[Int[np.ndarray, " rows"]]:
    _, codes = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    for _ in range(draws):
        if kind == "bootstrap":
            chosen = rng.integers(len(members), size=len(members))
        else:
            chosen = rng.permutation(len(members))[: max(len(members) // 2, 1)]
        yield np.concatenate([members[k] for k in np.sort(chosen)])
