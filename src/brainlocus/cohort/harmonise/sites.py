"""How much of each feature the sites explain, before and after harmonising.

Each feature and the site columns are freed of the nuisance covariates; eta^2 is the share of what is left that
the sites explain, the F test is that of the sites in the full model, and Brown-Forsythe's test compares the
spread of the residuals between sites.

References
----------
Brown & Forsythe (1974), J. Am. Stat. Assoc. 69:364; Levene (1960), in Contributions to
Probability and Statistics, Stanford University Press, 278.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from scipy.special import fdtrc

from brainlocus.numerics import covariate_basis, project_out

__all__ = ["SiteEffects", "mean_of_known", "site_effects"]


@dataclass(frozen=True, slots=True, eq=False)
class SiteEffects:
    """One number a feature; NaN where the feature does not vary."""

    eta2: Float64[np.ndarray, " features"]
    """Partial eta^2 of the sites given the covariates."""
    p_location: Float64[np.ndarray, " features"]
    """F test of the sites."""
    p_spread: Float64[np.ndarray, " features"]
    """Brown-Forsythe test of equal spread."""

    @property
    def mean_eta2(self) -> float:
        """Mean over features that vary; NaN when none does."""
        return mean_of_known(self.eta2)


def mean_of_known(values: Float[np.ndarray, " features"]) -> float:
    """Return the mean without NaN; NaN when nothing else is there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def site_effects(
    features: Float[np.ndarray, "samples features"],
    batch: Shaped[np.ndarray, " samples"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
) -> SiteEffects:
    """Return the site effects of every feature.

    Parameters
    ----------
    features
        NaN is missing: each feature uses the people who have it.
    covariates
        Nuisance, complete.
    """
    values = np.asarray(features, dtype=np.float64)
    design = np.empty((values.shape[0], 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    _, codes = np.unique(batch.astype(np.str_), return_inverse=True)
    n_features = values.shape[1]
    eta2, location, spread = (np.full(n_features, np.nan) for _ in range(3))
    present = ~np.isnan(values)
    complete = np.flatnonzero(present.all(axis=0))
    groups = [(np.ones(values.shape[0], dtype=bool), complete)] if complete.size else []
    groups += [(present[:, k], np.array([k])) for k in np.flatnonzero(~present.all(axis=0))]
    for rows, members in groups:
        if int(rows.sum()) > design.shape[1] + 2:
            eta2[members], location[members], spread[members] = _effects(
                values[np.ix_(rows, members)], codes[rows], design[rows]
            )
    return SiteEffects(eta2, location, spread)


def _effects(
    y: Float64[np.ndarray, "samples features"],
    codes: Int[np.ndarray, " samples"],
    design: Float64[np.ndarray, "samples covariates"],
) -> tuple[Float64[np.ndarray, " features"], Float64[np.ndarray, " features"], Float64[np.ndarray, " features"]]:
    sites, codes = np.unique(codes, return_inverse=True)
    one_hot = (codes[:, None] == np.arange(1, sites.size)).astype(np.float64)
    nuisance = covariate_basis(design)
    full = covariate_basis(np.hstack([design, one_hot]))
    reduced_residuals, full_residuals = project_out(nuisance.q, y), project_out(full.q, y)
    reduced_ss, full_ss = (reduced_residuals**2).sum(axis=0), (full_residuals**2).sum(axis=0)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    varies = reduced_ss > 1e-20 * np.maximum((y**2).sum(axis=0), np.finfo(float).tiny)
    varies &= total > 0
    df1, df2 = full.rank - nuisance.rank, y.shape[0] - full.rank
    with np.errstate(divide="ignore", invalid="ignore"):
        eta2 = np.where(varies, 1.0 - full_ss / reduced_ss, np.nan)
        f = ((reduced_ss - full_ss) / df1) / (full_ss / df2)
    location = np.where(varies, fdtrc(df1, df2, np.where(varies, f, 0.0)), np.nan)
    return eta2, location, np.where(varies, _brown_forsythe(full_residuals, codes, sites.size), np.nan)


def _brown_forsythe(
    residuals: Float64[np.ndarray, "samples features"], codes: Int[np.ndarray, " samples"], n_sites: int
) -> Float64[np.ndarray, " features"]:
    medians = np.stack([np.median(residuals[codes == k], axis=0) for k in range(n_sites)])
    away = np.abs(residuals - medians[codes])
    counts = np.bincount(codes, minlength=n_sites)[:, None]
    means = np.stack([away[codes == k].mean(axis=0) for k in range(n_sites)])
    between = (counts * (means - away.mean(axis=0)) ** 2).sum(axis=0) / (n_sites - 1)
    within = ((away - means[codes]) ** 2).sum(axis=0) / (codes.size - n_sites)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = between / within
    return np.asarray(fdtrc(n_sites - 1, codes.size - n_sites, np.nan_to_num(f, nan=0.0)))
