r"""Sparse reduced-rank regression of Y on X, one rank at a time.

With X'X taken as the identity, a rank of ``Y = X b a + E`` minimises ``-2 a Y'X b + a a' b'b`` plus the 1-norms of b
and a::

    b <- S(X'Y a', l_x) / |.|        a <- S(b'X'Y, l_y) / |.|

A penalty is the threshold as a share of the largest entry of what is thresholded, 0 (none) to below 1 (the largest
entry alone). The next rank is that of X and Y freed of the variate X b. With no penalty and orthonormal X the ranks
are those of reduced-rank regression, ``B_ols V V'`` with V the leading right singular vectors of X B_ols.

References
----------
Vounou, Nichols & Montana (2010), NeuroImage 53:1147 (10.1016/j.neuroimage.2010.07.002); Reinsel & Velu (1998),
Multivariate Reduced-Rank Regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from brainlocus.cohort.multivariate.cross_product import CrossProduct
from brainlocus.cohort.multivariate.model import FittedModes, Penalty
from brainlocus.cohort.multivariate.preparation import Standardised
from brainlocus.cohort.multivariate.sparse_cca import MAX_STEPS, SETTLED, modes_of_weights, take_out

__all__ = ["DEFAULT_THRESHOLDS", "SparseReducedRank", "threshold_by_share"]

DEFAULT_THRESHOLDS: tuple[Penalty, ...] = ((0.3, 0.0), (0.5, 0.0), (0.3, 0.5), (0.7, 0.0), (0.5, 0.5), (0.7, 0.5))
"""Mildest first. Vounou et al. penalise the SNPs, and the phenotypes where they are many."""


@dataclass(frozen=True, slots=True)
class SparseReducedRank:
    """Sparse reduced-rank regression."""

    penalties: tuple[Penalty, ...]
    """Thresholds as shares of the largest entry, of X and of Y."""
    sparse: bool = True

    def __post_init__(self) -> None:
        for pair in self.penalties:
            for value in pair:
                if not 0.0 <= value < 1.0:
                    raise ValueError(
                        "A threshold of reduced-rank regression is a share of the largest entry: expected 0 (no "
                        f"sparsity) to below 1, found {value:g}."
                    )

    def prepare(self, x: Standardised, *, weights: bool) -> "PreparedReducedRank":  # noqa: ARG002
        """Return the model for these training people."""
        return PreparedReducedRank(x)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedReducedRank:
    """Reduced-rank regression on the X of some training people."""

    x: Standardised

    def fit(self, y: Standardised, penalties: Sequence[Penalty], n_modes: int) -> list[FittedModes]:
        """Return the ranks under each penalty."""
        product = CrossProduct.of(self.x.train, y.train)
        start = product.start()
        found = []
        for penalty in penalties:
            left = product.fresh()
            x_weights = np.zeros((self.x.train.shape[1], n_modes))
            y_weights = np.zeros((y.train.shape[1], n_modes))
            for k in range(n_modes):
                b, a = _one_rank(left, penalty, start if k == 0 else left.start())
                x_weights[:, k], y_weights[:, k] = b, a
                if k + 1 < n_modes:
                    take_out(left, b, a, "regression")
            found.append(modes_of_weights(self.x, y, x_weights, y_weights))
        return found


def _one_rank(
    product: CrossProduct, penalty: Penalty, start: Float64[np.ndarray, " columns_y"]
) -> tuple[Float64[np.ndarray, " columns_x"], Float64[np.ndarray, " columns_y"]]:
    a = threshold_by_share(start, penalty[1])
    b = threshold_by_share(product.times(a), penalty[0])
    for _ in range(MAX_STEPS):
        before = a
        a = threshold_by_share(product.transposed_times(b), penalty[1])
        b = threshold_by_share(product.times(a), penalty[0])
        if np.abs(a - before).max(initial=0.0) < SETTLED:
            break
    return b, a


def threshold_by_share(a: Float64[np.ndarray, " size"], share: float) -> Float64[np.ndarray, " size"]:
    """Return `a` soft-thresholded at a share of its largest entry, with 2-norm 1; 0 where `a` is.

    Examples
    --------
    >>> threshold_by_share(np.array([4.0, -3.0, 1.0]), 0.5).round(3).tolist()
    [0.894, -0.447, 0.0]
    """
    size = np.abs(a)
    largest = float(size.max(initial=0.0))
    if largest == 0.0:
        return np.zeros_like(a)
    thin = np.sign(a) * np.maximum(size - share * largest, 0.0)
    return np.asarray(thin / np.sqrt(thin @ thin))
