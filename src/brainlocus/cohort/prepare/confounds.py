"""Confounds regressed out of traits, each on the people who have it.

Method: residuals of least squares on the intercept and the confounds. One orthonormal basis of everyone serves all
traits; a trait that lacks people solves its own normal equations on it (`brainlocus.numerics.masked_residuals`), and
traits whose people leave the confounds nearly collinear get a factorisation of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from brainlocus.numerics import Basis, covariate_basis, masked_residuals, project_out, same_people

__all__ = ["Deconfounded", "deconfound"]


@dataclass(frozen=True, slots=True, eq=False)
class Deconfounded:
    """Residuals and what the confounds explained."""

    values: Float64[np.ndarray, "samples traits"]
    """NaN where the trait or a confound is missing, or where too few people remain."""
    explained: Float64[np.ndarray, " traits"]
    """Share of variance the confounds explained; NaN where there are no residuals."""
    rank: Int[np.ndarray, " traits"]
    """Columns of the confound matrix on the trait's people, intercept included."""
    dropped: tuple[str, ...]
    """Confounds that were constant or combinations of others on the whole table."""
    n_without_confounds: int
    """People whose confounds are incomplete."""


def deconfound(
    values: Float[np.ndarray, "samples traits"],
    confounds: Float[np.ndarray, "samples confounds"],
    *,
    names: Sequence[str] | None = None,
    basis: Basis | None = None,
) -> Deconfounded:
    """Regress the confounds (and the mean) out of every trait.

    Parameters
    ----------
    values
        NaN is missing; traits with the same missing people share one projection.
    confounds
        Without an intercept; people with NaN lose their values.
    names
        Confound names, for `Deconfounded.dropped`.
    basis
        Orthonormal basis of intercept and confounds on the people who have every confound, where it is known.

    Raises
    ------
    ValueError
        No person has every confound.

    Examples
    --------
    >>> age = np.arange(10.0)[:, None]
    >>> bool(np.abs(deconfound(3 * age + 5, age).values).max() < 1e-12)
    True
    """
    y = np.asarray(values, dtype=np.float64)
    complete = np.isfinite(confounds).all(axis=1)
    if not complete.any():
        raise ValueError("No person has every confound; use fewer confounds or impute them first.")
    known = np.asarray(confounds[complete], dtype=np.float64)
    whole = basis if basis is not None else covariate_basis(known, names)
    residuals = np.full(y.shape, np.nan)
    residuals[complete], poor = masked_residuals(whole.q, y[complete])
    present = ~np.isnan(y) & complete[:, None]
    n_present = present.sum(axis=0)
    rank = np.where(n_present > 0, whole.rank, 0).astype(np.int64)
    for rows, members in same_people(present[:, poor]):
        columns = np.flatnonzero(poor)[members]
        if rows.any():
            own = covariate_basis(np.asarray(confounds[rows], dtype=np.float64))
            rank[columns] = own.rank
            residuals[np.ix_(rows, columns)] = project_out(own.q, y[np.ix_(rows, columns)])
    residuals[:, n_present <= rank + 1] = np.nan
    return Deconfounded(residuals, _explained(y, residuals, present), rank, whole.dropped, int((~complete).sum()))


def _explained(
    values: Float64[np.ndarray, "samples traits"],
    residuals: Float64[np.ndarray, "samples traits"],
    present: Bool[np.ndarray, "samples traits"],
) -> Float64[np.ndarray, " traits"]:
    """Return 1 - RSS / TSS on the people of each trait."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / present.sum(axis=0)
        total = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0)
        return np.where(total > 0, 1.0 - (residuals**2).sum(axis=0, where=present) / total, np.nan)
