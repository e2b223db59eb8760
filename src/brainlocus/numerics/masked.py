"""Least squares of many columns on one basis, each column on the people who have it.

With Q orthonormal over everyone and M the mask of a column, the normal equations of its people are
``(Q'MQ) b = Q'M y``. ``Q'MQ = I - Q_m'Q_m`` needs only the rows m that are missing, so a column that lacks a few people
costs far less than a factorisation of its own, and the result is that of ordinary least squares on its people.

References
----------
Golub & Van Loan (2013), Matrix Computations, 5.3 and 6.5.4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from brainlocus.numerics.missingness import same_people

__all__ = ["PatternSystem", "masked_residuals", "pattern_systems"]

POOR_CONDITION = 1e-6
"""Reciprocal condition number below which a set of people leaves the basis nearly collinear."""
FACTOR_BYTES = 256 << 20
"""Memory for the factors that are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class PatternSystem:
    """Normal equations of the columns that exactly the same people have."""

    missing: Int[np.ndarray, " missing"]
    """Rows that lack a value."""
    members: Int[np.ndarray, " members"]
    """Columns."""
    factor: Float64[np.ndarray, "rank rank"] | None
    """Lower Cholesky factor of ``Q'MQ``; None where these people leave the basis nearly collinear."""

    def solve(self, right: Float64[np.ndarray, "rank columns"]) -> Float64[np.ndarray, "rank columns"]:
        """Return ``(Q'MQ)^-1`` times the right-hand sides."""
        import scipy.linalg

        if not self.missing.size or self.factor is None:
            return right
        return np.asarray(scipy.linalg.cho_solve((self.factor, True), right))


def pattern_systems(
    basis: Float64[np.ndarray, "samples rank"], present: Bool[np.ndarray, "samples columns"]
) -> Iterator[PatternSystem]:
    """Yield the normal equations of every distinct set of people, in the order of their first column.

    Parameters
    ----------
    basis
        Orthonormal over all samples.
    """
    n_samples, rank = basis.shape
    for rows, members in same_people(present):
        missing = np.flatnonzero(~rows)
        if not missing.size:
            yield PatternSystem(missing, members, np.eye(rank))
        elif n_samples - missing.size < rank:
            yield PatternSystem(missing, members, None)
        else:
            if 2 * missing.size <= n_samples:
                gram = np.eye(rank) - basis[missing].T @ basis[missing]
            else:
                gram = basis[rows].T @ basis[rows]
            yield PatternSystem(missing, members, _factor(gram))


def masked_residuals(
    basis: Float64[np.ndarray, "samples rank"], values: Float[np.ndarray, "samples columns"]
) -> tuple[Float64[np.ndarray, "samples columns"], Bool[np.ndarray, " columns"]]:
    """Return the residuals of each column on its own people, and which columns need a factorisation of their own.

    Parameters
    ----------
    basis
        Orthonormal over all samples, such as `Basis.q`.
    values
        NaN is missing and stays so.

    Examples
    --------
    >>> q = np.full((4, 1), 0.5)
    >>> masked_residuals(q, np.array([[1.0], [2.0], [np.nan], [6.0]]))[0].ravel().tolist()
    [-2.0, -1.0, nan, 3.0]
    """
    present = ~np.isnan(values)
    residuals = np.where(present, values, 0.0).astype(np.float64)
    poor = np.zeros(values.shape[1], dtype=bool)
    limit = max(1, FACTOR_BYTES // (8 * basis.shape[1] ** 2))
    systems = pattern_systems(basis, present)
    while group := list(islice(systems, limit)):
        columns = np.concatenate([system.members for system in group])
        poor[columns] = np.repeat([s.factor is None for s in group], [s.members.size for s in group])
        residuals[:, columns] = _solve_group(basis, residuals[:, columns], present[:, columns], group)
    residuals[~present] = np.nan
    residuals[:, poor] = np.nan
    return residuals, poor


def _solve_group(
    basis: Float64[np.ndarray, "samples rank"],
    residuals: Float64[np.ndarray, "samples columns"],
    present: Bool[np.ndarray, "samples columns"],
    group: list[PatternSystem],
) -> Float64[np.ndarray, "samples columns"]:
    """Return the residuals of columns that stand in the order of their systems."""
    ends = np.cumsum([system.members.size for system in group])
    # Twice, which brings what remains of the basis to rounding level, as in `project_out`.
    for _ in range(2):
        coefficients = basis.T @ residuals
        for system, end in zip(group, ends, strict=True):
            own = slice(end - system.members.size, end)
            if system.factor is not None:
                coefficients[:, own] = system.solve(coefficients[:, own])
        fitted = basis @ coefficients
        fitted[~present] = 0.0
        residuals = residuals - fitted
    return residuals


def _factor(gram: Float64[np.ndarray, "rank rank"]) -> Float64[np.ndarray, "rank rank"] | None:
    """Return the lower Cholesky factor, None where the matrix is nearly singular."""
    from scipy.linalg.lapack import dpocon

    try:
        factor = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return None
    reciprocal, _ = dpocon(factor, float(np.abs(gram).sum(axis=0).max()), uplo="L")
    return factor if reciprocal > POOR_CONDITION else None
