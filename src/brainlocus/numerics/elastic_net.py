r"""Elastic-net and lasso paths by coordinate descent, weighted, with penalty factors.

Minimises, at each lambda of a path and over columns that were centred and scaled::

    (1/2) sum_i w_i (y_i - x_i b)^2 + lambda sum_j v_j [ (1 - a)/2 b_j^2 + a |b_j| ],      sum_i w_i = 1

with ``w_i = 1/n`` unless there are weights; a is the `mixing` (1: lasso, 0: ridge), v_j the penalty factors scaled to
sum to the number of columns (0: not penalised). The objective is that of R's glmnet for a y of variance 1 (1/n): glmnet
divides the ridge part by the standard deviation of y.

Data flow::

    x --standardise_columns--> StandardisedColumns
    x'wy, x'wx --lambda_path--> lambdas
    x'wx, x'wy, lambdas --elastic_net_path, elastic_net_paths--> ElasticNetPath   (few columns, or many y for one x)
    x, y, lambdas --elastic_net_path_columns--> ElasticNetPath                     (many columns)

Columns enter a working set by the sequential strong rule or when they violate the optimality conditions, which are
checked over all columns before a solution is accepted. Within the set, descent runs on its own Gram matrix, so a step
costs as many operations as the set has columns, whatever the number of people. Descent finds which coefficients are not
0, and their signs; below a tolerance of 1e-4 these are then solved for, so that tight tolerances cost little.

References
----------
Friedman, Hastie & Tibshirani (2010), J. Stat. Softw. 33(1):1; Tibshirani et al. (2012), J. R. Stat. Soc. B 74:245
(strong rules).
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numba import njit

__all__ = [
    "ElasticNetPath",
    "ElasticNetPaths",
    "StandardisedColumns",
    "elastic_net_path",
    "elastic_net_path_columns",
    "elastic_net_paths",
    "lambda_path",
    "standardise_columns",
]

_SMALLEST_MIXING = 1e-3
"""Mixing that the first lambda is computed with when the true one is smaller (glmnet's rule)."""
_SMALLEST_SHARE = 1e-12
"""Standard deviation over largest absolute value below which a column is constant but for rounding."""
_ROUGH = 1e-4
"""Tolerance of the descent after which the coefficients that are not 0 are first solved for."""
_SMALLEST_PIVOT = 1e-12
"""Share of a column's variance that the columns before it must leave for the linear system to be solved."""
_MAX_PASSES = 100_000
"""Passes over the columns at one lambda before it counts as not converged (glmnet: for the whole path)."""


@dataclass(frozen=True, slots=True, eq=False)
class StandardisedColumns:
    """Columns with weighted mean 0 and variance 1."""

    x: Float64[np.ndarray, "samples columns"]
    """In Fortran order. Constant columns are 0."""
    mean: Float64[np.ndarray, " columns"]
    scale: Float64[np.ndarray, " columns"]
    """Standard deviation (divisor n, or the weights); 0 for a constant column."""


@dataclass(frozen=True, slots=True, eq=False)
class ElasticNetPath:
    """Solutions of one y along its path."""

    lambdas: Float64[np.ndarray, " lambdas"]
    coefficients: Float64[np.ndarray, "lambdas columns"]
    """Per standard deviation of a column; 0 for constant columns."""
    iterations: Int64[np.ndarray, " lambdas"]
    """Passes over the working set."""
    converged: Bool[np.ndarray, " lambdas"]


@dataclass(frozen=True, slots=True, eq=False)
class ElasticNetPaths:
    """Solutions of many y over the same columns."""

    lambdas: Float64[np.ndarray, "responses lambdas"]
    coefficients: Float64[np.ndarray, "responses lambdas columns"]
    iterations: Int64[np.ndarray, "responses lambdas"]
    converged: Bool[np.ndarray, "responses lambdas"]


def standardise_columns(
    x: Float[np.ndarray, "samples columns"], weights: Float[np.ndarray, " samples"] | None = None
) -> StandardisedColumns:
    """Return columns centred and scaled by their (weighted) standard deviation with divisor n.

    Parameters
    ----------
    x
        Finite values.
    weights
        Of the samples, not negative; scaled here to sum to 1.

    Examples
    --------
    >>> found = standardise_columns(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> found.x.tolist(), found.scale.tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [1.0, 0.0])
    """
    share = _shares(weights, x.shape[0])
    columns = np.array(x, dtype=np.float64, order="F")
    largest = np.abs(columns).max(axis=0, initial=0.0)
    mean = share @ columns
    columns -= mean
    # The second centring takes out the rounding of the first.
    columns -= share @ columns
    scale = np.sqrt(np.einsum("i,ij,ij->j", share, columns, columns))
    constant = scale <= _SMALLEST_SHARE * largest
    scale[constant] = 0.0
    columns /= np.where(constant, 1.0, scale)
    columns[:, constant] = 0.0
    return StandardisedColumns(columns, mean, scale)


def lambda_path(
    xty: Float[np.ndarray, " columns"],
    mixing: float,
    *,
    n: int,
    n_columns: int | None = None,
    penalty_factor: Float[np.ndarray, " columns"] | None = None,
    n_lambdas: int = 100,
    ratio: float | None = None,
    gram: Float[np.ndarray, "columns columns"] | None = None,
) -> Float64[np.ndarray, " lambdas"]:
    """Return lambdas equally spaced in logarithm, from where the first penalised column enters.

    Parameters
    ----------
    xty
        ``x'wy`` of standardised columns (``x'y / n`` without weights).
    mixing
        a of the objective; the first lambda is computed with at least 0.001.
    n
        Samples.
    n_columns
        Columns that decide the ratio; those of `xty` by default.
    penalty_factor
        Not negative; scaled here to sum to the number of columns. Columns with 0 are always in the model, and the
        first lambda is that of the residual they leave.
    ratio
        Last over first lambda; by default 1e-4 when there are more samples than columns, else 1e-2.
    gram
        ``x'wx``; needed when a penalty factor is 0.

    Raises
    ------
    ValueError
        No column is penalised; a penalty factor is 0 and there is no `gram`; a number is out of range.

    Examples
    --------
    >>> lambda_path(np.array([0.5, -0.2]), 0.5, n=100, n_lambdas=3).tolist()
    [1.0, 0.01, 0.0001]
    """
    _check_mixing(mixing)
    factor = _factors(penalty_factor, xty.size)
    if not (factor > 0).any():
        raise ValueError("Expected a penalised column, found penalty factors of 0 only; such a fit has no path.")
    if n_lambdas < 1:
        raise ValueError(f"Expected one lambda or more, found n_lambdas = {n_lambdas}.")
    gradient = np.asarray(xty, dtype=np.float64)
    free = factor == 0
    if free.any():
        if gram is None:
            raise ValueError("A penalty factor is 0: give the Gram matrix, from which the unpenalised fit is taken.")
        fit = np.linalg.lstsq(gram[np.ix_(free, free)], gradient[free], rcond=None)[0]
        gradient = gradient - gram[:, free] @ fit
    entry = np.abs(gradient[~free]) / factor[~free]
    first = float(entry.max()) / max(mixing, _SMALLEST_MIXING)
    if ratio is None:
        ratio = 1e-4 if n > (xty.size if n_columns is None else n_columns) else 1e-2
    steps = np.arange(n_lambdas) / max(n_lambdas - 1, 1)
    return np.asarray(first * ratio**steps)


def elastic_net_path(
    gram: Float[np.ndarray, "columns columns"],
    xty: Float[np.ndarray, " columns"],
    lambdas: Float[np.ndarray, " lambdas"],
    *,
    mixing: float,
    penalty_factor: Float[np.ndarray, " columns"] | None = None,
    tolerance: float = 1e-10,
    start: Float[np.ndarray, " columns"] | None = None,
) -> ElasticNetPath:
    """Return the solutions of one y from inner products alone.

    Parameters
    ----------
    gram, xty
        ``x'wx`` and ``x'wy`` with weights that sum to 1. A column with ``gram[j, j] == 0`` stays out.
    lambdas
        From large to small, so that each solution starts from the one before.
    penalty_factor
        As `lambda_path`.
    tolerance
        Descent ends when no coefficient moves its column's part of the fit by more than this (root mean square, in
        units of y) in a pass.
    start
        Coefficients to begin with.

    Raises
    ------
    ValueError
        Shapes or numbers that do not fit.

    Examples
    --------
    >>> path = elastic_net_path(np.eye(2), np.array([0.5, -0.2]), np.array([0.5, 0.1]), mixing=1.0)
    >>> path.coefficients.round(6).tolist()
    [[0.0, 0.0], [0.4, -0.1]]
    """
    begin = None if start is None else np.asarray(start, dtype=np.float64)[np.newaxis]
    paths = elastic_net_paths(
        gram,
        xty[np.newaxis],
        lambdas[np.newaxis],
        mixing=mixing,
        penalty_factor=penalty_factor,
        tolerance=tolerance,
        start=begin,
    )
    return ElasticNetPath(paths.lambdas[0], paths.coefficients[0], paths.iterations[0], paths.converged[0])


def elastic_net_paths(
    gram: Float[np.ndarray, "columns columns"],
    xty: Float[np.ndarray, "responses columns"],
    lambdas: Float[np.ndarray, "responses lambdas"] | Float[np.ndarray, " lambdas"],
    *,
    mixing: float,
    penalty_factor: Float[np.ndarray, " columns"] | None = None,
    tolerance: float = 1e-10,
    start: Float[np.ndarray, "responses columns"] | None = None,
) -> ElasticNetPaths:
    """Return the solutions of many y over the same columns, each along a path of its own or all along one.

    Parameters and errors are as those of `elastic_net_path`.
    """
    _check_mixing(mixing)
    n_responses, n_columns = xty.shape
    if gram.shape != (n_columns, n_columns):
        raise ValueError(f"Expected a Gram matrix of {n_columns} x {n_columns} as x'y has, found {gram.shape}.")
    each = np.ascontiguousarray(np.broadcast_to(lambdas, (n_responses, lambdas.shape[-1])), dtype=np.float64)
    _check_lambdas(each)
    factor = _factors(penalty_factor, n_columns)
    begin = np.zeros((n_responses, n_columns)) if start is None else np.ascontiguousarray(start, dtype=np.float64)
    coefficients = np.zeros((n_responses, each.shape[1], n_columns))
    passes = np.zeros(each.shape, dtype=np.int64)
    square = np.ascontiguousarray(gram, dtype=np.float64)
    products = np.ascontiguousarray(xty, dtype=np.float64)
    none, no_weights = np.zeros((0, 0)), np.zeros(0)
    for k in range(n_responses):
        _path(
            square, none, no_weights, no_weights, products[k], np.diag(square).copy(), factor, each[k], mixing,
            tolerance, begin[k], coefficients[k], passes[k],
        )  # fmt: skip
    return ElasticNetPaths(each, coefficients, np.abs(passes), passes > 0)


def elastic_net_path_columns(
    x: Float[np.ndarray, "samples columns"],
    y: Float[np.ndarray, " samples"],
    lambdas: Float[np.ndarray, " lambdas"],
    *,
    weights: Float[np.ndarray, " samples"] | None = None,
    mixing: float,
    penalty_factor: Float[np.ndarray, " columns"] | None = None,
    tolerance: float = 1e-10,
    start: Float[np.ndarray, " columns"] | None = None,
) -> ElasticNetPath:
    """Return the solutions of one y, with inner products taken only of columns that enter.

    Parameters
    ----------
    x
        Of `standardise_columns` with the same weights; Fortran order saves a copy.
    y
        Its weighted mean is taken out here; the intercept is that mean.
    weights
        Not negative; scaled here to sum to 1.
    lambdas, mixing, penalty_factor, tolerance, start
        As `elastic_net_path`.

    Raises
    ------
    ValueError
        Shapes or numbers that do not fit.

    Examples
    --------
    >>> x = standardise_columns(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])).x
    >>> path = elastic_net_path_columns(x, np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1]), mixing=1.0)
    >>> path.coefficients.round(4).tolist()
    [[1.018, 0.0]]
    """
    _check_mixing(mixing)
    n_samples, n_columns = x.shape
    if y.size != n_samples:
        raise ValueError(f"Expected a y of {n_samples} samples as x has, found {y.size}.")
    along = np.ascontiguousarray(lambdas, dtype=np.float64)
    _check_lambdas(along)
    factor = _factors(penalty_factor, n_columns)
    share = _shares(weights, n_samples)
    rows = np.ascontiguousarray(x.T, dtype=np.float64)
    centred = np.asarray(y, dtype=np.float64) - share @ y
    diagonal = (rows * rows) @ share
    begin = np.zeros(n_columns) if start is None else np.ascontiguousarray(start, dtype=np.float64)
    coefficients = np.zeros((along.size, n_columns))
    passes = np.zeros(along.size, dtype=np.int64)
    _path(
        np.zeros((0, 0)), rows, share, centred, rows @ (share * centred), diagonal, factor, along, mixing, tolerance,
        begin, coefficients, passes,
    )  # fmt: skip
    return ElasticNetPath(along, coefficients, np.abs(passes), passes > 0)


def _check_mixing(mixing: float) -> None:
    if not 0 <= mixing <= 1:
        raise ValueError(f"Expected a mixing from 0 (ridge) to 1 (lasso), found {mixing}.")


def _check_lambdas(lambdas: Float64[np.ndarray, "*shape"]) -> None:
    if lambdas.size and not (np.isfinite(lambdas).all() and (lambdas >= 0).all()):
        raise ValueError("Expected lambdas of 0 or more, found one that is negative or not finite.")


def _shares(weights: Float[np.ndarray, " samples"] | None, n: int) -> Float64[np.ndarray, " samples"]:
    if weights is None:
        return np.full(n, 1.0 / n)
    share = np.asarray(weights, dtype=np.float64)
    if share.size != n or not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
        raise ValueError(f"Expected {n} weights of 0 or more, not all 0; found {share.size}, or one that is not.")
    return np.asarray(share / share.sum())


def _factors(penalty_factor: Float[np.ndarray, " columns"] | None, n_columns: int) -> Float64[np.ndarray, " columns"]:
    if penalty_factor is None:
        return np.ones(n_columns)
    factor = np.asarray(penalty_factor, dtype=np.float64)
    if factor.size != n_columns or not np.isfinite(factor).all() or (factor < 0).any():
        raise ValueError(f"Expected {n_columns} penalty factors of 0 or more, found {factor.tolist()[:10]}.")
    total = factor.sum()
    return np.asarray(factor * (n_columns / total)) if total > 0 else factor.copy()


@njit(cache=True, nogil=True)
@no_type_check
def _step(gram, gradient, beta, lasso, ridge, n, j):  # noqa: ANN001, ANN202
    """Minimise over one coefficient; return how far its column's part of the fit moved."""
    diagonal = gram[j, j]
    old = beta[j]
    pull = gradient[j] + diagonal * old
    excess = abs(pull) - lasso[j]
    new = 0.0
    if excess > 0.0:
        new = (excess if pull > 0.0 else -excess) / (diagonal + ridge[j])
    change = new - old
    if change == 0.0:
        return 0.0
    beta[j] = new
    row = gram[j]
    for k in range(n):
        gradient[k] -= row[k] * change
    return abs(change) * np.sqrt(diagonal)


@njit(cache=True, nogil=True)
@no_type_check
def _descend(gram, gradient, beta, lasso, ridge, n, tolerance, limit):  # noqa: ANN001, ANN202
    """Descend over a working set until a pass over all of it changes nothing; return the passes made.

    Between such passes only coefficients that are not 0 are visited.
    """
    passes = 0
    while passes < limit:
        largest = 0.0
        for j in range(n):
            largest = max(largest, _step(gram, gradient, beta, lasso, ridge, n, j))
        passes += 1
        if largest <= tolerance:
            return passes
        while passes < limit:
            largest = 0.0
            for j in range(n):
                if beta[j] != 0.0:
                    largest = max(largest, _step(gram, gradient, beta, lasso, ridge, n, j))
            passes += 1
            if largest <= tolerance:
                break
    return passes


@njit(cache=True, nogil=True)
@no_type_check
def _cholesky_solve(matrix, right):  # noqa: ANN001, ANN202
    """Solve in place of `right`, or return False where the matrix is singular but for rounding."""
    n = right.size
    try:
        lower = np.linalg.cholesky(matrix)
    except Exception:  # noqa: BLE001, the compiler knows no narrower one
        return False
    for i in range(n):
        if lower[i, i] ** 2 <= _SMALLEST_PIVOT * matrix[i, i]:
            return False
    for i in range(n):
        right[i] = (right[i] - np.dot(lower[i, :i], right[:i])) / lower[i, i]
    for i in range(n - 1, -1, -1):
        right[i] /= lower[i, i]
        for j in range(i):
            right[j] -= lower[i, j] * right[i]
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _solve_support(gram, gradient, beta, lasso, ridge, n):  # noqa: ANN001, ANN202
    """Minimise over the coefficients that are not 0 with their signs as they are, or go as far as the first 0.

    On a region of equal signs the objective is a quadratic, so every such move lowers it.
    """
    support = np.empty(n, dtype=np.int64)
    size = 0
    for j in range(n):
        if beta[j] != 0.0 or (lasso[j] == 0.0 and ridge[j] == 0.0):
            support[size] = j
            size += 1
    matrix, move = np.empty((size, size)), np.empty(size)
    for i in range(size):
        j = support[i]
        for k in range(size):
            matrix[i, k] = gram[j, support[k]]
        matrix[i, i] += ridge[j]
        move[i] = gradient[j] - ridge[j] * beta[j] - (lasso[j] if beta[j] > 0.0 else -lasso[j])
    if not _cholesky_solve(matrix, move):
        return
    share = 1.0
    first = -1
    for i in range(size):
        j = support[i]
        if lasso[j] > 0.0 and (beta[j] + move[i]) * beta[j] < 0.0 and -beta[j] / move[i] < share:
            share = -beta[j] / move[i]
            first = j
    for i in range(size):
        j = support[i]
        change = share * move[i]
        if j == first:
            change = -beta[j]
        beta[j] += change
        for k in range(n):
            gradient[k] -= gram[j, k] * change
    if first >= 0:
        beta[first] = 0.0


@njit(cache=True, nogil=True)
@no_type_check
def _minimise(gram, gradient, beta, lasso, ridge, n, tolerance, limit):  # noqa: ANN001, ANN202
    """Minimise over a working set; return the passes made.

    Rough descent finds which coefficients are 0 and the signs of the others; what then remains is linear and is
    solved, where descent would crawl along columns in linkage disequilibrium. A last pass confirms it.
    """
    passes = 0
    rough = _ROUGH
    while rough > tolerance and passes < limit:
        passes += _descend(gram, gradient, beta, lasso, ridge, n, rough, limit - passes)
        _solve_support(gram, gradient, beta, lasso, ridge, n)
        largest = 0.0
        for j in range(n):
            largest = max(largest, _step(gram, gradient, beta, lasso, ridge, n, j))
        passes += 1
        if largest <= tolerance:
            return passes
        rough /= 10.0
    return passes + _descend(gram, gradient, beta, lasso, ridge, n, tolerance, limit - passes)


@njit(cache=True, nogil=True)
@no_type_check
def _gradients(gram, rows, share, y, xty, index, beta, n, out):  # noqa: ANN001, ANN202
    """Fill ``x'w(y - xb)`` of all columns; the working set's coefficients are `beta`."""
    if gram.shape[0]:
        out[:] = xty
        for i in range(n):
            if beta[i] != 0.0:
                row = gram[index[i]]
                for k in range(out.size):
                    out[k] -= row[k] * beta[i]
    else:
        residual = y.copy()
        for i in range(n):
            if beta[i] != 0.0:
                row = rows[index[i]]
                for k in range(residual.size):
                    residual[k] -= row[k] * beta[i]
        out[:] = np.dot(rows, residual * share)


@njit(cache=True, nogil=True)
@no_type_check
def _grown(square, n, wanted):  # noqa: ANN001, ANN202
    """Return a square matrix with room for more, its first n rows and columns kept."""
    if wanted <= square.shape[0]:
        return square
    larger = np.zeros((max(wanted, 2 * square.shape[0]), max(wanted, 2 * square.shape[0])))
    larger[:n, :n] = square[:n, :n]
    return larger


@njit(cache=True, nogil=True)
@no_type_check
def _inner_products(gram, rows, share, index, n, j, out):  # noqa: ANN001, ANN202
    """Fill the products of column j with the first n of the working set, and with itself."""
    if gram.shape[0]:
        for i in range(n):
            out[i] = gram[j, index[i]]
        out[n] = gram[j, j]
        return
    weighted = rows[j] * share
    for i in range(n):
        out[i] = np.dot(rows[index[i]], weighted)
    out[n] = np.dot(rows[j], weighted)


@njit(cache=True, nogil=True)
@no_type_check
def _path(gram, rows, share, y, xty, diagonal, factor, lambdas, mixing, tolerance, start, coefficients, passes):  # noqa: ANN001, ANN202
    """Fill the coefficients along a path, and the passes at each lambda, negative where it did not converge.

    Columns are given by `gram`, or by their values in `rows` when `gram` is empty.
    """
    n_columns = xty.size
    index = np.empty(n_columns, dtype=np.int64)
    inside = np.zeros(n_columns, dtype=np.bool_)
    beta, gradient = np.zeros(n_columns), np.zeros(n_columns)
    lasso, ridge = np.zeros(n_columns), np.zeros(n_columns)
    everywhere, products = np.zeros(n_columns), np.empty(n_columns + 1)
    local = np.zeros((64, 64))
    n = 0
    entering = np.zeros(n_columns, dtype=np.bool_)
    for j in range(n_columns):
        entering[j] = diagonal[j] > 0.0 and (factor[j] == 0.0 or start[j] != 0.0)
    first = True
    for step in range(lambdas.size):
        penalty = lambdas[step]
        made = 0
        converged = False
        if not first:
            bound = 2.0 * penalty - lambdas[step - 1]
            for j in range(n_columns):
                entering[j] = not inside[j] and diagonal[j] > 0.0 and abs(everywhere[j]) >= mixing * factor[j] * bound
        while made < _MAX_PASSES:
            for j in range(n_columns):
                if entering[j]:
                    local = _grown(local, n, n + 1)
                    _inner_products(gram, rows, share, index, n, j, products)
                    local[n, : n + 1] = products[: n + 1]
                    local[: n + 1, n] = products[: n + 1]
                    index[n] = j
                    inside[j] = True
                    beta[n] = start[j] if first else 0.0
                    n += 1
            if first:
                _gradients(gram, rows, share, y, xty, index, beta, n, everywhere)
                first = False
            for i in range(n):
                gradient[i] = everywhere[index[i]]
                lasso[i] = penalty * mixing * factor[index[i]]
                ridge[i] = penalty * (1.0 - mixing) * factor[index[i]]
            made += _minimise(local, gradient, beta, lasso, ridge, n, tolerance, _MAX_PASSES - made)
            _gradients(gram, rows, share, y, xty, index, beta, n, everywhere)
            violated = False
            for j in range(n_columns):
                entering[j] = (
                    not inside[j]
                    and diagonal[j] > 0.0
                    and abs(everywhere[j]) > penalty * mixing * factor[j] + tolerance
                )
                violated = violated or entering[j]
            if not violated:
                converged = made < _MAX_PASSES
                break
        for i in range(n):
            coefficients[step, index[i]] = beta[i]
        passes[step] = made if converged else -made
