"""Projection on covariates: an orthonormal basis once, residuals for everything.

Method: Frisch-Waugh-Lovell. The intercept and the covariates, centred and scaled, go through a QR with
column pivoting; columns that add nothing are dropped and named, so a collinear but harmless design (age
beside age squared) is used as it is.

References
----------
Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993; Golub & Van Loan (2013), 5.4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["RANK_TOLERANCE", "Basis", "covariate_basis", "project_out"]

RANK_TOLERANCE = 1e-9
"""A pivot below this share of the largest means a column that is a combination of the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Orthonormal columns that span the intercept and the covariates."""

    q: Float[np.ndarray, "samples rank"]
    """The first column is the intercept, ``1 / sqrt(n)``."""
    dropped: tuple[str, ...]
    """Covariates left out because they are constant or combinations of the others."""

    @property
    def rank(self) -> int:
        """Columns of the basis, intercept included."""
        return int(self.q.shape[1])


def covariate_basis(covariates: Float[np.ndarray, "samples covariates"], names: Sequence[str] | None = None) -> Basis:
    """Return an orthonormal basis of the intercept and the covariates.

    Parameters
    ----------
    covariates
        Complete, without an intercept (it is added); may have no columns.
    names
        Column names for `Basis.dropped`; numbered when None.

    Raises
    ------
    ValueError
        A covariate is missing or infinite (named), or there are no samples.

    Examples
    --------
    >>> age = np.array([[20.0], [30.0], [45.0], [60.0]])
    >>> covariate_basis(np.hstack([age, 2 * age]), ["age", "twice"]).dropped
    ('twice',)
    """
    n_samples, n_covariates = covariates.shape
    labels = list(names) if names is not None else [f"column {k + 1}" for k in range(n_covariates)]
    if n_samples == 0:
        raise ValueError("There are no samples to build a covariate basis from.")
    bad = ~np.isfinite(covariates).all(axis=0)
    if bad.any():
        named = ", ".join(label for label, is_bad in zip(labels, bad, strict=True) if is_bad)
        raise ValueError(f"Covariates must be complete and finite; these are not: {named}. Drop or impute first.")
    intercept = np.full((n_samples, 1), 1.0 / np.sqrt(n_samples))
    centred = covariates - covariates.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    magnitude = np.sqrt((covariates**2).sum(axis=0))
    varies = spread > RANK_TOLERANCE * np.maximum(magnitude, np.finfo(float).tiny)
    scaled = centred[:, varies] / spread[varies]
    kept_labels = [label for label, keep in zip(labels, varies, strict=True) if keep]
    constant = [label for label, keep in zip(labels, varies, strict=True) if not keep]
    if not kept_labels:
        return Basis(intercept, tuple(constant))
    import scipy.linalg  # a fifth of a second that most commands do not need

    q, r, pivots = scipy.linalg.qr(scaled, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > RANK_TOLERANCE * diagonal[0]).sum())
    collinear = {kept_labels[k] for k in pivots[rank:]}
    dropped = [label for label in labels if label in constant or label in collinear]
    basis = q[:, :rank]
    # Centring left rounding errors along the intercept; remove them so that the columns are orthonormal.
    basis = basis - intercept @ (intercept.T @ basis)
    basis, _ = np.linalg.qr(basis)
    return Basis(np.ascontiguousarray(np.hstack([intercept, basis])), tuple(dropped))


def project_out(
    basis: Float[np.ndarray, "samples rank"], values: Float[np.ndarray, "samples columns"]
) -> Float[np.ndarray, "samples columns"]:
    """Return `values` minus their part in the span of `basis`, in float64.

    Applied twice, which brings the remaining part to rounding level (Parlett 1998, "twice is enough").

    Examples
    --------
    >>> basis = covariate_basis(np.empty((4, 0))).q
    >>> project_out(basis, np.array([[1.0], [2.0], [3.0], [6.0]])).ravel().tolist()
    [-2.0, -1.0, 0.0, 3.0]
    """
    residuals = values - basis @ (basis.T @ values)
    return np.asarray(residuals - basis @ (basis.T @ residuals))
