r"""Canonical correlation with a ridge penalty, between unregularised CCA and PLS.

With standardised X (n x m), Y (n x q) and S the mean products of rows, the weights a, b of a mode maximise::

    a' S_xy b    subject to  a' ((1 - g_x) S_xx + g_x I) a = 1,  b' ((1 - g_y) S_yy + g_y I) b = 1

and modes after the first are orthogonal to it in these metrics. g = 0 is CCA, g = 1 on both sides is PLS-SVD
(partial least squares correlation). In the coordinates of `reduce_rank`, X = U_x diag(s_x) V_x', the metrics
are diagonal and the modes are the singular vectors of ``diag(f_x) U_x' U_y diag(f_y)``, with
``f = s / sqrt((1 - g) s^2 + g n)``.

Only ``U_x' U_y`` depends on both sides: a permutation of the rows of Y costs that product, and each penalty the largest
eigenvectors of a matrix of the smaller rank.

References
----------
Hotelling (1936), Biometrika 28:321; Vinod (1976), J. Econometrics 4:147 (ridge); McIntosh & Lobaugh (2004), NeuroImage
23:S250 (PLS); Helmer et al. (2024), Commun. Biol. 7:217 (how many people CCA needs).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from brainlocus.cohort.multivariate.model import FittedModes, Penalty
from brainlocus.cohort.multivariate.preparation import Coordinates, Standardised, reduce_rank

__all__ = ["PLS", "RidgeCca", "check_unregularised", "ridge_grid"]

PEOPLE_A_COLUMN = 5
"""Unregularised CCA is refused below this: with 5 people a column and no effect at all the first in-sample correlation
is already 0.6 for two sides alike (Wachter 1980, Ann. Stat. 8:937)."""
GRID = (0.01, 0.1, 1.0, 10.0)
"""Ridge over the mean eigenvalue of the covariance."""


@dataclass(frozen=True, slots=True)
class RidgeCca:
    """Ridge CCA; PLS-SVD with the one penalty (1, 1)."""

    penalties: tuple[Penalty, ...]
    """Shares g of the identity in the two metrics, each 0 to 1."""
    sparse: bool = False

    def __post_init__(self) -> None:
        for pair in self.penalties:
            for value in pair:
                if not 0.0 <= value <= 1.0:
                    raise ValueError(
                        f"A ridge penalty is the share of the identity in the metric: expected 0 (CCA) to 1 (PLS), "
                        f"found {value:g}."
                    )

    def prepare(self, x: Standardised, *, weights: bool) -> "PreparedCca":
        """Return the model with X in its row space."""
        exact = any(g < 1e-6 for pair in self.penalties for g in pair)
        return PreparedCca(reduce_rank(x, exact=exact), weights, exact)


PLS = RidgeCca(((1.0, 1.0),))
"""PLS-SVD: the singular vectors of X'Y."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCca:
    """X of the training people in its row space."""

    x: Coordinates
    weights: bool
    exact: bool

    def fit(self, y: Standardised, penalties: Sequence[Penalty], n_modes: int) -> list[FittedModes]:
        """Return the modes under each penalty."""
        other = reduce_rank(y, exact=self.exact)
        between = self.x.left.T @ other.left
        found: list[FittedModes] = []
        products: dict[float, Float64[np.ndarray, "small small"]] = {}
        for penalty in penalties:
            f_x = _scale(self.x.singular, penalty[0], y.train.shape[0])
            f_y = _scale(other.singular, penalty[1], y.train.shape[0])
            a, b = _singular_vectors(between, f_x, f_y, n_modes, products, penalty)
            found.append(self._modes(other, _pad(a * f_x[:, None], n_modes), _pad(b * f_y[:, None], n_modes)))
        return found

    def _modes(
        self, other: Coordinates, a: Float64[np.ndarray, "rank_x modes"], b: Float64[np.ndarray, "rank_y modes"]
    ) -> FittedModes:
        # In the metric of the model: the weights of the coordinates are root(n) f / s times the singular vectors.
        root = np.sqrt(self.x.left.shape[0])
        a, b = root * a, root * b
        x_weights, y_weights = a / self.x.singular[:, None], b / other.singular[:, None]
        return FittedModes(
            self.x.left @ a,
            other.left @ b,
            self.x.test @ x_weights,
            other.test @ y_weights,
            self.x.weights(x_weights) if self.weights else None,
            other.weights(y_weights),
        )


def _scale(singular: Float64[np.ndarray, " rank"], share: float, n: int) -> Float64[np.ndarray, " rank"]:
    return np.asarray(singular / np.sqrt((1.0 - share) * singular**2 + share * n))


def _singular_vectors(
    between: Float64[np.ndarray, "rank_x rank_y"],
    f_x: Float64[np.ndarray, " rank_x"],
    f_y: Float64[np.ndarray, " rank_y"],
    n_modes: int,
    products: dict[float, Float64[np.ndarray, "small small"]],
    penalty: Penalty,
) -> tuple[Float64[np.ndarray, "rank_x found"], Float64[np.ndarray, "rank_y found"]]:
    """Return the leading singular vectors of ``diag(f_x) between diag(f_y)`` from the Gram matrix of the smaller side.

    Parameters
    ----------
    products
        Gram matrices of the penalties of the larger side that have been used.
    """
    turned = between.shape[0] < between.shape[1]
    wide, f_long, f_short = (between.T, f_y, f_x) if turned else (between, f_x, f_y)
    key = penalty[1] if turned else penalty[0]
    if key not in products:
        scaled = wide * f_long[:, None]
        products[key] = scaled.T @ scaled
    gram = products[key] * np.outer(f_short, f_short)
    short = _leading(gram, min(n_modes, f_short.size))
    long = (wide * f_long[:, None]) @ (short * f_short[:, None])
    size = np.sqrt((long * long).sum(axis=0))
    long = long / np.where(size > 0, size, 1.0)
    return (short, long) if turned else (long, short)


def _leading(gram: Float64[np.ndarray, "size size"], count: int) -> Float64[np.ndarray, "size count"]:
    from scipy.linalg import eigh

    size = gram.shape[0]
    _, vectors = eigh(gram, subset_by_index=[size - count, size - 1], check_finite=False)
    return np.ascontiguousarray(vectors[:, ::-1])


def _pad(vectors: Float64[np.ndarray, "rank found"], n_modes: int) -> Float64[np.ndarray, "rank modes"]:
    missing = n_modes - vectors.shape[1]
    return vectors if missing <= 0 else np.pad(vectors, ((0, 0), (0, missing)))


def ridge_grid(n: int, n_columns_x: int, n_columns_y: int) -> tuple[Penalty, ...]:
    """Return penalties for cross-validation, mildest first.

    Ridges are 0.01 to 10 times the mean eigenvalue (columns over rank) of each side, and PLS, which is without end.

    Examples
    --------
    >>> sorted({round(share, 3) for share, _ in ridge_grid(1000, 10, 10)})
    [0.01, 0.091, 0.5, 0.909, 1.0]
    """

    def shares(columns: int) -> list[float]:
        mean = max(columns / max(min(n, columns), 1), 1.0)
        return [mean * ridge / (1.0 + mean * ridge) for ridge in GRID] + [1.0]

    first, second = shares(n_columns_x), shares(n_columns_y)
    steps = [(i, j) for i in range(len(first)) for j in range(len(second))]
    return tuple((first[i], second[j]) for i, j in sorted(steps, key=lambda pair: (pair[0] + pair[1], pair)))


def check_unregularised(penalties: Sequence[Penalty], n_free: int, n_columns_x: int, n_columns_y: int) -> None:
    """Refuse a penalty of 0 where there are too few people.

    Parameters
    ----------
    n_free
        People less covariates, of the smallest training set.

    Raises
    ------
    ValueError
        Fewer than 5 people a column of X and Y together.
    """
    columns = n_columns_x + n_columns_y
    if any(min(pair) == 0.0 for pair in penalties) and n_free < PEOPLE_A_COLUMN * columns:
        raise ValueError(
            f"CCA without a penalty needs many more people than columns: expected at least {PEOPLE_A_COLUMN} x "
            f"{columns} = {PEOPLE_A_COLUMN * columns} in the smallest training set (less covariates), found {n_free}. "
            "Leave the penalties to be chosen, give one above 0, or use fewer columns."
        )
