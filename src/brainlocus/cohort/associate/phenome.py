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
from jaxtyping import Bool, Float, Float64, Int, Int8, Shaped

from brainlocus.cohort.associate.phenome_moments import (
    TILE,
    TRAITS_AT_ONCE,
    Group,
    Moments,
    exact_moments,
    facts,
    freed,
    tiled_moments,
)
from brainlocus.core import ResultTable
from brainlocus.numerics import benjamini_hochberg_q, bonferroni_p, covariate_basis, neg_log10_p_from_t, same_people

__all__ = [
    "Mode",
    "PhenomeDesign",
    "PhenomeScan",
    "phenome_results",
    "phenome_rows",
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


@dataclass(frozen=True, slots=True, eq=False)
class PhenomeDesign:
    """Traits and covariates, reduced once and reused for every block of phenotypes."""

    traits: Float64[np.ndarray, "samples traits"]
    """Freed of the covariates on the trait's own people; NaN = missing."""
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
    robust: bool
    """Errors are heteroscedasticity-consistent (HC3)."""
    groups: tuple[Group, ...]
    """Traits by the people who have them."""

    @property
    def statuses(self) -> tuple[str, ...]:
        """What the codes of `PhenomeScan.status_code` mean."""
        return (
            "ok",
            "phenotype has no variance",
            "trait has no variance",
            f"fewer than {self.min_cases} in a class",
            "more covariates than people",
            f"fewer than {self.min_people} people",
        )


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
    """``t sqrt(1/n1 + 1/n0)`` for binary phenotypes, else NaN; t is that of equal variances, also with HC3."""
    hedges_g: Float64[np.ndarray, "phenotypes traits"]
    """Cohen's d times ``1 - 3 / (4 df - 1)``, which takes out its bias in small samples."""
    neg_log10_p: Float64[np.ndarray, "phenotypes traits"]
    status_code: Int8[np.ndarray, "phenotypes traits"]
    """0 = ok, else why there is no estimate: an index of `statuses`."""
    statuses: tuple[str, ...]

    @property
    def status(self) -> Shaped[np.ndarray, "phenotypes traits"]:
        """``ok`` or why there is no estimate."""
        names: Shaped[np.ndarray, " statuses"] = np.array(self.statuses, dtype=np.str_)
        return np.take(names, self.status_code)


def scan_phenome_peak_bytes(
    n_samples: int, n_traits: int, block: int, rank: int = 11, *, mode: Mode = "per_variable"
) -> int:
    """Return the most memory a block needs: its values, the traits side by side, a tile of people and the products.

    Parameters
    ----------
    rank
        Columns of the covariates, intercept included.
    mode
        ``exact`` has products of every trait with every covariate.
    """
    at_once = min(n_traits, TRAITS_AT_ONCE)
    tile = 8 * min(TILE, n_samples) * (8 * block + rank * rank + 2 * rank * at_once + 6 * n_traits)
    products = 8 * block * (3 * rank * rank + 24 * n_traits)
    if mode == "exact":
        products += 8 * block * 6 * rank * at_once
    traits = 8 * n_samples * n_traits if mode == "exact" else 0
    return 8 * n_samples * block + traits + tile + products + (32 << 20)


def prepare_phenome(
    traits: Float[np.ndarray, "samples traits"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    covariate_names: Sequence[str] | None = None,
    mode: Mode = "per_variable",
    naive_df: bool = False,
    min_people: int = MIN_PEOPLE,
    min_cases: int = MIN_CASES,
    robust: bool = False,
) -> PhenomeDesign:
    """Reduce traits and covariates to what every block shares.

    Parameters
    ----------
    traits
        NaN is missing.
    covariates
        Without an intercept; people with NaN take no part in any test.
    robust
        Heteroscedasticity-consistent errors (HC3), with `mode` ``exact`` only.

    Raises
    ------
    ValueError
        An infinite trait, nobody with complete covariates, or `robust` without ``exact``.
    """
    if robust and mode != "exact":
        raise ValueError("Robust errors (HC3) need residuals on the people of each pair: use the exact mode.")
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
    groups = tuple(Group(rows.astype(np.float64), members) for rows, members in same_people(~np.isnan(raw)))
    return PhenomeDesign(
        traits=_residuals(raw, design, groups),
        covariates=design,
        complete=complete,
        basis=q,
        rank=basis.rank,
        dropped=basis.dropped,
        mode=mode,
        naive_df=naive_df,
        min_people=min_people,
        min_cases=min_cases,
        robust=robust,
        groups=groups,
    )


def scan_phenome(
    design: PhenomeDesign,
    phenotypes: Float[np.ndarray, "samples phenotypes"],
) -> PhenomeScan:
    """Test every trait against every phenotype of a block.

    Parameters
    ----------
    phenotypes
        Numbers; NaN is missing. Same people in the same order as the design's. Those with exactly two distinct values
        are binary.

    Raises
    ------
    ValueError
        Another number of people than the design's, or an infinite value.
    """
    if phenotypes.shape[0] != design.traits.shape[0]:
        raise ValueError(f"Phenotypes have {phenotypes.shape[0]} people, the design {design.traits.shape[0]}.")
    values = np.ascontiguousarray(np.asarray(phenotypes, dtype=np.float64).T)
    known = facts(values, design.complete)
    if known.infinite.any():
        raise ValueError(f"Phenotype {int(known.infinite.argmax()) + 1} has an infinite value.")
    if design.mode == "exact":
        moments = exact_moments(
            values,
            known,
            design.traits,
            groups=list(design.groups),
            covariates=design.covariates,
            basis=design.basis,
            complete=design.complete,
            robust=design.robust,
        )
    else:
        moments = tiled_moments(
            values,
            known,
            design.traits,
            covariates=design.covariates,
            basis=design.basis,
            complete=design.complete,
        )
    return _estimates(design, known.two_valued, moments)


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
    neg_log10_p = np.concatenate([scan.neg_log10_p for scan in scans]).ravel()
    corrected = bonferroni_p(neg_log10_p), benjamini_hochberg_q(neg_log10_p)
    parts, start = [], 0
    for scan in scans:
        stop = start + scan.n.shape[0]
        rows = slice(start * len(traits), stop * len(traits))
        parts.append(
            phenome_rows(
                scan,
                traits=traits,
                phenotypes=phenotypes[start:stop],
                categories=None if categories is None else categories[start:stop],
                corrected=(corrected[0][rows], corrected[1][rows]),
            )
        )
        start = stop
    return ResultTable({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})


def phenome_rows(
    scan: PhenomeScan,
    *,
    traits: Sequence[str],
    phenotypes: Sequence[str],
    categories: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    corrected: tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]],
) -> ResultTable:
    """Return the rows of one block: by phenotype, then trait.

    Parameters
    ----------
    categories
        Of each phenotype.
    groups
        Of each trait, such as the scale of its atlas; no column when None.
    corrected
        Bonferroni's p and Benjamini-Hochberg's q of each row, over whatever scope was chosen.
    """
    n_traits, n_phenotypes = len(traits), len(phenotypes)
    named = list(categories) if categories is not None else [""] * n_phenotypes
    columns: dict[str, Shaped[np.ndarray, " rows"]] = {
        "trait": np.tile(np.asarray(traits, dtype=np.str_), n_phenotypes),
        "phenotype": np.repeat(np.asarray(phenotypes, dtype=np.str_), n_traits),
        "category": np.repeat(np.asarray(named, dtype=np.str_), n_traits),
    }
    if groups is not None:
        columns["trait_group"] = np.tile(np.asarray(groups, dtype=np.str_), n_phenotypes)
    for name in (
        "n", "n_cases", "beta", "standard_error", "t", "degrees_of_freedom", "r", "cohens_d", "hedges_g", "neg_log10_p",
    ):  # fmt: skip
        columns[name] = np.asarray(getattr(scan, name)).ravel()
    columns["p_bonferroni"], columns["q_bh"] = corrected
    columns["status"] = scan.status.ravel()
    return ResultTable(columns)


def _residuals(
    values: Float64[np.ndarray, "samples columns"],
    covariates: Float64[np.ndarray, "samples covariates"],
    groups: Sequence[Group],
) -> Float64[np.ndarray, "samples columns"]:
    """Free each column of intercept and covariates on its own people, by one QR for every set of people."""
    result = np.full(values.shape, np.nan)
    for group in groups:
        rows = np.flatnonzero(group.people)
        if rows.size:
            place = np.ix_(rows, group.members)
            result[place] = freed(values[place], covariate_basis(covariates[rows]).q)
    return result


def _estimates(design: PhenomeDesign, is_binary: Bool[np.ndarray, " phenotypes"], moments: Moments) -> PhenomeScan:
    n, cases = moments.n, moments.n_cases
    df = n - 2.0 if design.naive_df else n - moments.rank - 1.0
    code = np.zeros(n.shape, dtype=np.int8)
    code[moments.phenotype_ss <= 0] = 1
    code[moments.trait_ss <= 0] = 2
    code[is_binary[:, None] & (np.minimum(cases, n - cases) < design.min_cases)] = 3
    code[df < 1] = 4
    code[n < design.min_people] = 5
    ok = code == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip(moments.covariance / np.sqrt(moments.phenotype_ss * moments.trait_ss), -MAX_R, MAX_R)
        t = r * np.sqrt(df / (1.0 - r * r))
        beta = moments.covariance / moments.phenotype_ss
        standard_error = np.sqrt(moments.trait_ss * (1.0 - r * r) / (df * moments.phenotype_ss))
        cohens_d = np.where(is_binary[:, None], t * np.sqrt(1.0 / cases + 1.0 / (n - cases)), np.nan)
        if moments.meat is not None:
            standard_error = np.sqrt(np.maximum(moments.meat, 0.0)) / moments.phenotype_ss
            t = beta / standard_error
        hedges_g = cohens_d * (1.0 - 3.0 / (4.0 * df - 1.0))
    df, beta, standard_error, t, r, cohens_d, hedges_g = (
        np.where(ok, value, np.nan) for value in (df, beta, standard_error, t, r, cohens_d, hedges_g)
    )
    return PhenomeScan(
        n=n.astype(np.int64),
        n_cases=np.rint(cases).astype(np.int64),
        beta=beta,
        standard_error=standard_error,
        t=t,
        degrees_of_freedom=df,
        r=r,
        cohens_d=cohens_d,
        hedges_g=hedges_g,
        neg_log10_p=neg_log10_p_from_t(t, df),
        status_code=code,
        statuses=design.statuses,
    )
