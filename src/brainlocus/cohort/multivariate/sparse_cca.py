r"""Sparse CCA and sparse PLS: penalised matrix decomposition of X'Y (PMD).

A mode maximises ``u' K v`` with K = X'Y subject to |u|_2, |v|_2 <= 1, |u|_1 <= c_x sqrt(m), |v|_1 <= c_y sqrt(q), by
turns::

    u <- S(K v, d) / |S(K v, d)|_2         v <- S(K' u, d) / |S(K' u, d)|_2

with S soft thresholding and d the smallest threshold under which the 1-norm keeps its bound (0 if it does anyway). The
start is the leading singular vector. Next modes come from

* ``pmd`` (sparse CCA): K <- K - (u' K v) u v';
* ``regression`` (sparse PLS regression): X and Y freed of the X variate t = X u, that is K <- K - X't (Y't)' / t't.

The threshold is exact, not found by bisection: with k entries above it, mean p and sum of squares about it e, the
1-norm over the 2-norm is c for d = p - c sqrt(e / (k (k - c^2))).

References
----------
Witten, Tibshirani & Hastie (2009), Biostatistics 10:515 (algorithms 1 to 3); Witten & Tibshirani (2009), Stat. Appl.
Genet. Mol. Biol. 8:28; Le Cao et al. (2008), Stat. Appl. Genet. Mol. Biol. 7:35 (sparse PLS regression).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from brainlocus.cohort.multivariate.cross_product import CrossProduct
from brainlocus.cohort.multivariate.model import FittedModes, Penalty
from brainlocus.cohort.multivariate.preparation import Standardised

__all__ = ["SparseCca", "check_bounds", "modes_of_weights", "sparse_grid", "threshold_to_bound"]

Deflation = Literal["pmd", "regression"]

FRACTIONS = (0.7, 0.4, 0.2)
"""Grid of the bounds, as shares of the root of the number of columns (Witten's CCA.permute goes from 0.1 to 0.7)."""
MAX_STEPS = 200
SETTLED = 1e-7
"""Largest change of an entry of v."""


@dataclass(frozen=True, slots=True)
class SparseCca:
    """Penalised matrix decomposition."""

    penalties: tuple[Penalty, ...]
    """Bounds of the 1-norms as shares of the root of the number of columns; 1 is no sparsity."""
    deflation: Deflation = "pmd"
    sparse: bool = True

    def prepare(self, x: Standardised, *, weights: bool) -> "PreparedSparseCca":  # noqa: ARG002
        """Return the model for these training people."""
        check_bounds(self.penalties, x.train.shape[1], None)
        return PreparedSparseCca(x, self.deflation)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSparseCca:
    """Sparse CCA of some training people."""

    x: Standardised
    deflation: Deflation

    def fit(self, y: Standardised, penalties: Sequence[Penalty], n_modes: int) -> list[FittedModes]:
        """Return the modes under each penalty."""
        product = CrossProduct.of(self.x.train, y.train)
        start = product.start()
        found = []
        for first, second in penalties:
            bounds = (first * np.sqrt(self.x.train.shape[1]), second * np.sqrt(y.train.shape[1]))
            found.append(self._fit(product.fresh(), y, bounds, n_modes, start))
        return found

    def _fit(
        self,
        product: CrossProduct,
        y: Standardised,
        bounds: tuple[float, float],
        n_modes: int,
        start: Float64[np.ndarray, " columns_y"],
    ) -> FittedModes:
        x_weights = np.zeros((self.x.train.shape[1], n_modes))
        y_weights = np.zeros((y.train.shape[1], n_modes))
        for k in range(n_modes):
            u, v = _one_mode(product, bounds, start if k == 0 else product.start())
            x_weights[:, k], y_weights[:, k] = u, v
            if k + 1 < n_modes:
                take_out(product, u, v, self.deflation)
        return modes_of_weights(self.x, y, x_weights, y_weights)


def take_out(
    product: CrossProduct,
    u: Float64[np.ndarray, " columns_x"],
    v: Float64[np.ndarray, " columns_y"],
    deflation: Deflation,
) -> None:
    """Remove a mode from X'Y."""
    if deflation == "pmd":
        strength = float(u @ product.times(v))
        product.take_out(strength * u, v)
        return
    t = product.x @ u
    length = float(t @ t)
    if length > 0:
        # (X - t p')'(Y - t c') = X'Y - (X't)(t'Y) / t't; X and Y here are those already freed of earlier variates.
        product.x = product.x - np.outer(t, (t @ product.x) / length)
        onto = product.y.T @ t / length
        product.y = product.y - np.outer(t, onto)
        product.dense = None if product.dense is None else product.x.T @ product.y


def modes_of_weights(
    x: Standardised,
    y: Standardised,
    x_weights: Float64[np.ndarray, "columns_x modes"],
    y_weights: Float64[np.ndarray, "columns_y modes"],
) -> FittedModes:
    """Return the variates that weights of the columns give."""
    return FittedModes(
        x.train @ x_weights, y.train @ y_weights, x.test @ x_weights, y.test @ y_weights, x_weights, y_weights
    )


def _one_mode(
    product: CrossProduct, bounds: tuple[float, float], start: Float64[np.ndarray, " columns_y"]
) -> tuple[Float64[np.ndarray, " columns_x"], Float64[np.ndarray, " columns_y"]]:
    v = threshold_to_bound(start, bounds[1])
    u = threshold_to_bound(product.times(v), bounds[0])
    for _ in range(MAX_STEPS):
        before = v
        v = threshold_to_bound(product.transposed_times(u), bounds[1])
        u = threshold_to_bound(product.times(v), bounds[0])
        if np.abs(v - before).max(initial=0.0) < SETTLED:
            break
    return u, v


def threshold_to_bound(a: Float64[np.ndarray, " size"], bound: float) -> Float64[np.ndarray, " size"]:
    """Return the vector of 2-norm 1 nearest in direction to `a` whose 1-norm is at most `bound`.

    Parameters
    ----------
    bound
        1 to the root of the size. At 1 the largest entry alone remains; equal largest entries are kept together.

    Examples
    --------
    >>> threshold_to_bound(np.array([3.0, -1.0, 0.5]), 1.2).round(3).tolist()
    [0.978, -0.207, 0.015]
    """
    length = float(np.sqrt(a @ a))
    if length == 0.0:
        return np.zeros_like(a)
    unit = a / length
    size = np.abs(unit)
    if float(size.sum()) <= bound:
        return unit
    ordered = np.sort(size)[::-1]
    ranks = np.arange(1.0, ordered.size + 1.0)
    first, second = np.cumsum(ordered), np.cumsum(ordered**2)
    spread = np.maximum(second - first**2 / ranks, 0.0)
    # 1-norm over 2-norm with the threshold at the next entry, for every number of entries above: rises with it.
    following = np.append(ordered[1:], 0.0)
    above = first - ranks * following
    norm = np.sqrt(spread + above**2 / ranks)
    ratio = np.where(norm > 0, above / np.where(norm > 0, norm, 1.0), 0.0)
    k = int(np.argmax(ratio >= bound)) + 1
    if k <= bound**2 or spread[k - 1] <= 0.0:
        kept = size >= ordered[0] * (1.0 - 1e-12)
        return np.asarray(np.where(kept, np.sign(unit), 0.0) / np.sqrt(kept.sum()))
    threshold = first[k - 1] / k - bound * np.sqrt(spread[k - 1] / (k * (k - bound**2)))
    thin = np.sign(unit) * np.maximum(size - threshold, 0.0)
    return np.asarray(thin / np.sqrt(thin @ thin))


def check_bounds(penalties: Sequence[Penalty], n_columns_x: int, n_columns_y: int | None) -> None:
    """Refuse bounds that no unit vector has, or that are no bound.

    Raises
    ------
    ValueError
        A share above 1 (which would silently select everything) or below 1 / sqrt(columns).
    """
    for pair in penalties:
        for name, share, columns in (("X", pair[0], n_columns_x), ("Y", pair[1], n_columns_y)):
            lowest = 0.0 if columns is None else 1.0 / np.sqrt(columns)
            if not lowest * (1.0 - 1e-12) <= share <= 1.0:
                raise ValueError(
                    f"The sparsity of {name} is a share of the root of its number of columns: expected "
                    f"{lowest:.4g} (one of {columns} columns) to 1 (no sparsity), found {share:g}."
                )


def sparse_grid(n_columns_x: int, n_columns_y: int) -> tuple[Penalty, ...]:
    """Return bounds for cross-validation, mildest first.

    Examples
    --------
    >>> sparse_grid(100, 4)[-1]
    (0.2, 0.5)
    """

    def shares(columns: int) -> list[float]:
        lowest = 1.0 / np.sqrt(columns)
        return list(dict.fromkeys(float(max(share, lowest)) for share in FRACTIONS))

    first, second = shares(n_columns_x), shares(n_columns_y)
    steps = [(i, j) for i in range(len(first)) for j in range(len(second))]
    return tuple((first[i], second[j]) for i, j in sorted(steps, key=lambda pair: (pair[0] + pair[1], pair)))
