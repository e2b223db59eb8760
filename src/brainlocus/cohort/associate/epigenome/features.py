r"""One regression for every feature and trait, with features, traits and covariates missing exactly.

Data flow::

    traits, covariates --prepare_voxelwise--> VoxelwiseDesign      (once; the design of voxel-wise maps)
    VoxelwiseDesign + block of features --scan_features--> FeatureScan

Over the n people of a group of traits that the same people have, Z is an orthogonal basis of the intercept and the
covariates (Z'Z = n I) and x a trait freed of them (x'x = n). A feature y that all of them have needs three products::

    c = Z'y   b = x'y   q = y'y        sxx = n   sxy = b   syy = q - c'c / n

For a feature that some people lack, with D = sum over the absent of [z x][z x]' ::

    S = n I - D_zz   u = -D_zx        sxx = n - D_xx - u'S^-1 u   sxy = b - u'S^-1 c   syy = q - c'S^-1 c

The feature as the outcome (feature ~ trait + covariates)::

    beta = sxy / sxx   s^2 = (syy - sxy^2 / sxx) / df   standard error = s / sqrt(sxx)   df = N - rank - 1

and the trait as the outcome with syy in the place of sxx. These are the least squares of every single pair.

References
----------
Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8
from scipy.sparse import csr_array

from brainlocus.cohort.associate.voxelwise import TargetGroup, VoxelwiseDesign

__all__ = ["STATUS", "FeatureScan", "Outcome", "scan_features", "scan_features_bytes"]

Outcome = Literal["feature", "trait"]

STATUS = ("ok", "too few people", "feature has no variance", "trait has no variance among them")
"""What the codes of `FeatureScan.status` say; code 4 is a trait that is not tested at all."""
NOT_TESTED = 4

_SINGULAR = 1e-9
"""Share of n below which an eigenvalue of S is none: the people of the feature leave the covariates collinear."""
_NO_SPREAD = 1e-10
"""Share of a trait's sum of squares below which the people of the feature leave none of it."""
_ROUNDING = 1e-12
"""Share of a feature's sum of squares that rounding may leave of a feature that the covariates determine."""
_DENSE = 0.05
"""Share of missing values above which products over the absent are made as a dense matrix."""
_SAFE = 0.95
"""Where the absent hold less than this share of n of every direction, S is inverted without looking for its rank."""
_TOGETHER = 512
"""Features with missing values that are solved at once."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureScan:
    """Estimates of a block before variances are moderated; NaN where `status` is not 0."""

    n: Int[np.ndarray, "traits features"]
    """People with trait, feature and all covariates."""
    degrees_of_freedom: Float64[np.ndarray, "traits features"]
    beta: Float64[np.ndarray, "traits features"]
    """Units of the outcome per unit of the predictor."""
    unscaled: Float64[np.ndarray, "traits features"]
    """Standard error over residual standard deviation."""
    variance: Float64[np.ndarray, "traits features"]
    """Residual variance of the outcome."""
    status: Int8[np.ndarray, "traits features"]
    """0, or the place in `STATUS` of why there is no estimate."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """What is left of traits and features after the covariates."""

    sxx: Float64[np.ndarray, "features traits"]
    sxy: Float64[np.ndarray, "features traits"]
    syy: Float64[np.ndarray, " features"]
    n: Float64[np.ndarray, " features"]
    rank: Float64[np.ndarray, " features"]


def scan_features_bytes(design: VoxelwiseDesign, n_people: int, block: int) -> int:
    """Return the most memory a block of features needs in `scan_features`, its values included."""
    rank = max((g.rank for g in design.groups), default=1)
    traits = max((g.members.size for g in design.groups), default=0)
    products = rank * (rank + 1) // 2 + traits * (rank + 1)
    lacking = min(block, _TOGETHER)
    per_value = 8 * 3 + 3
    solving = 8 * lacking * (products + 3 * rank * rank + 3 * rank * traits) + 8 * n_people * products
    return block * n_people * per_value + 8 * block * (design.n_moments + 8 * traits + 5 * design.n.size) + solving


def scan_features(
    design: VoxelwiseDesign, values: Float[np.ndarray, "features people"], *, outcome: Outcome = "feature"
) -> FeatureScan:
    """Regress every feature of a block on every trait and the covariates, or every trait on every feature.

    Parameters
    ----------
    values
        NaN (or infinite) is missing. People in the order of the design.

    Raises
    ------
    ValueError
        Another number of people than the design's.
    """
    n_traits = design.n.size
    people = design.groups[0].rows.size if design.groups else values.shape[1]
    if values.shape[1] != people:
        raise ValueError(f"Features have {values.shape[1]} people, the design {people}.")
    n_features = values.shape[0]
    shape = (n_traits, n_features)
    scan = FeatureScan(
        np.repeat(design.n[:, None], n_features, axis=1),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape, NOT_TESTED, dtype=np.int8),
    )
    present = np.isfinite(values)
    whole = present.all(axis=1)
    centred = _centred(values, present, whole)
    for group in design.groups:
        _scan_group(design, group, centred, present, whole, outcome, scan)
    return scan


def _centred(
    values: Float[np.ndarray, "features people"],
    present: Bool[np.ndarray, "features people"],
    whole: Bool[np.ndarray, " features"],
) -> Float64[np.ndarray, "features people"]:
    """Return values less their feature's mean, 0 where missing, so that sums of squares do not cancel."""
    centred = np.array(values, dtype=np.float64)
    lacking = np.flatnonzero(~whole)
    if lacking.size:
        centred[lacking] = np.where(present[lacking], centred[lacking], 0.0)
    count = np.where(whole, values.shape[1], np.maximum(present.sum(axis=1), 1))
    centred -= (centred.sum(axis=1) / count)[:, None]
    if lacking.size:
        centred[lacking] = np.where(present[lacking], centred[lacking], 0.0)
    return centred


def _scan_group(
    design: VoxelwiseDesign,
    group: TargetGroup,
    centred: Float64[np.ndarray, "features people"],
    present: Bool[np.ndarray, "features people"],
    whole: Bool[np.ndarray, " features"],
    outcome: Outcome,
    scan: FeatureScan,
) -> None:
    """Fill the rows of a group's traits."""
    everybody = bool(group.rows.all())
    squares = np.einsum("ij,ij->i", centred, centred) if everybody else (centred**2) @ group.rows.astype(np.float64)
    products = centred @ np.concatenate([group.basis, group.residuals], axis=1)
    lacking = np.flatnonzero(~whole)
    if not everybody and lacking.size:
        lacking = lacking[~present[np.ix_(lacking, np.flatnonzero(group.rows))].all(axis=1)]
    moments = _moments(group, products, squares)
    for start in range(0, lacking.size, _TOGETHER):
        rows = lacking[start : start + _TOGETHER]
        _without_absent(group, rows, ~present[rows] & group.rows, products[rows], squares[rows], moments)
    _estimate(design, group, moments, squares, outcome, scan)


def _moments(
    group: TargetGroup, products: Float64[np.ndarray, "features columns"], squares: Float64[np.ndarray, " features"]
) -> _Moments:
    p = group.rank
    c, sxy = products[:, :p], products[:, p:].copy()
    return _Moments(
        np.full(sxy.shape, float(group.n)),
        sxy,
        squares - np.einsum("ij,ij->i", c, c) / group.n,
        np.full(squares.shape, float(group.n)),
        np.full(squares.shape, float(p)),
    )


def _without_absent(
    group: TargetGroup,
    rows: Int[np.ndarray, " lacking"],
    absent: Bool[np.ndarray, "lacking people"],
    products: Float64[np.ndarray, "lacking columns"],
    squares: Float64[np.ndarray, " lacking"],
    moments: _Moments,
) -> None:
    """Put the moments of features that some people lack in the place of those of everybody."""
    n, p, q = float(group.n), group.rank, group.members.size
    sums = _sums(absent, _pair_products(group))
    upper = p * (p + 1) // 2
    above, beside = np.triu_indices(p)
    gram = np.empty((rows.size, p, p))
    gram[:, above, beside] = gram[:, beside, above] = -sums[:, :upper]
    held = -np.trace(gram, axis1=1, axis2=2)
    gram[:, np.arange(p), np.arange(p)] += n
    crossed = sums[:, upper:].reshape(rows.size, q, p + 1)
    right = np.concatenate([products[:, None, :p], -crossed[:, :, :p]], axis=1)
    left, rank = _solve(gram, right, held < _SAFE * n, n)
    u = right[:, 1:]
    moments.sxx[rows] = n - crossed[:, :, p] - np.einsum("fqp,fqp->fq", u, left[:, 1:])
    moments.sxy[rows] -= np.einsum("fqp,fp->fq", u, left[:, 0])
    moments.syy[rows] = squares - np.einsum("fp,fp->f", right[:, 0], left[:, 0])
    moments.n[rows] = n - absent.sum(axis=1)
    moments.rank[rows] = rank


def _pair_products(group: TargetGroup) -> Float64[np.ndarray, "people products"]:
    """Return, for each person, the upper triangle of zz', then of each trait zx and xx."""
    z, x = group.basis, group.residuals
    first, second = np.triu_indices(group.rank)
    crossed = x[:, :, None] * np.concatenate([np.repeat(z[:, None, :], x.shape[1], axis=1), x[:, :, None]], axis=2)
    return np.concatenate([z[:, first] * z[:, second], crossed.reshape(z.shape[0], -1)], axis=1)


def _sums(
    absent: Bool[np.ndarray, "lacking people"], products: Float64[np.ndarray, "people products"]
) -> Float64[np.ndarray, "lacking products"]:
    if np.count_nonzero(absent) > _DENSE * absent.size:
        return np.asarray(absent.astype(np.float64) @ products)
    return np.asarray(csr_array(absent.astype(np.float64)) @ products)


def _solve(
    gram: Float64[np.ndarray, "lacking rank rank"],
    right: Float64[np.ndarray, "lacking columns rank"],
    safe: Bool[np.ndarray, " lacking"],
    n: float,
) -> tuple[Float64[np.ndarray, "lacking columns rank"], Float64[np.ndarray, " lacking"]]:
    """Return S^-1 times each row, and the rank of S; S that may be singular goes by its eigenvectors."""
    solved = np.empty_like(right)
    rank = np.full(safe.size, float(gram.shape[1]))
    if safe.any():
        solved[safe] = np.linalg.solve(gram[safe], right[safe].transpose(0, 2, 1)).transpose(0, 2, 1)
    if not safe.all():
        values, vectors = np.linalg.eigh(gram[~safe])
        sound = values > _SINGULAR * n
        inverse = np.where(sound, 1.0 / np.where(sound, values, 1.0), 0.0)
        solved[~safe] = ((right[~safe] @ vectors) * inverse[:, None, :]) @ vectors.transpose(0, 2, 1)
        rank[~safe] = sound.sum(axis=1)
    return solved, rank


def _estimate(
    design: VoxelwiseDesign,
    group: TargetGroup,
    moments: _Moments,
    squares: Float64[np.ndarray, " features"],
    outcome: Outcome,
    scan: FeatureScan,
) -> None:
    df = moments.n - moments.rank - 1.0
    fewest = max(design.min_people, design.min_share * group.n)
    few = (moments.n < fewest) | (df < 1)
    flat = ~few & ~(moments.syy > _ROUNDING * squares)
    for at, trait in enumerate(group.members.tolist()):
        sxx, sxy = moments.sxx[:, at], moments.sxy[:, at]
        none = ~few & ~flat & ~(sxx > _NO_SPREAD * group.n)
        scan.n[trait] = np.rint(moments.n).astype(np.int64)
        scan.status[trait] = np.select([few, flat, none], [1, 2, 3], 0)
        ok = scan.status[trait] == 0
        scale = float(group.scale[at])
        x, xy, y, freedom = sxx[ok], sxy[ok], moments.syy[ok], df[ok]
        scan.degrees_of_freedom[trait, ok] = freedom
        if outcome == "feature":
            left = np.maximum(y - xy * xy / x, 0.0)
            scan.beta[trait, ok] = xy / x / scale
            scan.unscaled[trait, ok] = 1.0 / (np.sqrt(x) * scale)
            scan.variance[trait, ok] = left / freedom
        else:
            left = np.maximum(x - xy * xy / y, 0.0)
            scan.beta[trait, ok] = xy / y * scale
            scan.unscaled[trait, ok] = 1.0 / np.sqrt(y)
            scan.variance[trait, ok] = left / freedom * scale**2
