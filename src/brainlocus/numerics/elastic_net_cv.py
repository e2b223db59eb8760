r"""Cross-validated elastic nets of many columns (SNPs) and few rows (people): all folds at once, exact solutions.

A fit minimises, over the rows with their weights (which sum to 1),

.. math:: \tfrac12 \sum_i w_i (y_i - b_0 - x_i' b)^2
          + \lambda \left[ \tfrac{1 - a}{2} \lVert s b \rVert_2^2 + a \lVert s b \rVert_1 \right]

with *s* the weighted standard deviation (1/n) of each column among those rows: the columns are standardised inside and
the coefficients are those of the columns as given (Friedman, Hastie & Tibshirani 2010, J Stat Softw 33:1, eq. 1-2).

Data flow::

    columns, outcomes, weights, folds --cross_validate--> CrossValidation, one for each outcome

A row left out of a fit is a row of weight 0, so that the fits of all folds share the columns. Each step down the path:

1. On its working set, every fit is solved by a few sweeps of coordinate descent and a Newton step on the signs they
   found; when the step keeps the signs, the solution is exact to rounding.
2. One matrix product gives the gradients of all fits in all columns. Columns that break the optimality conditions join
   the working set, and the fit is solved again; those that the sequential strong rule expects join for the next step
   (Tibshirani et al. 2012, J R Stat Soc B 74:245, eq. 7).

The product of 2. is in single precision, with a margin above its rounding: it can only let a column in needlessly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numba import njit

from brainlocus.numerics.elastic_net import lambda_path

__all__ = ["CrossValidation", "cross_validate"]

N_LAMBDAS = 100
"""Points of a path, as is usual."""
MAX_EXPLAINED, MIN_GAIN, FEWEST_STEPS = 0.999, 1e-5, 5
"""A path of its own ends, from its fifth step on, with the one that explains this share of the variance of the rows
fitted, or adds less than this share of what is explained (glmnet's ``devmax``, ``fdev``, ``mnlam``)."""
PATIENT_STEPS = 10
"""Steps after the smallest error before a path may end for its error (see `cross_validate`)."""
_TOLERANCE = 1e-10
"""Largest change of a standardised coefficient in the last sweep, over the SD of the outcome."""
_SINGLE = 1e-5
"""Bound on the rounding of the single-precision gradient, over the SD of the outcome."""
_SWEEPS = 8
"""Sweeps of coordinate descent before the first Newton step of a fit; before each later one there are as many more."""
_BOLD = 8
"""Newton steps that may go beyond a change of sign; later ones, if it comes to that, end there."""
_CONSTANT = 1e-10
"""A column whose variance among the rows of a fit is below this is constant there and gets no coefficient."""


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """The path of one outcome, and how well its folds predict."""

    lambdas: Float[np.ndarray, " steps"]
    """As far as the path of all rows goes."""
    errors: Float[np.ndarray, " steps"]
    """Weighted mean of squared errors of the rows, each predicted by the fit without its fold."""
    best: int
    """Step with the smallest error, the first of equals; -1 when the path has no step."""
    intercept: float
    """Of all rows at the best step."""
    support: Int[np.ndarray, " chosen"]
    """Columns with a coefficient at the best step, ascending."""
    coefficients: Float[np.ndarray, " chosen"]
    """Per unit of the columns as given."""
    out_of_fold: Float[np.ndarray, " rows"]
    """Prediction of every row at the best step by the fit without its fold; NaN for rows in no fold."""
    in_sample: Float[np.ndarray, " rows"]
    """Prediction of every row, also those of weight 0, by the fit of all rows with a weight, at the best step."""


def cross_validate(
    columns: Float[np.ndarray, "columns rows"],
    outcomes: Float[np.ndarray, "outcomes rows"],
    weights: Float[np.ndarray, "outcomes rows"],
    folds: Int[np.ndarray, "outcomes rows"],
    *,
    mixing: float,
    spread: Float[np.ndarray, "outcomes rows"] | None = None,
    lambdas: Float[np.ndarray, "outcomes steps"] | None = None,
    max_variables: int | None = None,
    patience: float | None = None,
    ridge_by_sd: bool = False,
) -> list[CrossValidation]:
    """Fit the elastic-net path of every outcome, and choose lambda by the error of its folds.

    Parameters
    ----------
    columns
        One row for each column of the design (SNPs x people), finite.
    weights
        Weight of each row; 0 leaves it out of the fit and of the error.
    folds
        Fold of each row, from 0; negative for rows in no fold, which have weight 0.
    mixing
        1 is the lasso; 0 (ridge) is not among them.
    spread
        Of rows that are means of several observations with the same columns: the variance of those about their mean.
        Errors and the variance of the outcome are then those of the observations; the fits are the same.
    lambdas
        Descending; by default each outcome's own `N_LAMBDAS` points, from the smallest at which all coefficients are 0
        down to a ratio of it, cut short as `MAX_EXPLAINED` says. The folds use the path of all rows.
    max_variables
        A path ends before the step at which more columns than this have had a coefficient (glmnet's ``pmax``). The fit
        of a fold that ends early predicts with its last step.
    patience
        A path also ends, `PATIENT_STEPS` steps or more after its smallest error, when the error is this share above it:
        what follows fits noise. None: the whole path.
    ridge_by_sd
        Divide the ridge part by the SD (1/n) of the outcome among the rows of each fit, as glmnet does because it
        scales the outcome to variance 1.

    Raises
    ------
    ValueError
        Mixing out of range.

    References
    ----------
    Friedman, Hastie & Tibshirani (2010), J Stat Softw 33(1):1-22.
    """
    if not 0.0 < mixing <= 1.0:
        raise ValueError(f"mixing must be above 0 and at most 1, found {mixing:g}.")
    n_outcomes = outcomes.shape[0]
    n_folds = [int(f.max(initial=-1)) + 1 for f in folds]
    leader = np.repeat(np.arange(n_outcomes), [1 + k for k in n_folds])
    fold = np.concatenate([np.arange(-1, k) for k in n_folds])
    fitted = np.where((fold[:, None] >= 0) & (folds[leader] == fold[:, None]), 0.0, weights[leader])
    scored = np.where((fold[:, None] >= 0) & (folds[leader] == fold[:, None]), weights[leader], 0.0)
    within = np.zeros_like(outcomes) if spread is None else spread
    family = _Family(columns, outcomes[leader], within[leader], fitted, mixing, ridge_by_sd=ridge_by_sd)
    first = np.flatnonzero(fold < 0)
    own = lambdas is None
    if lambdas is None:
        lambdas = np.stack([_own_path(family, int(k), columns.shape[0], mixing) for k in first])
    paths = _fit(
        family, lambdas[leader], first[leader], scored, own=own, max_variables=max_variables, patience=patience
    )
    return [
        _choose(paths, lambdas[k], list(range(int(j), int(j) + 1 + n_folds[k])), folds[k], columns)
        for k, j in enumerate(first)
    ]


def _own_path(family: "_Family", problem: int, n_columns: int, mixing: float) -> Float[np.ndarray, " steps"]:
    n_rows = int((family.weights[problem] > 0).sum())
    gradient = family.start_gradient[problem]
    if not gradient.any():
        return np.zeros(N_LAMBDAS)
    return lambda_path(gradient, mixing, n=n_rows, n_columns=n_columns, n_lambdas=N_LAMBDAS)


class _WorkingSet:
    """Columns that may have a coefficient in one fit; its arrays have room for more than `size`."""

    def __init__(self) -> None:
        self.size = 0
        self.slots = np.zeros(0, dtype=np.int64)
        """Places of the columns among those of all fits."""
        self.gram = np.zeros((0, 0))
        self.cross, self.b, self.gradient = np.zeros(0), np.zeros(0), np.zeros(0)

    def reserve(self, size: int) -> None:
        """Make the set `size` large; new entries are 0."""
        if size > self.b.size:
            extra = max(size, self.b.size + self.b.size // 2, 32) - self.b.size
            for name in ("slots", "cross", "b", "gradient"):
                setattr(self, name, np.pad(getattr(self, name), (0, extra)))
            self.gram = np.pad(self.gram, (0, extra))
        self.size = size


class _Family:
    """The fits and their working sets. Arrays grow; the solver works in place."""

    def __init__(
        self,
        columns: Float[np.ndarray, "columns rows"],
        outcomes: Float[np.ndarray, "fits rows"],
        spread: Float[np.ndarray, "fits rows"],
        weights: Float[np.ndarray, "fits rows"],
        mixing: float,
        *,
        ridge_by_sd: bool,
    ) -> None:
        total = weights.sum(axis=1, keepdims=True)
        self.mixing = mixing
        self.weights = weights / np.where(total > 0, total, 1.0)
        self.centred = np.ascontiguousarray(columns - columns.mean(axis=1, keepdims=True), dtype=np.float64)
        self.single: Float32[np.ndarray, "columns rows"] = self.centred.astype(np.float32)
        self.outcomes, self.spread = outcomes, spread
        self.outcome_mean = (self.weights * outcomes).sum(axis=1)
        residual = outcomes - self.outcome_mean[:, None]
        self.outcome_variance = (self.weights * (residual**2 + spread)).sum(axis=1)
        sd = np.sqrt(self.outcome_variance)
        self.ridge = (1.0 - mixing) / np.where(sd > 0, sd, 1.0) if ridge_by_sd else np.full(sd.size, 1.0 - mixing)
        self.mean = self.weights @ self.centred.T
        variance = self.weights @ (self.centred**2).T - self.mean**2
        self.sd = np.sqrt(np.maximum(variance, 0.0))
        self.scale: Float[np.ndarray, "fits columns"] = np.divide(
            1.0, self.sd, out=np.zeros_like(self.sd), where=variance > _CONSTANT
        )
        self.start_gradient = ((self.weights * residual) @ self.centred.T) * self.scale
        n_fits, n_columns = weights.shape[0], columns.shape[0]
        self.union = np.zeros(0, dtype=np.int64)
        self.place = np.full(n_columns, -1, dtype=np.int64)
        self.union_rows = np.zeros((0, columns.shape[1]))
        self.member = np.zeros((n_fits, n_columns), dtype=bool)
        self.sets = [_WorkingSet() for _ in range(n_fits)]

    def add(self, fit: int, new: Int[np.ndarray, " new"]) -> None:
        """Let columns into the working set of a fit."""
        unseen = new[self.place[new] < 0]
        if unseen.size:
            start, stop = self.union.size, self.union.size + unseen.size
            self.place[unseen] = np.arange(start, stop)
            self.union = np.concatenate([self.union, unseen])
            if stop > self.union_rows.shape[0]:
                room = min(max(stop, 2 * start, 256), self.place.size)
                self.union_rows = np.pad(self.union_rows[:start], ((0, room - start), (0, 0)))
            self.union_rows[start:stop] = self.centred[unseen]
        own = self.sets[fit]
        start = own.size
        own.reserve(start + new.size)
        own.slots[start : own.size] = self.place[new]
        self.member[fit, new] = True
        everyone = self.union[own.slots[: own.size]]
        rows = self.union_rows[own.slots[: own.size]]
        products = (rows[start:] * self.weights[fit]) @ rows.T
        mean, scale = self.mean[fit, everyone], self.scale[fit, everyone]
        products -= np.outer(mean[start:], mean)
        products *= np.outer(scale[start:], scale)
        products[np.arange(new.size), np.arange(start, own.size)] = 1.0
        own.gram[start : own.size, : own.size] = products
        own.gram[:start, start : own.size] = products[:, :start].T
        own.cross[start : own.size] = self.start_gradient[fit, new]
        own.gradient[start : own.size] = own.cross[start : own.size] - products @ own.b[: own.size]

    def predictions(self, fits: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some rows"]:
        """Return what some fits predict for every row, intercept included."""
        dense = np.zeros((fits.size, self.union.size))
        for row, fit in enumerate(fits.tolist()):
            own = self.sets[fit]
            slots = own.slots[: own.size]
            dense[row, slots] = own.b[: own.size] * self.scale[fit, self.union[slots]]
        linear = dense @ self.union_rows[: self.union.size]
        shift = self.outcome_mean[fits] - (self.weights[fits] * linear).sum(axis=1)
        return np.asarray(linear + shift[:, None])

    def gradients(
        self, fits: Int[np.ndarray, " some"], predicted: Float[np.ndarray, "some rows"]
    ) -> Float[np.ndarray, "some columns"]:
        """Return the size of the gradient of the loss in every standardised column, to single precision."""
        residual = ((self.outcomes[fits] - predicted) * self.weights[fits]).astype(np.float32)
        return np.asarray(np.abs((residual @ self.single.T) * self.scale[fits]))

    def solution(self, fit: int) -> tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, " chosen"]]:
        """Return columns with a coefficient and the coefficients of the columns as given."""
        own = self.sets[fit]
        at = np.flatnonzero(own.b[: own.size])
        columns = self.union[own.slots[at]]
        return columns, own.b[at] * self.scale[fit, columns]


@dataclass(slots=True)
class _Paths:
    """What the steps of all fits left."""

    n_steps: Int[np.ndarray, " fits"]
    errors: Float[np.ndarray, "fits steps"]
    """Sum of scored squared errors."""
    scored: Float[np.ndarray, "fits rows"]
    solutions: list[list[tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, " chosen"], float]]]


def _fit(
    family: _Family,
    lambdas: Float[np.ndarray, "fits steps"],
    leader: Int[np.ndarray, " fits"],
    scored: Float[np.ndarray, "fits rows"],
    *,
    own: bool,
    max_variables: int | None,
    patience: float | None,
) -> _Paths:
    n_fits, n_steps = lambdas.shape
    paths = _Paths(
        np.zeros(n_fits, dtype=np.int64), np.full((n_fits, n_steps), np.nan), scored, [[] for _ in range(n_fits)]
    )
    limit = family.centred.shape[0] if max_variables is None else max_variables
    ever: Bool[np.ndarray, "fits columns"] = np.zeros(family.scale.shape, dtype=bool)
    explained, error = np.zeros(n_fits), np.zeros(n_fits)
    smallest, since = np.full(n_fits, np.inf), np.zeros(n_fits, dtype=np.int64)
    alive = family.outcome_variance > 0
    alive &= alive[leader]
    gradient = np.abs(family.start_gradient)
    before = gradient.max(axis=1, initial=0.0) / family.mixing
    for step in range(n_steps):
        fits = np.flatnonzero(alive)
        if not fits.size:
            break
        predicted, gradient[fits] = _solve_step(family, fits, lambdas[:, step], before, gradient[fits])
        before[fits] = lambdas[fits, step]
        residual = (family.outcomes[fits] - predicted) ** 2 + family.spread[fits]
        for row, fit in enumerate(fits.tolist()):
            support, values = family.solution(fit)
            ever[fit, support] = True
            if ever[fit].sum() > limit:
                alive[fit] = False
                continue
            offset = float(predicted[row, 0] - family.centred[support, 0] @ values)
            paths.solutions[fit].append((support, values, offset))
            error[fit] = paths.errors[fit, step] = scored[fit] @ residual[row]
            paths.n_steps[fit] = step + 1
        if own:
            share = 1.0 - (family.weights[fits] * residual).sum(axis=1) / family.outcome_variance[fits]
            enough = (share > MAX_EXPLAINED) | (share - explained[fits] < MIN_GAIN * share)
            explained[fits] = share
            if step + 1 >= FEWEST_STEPS:
                alive[fits[enough & (leader[fits] == fits)]] = False
        if patience is not None:
            total = np.bincount(leader, error, minlength=n_fits)
            since = np.where(total < smallest, 0, since + 1)
            smallest = np.minimum(smallest, total)
            alive &= (since < PATIENT_STEPS) | (total <= (1.0 + patience) * smallest)
        alive &= alive[leader]
    return paths


def _solve_step(
    family: _Family,
    fits: Int[np.ndarray, " some"],
    lambdas: Float[np.ndarray, " fits"],
    before: Float[np.ndarray, " fits"],
    gradient: Float[np.ndarray, "some columns"],
) -> tuple[Float[np.ndarray, "some rows"], Float[np.ndarray, "some columns"]]:
    """Solve one step of some fits; return predictions of all rows and gradients in all columns."""
    mixing = family.mixing
    sd = np.sqrt(family.outcome_variance)
    for row, fit in enumerate(fits.tolist()):
        # Let in somewhat more than the strong rule asks for: the working set then changes every few steps only.
        look_ahead = mixing * max(2.0 * lambdas[fit] - before[fit], 0.0)
        outside = ~family.member[fit] & (family.scale[fit] > 0)
        if (gradient[row][outside] > look_ahead).any() or lambdas[fit] >= before[fit]:
            wider = 0.95 * look_ahead
            _let_in(family, fit, gradient[row], outside & (gradient[row] > wider))
    predicted = np.empty((fits.size, family.outcomes.shape[1]))
    gradient = np.empty((fits.size, family.scale.shape[1]))
    todo = np.arange(fits.size)
    while todo.size:
        now = fits[todo]
        for fit in now.tolist():
            own = family.sets[fit]
            l1, l2 = mixing * lambdas[fit], family.ridge[fit] * lambdas[fit]
            _solve(own.gram, own.cross, own.b, own.gradient, own.size, l1, l2, _TOLERANCE * sd[fit])
        predicted[todo] = family.predictions(now)
        gradient[todo] = family.gradients(now, predicted[todo])
        broken = (gradient[todo] > (mixing * lambdas[now] - _SINGLE * sd[now])[:, None]) & ~family.member[now]
        broken &= family.scale[now] > 0
        again = np.flatnonzero(broken.any(axis=1))
        for row in again.tolist():
            _let_in(family, int(now[row]), gradient[todo[row]], broken[row])
        todo = todo[again]
    return predicted, gradient


def _let_in(
    family: _Family, fit: int, gradient: Float[np.ndarray, " columns"], wanted: Bool[np.ndarray, " columns"]
) -> None:
    """Let the wanted columns in, those with the largest gradients first, and no more than doubles the set."""
    new = np.flatnonzero(wanted)
    most = max(64, family.sets[fit].size)
    if new.size > most:
        new = np.sort(new[np.argsort(-gradient[new], kind="stable")[:most]])
    if new.size:
        family.add(fit, new)


def _choose(
    paths: _Paths,
    lambdas: Float[np.ndarray, " steps"],
    fits: Sequence[int],
    folds: Int[np.ndarray, " rows"],
    columns: Float[np.ndarray, "columns rows"],
) -> CrossValidation:
    """Return the cross-validation of one outcome from the fits of all rows (the first) and without each fold."""
    lead, *others = fits
    n_steps, n_rows = int(paths.n_steps[lead]), columns.shape[1]
    nothing = np.full(n_rows, np.nan)
    if not n_steps or any(not paths.solutions[k] for k in others):
        none = np.zeros(0, dtype=np.int64)
        return CrossValidation(lambdas[:0], np.zeros(0), -1, np.nan, none, np.zeros(0), nothing, nothing)
    total = paths.scored[others].sum()
    summed = np.zeros(n_steps)
    for k in others:
        steps = np.minimum(np.arange(n_steps), paths.n_steps[k] - 1)
        summed += paths.errors[k, steps]
    errors = summed / total
    best = int(np.argmin(errors))
    out_of_fold = nothing.copy()
    for number, k in enumerate(others):
        rows = folds == number
        out_of_fold[rows] = _predict(paths.solutions[k][min(best, int(paths.n_steps[k]) - 1)], columns)[rows]
    support, values, _ = paths.solutions[lead][best]
    order = np.argsort(support)
    offset = paths.solutions[lead][best][2] - float(columns[support].mean(axis=1) @ values)
    in_sample = _predict(paths.solutions[lead][best], columns)
    return CrossValidation(
        lambdas[:n_steps], errors, best, offset, support[order], values[order], out_of_fold, in_sample
    )


def _predict(
    solution: tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, " chosen"], float],
    columns: Float[np.ndarray, "columns rows"],
) -> Float[np.ndarray, " rows"]:
    support, values, offset = solution
    chosen = columns[support]
    return np.asarray(values @ (chosen - chosen.mean(axis=1, keepdims=True)) + offset)


@njit(cache=True, nogil=True, fastmath={"nnan", "ninf", "nsz", "arcp", "contract", "reassoc"})
@no_type_check
def _dot(a, b, n):  # noqa: ANN001, ANN202
    total = 0.0
    for k in range(n):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _factor(h, n):  # noqa: ANN001, ANN202
    """Cholesky factor in place, lower rows; False when the matrix is not clearly positive definite."""
    for i in range(n):
        for j in range(i):
            h[i, j] = (h[i, j] - _dot(h[i], h[j], j)) / h[j, j]
        pivot = h[i, i] - _dot(h[i], h[i], i)
        if pivot < 1e-9:
            return False
        h[i, i] = np.sqrt(pivot)
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _solve_factored(h, x, n):  # noqa: ANN001, ANN202
    for i in range(n):
        x[i] = (x[i] - _dot(h[i], x, i)) / h[i, i]
    for i in range(n - 1, -1, -1):
        x[i] /= h[i, i]
        for k in range(i):
            x[k] -= h[i, k] * x[i]


@njit(cache=True, nogil=True)
@no_type_check
def _sweep(gram, b, gradient, size, l1, l2):  # noqa: ANN001, ANN202
    """One sweep of coordinate descent; return the largest change."""
    largest = 0.0
    for j in range(size):
        z = gradient[j] + b[j]
        if z > l1:
            new = (z - l1) / (1.0 + l2)
        elif z < -l1:
            new = (z + l1) / (1.0 + l2)
        else:
            new = 0.0
        change = new - b[j]
        if change != 0.0:
            b[j] = new
            row = gram[j]
            for k in range(size):
                gradient[k] -= change * row[k]
            largest = max(largest, abs(change))
    return largest


@njit(cache=True, nogil=True)
@no_type_check
def _newton(gram, cross, b, gradient, size, l1, l2, careful):  # noqa: ANN001, ANN202
    """Step to the minimum of the present signs, and return whether it keeps them.

    Where it does not, coefficients that change sign become 0; or, when `careful`, the step ends where the first of them
    does, which cannot raise the objective.
    """
    at = np.flatnonzero(b[:size])
    n = at.size
    if n == 0:
        return False
    h = np.empty((n, n))
    x = np.empty(n)
    for i in range(n):
        row = gram[at[i]]
        for k in range(i + 1):
            h[i, k] = row[at[k]]
        h[i, i] += l2
        x[i] = cross[at[i]] - (l1 if b[at[i]] > 0 else -l1)
    if not _factor(h, n):
        return False
    _solve_factored(h, x, n)
    share, first, kept = 1.0, -1, True
    for i in range(n):
        old = b[at[i]]
        if x[i] * old <= 0.0:
            kept = False
            crossing = old / (old - x[i])
            if crossing < share:
                share, first = crossing, i
    for i in range(n):
        old = b[at[i]]
        if careful:
            b[at[i]] = old + share * (x[i] - old)
        else:
            b[at[i]] = x[i] if x[i] * old > 0.0 else 0.0
    if careful and first >= 0:
        b[at[first]] = 0.0
    gradient[:size] = cross[:size]
    for i in range(n):
        value = b[at[i]]
        if value != 0.0:
            row = gram[at[i]]
            for k in range(size):
                gradient[k] -= value * row[k]
    return kept


@njit(cache=True, nogil=True)
@no_type_check
def _solve(gram, cross, b, gradient, size, l1, l2, tolerance):  # noqa: ANN001, ANN202
    """Solve a fit on its working set, from where it is."""
    for attempt in range(1_000):
        change = 0.0
        for _ in range(_SWEEPS * (1 + attempt)):
            change = _sweep(gram, b, gradient, size, l1, l2)
            if change <= tolerance:
                return
        if _newton(gram, cross, b, gradient, size, l1, l2, attempt >= _BOLD):
            worst = 0.0
            for j in range(size):
                if b[j] == 0.0:
                    worst = max(worst, abs(gradient[j]))
            if worst <= l1:
                return
