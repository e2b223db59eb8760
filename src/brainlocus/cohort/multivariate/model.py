"""What every multivariate method gives to cross-validation, permutation and bootstrap: weights per penalty.

A method is prepared once on the X of a set of training people and then fitted to any number of Y, because a permutation
moves the rows of Y alone: `Method.prepare` does what depends on X, `Prepared.fit` the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64

from brainlocus.cohort.multivariate.preparation import Standardised

__all__ = ["FittedModes", "Method", "Penalty", "Prepared", "column_correlations", "mode_correlations"]

Penalty = tuple[float, float]
"""Penalty of X and of Y; what the numbers mean is the method's."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedModes:
    """Modes of one fit, strongest first by what the method maximises in training; absent modes are NaN and weigh 0."""

    x_train: Float64[np.ndarray, "train modes"]
    """Variates: weighted sums of the standardised columns."""
    y_train: Float64[np.ndarray, "train modes"]
    x_test: Float64[np.ndarray, "test modes"]
    y_test: Float64[np.ndarray, "test modes"]
    x_weights: Float64[np.ndarray, "columns_x modes"] | None
    """Of the standardised columns; None where they were not asked for."""
    y_weights: Float64[np.ndarray, "columns_y modes"]

    @property
    def weights_of_x(self) -> Float64[np.ndarray, "columns_x modes"]:
        """`x_weights`, where they were asked for.

        Raises
        ------
        ValueError
            They were not.
        """
        if self.x_weights is None:
            raise ValueError("The weights of X were not asked for; prepare the method with weights=True.")
        return self.x_weights


@runtime_checkable
class Prepared(Protocol):
    """A method that knows the X of its training people."""

    def fit(self, y: Standardised, penalties: Sequence[Penalty], n_modes: int) -> list[FittedModes]:
        """Return the modes under each penalty."""


@runtime_checkable
class Method(Protocol):
    """A kind of model."""

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """Penalties to choose from, the mildest first."""

    @property
    def sparse(self) -> bool:
        """Whether weights can be exactly 0."""

    def prepare(self, x: Standardised, *, weights: bool) -> Prepared:
        """Return the method made ready for the X of some training people.

        Parameters
        ----------
        weights
            The weights of the columns of X will be needed, not the variates alone.
        """


def mode_correlations(
    x: Float64[np.ndarray, "people modes"], y: Float64[np.ndarray, "people modes"]
) -> Float64[np.ndarray, " modes"]:
    """Return the correlation of the two variates of every mode; 0 where one does not vary.

    A variate without variance predicts nothing, so it counts as no correlation rather than as missing: a penalty under
    which a fold selects nothing must not win by its other folds.

    Examples
    --------
    >>> x = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    >>> mode_correlations(x, 2 * x).tolist()
    [1.0, 0.0]
    """
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    below = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    tiny: Bool[np.ndarray, " modes"] = ~(below > np.finfo(float).tiny)
    above = (a * b).sum(axis=0)
    return np.asarray(np.where(tiny, 0.0, above / np.where(tiny, 1.0, below)))


def column_correlations(
    columns: Float64[np.ndarray, "people columns"], variates: Float64[np.ndarray, "people modes"]
) -> Float64[np.ndarray, "columns modes"]:
    """Return the correlation of every column with every variate: the loadings. 0 where one does not vary.

    Parameters
    ----------
    columns
        Centred.
    """
    centred = variates - variates.mean(axis=0)
    size = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    length = np.sqrt((centred * centred).sum(axis=0))
    below = np.outer(size, length)
    above = columns.T @ centred
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > np.finfo(float).tiny))
