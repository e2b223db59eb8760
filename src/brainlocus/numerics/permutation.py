"""Permutation of people in a linear model: Freedman-Lane, exchangeability blocks, tails of the largest statistic.

People change places (errors exchangeable), or the signs of their residuals are flipped (errors independent and
symmetric about 0), or both.

With Q an orthonormal basis of the intercept and the covariates, x a regressor freed of them (norm 1), e the residual of
an outcome freed of them (norm 1) and P a permutation, Freedman & Lane's permuted outcome P e + fit gives, its fit
dropping out, the partial correlation::

    r* = x'P e / sqrt(1 - |Q'P e|^2) = (P'x)'e / sqrt(1 - |(P'Q)'e|^2)

so one matrix product of the rows P'x and P'Q of many permutations with all outcomes does. P may flip signs, too. The
intercept needs no row where nothing is flipped: the residuals of every outcome sum to 0 in any order.

References
----------
Freedman & Lane (1983), J. Bus. Econ. Stat. 1:292; Winkler et al. (2014), NeuroImage 92:381 (Freedman-Lane in images);
Winkler et al. (2015), NeuroImage 123:253 (exchangeability blocks); Winkler et al. (2016), NeuroImage 141:502 (tails);
Hosking & Wallis (1987), Technometrics 29:339 (moments of the generalised Pareto distribution).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped

__all__ = [
    "BlockMode",
    "family_wise_p",
    "flip_people",
    "freedman_lane_r",
    "permutation_rows",
    "permute_people",
    "tail_p",
]

BlockMode = Literal["within", "whole"]

_FEW = 10
"""Exceedances below which the tail is fitted: p below 10 / B."""
_SMALLEST_TAIL = 30
"""Values a tail is fitted to at least."""
_GOODNESS = 0.05
_GOODNESS_DRAWS = 200


def permute_people(
    rng: np.random.Generator,
    n: int,
    count: int,
    *,
    blocks: Shaped[np.ndarray, " people"] | None = None,
    mode: BlockMode = "within",
) -> Int[np.ndarray, "permutations people"]:
    """Return random orders of people that respect exchangeability blocks.

    Parameters
    ----------
    blocks
        Label of each person's block, such as the site or the family; None: all are exchangeable.
    mode
        ``within``: people change places inside their block. ``whole``: blocks of the same size change places as wholes,
        people keeping their order (by row) inside.

    Raises
    ------
    ValueError
        There is nothing to permute: every block is of one person (``within``), or no two have one size (``whole``).

    Examples
    --------
    >>> order = permute_people(np.random.default_rng(0), 4, 2, blocks=np.array(["a", "a", "b", "b"]), mode="whole")
    >>> {tuple(row) for row in order.tolist()} <= {(0, 1, 2, 3), (2, 3, 0, 1)}
    True
    """
    order = np.tile(np.arange(n), (count, 1))
    if blocks is None:
        return np.asarray(rng.permuted(order, axis=1))
    _, codes = np.unique(blocks, return_inverse=True)
    members = [np.flatnonzero(codes == k) for k in range(int(codes.max()) + 1)]
    if mode == "within":
        several = [rows for rows in members if rows.size > 1]
        if not several:
            raise ValueError("Every block is of one person: there is nothing to permute within blocks.")
        for rows in several:
            order[:, rows] = rng.permuted(order[:, rows], axis=1)
        return order
    sizes = sorted({rows.size for rows in members})
    alike = [[rows for rows in members if rows.size == size] for size in sizes]
    if all(len(some) == 1 for some in alike):
        raise ValueError("No two blocks have the same size: there is nothing to permute in whole blocks.")
    for some in alike:
        stacked = np.stack(some)
        shuffled = rng.permuted(np.tile(np.arange(len(some)), (count, 1)), axis=1)
        order[:, stacked.ravel()] = stacked[shuffled].reshape(count, -1)
    return order


def flip_people(
    rng: np.random.Generator,
    n: int,
    count: int,
    *,
    blocks: Shaped[np.ndarray, " people"] | None = None,
    mode: BlockMode = "within",
) -> Float32[np.ndarray, "permutations people"]:
    """Return random signs of people.

    Parameters
    ----------
    blocks
        Label of each person's block.
    mode
        ``within``: the sign of every person is independent. ``whole``: people of a block have the same sign.

    Raises
    ------
    ValueError
        There are fewer than two signs to draw: one person, or one whole block.

    Examples
    --------
    >>> signs = flip_people(np.random.default_rng(0), 4, 8, blocks=np.array(["a", "a", "b", "b"]), mode="whole")
    >>> bool((signs[:, 0] == signs[:, 1]).all()), sorted(set(signs[:, 2].tolist()))
    (True, [-1.0, 1.0])
    """
    codes = np.arange(n) if blocks is None or mode == "within" else np.unique(blocks, return_inverse=True)[1]
    independent = int(codes.max(initial=-1)) + 1
    if independent < 2:
        raise ValueError("All people are in one block: there are no signs to flip in whole blocks.")
    drawn = rng.integers(0, 2, size=(count, independent)).astype(np.float32)
    return np.asarray((2.0 * drawn - 1.0)[:, codes], dtype=np.float32)


def permutation_rows(
    basis: Float64[np.ndarray, "people rank"],
    residuals: Float64[np.ndarray, "people targets"],
    order: Int[np.ndarray, "permutations people"],
    signs: Float32[np.ndarray, "permutations people"] | None = None,
) -> Float32[np.ndarray, "rows people"]:
    """Return the rows of `freedman_lane_r`: of each permutation the targets, then the covariates.

    Parameters
    ----------
    basis
        Orthonormal; without signs the first column is the intercept, which is left out.
    residuals
        Regressors freed of the basis, of norm 1.
    signs
        From `flip_people`; people that change places take their sign along.
    """
    others = basis[:, 1:] if signs is None else basis
    columns = np.concatenate([residuals, others], axis=1).astype(np.float32)
    moved = columns[order] if signs is None else columns[order] * signs[:, :, None]
    return np.ascontiguousarray(moved.transpose(0, 2, 1)).reshape(-1, columns.shape[0])


def freedman_lane_r(
    rows: Float32[np.ndarray, "rows people"],
    outcomes: Float32[np.ndarray, "people outcomes"],
    *,
    n_targets: int,
    n_others: int,
) -> Float32[np.ndarray, "permutations targets outcomes"]:
    """Return the partial correlation of every target and outcome under every permutation.

    Parameters
    ----------
    rows
        From `permutation_rows`.
    outcomes
        Residuals of the unpermuted outcomes, of norm 1.
    n_others
        Rows of a permutation besides the targets'.
    """
    each = n_targets + n_others
    found = (rows @ outcomes).reshape(-1, each, outcomes.shape[1])
    r = found[:, :n_targets]
    if n_others:
        others = found[:, n_targets:]
        left = np.float32(1.0) - np.einsum("bkv,bkv->bv", others, others)
        np.maximum(left, np.finfo(np.float32).tiny, out=left)
        np.sqrt(left, out=left)
        r = r / left[:, None, :]
    return np.asarray(r)


def family_wise_p(
    observed: Float[np.ndarray, " tests"],
    largest: Float64[np.ndarray, " permutations"],
    *,
    rng: np.random.Generator | None = None,
) -> Float64[np.ndarray, " tests"]:
    """Return family-wise p from the largest statistic of every permutation; NaN stays NaN.

    Parameters
    ----------
    observed
        Statistics, such as |t|.
    rng
        For the goodness of fit of the tail, from which p below 10 / B is taken (`tail_p`); None: p is
        (1 + permutations that reach the statistic) / (1 + B) throughout.
    """
    ordered = np.sort(largest)
    reached = ordered.size - np.searchsorted(ordered, observed, side="left")
    p = np.where(np.isnan(observed), np.nan, (1.0 + reached) / (1.0 + ordered.size))
    if rng is None or largest.size < 4 * _SMALLEST_TAIL:
        return np.asarray(p)
    rare = np.isfinite(observed) & (reached < _FEW)
    if rare.any():
        fitted = tail_p(np.asarray(observed)[rare].astype(np.float64), ordered, rng)
        p[rare] = np.where(np.isnan(fitted), p[rare], fitted)
    return np.asarray(p)


def tail_p(
    observed: Float64[np.ndarray, " tests"], null: Float64[np.ndarray, " permutations"], rng: np.random.Generator
) -> Float64[np.ndarray, " tests"]:
    """Return the upper-tail p of statistics from a generalised Pareto distribution fitted to the largest null values.

    The threshold is the lowest of the quantiles 0.75, 0.76 ... beyond which the fit is not rejected (Anderson-Darling,
    by drawing from the fit). Shape and scale are those of the moments. Where the moments ask for a tail that ends, an
    exponential one is fitted: its p is too large rather than too small, and never 0. NaN: no threshold fits, or the
    statistic is below it.
    """
    ordered = np.sort(null)
    for share in np.arange(0.75, 1.0, 0.01):
        threshold = float(np.quantile(ordered, share))
        beyond = ordered[ordered > threshold] - threshold
        if beyond.size < _SMALLEST_TAIL:
            break
        shape, scale = _pareto(beyond)
        draws = np.sort(_pareto_draws(rng, shape, scale, (_GOODNESS_DRAWS, beyond.size)), axis=1)
        against = np.array([_anderson_darling(row, *_pareto(row)) for row in draws])
        found = _anderson_darling(beyond, shape, scale)
        if (1.0 + (against >= found).sum()) / (1.0 + _GOODNESS_DRAWS) > _GOODNESS:
            tail = beyond.size / ordered.size
            return np.where(observed > threshold, tail * _survival(observed - threshold, shape, scale), np.nan)
    return np.full(observed.shape, np.nan)


def _pareto(beyond: Float64[np.ndarray, " values"]) -> tuple[float, float]:
    """Return shape (0 or above) and scale by the method of moments (Hosking & Wallis 1987, section 3)."""
    mean, variance = float(beyond.mean()), float(beyond.var(ddof=1))
    shape = 0.5 * (1.0 - mean * mean / variance)
    return (shape, mean * (1.0 - shape)) if shape > 0 else (0.0, mean)


def _survival(beyond: Float64[np.ndarray, " values"], shape: float, scale: float) -> Float64[np.ndarray, " values"]:
    """Return (1 + shape x / scale)^(-1 / shape), which is exp(-x / scale) for a shape of 0."""
    reached = np.maximum(beyond, 0.0) / scale
    return np.asarray(np.exp(-reached) if shape == 0.0 else np.exp(-np.log1p(shape * reached) / shape))


def _pareto_draws(
    rng: np.random.Generator, shape: float, scale: float, size: tuple[int, int]
) -> Float64[np.ndarray, "draws values"]:
    exponential = rng.standard_exponential(size)
    return exponential * scale if shape == 0.0 else scale * np.expm1(shape * exponential) / shape


def _anderson_darling(ordered: Float64[np.ndarray, " values"], shape: float, scale: float) -> float:
    n = ordered.size
    above = np.clip(_survival(ordered, shape, scale), 1e-300, 1.0 - 1e-16)
    weights = 2.0 * np.arange(1, n + 1) - 1.0
    return -n - float((weights * (np.log1p(-above) + np.log(above[::-1]))).mean())
