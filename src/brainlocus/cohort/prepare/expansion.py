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

from brainlocus.numerics import masked_residuals, pattern_systems, project_out, rank_normal

__all__ = [
    "FreedTraits",
    "Screened",
    "free_traits",
    "nonlinear_columns",
    "pairs_of_columns",
    "partial_r2",
    "partial_r2_with",
    "screen_candidates",
]

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


@dataclass(frozen=True, slots=True, eq=False)
class FreedTraits:
    """Traits freed of the kept confounds."""

    basis: Float64[np.ndarray, "samples rank"]
    residuals: Float64[np.ndarray, "samples traits"]
    """0 where the trait is missing."""
    left: Float64[np.ndarray, " traits"]
    """Sum of squares of the residuals."""
    alive: Bool[np.ndarray, " traits"]
    """Whether anything is left."""
    present: Bool[np.ndarray, "samples traits"]


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


def pairs_of_columns(
    column_site: Int[np.ndarray, " columns"], variable: Int[np.ndarray, " columns"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Return the pairs of columns of one site and two variables.

    Examples
    --------
    >>> [part.tolist() for part in pairs_of_columns(np.array([0, 0, 1]), np.array([0, 1, 1]))]
    [[0], [1]]
    """
    first, second = np.triu_indices(column_site.size, 1)
    wanted = (column_site[first] == column_site[second]) & (variable[first] != variable[second])
    return first[wanted].astype(np.int64), second[wanted].astype(np.int64)


def partial_r2(
    basis: Float64[np.ndarray, "samples rank"],
    candidates: Float64[np.ndarray, "samples candidates"],
    traits: Float64[np.ndarray, "samples traits"],
) -> Float64[np.ndarray, "candidates traits"]:
    """Return the squared correlation of every candidate with every trait, freed of the basis on the trait's people.

    NaN where nothing of the candidate or the trait is left.
    """
    return partial_r2_with(free_traits(basis, traits), candidates)


def free_traits(
    basis: Float64[np.ndarray, "samples rank"], traits: Float64[np.ndarray, "samples traits"]
) -> FreedTraits:
    """Return what all blocks of candidates share."""
    residuals, poor = masked_residuals(basis, traits)
    present = ~np.isnan(traits)
    mean = np.where(present, traits, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    total = (np.where(present, traits - mean, 0.0) ** 2).sum(axis=0)
    residuals[np.isnan(residuals)] = 0.0
    left = (residuals**2).sum(axis=0)
    return FreedTraits(basis, residuals, left, (left > GONE * total) & ~poor, present)


def partial_r2_with(
    traits: FreedTraits, candidates: Float64[np.ndarray, "samples candidates"]
) -> Float64[np.ndarray, "candidates traits"]:
    """Return the partial r2 of one block of candidates.

    With c freed of Q over everyone, and M the trait's people, ``c'M e`` (e the trait's residuals) needs no more, and
    the candidate's sum of squares there is ``c'M c - (Q_m'c_m)' (Q'MQ)^-1 (Q_m'c_m)``, m the missing people: three
    matrix products and one small system a set of people.
    """
    basis = traits.basis
    freed = project_out(basis, candidates)
    mask = traits.present.astype(np.float64)
    total = (candidates**2).T @ mask
    squares = (freed**2).T @ mask
    for system in pattern_systems(basis, traits.present):
        if system.factor is not None and system.missing.size:
            crossed = basis[system.missing].T @ freed[system.missing]
            squares[:, system.members] -= np.einsum("ij,ij->j", crossed, system.solve(crossed))[:, None]
    alive = (squares > GONE * total) & traits.alive[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(alive, (freed.T @ traits.residuals) ** 2 / (squares * traits.left), np.nan)


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
