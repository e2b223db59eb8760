"""Confounds regressed out of traits, each on the people who have it.

Method: residuals of least squares on the intercept and the confounds, ``y - Q Q'y`` with Q orthonormal, built
once for every distinct set of people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.numerics import covariate_basis, project_out, same_people

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
    residuals = np.full(y.shape, np.nan)
    explained = np.full(y.shape[1], np.nan)
    rank = np.zeros(y.shape[1], dtype=np.int64)
    dropped = covariate_basis(np.asarray(confounds[complete], dtype=np.float64), names).dropped
    usable = ~np.isnan(y) & complete[:, None]
    for rows, members in same_people(usable):
        n_present = int(rows.sum())
        if not n_present:
            continue
        basis = covariate_basis(np.asarray(confounds[rows], dtype=np.float64))
        rank[members] = basis.rank
        if n_present <= basis.rank + 1:
            continue
        block = y[np.ix_(rows, members)]
        left = project_out(basis.q, block)
        residuals[np.ix_(rows, members)] = left
        total = ((block - block.mean(axis=0)) ** 2).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained[members] = np.where(total > 0, 1.0 - (left**2).sum(axis=0) / total, np.nan)
    return Deconfounded(residuals, explained, rank, dropped, int((~complete).sum()))
