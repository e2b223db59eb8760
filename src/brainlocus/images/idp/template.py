"""Population templates: mean, spread and median of many maps, their regression on age, and means of age bins.

Data flow::

    people's table --prepare_template--> TemplateDesign                      (once)
    TemplateDesign --start_template--> TemplateSums                          (per range of voxels)
    TemplateSums + some images --add_images--> TemplateSums, changed         (per batch)
    TemplateSums --finish_template--> TemplateMaps                           (per range of voxels)

With x_i the regressors of person i (intercept, contrast, covariates; centred) and m_iv = 1 where i has a value at voxel
v, one pass over the images gives all sums by matrix products::

    S_v = sum_i m_iv x_i x_i',    c_v = sum_i m_iv x_i y_iv,    q_v = sum_i m_iv y_iv^2
    b_v = S_v^-1 c_v,    s2_v = (q_v - b_v' c_v) / (n_v - p),    t = b / sqrt(s2 [S^-1]_11)

so a voxel that some people lack is the regression of those who have it. Voxels with everybody share one inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from brainlocus.numerics import covariate_basis, neg_log10_p_from_t, project_out

__all__ = [
    "TemplateDesign",
    "TemplateMaps",
    "TemplateSums",
    "add_images",
    "finish_template",
    "prepare_template",
    "start_template",
    "template_bytes",
]

_SINGULAR = 1e-10
"""Ratio of extreme eigenvalues of the scaled S_v below which a voxel's regressors are collinear."""
_VOXELS_AT_ONCE = 1 << 14
"""Voxels that lack somebody and so have an S of their own to invert."""
_SINGLE_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True, eq=False)
class TemplateDesign:
    """What is known of the people whose images come, in their order."""

    regressors: Float64[np.ndarray, "people columns"] | None
    """Intercept, contrast (scaled), covariates, rows of zeros for people without them; None: no regression."""
    contrast_scale: float
    """What the contrast was divided by."""
    bin_of: Int[np.ndarray, " people"]
    """Age bin, -1 for none."""
    n_bins: int
    min_share: float
    """Share of the regression's people that a voxel needs."""
    n_regressed: int


@dataclass(slots=True, eq=False)
class TemplateSums:
    """Sums over the images so far; `add_images` changes them."""

    design: TemplateDesign
    n: Int[np.ndarray, " voxels"]
    mean: Float64[np.ndarray, " voxels"]
    """Running mean (Chan, Golub & LeVeque 1983)."""
    deviation: Float64[np.ndarray, " voxels"]
    """Running sum of squared deviations from the mean."""
    products: Float64[np.ndarray, "pairs voxels"]
    """Upper triangle of S."""
    moments: Float64[np.ndarray, "columns voxels"]
    squares: Float64[np.ndarray, " voxels"]
    bin_sums: Float64[np.ndarray, "bins voxels"]
    bin_n: Int[np.ndarray, "bins voxels"]


@dataclass(frozen=True, slots=True, eq=False)
class TemplateMaps:
    """Estimates of a range of voxels; NaN where there are none."""

    n: Int[np.ndarray, " voxels"]
    mean: Float64[np.ndarray, " voxels"]
    standard_deviation: Float64[np.ndarray, " voxels"]
    """With n - 1."""
    beta: Float64[np.ndarray, " voxels"]
    """Map units per unit of the contrast; NaN where too few have a value, or the regressors are collinear there."""
    standard_error: Float64[np.ndarray, " voxels"]
    t: Float64[np.ndarray, " voxels"]
    neg_log10_p: Float64[np.ndarray, " voxels"]
    regression_n: Int[np.ndarray, " voxels"]
    bin_means: Float64[np.ndarray, "bins voxels"]
    bin_n: Int[np.ndarray, "bins voxels"]


def prepare_template(
    n_people: int,
    *,
    contrast: Float64[np.ndarray, " people"] | None = None,
    covariates: Float64[np.ndarray, "people covariates"] | None = None,
    edges: Sequence[float] = (),
    min_share: float = 0.9,
) -> TemplateDesign:
    """Return the design of a template.

    Parameters
    ----------
    contrast
        What the maps are regressed on; people with NaN are left out of the regression, not of the means.
    covariates
        Without an intercept; NaN as for the contrast.
    edges
        Increasing bounds of bins of the contrast, the last included: 45, 55, 65 gives [45, 55) and [55, 65].

    Raises
    ------
    ValueError
        Edges without a contrast or not increasing; a constant contrast or one that the covariates determine; fewer
        people than regressors + 2.
    """
    bins = np.full(n_people, -1, dtype=np.int64)
    if contrast is None:
        if len(edges):
            raise ValueError("Bins are of the contrast; name one.")
        return TemplateDesign(None, 1.0, bins, 0, min_share, 0)
    if len(edges):
        bounds = np.asarray(edges, dtype=np.float64)
        if bounds.size < 2 or not (np.diff(bounds) > 0).all():
            raise ValueError(f"Expected two or more increasing bounds of bins, got {list(edges)}.")
        known = (contrast >= bounds[0]) & (contrast <= bounds[-1])
        bins[known] = np.minimum(np.searchsorted(bounds, contrast[known], side="right") - 1, bounds.size - 2)
    others = covariates if covariates is not None else np.empty((n_people, 0))
    rows = np.isfinite(contrast) & np.isfinite(others).all(axis=1)
    count = int(rows.sum())
    centred = contrast[rows] - contrast[rows].mean() if count else np.zeros(0)
    scale = float(np.sqrt((centred**2).mean())) if count else 0.0
    if not scale > 1e-12 * float(np.abs(contrast[rows]).max(initial=0.0)):
        raise ValueError(f"The contrast has no spread over the {count} people who have it and the covariates.")
    basis = covariate_basis(others[rows])
    if count < basis.rank + 3:
        raise ValueError(f"{count} people are too few for {basis.rank} regressors and an intercept.")
    centred = centred / scale
    if (project_out(basis.q, centred[:, None]) ** 2).mean() < _SINGULAR:
        raise ValueError("The contrast is a linear combination of the covariates; take it out of them.")
    regressors = np.zeros((n_people, 1 + basis.rank))
    regressors[rows] = np.column_stack([np.ones(count), centred, basis.q[:, 1:] * np.sqrt(count)])
    return TemplateDesign(regressors, scale, bins, max(0, len(edges) - 1), min_share, count)


def template_bytes(design: TemplateDesign, n_voxels: int, batch: int) -> int:
    """Return the memory of the sums of `n_voxels` and of a batch of images with its copies."""
    p = 0 if design.regressors is None else design.regressors.shape[1]
    sums = 8 * (4 + p * (p + 1) // 2 + p + 2 * design.n_bins)
    adding = batch * (4 + 1 + 8 * (4 if design.n_bins else 3)) + 48
    finishing = 8 * (3 * p + 14 + design.n_bins)
    return n_voxels * (sums + max(adding, finishing)) + 8 * _VOXELS_AT_ONCE * 3 * p * p


def start_template(design: TemplateDesign, n_voxels: int) -> TemplateSums:
    """Return sums of no image."""
    p = 0 if design.regressors is None else design.regressors.shape[1]
    return TemplateSums(
        design=design,
        n=np.zeros(n_voxels, dtype=np.int64),
        mean=np.zeros(n_voxels),
        deviation=np.zeros(n_voxels),
        products=np.zeros((p * (p + 1) // 2, n_voxels)),
        moments=np.zeros((p, n_voxels)),
        squares=np.zeros(n_voxels),
        bin_sums=np.zeros((design.n_bins, n_voxels)),
        bin_n=np.zeros((design.n_bins, n_voxels), dtype=np.int64),
    )


def add_images(
    sums: TemplateSums, values: Float32[np.ndarray, "batch voxels"], people: Int[np.ndarray, " batch"]
) -> None:
    """Add some images to the sums.

    Parameters
    ----------
    values
        NaN is missing.
    people
        Row of each image in the design.
    """
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0).astype(np.float64)
    _add_moments(sums, filled, present)
    design = sums.design
    weights = present.astype(np.float64)
    if design.regressors is not None:
        rows = design.regressors[people]
        first, second = np.triu_indices(rows.shape[1])
        sums.products += (rows[:, first] * rows[:, second]).T @ weights
        sums.moments += rows.T @ filled
        sums.squares += rows[:, 0] @ filled**2
    for k in range(design.n_bins):
        chosen = design.bin_of[people] == k
        if chosen.any():
            sums.bin_sums[k] += filled[chosen].sum(axis=0)
            sums.bin_n[k] += present[chosen].sum(axis=0)


def _add_moments(
    sums: TemplateSums, filled: Float64[np.ndarray, "batch voxels"], present: Bool[np.ndarray, "batch voxels"]
) -> None:
    """Merge a batch's mean and squared deviations into the running ones."""
    count = present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, filled.sum(axis=0) / count, 0.0)
    deviation = (np.where(present, filled - mean, 0.0) ** 2).sum(axis=0)
    total = sums.n + count
    shift = mean - sums.mean
    share = np.divide(count, total, out=np.zeros(count.shape), where=total > 0)
    sums.deviation += deviation + np.where(count > 0, shift**2 * sums.n * share, 0.0)
    sums.mean += np.where(count > 0, shift * share, 0.0)
    sums.n = total.astype(np.int64)


def finish_template(sums: TemplateSums) -> TemplateMaps:
    """Return the estimates of the sums."""
    n = sums.n
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, sums.mean, np.nan)
        spread = np.where(n > 1, np.sqrt(sums.deviation / (n - 1)), np.nan)
        bin_means = np.where(sums.bin_n > 0, sums.bin_sums / sums.bin_n, np.nan)
    beta, error, count = _regression(sums)
    p = sums.products.shape[0] and sums.moments.shape[0]
    df = np.where(np.isfinite(beta), count - float(p), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = beta / error
    return TemplateMaps(
        n, mean, spread, beta, error, t, neg_log10_p_from_t(t, df), count.astype(np.int64), bin_means, sums.bin_n
    )


def _regression(
    sums: TemplateSums,
) -> tuple[Float64[np.ndarray, " voxels"], Float64[np.ndarray, " voxels"], Float64[np.ndarray, " voxels"]]:
    """Return beta, its standard error, and the people of every voxel's regression."""
    n_voxels = sums.n.size
    beta, error = np.full(n_voxels, np.nan), np.full(n_voxels, np.nan)
    design = sums.design
    if design.regressors is None:
        return beta, error, np.zeros(n_voxels)
    p = design.regressors.shape[1]
    count = np.rint(sums.products[0])
    usable = np.flatnonzero((count >= design.min_share * design.n_regressed) & (count > p))
    whole = usable[count[usable] == design.n_regressed]
    _solve(sums, whole[:1], whole, beta, error, count)
    for start in range(0, usable.size, _VOXELS_AT_ONCE):
        part = usable[start : start + _VOXELS_AT_ONCE]
        part = part[count[part] < design.n_regressed]
        _solve(sums, part, part, beta, error, count)
    return beta / design.contrast_scale, error / design.contrast_scale, count


def _solve(
    sums: TemplateSums,
    matrices: Int[np.ndarray, " matrices"],
    voxels: Int[np.ndarray, " chosen"],
    beta: Float64[np.ndarray, " voxels"],
    error: Float64[np.ndarray, " voxels"],
    count: Float64[np.ndarray, " voxels"],
) -> None:
    """Fill in the estimates of some voxels; `matrices` is one voxel whose S is everybody's, or all of them."""
    if not voxels.size:
        return
    p = sums.moments.shape[0]
    first, second = np.triu_indices(p)
    gram = np.empty((matrices.size, p, p))
    gram[:, first, second] = gram[:, second, first] = sums.products[:, matrices].T
    values = np.linalg.eigvalsh(gram)
    sound = values[:, 0] > _SINGULAR * values[:, -1]
    if matrices.size == voxels.size:
        gram, voxels = gram[sound], voxels[sound]
    elif not sound.all():
        return
    inverse = np.linalg.inv(gram)
    moments = sums.moments[:, voxels].T
    solution = (inverse @ moments[:, :, None])[:, :, 0]
    total = sums.squares[voxels]
    residual = total - np.einsum("vp,vp->v", solution, moments)
    # What is left of equal sums is rounding of single-precision maps, not variance.
    centre = total - moments[:, 0] ** 2 / count[voxels]
    flat = centre <= _SINGLE_EPS**2 * total
    with np.errstate(invalid="ignore"):
        found = np.sqrt(np.maximum(residual, 0.0) / (count[voxels] - p) * inverse[:, 1, 1])
    beta[voxels] = np.where(flat, np.nan, solution[:, 1])
    error[voxels] = np.where(flat, np.nan, found)
