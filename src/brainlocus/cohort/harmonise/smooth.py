r"""Smooth effects of covariates: cubic B-splines with a penalty on curvature, fitted to many features at once.

Model of one feature, with S the splines and D the columns that are not penalised (sites, linear covariates)::

    minimise  |y - D a - S b|^2 + sum_k lambda_k  integral f_k''(x)^2 dx,      f_k = S_k b_k

Data flow::

    values of a covariate --place_knots--> knots                              (once, on training people)
    splines and features, freed of D --fit_penalised--> PenalisedFit          (once per set of people)
    knots, values --spline_basis--> spline columns of anyone

D is projected out of y and S first (Frisch-Waugh-Lovell), so that the normal equations have one row a spline and are
the same for all features. With G = S'S and A = G + c P, one symmetric eigenproblem gives V with V'AV = I and
V'GV = diag(s); then for every lambda ``b = V (C / t)`` with ``C = V'S'y`` and ``t = s + lambda (1 - s) / c``, the
effective degrees of freedom are ``sum s / t`` and the residual sum of squares is
``|y|^2 - 2 sum C^2 / t + sum s C^2 / t^2``: matrix products over a grid of lambda for all features. Each feature takes
the lambda of least generalised cross-validation ``n RSS / (n - edf)^2``. G itself may be singular (few distinct
values): A is not.

Several smooth terms have weights ``lambda r_k``; the ratios r_k are searched on a grid too, one eigenproblem each.

References
----------
Wood (2017), Generalized Additive Models, 2nd ed., sections 4.2, 5.4.2 and 6.2; Craven & Wahba (1979), Numer. Math.
31:377; Pomponio et al. (2020), NeuroImage 208:116450 (ComBat-GAM).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64
from scipy.interpolate import BSpline

__all__ = [
    "Extent",
    "PenalisedFit",
    "SmoothOptions",
    "SmoothTerm",
    "fit_penalised",
    "place_knots",
    "roughness",
    "smooth_effect",
    "spline_basis",
]

DEGREE = 3
N_BASIS = 10
"""B-splines of a term, the constant included, as in Pomponio et al. (2020): six knots between the bounds."""
MIN_DISTINCT = 5
"""Fewer distinct values cannot tell a curve from a parabola."""
MAX_TERMS = 3
"""Ratios of weights are searched on a grid, whose size grows with this power."""
GRID = np.logspace(-4, 8, 61) / 50.0**3
"""Weights for a covariate that spans 1; for one that spans 50 units, such as years of adult age, 1e-4 to 1e8."""
RATIOS = np.logspace(-4, 4, 9)
"""Weights of further terms relative to the first, for covariates that span 1."""
NULL_TOLERANCE = 1e-12
"""Directions of the normal equations below this share of the largest are not estimable."""

Extent = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SmoothOptions:
    """One smooth term."""

    covariate: str
    """Name of the column that it replaces."""
    bounds: Extent | None = None
    """Outermost knots, in the covariate's unit; the range of the training people by default. Beyond them the curve
    is continued as a straight line."""
    weight: float | None = None
    """Weight lambda of the penalty for every feature; None chooses one per feature. Twice statsmodels' ``alpha``."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothTerm:
    """A fitted smooth term."""

    covariate: str
    knots: Float64[np.ndarray, " knots"]
    """Bounds fourfold."""
    coefficients: Float64[np.ndarray, "splines features"]
    """Of all B-splines. The curve's mean over the training people is 0."""
    weight: Float64[np.ndarray, " features"]
    """Weight lambda of the penalty on the integrated squared second derivative, in the covariate's unit."""
    edf: Float64[np.ndarray, " features"]
    """Effective degrees of freedom, the constant not counted: 1 is a straight line."""

    @property
    def extent(self) -> Extent:
        """Between the outermost knots; beyond, the curve is a straight line."""
        return float(self.knots[0]), float(self.knots[-1])


@dataclass(frozen=True, slots=True, eq=False)
class PenalisedFit:
    """Estimates of all terms for features of one set of people."""

    coefficients: tuple[Float64[np.ndarray, "splines features"], ...]
    weights: Float64[np.ndarray, "terms features"]
    """In the terms' own units."""
    edf: Float64[np.ndarray, "terms features"]


def place_knots(values: Float[np.ndarray, " samples"], options: SmoothOptions) -> Float64[np.ndarray, " knots"]:
    """Return the knots: quantiles of the values between bounds that are each there four times.

    Quantiles that coincide count once, so covariates in whole years may have fewer than six.

    Raises
    ------
    ValueError
        Fewer than five distinct values, or people outside the bounds.
    """
    distinct = np.unique(values)
    if distinct.size < MIN_DISTINCT:
        raise ValueError(
            f"The smooth covariate {options.covariate!r} has {distinct.size} distinct values, a curve needs "
            f"{MIN_DISTINCT} or more. Preserve it as a linear covariate or as C({options.covariate}) instead."
        )
    low, high = options.bounds if options.bounds is not None else (float(distinct[0]), float(distinct[-1]))
    outside = int(((values < low) | (values > high)).sum())
    if outside:
        raise ValueError(
            f"Bounds {low:g} to {high:g} of the smooth covariate {options.covariate!r} leave out {outside} of the "
            f"people to fit on, who are {distinct[0]:g} to {distinct[-1]:g}. Widen the bounds or remove these people."
        )
    inner = np.unique(np.quantile(values, np.linspace(0, 1, N_BASIS - DEGREE + 1)[1:-1]))
    inner = inner[(inner > low) & (inner < high)]
    return np.concatenate([np.full(DEGREE + 1, low), inner, np.full(DEGREE + 1, high)])


def spline_basis(
    knots: Float64[np.ndarray, " knots"], values: Float[np.ndarray, " samples"]
) -> Float64[np.ndarray, "samples splines"]:
    """Return the B-splines at the values; beyond the outermost knots their tangents there.

    Examples
    --------
    >>> knots = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])
    >>> spline_basis(knots, np.array([0.0, 0.5, 2.0])).round(3).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.125, 0.375, 0.375, 0.125], [0.0, 0.0, -3.0, 4.0]]
    """
    splines = BSpline(knots, np.eye(knots.size - DEGREE - 1), DEGREE)
    inside = np.clip(values, knots[0], knots[-1])
    beyond = (values - inside)[:, None]
    basis = np.asarray(splines(inside))
    if beyond.any():
        basis = basis + beyond * splines.derivative()(inside)
    return basis


def roughness(knots: Float64[np.ndarray, " knots"]) -> Float64[np.ndarray, "splines splines"]:
    """Return the integrals of products of the B-splines' second derivatives between the bounds.

    Second derivatives are straight lines between knots, so Simpson's rule on each interval is exact.
    """
    curvature = BSpline(knots, np.eye(knots.size - DEGREE - 1), DEGREE).derivative(2)
    edges = np.unique(knots)
    width = np.diff(edges)
    points = np.stack([edges[:-1], edges[:-1] + width / 2, edges[1:]])
    # The derivative jumps nowhere, so an edge belongs to both of its intervals.
    values = np.asarray(curvature(points))
    weights = width * np.array([1.0, 4.0, 1.0])[:, None] / 6.0
    return np.asarray(np.einsum("pi,pij,pik->jk", weights, values, values))


def smooth_effect(term: SmoothTerm, values: Float[np.ndarray, " samples"]) -> Float64[np.ndarray, "samples features"]:
    """Return the curve of every feature at the values, in the feature's unit."""
    return np.asarray(spline_basis(term.knots, values) @ term.coefficients)


def fit_penalised(
    features: Float64[np.ndarray, "samples features"],
    bases: Sequence[Float64[np.ndarray, "samples splines"]],
    penalties: Sequence[Float64[np.ndarray, "splines splines"]],
    *,
    spans: Sequence[float],
    spent: int,
    fixed: Sequence[float] | None = None,
) -> PenalisedFit:
    """Fit all features on the splines of all terms.

    Parameters
    ----------
    features, bases
        Freed of the columns that are not penalised.
    penalties
        `roughness` of each term, in its unit.
    spans
        Range of each covariate, which makes the grid of weights free of units.
    spent
        Degrees of freedom of the columns that are not penalised.
    fixed
        Weights of all terms; chosen by generalised cross-validation when None.
    """
    design = np.hstack(list(bases))
    gram, products = design.T @ design, design.T @ features
    squares = (features**2).sum(axis=0)
    cubes = np.array([span**3 for span in spans])
    if fixed is not None:
        candidates: list[Float64[np.ndarray, " terms"]] = [np.asarray(fixed, dtype=np.float64)]
        grid = np.ones(1)
    else:
        candidates, grid = [ratios * cubes for ratios in _ratios(len(bases))], GRID
    n_features = features.shape[1]
    best = np.full(n_features, np.inf)
    coefficients = np.zeros((design.shape[1], n_features))
    weights, edf = np.zeros((len(bases), n_features)), np.zeros((len(bases), n_features))
    ends = np.cumsum([basis.shape[1] for basis in bases])[:-1]
    for candidate in candidates:
        penalty = scipy.linalg.block_diag(*[w * p for w, p in zip(candidate, penalties, strict=True)])
        vectors, share, scale = _diagonalise(gram, penalty)
        projected = vectors.T @ products
        total = share + grid[:, None] * (1.0 - share) / scale
        score = _cross_validation(
            share, total, projected**2, squares, n_samples=features.shape[0], spent=spent
        )  # fmt: skip
        # From the largest weight down: of equal scores the smoother curve wins.
        chosen = grid.size - 1 - np.argmin(score[::-1], axis=0)
        lowest = score[chosen, np.arange(n_features)]
        better = np.flatnonzero((lowest < best) | (best == np.inf))
        best[better] = lowest[better]
        at = chosen[better]
        coefficients[:, better] = vectors @ (projected[:, better] / total[at].T)
        weights[:, better] = candidate[:, None] * grid[at]
        # Diagonal of (G + P)^-1 G, summed over the splines of each term.
        parts = np.stack([part.sum(axis=0) for part in np.split(vectors * (gram @ vectors), ends)])
        edf[:, better] = parts @ (1.0 / total[at].T)
    return PenalisedFit(tuple(np.split(coefficients, ends)), weights, edf)


def _ratios(n_terms: int) -> Iterator[Float64[np.ndarray, " terms"]]:
    """Yield the relative weights to try, equal ones first: of equal scores the first wins."""
    order = sorted(RATIOS.tolist(), key=lambda ratio: abs(np.log(ratio)))
    return (np.array([1.0, *more]) for more in product(order, repeat=n_terms - 1))


def _diagonalise(
    gram: Float64[np.ndarray, "splines splines"], penalty: Float64[np.ndarray, "splines splines"]
) -> tuple[Float64[np.ndarray, "splines rank"], Float64[np.ndarray, " rank"], float]:
    """Return V, s and c with V'(G + c P)V = I and V'GV = diag(s), on the directions that can be estimated."""
    scale = float(np.trace(gram) / np.trace(penalty))
    if not scale > 0:
        return np.zeros((gram.shape[0], 0)), np.zeros(0), 1.0
    size, directions = np.linalg.eigh(gram + scale * penalty)
    kept = size > NULL_TOLERANCE * size[-1]
    whitened = directions[:, kept] / np.sqrt(size[kept])
    share, turn = np.linalg.eigh(whitened.T @ gram @ whitened)
    return whitened @ turn, np.clip(share, 0.0, 1.0), scale


def _cross_validation(
    share: Float64[np.ndarray, " rank"],
    total: Float64[np.ndarray, "weights rank"],
    projected_squares: Float64[np.ndarray, "rank features"],
    squares: Float64[np.ndarray, " features"],
    *,
    n_samples: int,
    spent: int,
) -> Float64[np.ndarray, "weights features"]:
    """Return ``n RSS / (n - edf)^2``; infinite where the model has as many degrees of freedom as people."""
    left = n_samples - spent - (share / total).sum(axis=1)
    residual = np.maximum(squares - ((2.0 - share / total) / total) @ projected_squares, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left[:, None] > 0, n_samples * residual / left[:, None] ** 2, np.inf)
