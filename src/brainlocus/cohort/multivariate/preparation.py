"""One side of a multivariate model, made ready with what training people alone tell.

Data flow::

    training rows --standardise--> covariate effects, mean and spread taken from training rows, applied to both
    Standardised --reduce_rank--> coordinates in the row space (dual form): no weights are lost, m columns become <= n

With X = U S V' of the training rows, every weight vector that a ridge or PLS model can have lies in the span of V, so
the model is fitted on the n x r coordinates U S, held-out people get X_test V, and V a are the weights of the columns.

References
----------
Hardoon, Szedmak & Shawe-Taylor (2004), Neural Comput. 16:2639 (kernel form of CCA); Chyzhyk et al. (2022), GigaScience
11:giac014 (confounds are removed inside cross-validation).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from brainlocus.numerics import covariate_basis

__all__ = ["Coordinates", "Standardised", "reduce_rank", "standardise"]

FLAT = 1e-10
"""Share of a column's mean square that must be left once its mean and the covariates are out; below, it is rounding."""
RANK_SHARE = 1e-10
"""Eigenvalues of a Gram matrix below this share of the largest are rounding (its own is about 1e-13)."""


@dataclass(frozen=True, slots=True, eq=False)
class Standardised:
    """Training and held-out rows of one table, on the scale of the training rows."""

    train: Float64[np.ndarray, "train columns"]
    """Freed of covariates, mean 0, mean square 1 (0 in columns that are flat in the training rows)."""
    test: Float64[np.ndarray, "test columns"]
    spread: Float64[np.ndarray, " columns"]
    """Standard deviation that was divided by; infinite where flat, so that weights over it are 0."""


def standardise(
    values: Float64[np.ndarray, "people columns"],
    covariates: Float64[np.ndarray, "people covariates"],
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
) -> Standardised:
    """Return rows with covariate effects, mean and spread of the training rows taken out.

    Parameters
    ----------
    values
        NaN is replaced by the column's mean over the training rows that have a value.
    covariates
        Complete; may have no columns. The intercept is added.

    Examples
    --------
    >>> x = np.array([[1.0], [3.0], [7.0]])
    >>> done = standardise(x, np.empty((3, 0)), np.array([0, 1]), np.array([2]))
    >>> done.train.ravel().tolist(), done.test.ravel().tolist()
    ([-1.0, 1.0], [5.0])
    """
    inside, outside = values[train], values[test]
    if np.isnan(inside).any() or np.isnan(outside).any():
        inside, outside = _fill(inside, outside)
    mean = inside.mean(axis=0)
    inside -= mean
    outside -= mean
    whole = np.einsum("ij,ij->j", inside, inside) + train.size * mean**2
    if covariates.shape[1]:
        basis = covariate_basis(covariates[train]).q[:, 1:]
        away = covariates[train].mean(axis=0)
        # Coefficients on the covariates themselves, so that they can be applied to people who were not there.
        onto = np.linalg.lstsq(covariates[train] - away, basis, rcond=None)[0]
        effects = basis.T @ inside
        inside -= basis @ effects
        outside -= ((covariates[test] - away) @ onto) @ effects
    left = np.einsum("ij,ij->j", inside, inside)
    flat = left <= FLAT * whole
    spread = np.where(flat, np.inf, np.sqrt(left / train.size))
    inside /= spread
    outside /= spread
    return Standardised(inside, outside, spread)


def _fill(
    inside: Float64[np.ndarray, "train columns"], outside: Float64[np.ndarray, "test columns"]
) -> tuple[Float64[np.ndarray, "train columns"], Float64[np.ndarray, "test columns"]]:
    present = ~np.isnan(inside)
    n = present.sum(axis=0)
    mean = np.where(present, inside, 0.0).sum(axis=0) / np.maximum(n, 1)
    return np.where(present, inside, mean), np.where(np.isnan(outside), mean, outside)


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Rows in the row space of the training rows: ``train = left * singular``."""

    left: Float64[np.ndarray, "train rank"]
    """Orthonormal columns."""
    singular: Float64[np.ndarray, " rank"]
    """Descending, above 0."""
    test: Float64[np.ndarray, "test rank"]
    right: Float64[np.ndarray, "columns rank"] | None
    """Orthonormal; None where there are more columns than people, and it would be as large as the table."""
    columns: Float64[np.ndarray, "train columns"]
    """The training rows themselves."""

    def weights(self, a: Float64[np.ndarray, "rank modes"]) -> Float64[np.ndarray, "columns modes"]:
        """Return weights of the columns from weights of the coordinates."""
        if self.right is not None:
            return np.asarray(self.right @ a)
        return np.asarray(self.columns.T @ (self.left @ (a / self.singular[:, None])))


def reduce_rank(side: Standardised, *, exact: bool = False) -> Coordinates:
    """Return a table in its row space.

    Parameters
    ----------
    exact
        Small singular values to full precision, as an unregularised model needs; slower. Without, directions below
        1e-5 of the largest are left out, which a penalty makes irrelevant.
    """
    x = side.train
    if exact:
        left, singular, right_t = np.linalg.svd(x, full_matrices=False)
        kept = singular > np.finfo(float).eps * max(x.shape) * singular[:1].max(initial=0.0)
        right = right_t[kept].T
        return Coordinates(left[:, kept], singular[kept], side.test @ right, right, x)
    if x.shape[1] <= x.shape[0]:
        values, vectors = np.linalg.eigh(x.T @ x)
        right, singular = _kept(values, vectors)
        return Coordinates((x @ right) / singular, singular, side.test @ right, right, x)
    values, vectors = np.linalg.eigh(x @ x.T)
    left, singular = _kept(values, vectors)
    test = (side.test @ x.T) @ (left / singular)
    return Coordinates(left, singular, test, None, x)


def _kept(
    values: Float64[np.ndarray, " size"], vectors: Float64[np.ndarray, "size size"]
) -> tuple[Float64[np.ndarray, "size kept"], Float64[np.ndarray, " kept"]]:
    kept: Bool[np.ndarray, " size"] = values > RANK_SHARE * max(float(values[-1]), np.finfo(float).tiny)
    order = np.flatnonzero(kept)[::-1]
    return np.ascontiguousarray(vectors[:, order]), np.sqrt(values[order])
