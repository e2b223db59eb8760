r"""ComBat: site effects of location and scale, estimated with empirical Bayes.

Model, for site i, person j and feature v::

    y_ijv = alpha_v + c_ij . beta_v + gamma_iv + delta_iv e_ijv

Data flow::

    features, batch, covariates --fit_combat--> CombatModel            (once, on training people)
    CombatModel + features, batch, covariates --apply_combat--> Harmonised   (any people of known sites)

Steps: least squares on ``[site one-hot | covariates]``; ``alpha`` is the mean of the site intercepts weighted by
their people; ``sigma`` the pooled residual spread (1/n); site means ``gamma_hat`` and variances ``delta_hat`` of
the standardised data are shrunk to priors taken over features, and removed. The data pass is needed once: sums
of squares follow from ``(n - 1) delta_hat + n (gamma_hat - gamma)^2``.

References
----------
Johnson, Li & Rabinovic (2007), Biostatistics 8:118; Fortin et al. (2018), NeuroImage 167:104.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Float64, Int, Shaped

from brainlocus.numerics import same_people

__all__ = ["CombatModel", "CombatOptions", "Harmonised", "UnknownSite", "apply_combat", "fit_combat"]

UnknownSite = Literal["error", "estimate", "nan"]

EB_TOLERANCE = 1e-4
"""Relative change at which the published programs stop; kept, so that results agree with theirs."""
EB_MAX_ITERATIONS = 1_000
SMALL_SITE = 5
"""Sites with fewer people are reported: their variances are hardly estimable."""
RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class CombatOptions:
    """How site effects are estimated."""

    eb: bool = True
    """Shrink site effects to priors over features; False takes the plain estimates."""
    mean_only: bool = False
    """Correct location only (delta = 1). Shrinkage uses the true site sizes; the classic programs use n = 1
    here, which under-corrects."""
    reference: str | None = None
    """Site that stays as it is, and that defines alpha and sigma."""


@dataclass(frozen=True, slots=True, eq=False)
class CombatModel:
    """Everything needed to harmonise further people."""

    feature_names: tuple[str, ...]
    covariate_names: tuple[str, ...]
    sites: tuple[str, ...]
    """Sorted."""
    site_counts: Int[np.ndarray, " sites"]
    """Training people."""
    alpha: Float64[np.ndarray, " features"]
    beta: Float64[np.ndarray, "covariates features"]
    sigma: Float64[np.ndarray, " features"]
    """0 marks a feature that is passed through unchanged."""
    gamma: Float64[np.ndarray, "sites features"]
    """Location of each site in units of sigma; NaN where a site had no value of the feature."""
    delta: Float64[np.ndarray, "sites features"]
    """Variance of each site in units of sigma^2."""
    options: CombatOptions
    notes: tuple[str, ...] = ()
    """What was done differently for some sites or features, in words."""

    @property
    def passed_through(self) -> tuple[str, ...]:
        """Constant features, returned as they came."""
        return tuple(n for n, s in zip(self.feature_names, self.sigma, strict=True) if s == 0)


@dataclass(frozen=True, slots=True, eq=False)
class Harmonised:
    """Features without their site effects."""

    values: Float64[np.ndarray, "samples features"]
    estimated_sites: tuple[str, ...] = ()
    """Sites unknown to the model whose effects were estimated from these people."""
    missing_sites: tuple[str, ...] = ()
    """Sites unknown to the model whose people are NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class _SiteMoments:
    """Per site and feature: people, mean and variance of the standardised data."""

    n: Float64[np.ndarray, "sites features"]
    mean: Float64[np.ndarray, "sites features"]
    variance: Float64[np.ndarray, "sites features"]
    """NaN below two people."""


def fit_combat(
    features: Float[np.ndarray, "samples features"],
    batch: Shaped[np.ndarray, " samples"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    feature_names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
    options: CombatOptions | None = None,
) -> CombatModel:
    """Estimate site effects while preserving the covariates.

    Parameters
    ----------
    features
        NaN is missing: each feature uses the people who have it.
    batch
        Site of each person, compared as text.
    covariates
        Complete, without an intercept: what the site effects must not absorb. Never the target of a later
        prediction, which would leak into the features.

    Raises
    ------
    ValueError
        Fewer than two sites; a missing covariate or site (rows named); a covariate confounded with the sites
        (both named) or collinear; an unknown reference; an infinite feature (named).

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> site = np.repeat(["a", "b"], 50)
    >>> y = generator.standard_normal((100, 20)) + 2.0 * (site == "b")[:, None]
    >>> clean = apply_combat(fit_combat(y, site), y, site).values
    >>> bool(abs(clean[:50].mean() - clean[50:].mean()) < 0.01)
    True
    """
    chosen = options if options is not None else CombatOptions()
    n_samples, n_features = features.shape
    design = np.empty((n_samples, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    names = _names(feature_names, n_features, "feature")
    covariate_labels = _names(covariate_names, design.shape[1], "covariate")
    sites, codes = _check_inputs(features, batch, design, names, chosen)
    _check_confounding(design, codes, sites, covariate_labels)
    values = np.asarray(features, dtype=np.float64)
    reference = sites.index(chosen.reference) if chosen.reference is not None else -1
    alpha, beta, sigma = _standardisation(values, codes, design, n_sites=len(sites), reference=reference)
    standard = _standardise(values, design, alpha, beta, sigma)
    moments = _moments(standard, codes, len(sites))
    notes: list[str] = []
    gamma, delta = _effects(moments, sigma > 0, chosen, sites, notes)
    if reference >= 0:
        gamma[reference], delta[reference] = 0.0, 1.0
    constant = [n for n, s in zip(names, sigma, strict=True) if s == 0]
    if constant:
        notes.append(f"{len(constant)} constant features are passed through: {', '.join(constant[:10])}.")
    return CombatModel(
        feature_names=names,
        covariate_names=covariate_labels,
        sites=sites,
        site_counts=np.bincount(codes, minlength=len(sites)).astype(np.int64),
        alpha=alpha,
        beta=beta,
        sigma=sigma,
        gamma=gamma,
        delta=delta,
        options=chosen,
        notes=tuple(notes),
    )


def apply_combat(
    model: CombatModel,
    features: Float[np.ndarray, "samples features"],
    batch: Shaped[np.ndarray, " samples"],
    *,
    covariates: Float[np.ndarray, "samples covariates"] | None = None,
    covariate_names: Sequence[str] | None = None,
    unknown: UnknownSite = "error",
) -> Harmonised:
    """Remove the model's site effects.

    Parameters
    ----------
    features
        Columns in the order of `CombatModel.feature_names`; NaN stays NaN.
    covariates
        The model's covariates; in another order when `covariate_names` says so.
    unknown
        People of a site that the model does not know: ``error``; ``estimate`` the site's effects from these
        people, with alpha, beta and sigma of the model (10 people or more are advised); or ``nan``.

    Raises
    ------
    ValueError
        An unknown site, other features or covariates than the model's, a missing covariate.
    """
    design = _ordered_covariates(model, features.shape[0], covariates, covariate_names)
    if features.shape[1] != len(model.feature_names):
        raise ValueError(f"The model has {len(model.feature_names)} features, found {features.shape[1]}.")
    labels = batch.astype(np.str_)
    index = {site: k for k, site in enumerate(model.sites)}
    new_sites = tuple(sorted({str(s) for s in labels} - set(model.sites)))
    if new_sites and unknown == "error":
        shown = ", ".join(repr(s) for s in new_sites[:5])
        raise ValueError(
            f"{len(new_sites)} sites are unknown to the model: {shown}; it knows {', '.join(model.sites[:8])}. "
            "Estimate them (unknown='estimate'), leave them missing ('nan'), or remove these people."
        )
    values = np.asarray(features, dtype=np.float64)
    gamma, delta = model.gamma, model.delta
    active = model.sigma > 0
    standard = _standardise(values, design, model.alpha, model.beta, model.sigma)
    if new_sites:
        extra_gamma, extra_delta = _new_sites(model, standard, labels, new_sites, unknown)
        gamma, delta = np.vstack([gamma, extra_gamma]), np.vstack([delta, extra_delta])
        index |= {site: len(model.sites) + k for k, site in enumerate(new_sites)}
    codes = np.array([index[str(s)] for s in labels], dtype=np.int64)
    result = model.sigma * (standard - gamma[codes]) / np.sqrt(delta[codes]) + model.alpha + design @ model.beta
    lost = np.isnan(gamma[codes])
    result = np.where(active, result, np.where(lost, np.nan, values))
    if model.options.reference is not None:
        kept = labels == model.options.reference
        result[kept] = values[kept]
    return Harmonised(
        result,
        estimated_sites=new_sites if unknown == "estimate" else (),
        missing_sites=new_sites if unknown == "nan" else (),
    )


def _names(given: Sequence[str] | None, count: int, what: str) -> tuple[str, ...]:
    names = tuple(given) if given is not None else tuple(f"{what} {k + 1}" for k in range(count))
    if len(names) != count:
        raise ValueError(f"Expected {count} {what} names, found {len(names)}.")
    return names


def _check_inputs(
    features: Float[np.ndarray, "samples features"],
    batch: Shaped[np.ndarray, " samples"],
    design: Float64[np.ndarray, "samples covariates"],
    names: tuple[str, ...],
    options: CombatOptions,
) -> tuple[tuple[str, ...], Int[np.ndarray, " samples"]]:
    """Return the sorted sites and each person's site number."""
    labels = batch.astype(np.str_)
    nameless = np.flatnonzero((labels == "") | (labels == "nan"))
    if nameless.size:
        raise ValueError(f"{nameless.size} people have no site (rows {_rows(nameless)}); remove or complete them.")
    incomplete = np.flatnonzero(~np.isfinite(design).all(axis=1))
    if incomplete.size:
        raise ValueError(f"{incomplete.size} people lack a covariate (rows {_rows(incomplete)}); remove or complete.")
    infinite = np.isinf(features).any(axis=0)
    if infinite.any():
        raise ValueError(f"Feature {names[int(np.argmax(infinite))]!r} has an infinite value; features must be finite.")
    sites, codes = np.unique(labels, return_inverse=True)
    if sites.size < 2:
        raise ValueError(f"Harmonising needs at least two sites, found {sites.size}: {', '.join(sites.tolist())}.")
    known = tuple(str(s) for s in sites)
    if options.reference is not None and options.reference not in known:
        raise ValueError(f"The reference site {options.reference!r} does not occur; sites are {', '.join(known[:10])}.")
    return known, codes.astype(np.int64)


def _rows(rows: Int[np.ndarray, " some"]) -> str:
    return ", ".join(str(int(r) + 1) for r in rows[:5]) + (", ..." if rows.size > 5 else "")


def _check_confounding(
    design: Float64[np.ndarray, "samples covariates"],
    codes: Int[np.ndarray, " samples"],
    sites: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Refuse covariates that the sites determine, or that determine each other."""
    if not design.shape[1]:
        return
    counts = np.bincount(codes, minlength=len(sites))[:, None]
    means = _site_sums(design, codes, len(sites)) / counts
    within = design - means[codes]
    spread = np.sqrt((within**2).sum(axis=0))
    total = np.sqrt(((design - design.mean(axis=0)) ** 2).sum(axis=0))
    for k, name in enumerate(names):
        if spread[k] <= RANK_TOLERANCE * max(total[k], np.finfo(float).tiny):
            low, high = int(np.argmin(means[:, k])), int(np.argmax(means[:, k]))
            detail = (
                f"it is {means[low, k]:g} throughout site {sites[low]!r} and {means[high, k]:g} throughout "
                f"site {sites[high]!r}"
                if total[k] > 0
                else "it is constant"
            )
            raise ValueError(
                f"Covariate {name!r} is confounded with the sites: {detail}, and varies within none, so its effect "
                "cannot be told from theirs. Remove the covariate, or sites until both values occur within one."
            )
    _, r, pivots = scipy.linalg.qr(within / spread, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > RANK_TOLERANCE * diagonal[0]).sum())
    if rank < len(names):
        dropped = ", ".join(repr(names[k]) for k in pivots[rank:])
        largest = sites[int(np.argmax(counts))]
        raise ValueError(
            f"Covariates {dropped} are combinations of the other covariates and the sites (such as {largest!r}); "
            "remove them."
        )


def _site_sums(
    values: Float64[np.ndarray, "samples columns"], codes: Int[np.ndarray, " samples"], n_sites: int
) -> Float64[np.ndarray, "sites columns"]:
    one_hot = np.zeros((n_sites, codes.size))
    one_hot[codes, np.arange(codes.size)] = 1.0
    return np.asarray(one_hot @ values)


def _standardisation(
    values: Float64[np.ndarray, "samples features"],
    codes: Int[np.ndarray, " samples"],
    design: Float64[np.ndarray, "samples covariates"],
    *,
    n_sites: int,
    reference: int,
) -> tuple[
    Float64[np.ndarray, " features"], Float64[np.ndarray, "covariates features"], Float64[np.ndarray, " features"]
]:
    """Return alpha, beta and sigma of steps 1 and 2, per feature on the people who have it."""
    n_features = values.shape[1]
    alpha, sigma = np.zeros(n_features), np.zeros(n_features)
    beta = np.zeros((design.shape[1], n_features))
    for rows, members in same_people(~np.isnan(values)):
        y, c, site = values[np.ix_(rows, members)], design[rows], codes[rows]
        if not y.shape[0]:
            continue
        one_hot = np.zeros((site.size, n_sites))
        one_hot[np.arange(site.size), site] = 1.0
        # Least norm: a site without people gets 0, which no step below uses.
        solution = np.linalg.lstsq(np.hstack([one_hot, c]), y, rcond=None)[0]
        weights = one_hot.mean(axis=0) if reference < 0 else (np.arange(n_sites) == reference).astype(np.float64)
        residuals = y - solution[site] - c @ solution[n_sites:]
        used = residuals if reference < 0 else residuals[site == reference]
        spread = np.sqrt((used**2).mean(axis=0)) if used.shape[0] else np.zeros(len(members))
        # A constant feature leaves rounding errors of its own size; that is not spread.
        scale = np.abs(y).max(axis=0)
        spread[spread <= 1e-12 * scale] = 0.0
        alpha[members] = weights @ solution[:n_sites]
        beta[:, members] = solution[n_sites:]
        sigma[members] = spread
    return alpha, beta, sigma


def _standardise(
    values: Float64[np.ndarray, "samples features"],
    design: Float64[np.ndarray, "samples covariates"],
    alpha: Float64[np.ndarray, " features"],
    beta: Float64[np.ndarray, "covariates features"],
    sigma: Float64[np.ndarray, " features"],
) -> Float64[np.ndarray, "samples features"]:
    return np.asarray((values - alpha - design @ beta) / np.where(sigma > 0, sigma, 1.0))


def _moments(
    standard: Float64[np.ndarray, "samples features"], codes: Int[np.ndarray, " samples"], n_sites: int
) -> _SiteMoments:
    present = ~np.isnan(standard)
    n = _site_sums(present.astype(np.float64), codes, n_sites)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _site_sums(np.where(present, standard, 0.0), codes, n_sites) / n
        centred = np.where(present, standard - mean[codes], 0.0)
        variance = _site_sums(centred**2, codes, n_sites) / (n - 1.0)
    variance[n < 2] = np.nan
    mean[n < 1] = np.nan
    return _SiteMoments(n, mean, variance)


def _effects(
    moments: _SiteMoments,
    active: Bool[np.ndarray, " features"],
    options: CombatOptions,
    sites: tuple[str, ...],
    notes: list[str],
) -> tuple[Float64[np.ndarray, "sites features"], Float64[np.ndarray, "sites features"]]:
    """Return gamma* and delta* of every site (steps 3 to 5)."""
    gamma = np.where(np.isnan(moments.mean), np.nan, 0.0)
    delta = np.ones(moments.mean.shape)
    use_eb = options.eb
    if use_eb and int(active.sum()) < 2:
        use_eb = False
        notes.append("Empirical Bayes needs at least two features that vary; plain estimates are used.")
    variance = _repaired_variance(moments, active, sites, notes)
    for k, site in enumerate(sites):
        n, mean = moments.n[k, active], moments.mean[k, active]
        people = int(n.max(initial=0))
        alone = people < 2
        if alone:
            notes.append(f"Site {site!r} has {people} person: location only, its variance is taken as 1.")
        elif people < SMALL_SITE:
            notes.append(f"Site {site!r} has {people} people; its variances are hardly estimable.")
        location_only = options.mean_only or alone
        spread = np.ones(mean.size) if location_only else variance[k, active]
        if use_eb:
            mean, spread = _shrink(n, mean, spread, location_only=location_only)
        gamma[k, active], delta[k, active] = mean, spread
    return gamma, delta


def _repaired_variance(
    moments: _SiteMoments, active: Bool[np.ndarray, " features"], sites: tuple[str, ...], notes: list[str]
) -> Float64[np.ndarray, "sites features"]:
    """Replace variances that are 0 or undefined within one site by the feature's median over the other sites."""
    variance = moments.variance.copy()
    broken = active & (moments.n >= 1) & ~(variance > 1e-20)
    usable = np.where(broken | np.isnan(variance), np.nan, variance)
    for feature in np.flatnonzero(broken.any(axis=0)):
        others = usable[:, feature]
        others = others[~np.isnan(others)]
        variance[broken[:, feature], feature] = np.median(others) if others.size else 1.0
    repaired = broken & (moments.n >= 2)
    if repaired.any():
        named = ", ".join(repr(sites[k]) for k in np.flatnonzero(repaired.any(axis=1))[:5])
        notes.append(
            f"{int(repaired.sum())} features are constant within a site ({named}); their variance there is the median "
            "over the other sites."
        )
    return variance


def _shrink(
    n: Float64[np.ndarray, " features"],
    mean: Float64[np.ndarray, " features"],
    variance: Float64[np.ndarray, " features"],
    *,
    location_only: bool,
) -> tuple[Float64[np.ndarray, " features"], Float64[np.ndarray, " features"]]:
    """Return the posterior gamma* and delta* of one site (Johnson 2007, section 3.2).

    Priors are moments over features: normal for gamma, inverse gamma for delta. Features that the site lacks
    are NaN and take no part.
    """
    known = ~np.isnan(mean)
    if int(known.sum()) < 2:
        return mean, variance
    gamma_bar, tau2 = float(mean[known].mean()), float(mean[known].var(ddof=1))
    if location_only:
        return (n * tau2 * mean + gamma_bar) / (n * tau2 + 1.0), np.ones(mean.size)
    m, s2 = float(variance[known].mean()), float(variance[known].var(ddof=1))
    if s2 <= 1e-20 * m * m:
        # All variances agree: the prior is a point, the posterior is it.
        return (n * tau2 * mean + variance * gamma_bar) / (n * tau2 + variance), variance.copy()
    a, b = (m * m + 2.0 * s2) / s2, (m * s2 + m**3) / s2
    gamma, delta = mean.copy(), variance.copy()
    # `known` keeps NaN out of the comparison; the loop's result there is NaN again.
    for _ in range(EB_MAX_ITERATIONS):
        new_gamma = (n * tau2 * mean + delta * gamma_bar) / (n * tau2 + delta)
        squares = (n - 1.0) * variance + n * (mean - new_gamma) ** 2
        new_delta = (b + 0.5 * squares) / (n / 2.0 + a - 1.0)
        change = max(_relative_change(new_gamma[known], gamma[known]), _relative_change(new_delta[known], delta[known]))
        gamma, delta = new_gamma, new_delta
        if change < EB_TOLERANCE:
            break
    return gamma, delta


def _relative_change(new: Float64[np.ndarray, " features"], old: Float64[np.ndarray, " features"]) -> float:
    return float((np.abs(new - old) / np.maximum(np.abs(old), 1e-8)).max())


def _new_sites(
    model: CombatModel,
    standard: Float64[np.ndarray, "samples features"],
    labels: Shaped[np.ndarray, " samples"],
    new_sites: tuple[str, ...],
    unknown: UnknownSite,
) -> tuple[Float64[np.ndarray, "new features"], Float64[np.ndarray, "new features"]]:
    """Return gamma and delta of sites outside the model: estimated, or NaN."""
    shape = (len(new_sites), len(model.feature_names))
    if unknown == "nan":
        return np.full(shape, np.nan), np.ones(shape)
    index = {site: k for k, site in enumerate(new_sites)}
    chosen = np.isin(labels, new_sites)
    codes = np.array([index[str(s)] for s in labels[chosen]], dtype=np.int64)
    moments = _moments(standard[chosen], codes, len(new_sites))
    return _effects(moments, model.sigma > 0, model.options, new_sites, [])


def _ordered_covariates(
    model: CombatModel,
    n_samples: int,
    covariates: Float[np.ndarray, "samples covariates"] | None,
    names: Sequence[str] | None,
) -> Float64[np.ndarray, "samples covariates"]:
    design = np.empty((n_samples, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    given = tuple(names) if names is not None else model.covariate_names
    if sorted(given) != sorted(model.covariate_names) or design.shape[1] != len(model.covariate_names):
        raise ValueError(
            f"The model preserves {list(model.covariate_names)}, found {design.shape[1]} covariates {list(given)}; "
            "give the same ones."
        )
    incomplete = np.flatnonzero(~np.isfinite(design).all(axis=1))
    if incomplete.size:
        raise ValueError(f"{incomplete.size} people lack a covariate (rows {_rows(incomplete)}); remove or complete.")
    return design[:, [given.index(name) for name in model.covariate_names]]
