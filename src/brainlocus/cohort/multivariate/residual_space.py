r"""Residuals in a space where they can be permuted (Huh-Jhun), with a row for each person that is kept (Theil).

Residuals of different people are correlated, R = I - Q Q' with Q the orthonormal covariates, so they are not
exchangeable. With S the selection of n - k people::

    Z = R S' (S R S')^(-1/2)         Z' Z = I,   Z Z' = R

the rows of Z'Y are as many as there are degrees of freedom, uncorrelated and exchangeable, and the one of a kept person
is near to their residual, so that families and sites can be respected. ``Z (P Z'Y)`` is the permuted outcome of all n
people.

References
----------
Theil (1965), JASA 60:1067 (BLUS residuals); Huh & Jhun (2001), Commun. Stat. 30:2023; Winkler et al. (2020), NeuroImage
220:117065 (permutation of CCA).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.numerics import covariate_basis

__all__ = ["ResidualSpace", "residual_space"]


@dataclass(frozen=True, slots=True, eq=False)
class ResidualSpace:
    """The projection Z."""

    basis: Float64[np.ndarray, "people rank"]
    """Q: orthonormal intercept and covariates."""
    kept: Int[np.ndarray, " kept"]
    """People with a row of their own, ascending."""
    turn: Float64[np.ndarray, "kept rank"]
    """Of (S R S')^(-1/2) = I + turn diag(extra) turn'."""
    extra: Float64[np.ndarray, " rank"]

    def project(self, y: Float64[np.ndarray, "people columns"]) -> Float64[np.ndarray, "kept columns"]:
        """Return Z'y."""
        residuals = (y - self.basis @ (self.basis.T @ y))[self.kept]
        return np.asarray(residuals + (self.turn * self.extra) @ (self.turn.T @ residuals))

    def restore(self, rows: Float64[np.ndarray, "kept columns"]) -> Float64[np.ndarray, "people columns"]:
        """Return Z rows: residuals of all people."""
        turned = rows + (self.turn * self.extra) @ (self.turn.T @ rows)
        whole = np.zeros((self.basis.shape[0], rows.shape[1]))
        whole[self.kept] = turned
        return whole - self.basis @ (self.basis.T @ whole)


def residual_space(covariates: Float64[np.ndarray, "people covariates"]) -> ResidualSpace:
    """Return the space of the residuals of an intercept and covariates.

    The people without a row are those whose covariates span all covariates best (QR with pivoting).

    Raises
    ------
    ValueError
        Fewer people than twice the covariates and the intercept.

    Examples
    --------
    >>> space = residual_space(np.array([[1.0], [2.0], [4.0], [8.0]]))
    >>> rows = space.project(np.array([[1.0], [0.0], [3.0], [0.0]]))
    >>> rows.shape, np.allclose(space.project(space.restore(rows)), rows)
    ((2, 1), True)
    """
    import scipy.linalg

    q = covariate_basis(covariates).q
    rank = q.shape[1]
    if q.shape[0] < 2 * rank:
        raise ValueError(
            f"Permutation needs at least twice as many people as covariates with the intercept ({rank}), found "
            f"{q.shape[0]}. Use fewer covariates."
        )
    _, pivots = scipy.linalg.qr(q.T, mode="r", pivoting=True)
    kept = np.sort(pivots[rank:]).astype(np.int64)
    # S R S' = I - Q_s Q_s'; with Q_s = U diag(c) V', its inverse root is I + U diag(1/sqrt(1 - c^2) - 1) U'.
    left, cosine, _ = np.linalg.svd(q[kept], full_matrices=False)
    return ResidualSpace(q, kept, left, 1.0 / np.sqrt(np.maximum(1.0 - cosine**2, 1e-12)) - 1.0)
