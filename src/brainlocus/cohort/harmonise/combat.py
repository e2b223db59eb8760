r"""ComBat: site effects of location and scale, estimated with empirical Bayes.

Model, for site i, person j and feature v::

    y_ijv = alpha_v + c_ij . beta_v + sum_k f_kv(x_ijk) + gamma_iv + delta_iv e_ijv

with curves f of the smooth covariates x (ComBat-GAM), if any.

Data flow::

    features, batch, covariates --fit_combat--> CombatModel            (once, on training people)
    CombatModel + features, batch, covariates --apply_combat--> Harmonised   (any people of known sites)

Steps: least squares on ``[site one-hot | covariates]``, penalised for the splines of smooth covariates
(`brainlocus.cohort.harmonise.smooth`); ``alpha`` is the mean of the site intercepts weighted by their people;
``sigma`` the pooled residual spread (1/n); site means ``gamma_hat`` and variances ``delta_hat`` of the standardised
data are shrunk to priors taken over features, and removed. The data pass is needed once: sums of squares follow from
``(n - 1) delta_hat + n (gamma_hat - gamma)^2``.

References
----------
Johnson, Li & Rabinovic (2007), Biostatistics 8:118; Fortin et al. (2018), NeuroImage 167:104; Pomponio et al.
(2020), NeuroImage 208:116450 (smooth covariates).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Float64, Int, Shaped

from brainlocus.cohort.harmonise.smooth import (
    MAX_TERMS,
    PenalisedFit,
    SmoothOptions,
    SmoothTerm,
    fit_penalised,
    place_knots,
    roughness,
    smooth_effect,
    spline_basis,
)
from brainlocus.numerics import covariate_basis, project_out, same_people

__all__ = [
    "CombatModel",
    "CombatOptions",
    "Harmonised",
    "UnknownSite",
    "apply_combat",
    "fit_combat",
    "preserved_columns",
]

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
    smooth: tuple[SmoothOptions, ...] = ()
    """Covariates whose effect is a curve instead of a straight line (ComBat-GAM)."""


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
    """0 for smooth covariates, whose effects are in `smooth`."""
    sigma: Float64[np.ndarray, " features"]
    """0 marks a feature that is passed through unchanged."""
    gamma: Float64[np.ndarray, "sites features"]
    """Location of each site in units of sigma; NaN where a site had no value of the feature."""
    delta: Float64[np.ndarray, "sites features"]
    """Variance of each site in units of sigma^2."""
    options: CombatOptions
    notes: tuple[str, ...] = ()
    """What was done differently for some sites or features, in words."""
    smooth: tuple[SmoothTerm, ...] = ()

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
    notes: tuple[str, ...] = ()
    """What was done differently for sites that were estimated here, in words."""
    extrapolated: tuple[tuple[str, int], ...] = ()
    """Smooth covariates with people outside the model's range, whose curve is continued as a straight line."""


@dataclass(frozen=True, slots=True, eq=False)
class _SiteMoments:
    """Per site and feature: people, mean and variance of the standardised data."""

    n: Float64[np.ndarray, "sites features"]
    mean: Float64[np.ndarray, "sites features"]
    variance: Float64[np.ndarray, "sites features"]
    """NaN below two people."""


@dataclass(frozen=True, slots=True, eq=False)
class _SmoothColumns:
    """The splines of one smooth covariate at the training people."""

    options: SmoothOptions
    position: int
    """Column of the covariate."""
    knots: Float64[np.ndarray, " knots"]
    basis: Float64[np.ndarray, "samples centred"]
    centring: Float64[np.ndarray, "splines centred"]
    """From coefficients of the centred columns to those of the B-splines."""


@dataclass(frozen=True, slots=True, eq=False)
class _Location:
    """Estimates of the standardisation (steps 1 and 2)."""

    alpha: Float64[np.ndarray, " features"]
    beta: Float64[np.ndarray, "covariates features"]
    sigma: Float64[np.ndarray, " features"]
    terms: tuple[SmoothTerm, ...]


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
    covariate_names
        Names by which `CombatOptions.smooth` finds its columns.

    Raises
    ------
    ValueError
        Fewer than two sites; a missing covariate or site (rows named); a covariate confounded with the sites
        (both named) or collinear; an unknown reference; an infinite feature (named); a smooth covariate that is
        unknown, has too few values or goes beyond its bounds.

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
    smooth = _smooth_columns(design, covariate_labels, chosen)
    location = _location(values, codes, design, smooth, n_sites=len(sites), reference=reference)
    alpha, sigma = location.alpha, location.sigma
    preserved = _preserved(covariate_labels, design, location.beta, location.terms)
    standard = _standardise(values, preserved, alpha, sigma)
    moments = _moments(standard, codes, len(sites))
    notes: list[str] = []
    gamma, delta = _effects(moments, sigma > 0, chosen, sites, notes)
    if reference >= 0:
        gamma[reference], delta[reference] = 0.0, 1.0
    empty = np.asarray(np.isnan(values).all(axis=0))
    for flags, what in (
        (empty, "features have no value"),
        (~empty & (sigma == 0), "constant features are passed through"),
    ):
        found = [name for name, flag in zip(names, np.asarray(flags), strict=True) if flag]
        if found:
            notes.append(f"{len(found)} {what}: {', '.join(found[:10])}{', ...' if len(found) > 10 else ''}.")
    return CombatModel(
        feature_names=names,
        covariate_names=covariate_labels,
        sites=sites,
        site_counts=np.bincount(codes, minlength=len(sites)).astype(np.int64),
        alpha=alpha,
        beta=location.beta,
        sigma=sigma,
        gamma=gamma,
        delta=delta,
        options=chosen,
        notes=tuple(notes),
        smooth=location.terms,
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
    preserved = _preserved(model.covariate_names, design, model.beta, model.smooth)
    standard = _standardise(values, preserved, model.alpha, model.sigma)
    notes: list[str] = []
    if new_sites:
        extra_gamma, extra_delta = _new_sites(model, standard, labels, new_sites, unknown, notes)
        gamma, delta = np.vstack([gamma, extra_gamma]), np.vstack([delta, extra_delta])
        index |= {site: len(model.sites) + k for k, site in enumerate(new_sites)}
    codes = np.array([index[str(s)] for s in labels], dtype=np.int64)
    result = model.sigma * (standard - gamma[codes]) / np.sqrt(delta[codes]) + model.alpha + preserved
    lost = np.isnan(gamma[codes])
    result = np.where(active, result, np.where(lost, np.nan, values))
    if model.options.reference is not None:
        kept = labels == model.options.reference
        result[kept] = values[kept]
    return Harmonised(
        result,
        estimated_sites=new_sites if unknown == "estimate" else (),
        missing_sites=new_sites if unknown == "nan" else (),
        notes=tuple(notes),
        extrapolated=_extrapolated(model, design),
    )


def preserved_columns(
    model: CombatModel,
    covariates: Float[np.ndarray, "samples covariates"],
    *,
    covariate_names: Sequence[str] | None = None,
) -> Float64[np.ndarray, "samples columns"]:
    """Return the columns whose effects the model preserves: covariates, and the splines of the smooth ones."""
    design = _ordered_covariates(model, covariates.shape[0], covariates, covariate_names)
    splines = [spline_basis(t.knots, design[:, model.covariate_names.index(t.covariate)])[:, 1:] for t in model.smooth]
    curved = {term.covariate for term in model.smooth}
    linear = [k for k, name in enumerate(model.covariate_names) if name not in curved]
    return np.hstack([design[:, linear], *splines])


def _extrapolated(model: CombatModel, design: Float64[np.ndarray, "samples covariates"]) -> tuple[tuple[str, int], ...]:
    found = []
    for term in model.smooth:
        low, high = term.extent
        x = design[:, model.covariate_names.index(term.covariate)]
        count = int(((x < low) | (x > high)).sum())
        if count:
            found.append((term.covariate, count))
    return tuple(found)


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


def _smooth_columns(
    design: Float64[np.ndarray, "samples covariates"], names: tuple[str, ...], options: CombatOptions
) -> list[_SmoothColumns]:
    """Return the splines of the smooth covariates, without the constant."""
    found = [term.covariate for term in options.smooth]
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise ValueError(f"The smooth covariate {unknown[0]!r} is not among the covariates {list(names)}; add it.")
    if len(set(found)) != len(found) or len(found) > MAX_TERMS:
        raise ValueError(f"Expected at most {MAX_TERMS} different smooth covariates, found {found}.")
    if len({term.weight is None for term in options.smooth}) > 1:
        raise ValueError("Give the penalty's weight for every smooth covariate, or for none.")
    columns = []
    for term in options.smooth:
        position = names.index(term.covariate)
        knots = place_knots(design[:, position], term)
        basis = spline_basis(knots, design[:, position])
        # Coefficients orthogonal to the mean of each spline: curves whose mean over the training people is 0.
        centring = scipy.linalg.null_space(basis.mean(axis=0)[None, :])
        columns.append(_SmoothColumns(term, position, knots, basis @ centring, centring))
    return columns


def _location(
    values: Float64[np.ndarray, "samples features"],
    codes: Int[np.ndarray, " samples"],
    design: Float64[np.ndarray, "samples covariates"],
    smooth: list[_SmoothColumns],
    *,
    n_sites: int,
    reference: int,
) -> _Location:
    """Return the estimates of steps 1 and 2, per feature on the people who have it."""
    n_features = values.shape[1]
    alpha, sigma = np.zeros(n_features), np.zeros(n_features)
    beta = np.zeros((design.shape[1], n_features))
    linear = np.setdiff1d(np.arange(design.shape[1]), [s.position for s in smooth])
    coefficients = [np.zeros((s.centring.shape[0], n_features)) for s in smooth]
    weight, edf = np.zeros((len(smooth), n_features)), np.zeros((len(smooth), n_features))
    for rows, members in same_people(~np.isnan(values)):
        y, c, site = values[np.ix_(rows, members)], design[np.ix_(rows, linear)], codes[rows]
        if not y.shape[0]:
            continue
        one_hot = np.zeros((site.size, n_sites))
        one_hot[np.arange(site.size), site] = 1.0
        curves = np.zeros_like(y)
        if smooth:
            fit = _fit_curves(y, np.hstack([one_hot, c]), [s.basis[rows] for s in smooth], smooth)
            weight[:, members], edf[:, members] = fit.weights, fit.edf
            for k, part in enumerate(fit.coefficients):
                coefficients[k][:, members] = smooth[k].centring @ part
                curves += smooth[k].basis[rows] @ part
        # Least norm: a site without people gets 0, which no step below uses.
        solution = np.linalg.lstsq(np.hstack([one_hot, c]), y - curves, rcond=None)[0]
        weights = one_hot.mean(axis=0) if reference < 0 else (np.arange(n_sites) == reference).astype(np.float64)
        residuals = y - curves - solution[site] - c @ solution[n_sites:]
        used = residuals if reference < 0 else residuals[site == reference]
        spread = np.sqrt((used**2).mean(axis=0)) if used.shape[0] else np.zeros(len(members))
        # A constant feature leaves rounding errors of its own size; that is not spread.
        scale = np.abs(y).max(axis=0)
        spread[spread <= 1e-12 * scale] = 0.0
        alpha[members] = weights @ solution[:n_sites]
        beta[np.ix_(linear, members)] = solution[n_sites:]
        sigma[members] = spread
    terms = tuple(
        SmoothTerm(s.options.covariate, s.knots, coefficients[k], weight[k], edf[k]) for k, s in enumerate(smooth)
    )
    return _Location(alpha, beta, sigma, terms)


def _fit_curves(
    y: Float64[np.ndarray, "samples features"],
    unpenalised: Float64[np.ndarray, "samples columns"],
    bases: list[Float64[np.ndarray, "samples splines"]],
    smooth: list[_SmoothColumns],
) -> PenalisedFit:
    basis = covariate_basis(unpenalised)
    weights = [s.options.weight for s in smooth]
    fixed = [w for w in weights if w is not None]
    return fit_penalised(
        project_out(basis.q, y),
        [project_out(basis.q, b) for b in bases],
        [s.centring.T @ roughness(s.knots) @ s.centring for s in smooth],
        spans=[float(s.knots[-1] - s.knots[0]) for s in smooth],
        spent=basis.rank,
        fixed=fixed if len(fixed) == len(weights) else None,
    )


def _preserved(
    names: tuple[str, ...],
    design: Float64[np.ndarray, "samples covariates"],
    beta: Float64[np.ndarray, "covariates features"],
    terms: tuple[SmoothTerm, ...],
) -> Float64[np.ndarray, "samples features"]:
    """Return the covariates' part of every feature."""
    preserved = design @ beta
    for term in terms:
        preserved = preserved + smooth_effect(term, design[:, names.index(term.covariate)])
    return np.asarray(preserved)


def _standardise(
    values: Float64[np.ndarray, "samples features"],
    preserved: Float64[np.ndarray, "samples features"],
    alpha: Float64[np.ndarray, " features"],
    sigma: Float64[np.ndarray, " features"],
) -> Float64[np.ndarray, "samples features"]:
    return np.asarray((values - alpha - preserved) / np.where(sigma > 0, sigma, 1.0))


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
    notes: list[str],
) -> tuple[Float64[np.ndarray, "new features"], Float64[np.ndarray, "new features"]]:
    """Return gamma and delta of sites outside the model: estimated, or NaN."""
    shape = (len(new_sites), len(model.feature_names))
    if unknown == "nan":
        return np.full(shape, np.nan), np.ones(shape)
    index = {site: k for k, site in enumerate(new_sites)}
    chosen = np.isin(labels, new_sites)
    codes = np.array([index[str(s)] for s in labels[chosen]], dtype=np.int64)
    moments = _moments(standard[chosen], codes, len(new_sites))
    return _effects(moments, model.sigma > 0, model.options, new_sites, notes)


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
