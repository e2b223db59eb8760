"""Further confound columns: which of many candidates explain traits beyond the confounds that are kept already.

A candidate is judged by its partial r2 with every trait, both freed of the kept confounds on the trait's own people. It
is kept where its largest r2 is at least `min_variance`, or where its mean r2 is above the 95th percentile of the
candidates' means.

References
----------
Alfaro-Almagro et al. (2021), NeuroImage 224:117002.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from brainlocus.numerics import masked_residuals, pattern_systems, rank_normal

__all__ = ["Screened", "nonlinear_columns", "pair_columns", "partial_r2", "screen_candidates"]

MEAN_PERCENTILE = 95.0
"""Candidates whose mean r2 is above this percentile of all are kept whatever their largest."""
GONE = 1e-9
"""Share of a candidate's sum of squares that must be left when the kept confounds are out."""


@dataclass(frozen=True, slots=True, eq=False)
class Screened:
    """What candidates explain, and which stay."""

    keep: Bool[np.ndarray, " candidates"]
    largest: Float64[np.ndarray, " candidates"]
    """Largest partial r2 with a trait; NaN where the candidate is a combination of kept confounds."""
    mean: Float64[np.ndarray, " candidates"]


def nonlinear_columns(
    columns: Float64[np.ndarray, "samples columns"],
    column_site: Int[np.ndarray, " columns"],
    site: Int[np.ndarray, " samples"],
) -> tuple[Float64[np.ndarray, "samples columns"], ...]:
    """Return squares, normal scores and squares of normal scores, each within the column's site and 0 elsewhere."""
    inside = site[:, None] == column_site[None, :]
    scores = np.zeros(columns.shape)
    for k in range(columns.shape[1]):
        rows = inside[:, k]
        scores[rows, k] = rank_normal(columns[rows, k])
    return columns**2, scores, scores**2


def pair_columns(
    columns: Float64[np.ndarray, "samples columns"],
    column_site: Int[np.ndarray, " columns"],
    variable: Int[np.ndarray, " columns"],
) -> tuple[Float64[np.ndarray, "samples pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Return products of columns of one site and two variables, and which columns they are of."""
    first, second = np.triu_indices(columns.shape[1], 1)
    wanted = (column_site[first] == column_site[second]) & (variable[first] != variable[second])
    first, second = first[wanted], second[wanted]
    return columns[:, first] * columns[:, second], first.astype(np.int64), second.astype(np.int64)


def partial_r2(
    basis: Float64[np.ndarray, "samples rank"],
    candidates: Float64[np.ndarray, "samples candidates"],
    traits: Float64[np.ndarray, "samples traits"],
) -> Float64[np.ndarray, "candidates traits"]:
    """Return the squared correlation of every candidate with every trait, freed of the basis on the trait's people.

    With c freed of Q over everyone, and M the trait's people, ``c'M e`` (e the trait's residuals) needs no more, and
    the candidate's sum of squares there is ``c'M c - (Q_m'c_m)' (Q'MQ)^-1 (Q_m'c_m)``, m the missing people: three
    matrix products and one small system a set of people. NaN where nothing of the candidate or the trait is left.
    """
    residuals, poor = masked_residuals(basis, traits)
    left = np.where(np.isnan(residuals), 0.0, residuals)
    present = ~np.isnan(traits)
    freed = masked_residuals(basis, candidates)[0]
    products = freed.T @ left
    squares = (freed**2).T @ present.astype(np.float64)
    for system in pattern_systems(basis, present):
        if system.factor is not None and system.missing.size:
            crossed = basis[system.missing].T @ freed[system.missing]
            squares[:, system.members] -= np.einsum("ij,ij->j", crossed, system.solve(crossed))[:, None]
    total = (candidates**2).T @ present.astype(np.float64)
    trait_left = (left**2).sum(axis=0)
    trait_total = (np.where(present, traits - _mean(traits, present), 0.0) ** 2).sum(axis=0)
    alive = (squares > GONE * total) & (trait_left > GONE * trait_total)[None, :] & ~poor[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(alive, products**2 / (squares * trait_left), np.nan)


def screen_candidates(r2: Float64[np.ndarray, "candidates traits"], *, min_variance: float) -> Screened:
    """Return which candidates are kept.

    Examples
    --------
    >>> screen_candidates(np.array([[0.02, 0.0], [0.001, 0.001]]), min_variance=0.0075).keep.tolist()
    [True, False]
    """
    known = ~np.isnan(r2)
    some = known.any(axis=1)
    largest, mean = np.full(r2.shape[0], np.nan), np.full(r2.shape[0], np.nan)
    largest[some] = np.nanmax(r2[some], axis=1)
    mean[some] = np.nanmean(r2[some], axis=1)
    keep = np.zeros(r2.shape[0], dtype=bool)
    if some.any():
        cut = np.percentile(mean[some], MEAN_PERCENTILE)
        keep[some] = (largest[some] >= min_variance) | (mean[some] > cut)
    return Screened(keep, largest, mean)


def _mean(
    values: Float64[np.ndarray, "samples columns"], present: Bool[np.ndarray, "samples columns"]
) -> Float64[np.ndarray, " columns"]:
    return np.asarray(np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1))
