r"""Every trait against every phenotype, with missing data, by masked matrix products.

Data flow::

    traits, covariates --prepare_phenome--> PhenomeDesign            (once)
    PhenomeDesign + phenotype block --scan_phenome--> PhenomeScan    (per block)

With masks M (1 = present) and values centred and zero-filled, for traits Y and phenotypes X ::

    N = Mx'My    Sx = X'My    Sy = Mx'Y    Sxy = X'Y    Sxx = (X*X)'My    Syy = Mx'(Y*Y)
    cov = Sxy - Sx Sy / N,  vx = Sxx - Sx^2 / N,  vy = Syy - Sy^2 / N
    r = cov / sqrt(vx vy),  t = r sqrt(df / (1 - r^2)),  df = N - rank(C) - 1,  beta = cov / vx

``per_variable`` (the practice of UK Biobank's imaging studies): each variable is freed of the covariates on its own
people. ``exact``: both on the people they share, so that r is the partial correlation and beta, its standard
error and t those of the regression of trait on phenotype and covariates.

References
----------
Miller et al. (2016), Nat. Neurosci. 19:1523; Frisch & Waugh (1933), Econometrica 1:387.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

from brainlocus.core import ResultTable
from brainlocus.numerics import (
    benjamini_hochberg_q,
    bonferroni_p,
    covariate_basis,
    neg_log10_p_from_t,
    project_out,
    same_people,
)

__all__ = [
    "Mode",
    "PhenomeDesign",
    "PhenomeScan",
    "phenome_results",
    "prepare_phenome",
    "scan_phenome",
    "scan_phenome_peak_bytes",
]

Mode = Literal["per_variable", "exact"]

MIN_PEOPLE = 40
"""Published rule of UK Biobank's phenome scans."""
MIN_CASES = 10
"""Smaller classes of a binary phenotype are not tested."""
MAX_R = 1.0 - 1e-15
MANY_PATTERNS = 4
"""Above so many patterns of missing people their systems are solved together."""
POOR_CONDITION = 1e-6
"""Smallest eigenvalue of a column's system as a share of the largest, below which QR is used."""
NO_VARIANCE = 1e-20
"""Residual share of a variable's sum of squares below which it is a combination of the covariates."""


@dataclass(frozen=True, slots=True, eq=False)
class PhenomeDesign:
    """Traits and covariates, reduced once and reused for every block of phenotypes."""

    traits: Float64[np.ndarray, "samples traits"]
    """Freed of the covariates on the trait's own people; NaN = missing."""
    raw: Float64[np.ndarray, "samples traits"]
    """As given, on people with complete covariates."""
    covariates: Float64[np.ndarray, "samples covariates"]
    complete: Bool[np.ndarray, " samples"]
    """People with complete covariates; others take no part."""
    basis: Float64[np.ndarray, "samples rank"]
    """Orthonormal columns spanning intercept and covariates; 0 for people without covariates."""
    rank: int
    """Columns of the covariate matrix, intercept included."""
    dropped: tuple[str, ...]
    """Covariates that were constant or combinations of others."""
    mode: Mode
    naive_df: bool
    """Use N - 2, as some published results do."""
    min_people: int
    min_cases: int


@dataclass(frozen=True, slots=True, eq=False)
class PhenomeScan:
    """Estimates for one block: rows are phenotypes, columns traits; NaN where `status` is not ``ok``."""

    n: Int[np.ndarray, "phenotypes traits"]
    n_cases: Int[np.ndarray, "phenotypes traits"]
    """Cases of a binary phenotype (the larger of its two values) among them, else 0."""
    beta: Float64[np.ndarray, "phenotypes traits"]
    """Trait units per unit of the phenotype."""
    standard_error: Float64[np.ndarray, "phenotypes traits"]
    t: Float64[np.ndarray, "phenotypes traits"]
    degrees_of_freedom: Float64[np.ndarray, "phenotypes traits"]
    r: Float64[np.ndarray, "phenotypes traits"]
    cohens_d: Float64[np.ndarray, "phenotypes traits"]
    """``t sqrt(1/n1 + 1/n0)`` for binary phenotypes, else NaN."""
    neg_log10_p: Float64[np.ndarray, "phenotypes traits"]
    status: Shaped[np.ndarray, "phenotypes traits"]
    """``ok`` or why there is no estimate."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    n: Float64[np.ndarray, "phenotypes traits"]
    covariance: Float64[np.ndarray, "phenotypes traits"]
    phenotype_ss: Float64[np.ndarray, "phenotypes traits"]
    trait_ss: Float64[np.ndarray, "phenotypes traits"]
    rank: Float64[np.ndarray, "phenotypes traits"]


def scan_phenome_peak_bytes(n_samples: int, n_traits: int, block: int) -> int:
    """Return the most memory a block needs: values, residuals, copies, masks and squares, and the products."""
    return 8 * n_samples * (7 * block + 5 * n_traits) + 8 * 16 * block * n_traits + (32 << 20)


def prepare_phenome(
    traits: Float[np.ndarray, "samples traits"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    covariate_names: Sequence[str] | None = None,
    mode: Mode = "per_variable",
    naive_df: bool = False,
    min_people: int = MIN_PEOPLE,
    min_cases: int = MIN_CASES,
) -> PhenomeDesign:
    """Reduce traits and covariates to what every block shares.

    Parameters
    ----------
    traits
        NaN is missing.
    covariates
        Without an intercept; people with NaN take no part in any test.

    Raises
    ------
    ValueError
        An infinite trait, or nobody with complete covariates.
    """
    raw = np.array(traits, dtype=np.float64)
    if np.isinf(raw).any():
        raise ValueError(f"Trait {int(np.isinf(raw).any(axis=0).argmax()) + 1} has an infinite value.")
    design = np.empty((raw.shape[0], 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    complete = np.asarray(np.isfinite(design).all(axis=1))
    if not complete.any():
        raise ValueError("Nobody has complete covariates; use fewer covariates or impute them first.")
    raw[~complete] = np.nan
    basis = covariate_basis(design[complete], covariate_names)
    q = np.zeros((raw.shape[0], basis.rank))
    q[complete] = basis.q
    return PhenomeDesign(
        traits=_residuals(raw, design, q),
        raw=raw,
        covariates=design,
        complete=complete,
        basis=q,
        rank=basis.rank,
        dropped=basis.dropped,
        mode=mode,
        naive_df=naive_df,
        min_people=min_people,
        min_cases=min_cases,
    )


def scan_phenome(
    design: PhenomeDesign,
    phenotypes: Float[np.ndarray, "samples phenotypes"],
    *,
    binary: Bool[np.ndarray, " phenotypes"] | None = None,
) -> PhenomeScan:
    """Test every trait against every phenotype of a block.

    Parameters
    ----------
    phenotypes
        Numbers; NaN is missing. Same people in the same order as the design's.
    binary
        Which have two classes; by default those with exactly two distinct values.

    Raises
    ------
    ValueError
        Another number of people than the design's, or an infinite value.
    """
    values = np.array(phenotypes, dtype=np.float64)
    if values.shape[0] != design.raw.shape[0]:
        raise ValueError(f"Phenotypes have {values.shape[0]} people, the design {design.raw.shape[0]}.")
    if np.isinf(values).any():
        raise ValueError(f"Phenotype {int(np.isinf(values).any(axis=0).argmax()) + 1} has an infinite value.")
    values[~design.complete] = np.nan
    is_binary = _two_valued(values) if binary is None else binary
    if design.mode == "exact":
        moments = _exact_moments(design, values)
    else:
        residuals = _residuals(values, design.covariates, design.basis)
        moments = _masked_moments(residuals, design.traits, design.rank)
    return _estimates(design, values, is_binary, moments)


def phenome_results(
    scans: Sequence[PhenomeScan],
    *,
    traits: Sequence[str],
    phenotypes: Sequence[str],
    categories: Sequence[str] | None = None,
) -> ResultTable:
    """Return the long table of all blocks, corrected over all tests that have a result.

    Rows are ordered by phenotype, then trait. Columns are those of `PhenomeScan` with the names, Bonferroni's
    p and Benjamini-Hochberg's q.
    """

    def flat(name: str) -> Shaped[np.ndarray, " rows"]:
        return np.concatenate([np.asarray(getattr(scan, name)) for scan in scans]).ravel()

    n_traits, n_phenotypes = len(traits), len(phenotypes)
    neg_log10_p = flat("neg_log10_p")
    groups = list(categories) if categories is not None else [""] * n_phenotypes
    return ResultTable(
        {
            "trait": np.tile(np.asarray(traits, dtype=np.str_), n_phenotypes),
            "phenotype": np.repeat(np.asarray(phenotypes, dtype=np.str_), n_traits),
            "category": np.repeat(np.asarray(groups, dtype=np.str_), n_traits),
            "n": flat("n"),
            "n_cases": flat("n_cases"),
            "beta": flat("beta"),
            "standard_error": flat("standard_error"),
            "t": flat("t"),
            "degrees_of_freedom": flat("degrees_of_freedom"),
            "r": flat("r"),
            "cohens_d": flat("cohens_d"),
            "neg_log10_p": neg_log10_p,
            "p_bonferroni": bonferroni_p(neg_log10_p),
            "q_bh": benjamini_hochberg_q(neg_log10_p),
            "status": flat("status"),
        }
    )


def _two_valued(values: Float64[np.ndarray, "samples columns"]) -> Bool[np.ndarray, " columns"]:
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    between = (values > low) & (values < high)
    return np.asarray((low < high) & ~between.any(axis=0))


def _freed(
    values: Float64[np.ndarray, "samples columns"], q: Float64[np.ndarray, "samples rank"]
) -> Float64[np.ndarray, "samples columns"]:
    """Return residuals; exactly 0 where nothing but rounding is left."""
    residuals = project_out(q, values)
    varying = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    # A large offset leaves rounding errors of its own size: eight units in the last place at most.
    rounding = (8.0 * np.finfo(np.float64).eps) ** 2 * (values**2).sum(axis=0)
    residuals[:, (residuals**2).sum(axis=0) <= NO_VARIANCE * varying + rounding] = 0.0
    residuals[:, np.ptp(values, axis=0) == 0] = 0.0
    return residuals


def _residuals(
    values: Float64[np.ndarray, "samples columns"],
    covariates: Float64[np.ndarray, "samples covariates"],
    basis: Float64[np.ndarray, "samples rank"],
) -> Float64[np.ndarray, "samples columns"]:
    """Free each column of intercept and covariates on its own people.

    Columns with few patterns of missing people get one QR a pattern. Many patterns are solved together; columns
    whose people leave the covariates nearly collinear go to QR again, which drops what is redundant.
    """
    result = np.full(values.shape, np.nan)
    patterns = same_people(~np.isnan(values))
    if len(patterns) > MANY_PATTERNS:
        result, left = _solved_together(values, basis)
        patterns = [(rows, members[left[members]]) for rows, members in patterns if left[members].any()]
    for rows, members in patterns:
        if rows.any():
            q = covariate_basis(covariates[rows]).q
            result[np.ix_(rows, members)] = _freed(values[np.ix_(rows, members)], q)
    return result


def _solved_together(
    values: Float64[np.ndarray, "samples columns"], basis: Float64[np.ndarray, "samples rank"]
) -> tuple[Float64[np.ndarray, "samples columns"], Bool[np.ndarray, " columns"]]:
    """Return residuals by normal equations, one small system a column, and which columns need QR instead.

    With M the mask of a column, ``(Q'MQ) b = Q'Mx``: Q is orthonormal over everyone, so the systems are well
    conditioned unless a column's people are special. The step is done twice, as in `project_out`.
    """
    present = ~np.isnan(values)
    mask = present.astype(np.float64)
    gram = _masked_grams(basis, mask)
    eigenvalues = np.linalg.eigvalsh(gram)
    poor = eigenvalues[:, 0] <= POOR_CONDITION * np.maximum(eigenvalues[:, -1], np.finfo(float).tiny)
    gram[poor] = np.eye(basis.shape[1])
    residuals = np.where(present, values, 0.0)
    squares = np.einsum("ij,ij->j", residuals, residuals)
    for _ in range(2):
        coefficients = np.linalg.solve(gram, (basis.T @ residuals).T[:, :, None])[:, :, 0]
        fitted = basis @ coefficients.T
        fitted *= mask
        residuals -= fitted
    # Sums of squares cancel for a nearly constant column; QR, which centres first, decides about it.
    poor |= np.einsum("ij,ij->j", residuals, residuals) <= 1e-9 * squares
    residuals[~present] = np.nan
    residuals[:, poor] = np.nan
    return residuals, poor


def _masked_grams(
    basis: Float64[np.ndarray, "samples rank"], mask: Float64[np.ndarray, "samples columns"]
) -> Float64[np.ndarray, "columns rank rank"]:
    """Return ``Q'MQ`` for the mask M of every column, by blocks of people."""
    rank = basis.shape[1]
    first, second = np.triu_indices(rank)
    packed = np.zeros((first.size, mask.shape[1]))
    step = max(256, (1 << 22) // first.size)
    for start in range(0, basis.shape[0], step):
        q = basis[start : start + step]
        packed += (q[:, first] * q[:, second]).T @ mask[start : start + step]
    grams = np.empty((mask.shape[1], rank, rank))
    grams[:, first, second] = packed.T
    grams[:, second, first] = packed.T
    return grams


def _masked_moments(
    phenotypes: Float64[np.ndarray, "samples phenotypes"], traits: Float64[np.ndarray, "samples traits"], rank: int
) -> _Moments:
    """Return the joint moments by six matrix products."""
    x_mask, y_mask = ~np.isnan(phenotypes), ~np.isnan(traits)
    x, y = np.where(x_mask, phenotypes, 0.0), np.where(y_mask, traits, 0.0)
    mx, my = x_mask.astype(np.float64), y_mask.astype(np.float64)
    n = mx.T @ my
    sum_x, sum_y = x.T @ my, mx.T @ y
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = x.T @ y - sum_x * sum_y / n
        squares_x, squares_y = (x * x).T @ my, mx.T @ (y * y)
        phenotype_ss = squares_x - sum_x**2 / n
        trait_ss = squares_y - sum_y**2 / n
    # What differences of equal sums leave is rounding, not variance.
    phenotype_ss[phenotype_ss <= 1e-13 * squares_x] = 0.0
    trait_ss[trait_ss <= 1e-13 * squares_y] = 0.0
    return _Moments(n, covariance, phenotype_ss, trait_ss, np.full(n.shape, float(rank)))


def _exact_moments(design: PhenomeDesign, phenotypes: Float64[np.ndarray, "samples phenotypes"]) -> _Moments:
    """Return the moments of residuals on the joint people, group by group of equal missingness."""
    shape = (phenotypes.shape[1], design.raw.shape[1])
    n, covariance, phenotype_ss, trait_ss, rank = (np.zeros(shape) for _ in range(5))
    trait_groups = same_people(~np.isnan(design.raw))
    for x_rows, x_members in same_people(~np.isnan(phenotypes)):
        for y_rows, y_members in trait_groups:
            rows = x_rows & y_rows
            cells = np.ix_(x_members, y_members)
            n[cells] = rows.sum()
            if not rows.any():
                continue
            basis = covariate_basis(design.covariates[rows])
            x = _freed(phenotypes[np.ix_(rows, x_members)], basis.q)
            y = _freed(design.raw[np.ix_(rows, y_members)], basis.q)
            rank[cells] = basis.rank
            covariance[cells] = x.T @ y
            phenotype_ss[cells] = (x**2).sum(axis=0)[:, None]
            trait_ss[cells] = (y**2).sum(axis=0)
    return _Moments(n, covariance, phenotype_ss, trait_ss, rank)


def _estimates(
    design: PhenomeDesign,
    phenotypes: Float64[np.ndarray, "samples phenotypes"],
    is_binary: Bool[np.ndarray, " phenotypes"],
    moments: _Moments,
) -> PhenomeScan:
    n = moments.n
    cases = _cases(phenotypes, is_binary).T @ (~np.isnan(design.raw)).astype(np.float64)
    df = n - 2.0 if design.naive_df else n - moments.rank - 1.0
    status = np.full(n.shape, "ok", dtype="U32")
    status[(moments.phenotype_ss <= 0)] = "phenotype has no variance"
    status[(moments.trait_ss <= 0)] = "trait has no variance"
    few = is_binary[:, None] & (np.minimum(cases, n - cases) < design.min_cases)
    status[few] = f"fewer than {design.min_cases} in a class"
    status[df < 1] = "more covariates than people"
    status[n < design.min_people] = f"fewer than {design.min_people} people"
    ok = status == "ok"
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip(moments.covariance / np.sqrt(moments.phenotype_ss * moments.trait_ss), -MAX_R, MAX_R)
        t = r * np.sqrt(df / (1.0 - r * r))
        beta = moments.covariance / moments.phenotype_ss
        standard_error = np.sqrt(moments.trait_ss * (1.0 - r * r) / (df * moments.phenotype_ss))
        cohens_d = np.where(is_binary[:, None], t * np.sqrt(1.0 / cases + 1.0 / (n - cases)), np.nan)
    beta, standard_error, t, r, cohens_d = (
        np.where(ok, value, np.nan) for value in (beta, standard_error, t, r, cohens_d)
    )
    return PhenomeScan(
        n=n.astype(np.int64),
        n_cases=np.rint(cases).astype(np.int64),
        beta=beta,
        standard_error=standard_error,
        t=t,
        degrees_of_freedom=np.where(ok, df, np.nan),
        r=r,
        cohens_d=cohens_d,
        neg_log10_p=neg_log10_p_from_t(t, np.where(ok, df, np.nan)),
        status=status,
    )


def _cases(
    phenotypes: Float64[np.ndarray, "samples phenotypes"], is_binary: Bool[np.ndarray, " phenotypes"]
) -> Float64[np.ndarray, "samples phenotypes"]:
    """Return 1 for cases of binary phenotypes, 0 for all else."""
    result = np.zeros(phenotypes.shape)
    for k in np.flatnonzero(is_binary):
        column = phenotypes[:, k]
        present = ~np.isnan(column)
        if present.any():
            result[:, k] = present & (column == column[present].max())
    return result
