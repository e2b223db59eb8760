"""How much of every trait the confounds explain: together, and each group of them alone and beyond the others.

With z = Q'y in the basis Q of all confounds (its first column the intercept), every model that has some of them is a
subspace of the basis, so nothing but z and small matrices is needed::

    marginal   sum of squares of the projection of z on [intercept, group], less that of the intercept
    unique     what the model of all loses without the group: b'(N (N'A^-1 N)^-1 N')b,  b = A^-1 z

with A = Q'MQ on the people M who have the trait, and N spanning what only the group adds to the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from brainlocus.numerics import PatternSystem, covariate_basis, pattern_systems

__all__ = ["Explained", "explained_by_group"]

RANK_TOLERANCE = 1e-9
"""Singular values below this share of the largest add nothing to a group."""


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """Shares of the variance of every trait; NaN where a trait has none."""

    groups: tuple[str, ...]
    total: Float64[np.ndarray, " traits"]
    marginal: Float64[np.ndarray, "groups traits"]
    """By the group alone."""
    unique: Float64[np.ndarray, "groups traits"]
    """By all that falls when the group is left out."""


def explained_by_group(
    basis: Float64[np.ndarray, "samples rank"],
    columns: Float64[np.ndarray, "samples columns"],
    group: Sequence[str],
    traits: Float[np.ndarray, "samples traits"],
) -> Explained:
    """Return the variance explained by each group of confound columns.

    Parameters
    ----------
    basis
        Orthonormal basis of intercept (first) and columns.
    columns
        Complete; in the span of `basis`.
    group
        Group of every column.
    traits
        NaN is missing: shares are of the variance over the trait's own people.
    """
    groups = tuple(dict.fromkeys(group))
    present = ~np.isnan(traits)
    filled = np.where(present, traits, 0.0)
    mean = filled.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    total_ss = (np.where(present, traits - mean, 0.0) ** 2).sum(axis=0)
    # The intercept goes out first, lest a large mean cancel.
    z = basis.T @ np.where(present, traits - mean, 0.0)
    spaces = [_Space.of(basis, columns, np.array([g == name for g in group])) for name in groups]
    n_traits = traits.shape[1]
    total, marginal, unique = np.full(n_traits, np.nan), np.full((len(groups), n_traits), np.nan), None
    unique = np.full((len(groups), n_traits), np.nan)
    for system in pattern_systems(basis, present):
        own = system.members
        if traits.shape[0] - system.missing.size <= 1:
            continue
        if system.factor is None:
            rows = np.flatnonzero(present[:, own[0]])
            found = _refitted(columns[rows], group, traits[np.ix_(rows, own)])
            total[own], marginal[:, own], unique[:, own] = found.total, found.marginal, found.unique
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            b = system.solve(z[:, own])
            total[own] = (z[:, own] * b).sum(axis=0) / total_ss[own]
            gram = _gram(system)
            for k, space in enumerate(spaces):
                marginal[k, own] = _marginal(space, gram, z[:, own]) / total_ss[own]
                unique[k, own] = _unique(space, system, b) / total_ss[own]
    return Explained(groups, total, marginal, unique)


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """Subspaces of the basis that belong to one group."""

    alone: Float64[np.ndarray, "rank alone"]
    """Orthonormal, intercept and group."""
    added: Float64[np.ndarray, "rank added"]
    """Orthonormal, orthogonal to intercept and all other groups."""

    @classmethod
    def of(
        cls,
        basis: Float64[np.ndarray, "samples rank"],
        columns: Float64[np.ndarray, "samples columns"],
        mine: Bool[np.ndarray, " columns"],
    ) -> "_Space":
        inside = basis.T @ columns
        intercept = np.eye(basis.shape[1])[:, :1]
        others = _orthonormal(np.hstack([intercept, inside[:, ~mine]]))
        alone = _orthonormal(np.hstack([intercept, inside[:, mine]]))
        full = np.linalg.svd(others, full_matrices=True)[0]
        return cls(alone, full[:, others.shape[1] :])


def _orthonormal(columns: Float64[np.ndarray, "rank columns"]) -> Float64[np.ndarray, "rank kept"]:
    norms = np.sqrt((columns**2).sum(axis=0))
    scaled = columns / np.where(norms > 0, norms, 1.0)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(u[:, s > RANK_TOLERANCE * s[0]])


def _gram(system: PatternSystem) -> Float64[np.ndarray, "rank rank"] | None:
    if not system.missing.size or system.factor is None:
        return None
    return np.asarray(system.factor @ system.factor.T)


def _marginal(
    space: _Space, gram: Float64[np.ndarray, "rank rank"] | None, z: Float64[np.ndarray, "rank members"]
) -> Float64[np.ndarray, " members"]:
    """Return the sum of squares by [intercept, group]; the intercept's own is 0, as the trait is centred."""
    inside = space.alone.T @ z
    if gram is None:
        return np.asarray((inside**2).sum(axis=0))
    return np.asarray((inside * np.linalg.solve(space.alone.T @ gram @ space.alone, inside)).sum(axis=0))


def _unique(
    space: _Space, system: PatternSystem, b: Float64[np.ndarray, "rank members"]
) -> Float64[np.ndarray, " members"]:
    if not space.added.shape[1]:
        return np.zeros(b.shape[1])
    beyond = space.added.T @ b
    if not system.missing.size:
        return np.asarray((beyond**2).sum(axis=0))
    return np.asarray((beyond * np.linalg.solve(space.added.T @ system.solve(space.added), beyond)).sum(axis=0))


def _refitted(
    columns: Float64[np.ndarray, "people columns"], group: Sequence[str], traits: Float[np.ndarray, "people members"]
) -> Explained:
    """Return the shares on people who leave the columns nearly collinear, from a basis of their own."""
    own = covariate_basis(columns)
    return explained_by_group(own.q, columns, group, traits)
