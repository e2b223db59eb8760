"""Gene-environment interaction: every variant with one exposure, for many traits, with robust errors.

Data flow::

    traits, covariates, exposure --prepare_gxe--> GxeDesign     (once)
    GxeDesign + dosage block     --scan_gxe-->    GxeScan       (once per block)
    a hit                        --refit_gxe-->   GxeFit        (people with a call, simple slopes, other scales)

Model, with g, e and C centred::

    y = b0 + C c + bE e + bE2 e^2 + (e C) f + bG g + bGE g e + (g C) d + error

``e^2`` is there for a quantitative exposure (a curved effect of e would otherwise pass for an interaction where g and e
are correlated), and all products of covariates with g and with e by default (Keller 2014). ``Q``, an orthonormal basis
of ``[1, C, e, e^2, eC]``, is projected out once; a variant adds the k + 2 columns ``Z = [g, ge, gC]``, which all traits
share: one Cholesky factor a variant, and with ``A = (Z~'Z~)^-1`` and the rows ``a = A Z~'`` of g and ge::

    b = A Z~'Y~      h = h_Q + diag(Z~ A Z~')      cov_HC3(b_r, b_s) = sum_i a_ri a_si e_i^2 / (1 - h_i)^2

HC3 is unstable where carriers are few, so below a minor allele count of 1,000 errors follow a heteroscedastic linear
model, error variance ``exp(c0 + c1 e + c2 e^2)`` fitted without the variant, as in REGENIE; every test says which it
used. p-values are of t with the residual degrees of freedom; the joint test of g and ge is Wald's, F(2, df).

References
----------
Keller (2014), 10.1016/j.biopsych.2013.09.006; MacKinnon & White (1985), J. Econometrics 29:305; Mbatchou et al. (2021),
10.1038/s41588-021-00870-7; Johnson & Neyman (1936), Stat. Res. Mem. 1:57.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, Shaped
from scipy.special import stdtrit

from brainlocus.core.errors import AlignmentError
from brainlocus.genetics.interactions import _columns
from brainlocus.genetics.interactions.people import AlignedTraits
from brainlocus.genetics.interactions.robust import fit_least_squares
from brainlocus.numerics.missingness import same_people
from brainlocus.numerics.projection import covariate_basis, project_out
from brainlocus.numerics.tails import neg_log10_p_from_t
from brainlocus.numerics.transforms import rank_normal

__all__ = [
    "ERROR_MODELS",
    "GXE_STATUS",
    "Errors",
    "GxeDesign",
    "GxeFit",
    "GxeGroup",
    "GxeScan",
    "GxeSettings",
    "gxe_peak_bytes",
    "joint_neg_log10_p",
    "prepare_gxe",
    "refit_gxe",
    "scan_gxe",
]

Errors = Literal["auto", "hc3", "hlm", "ols"]
Terms = Literal["all", "main"]

ERROR_MODELS = ("hc3", "hlm", "ols")
"""How errors of a test were computed, by code."""
GXE_STATUS = ("ok", "no_calls", "constant", "few_carriers", "collinear")
"""Why a variant has no estimate, by code."""

_MIN_TRAIT_SHARE = 1e-12
_BLOCK_BYTES = 8 << 20
"""Of the columns of a few variants at a time: measured, larger blocks fall out of the processor's cache."""
_VARIANCE_STEPS = 25


@dataclass(frozen=True, slots=True)
class GxeSettings:
    """How the interaction is tested."""

    errors: Errors = "auto"
    """auto: HC3, and the heteroscedastic linear model below `rare_mac`."""
    rare_mac: float = 1000.0
    """Minor allele count below which HC3 is not used (REGENIE's default)."""
    min_carriers: float = 20.0
    """Smallest minor allele frequency x people in the smaller exposure group."""


@dataclass(frozen=True, slots=True, eq=False)
class GxeGroup:
    """Traits observed in exactly the same people."""

    names: tuple[str, ...]
    rows: Int[np.ndarray, " people"]
    traits: Float[np.ndarray, "people traits"]
    """As given."""
    q: Float[np.ndarray, "people rank"]
    """Basis of intercept, covariates, exposure (and its square) and exposure x covariates."""
    residuals: Float[np.ndarray, "people traits"]
    """Traits with `q` projected out, scaled to a mean square of 1."""
    norm: Float[np.ndarray, " traits"]
    """Root mean square of each residual trait, in trait units."""
    exposure: Float[np.ndarray, " people"]
    """Centred, in its own units."""
    exposure_mean: float
    modifiers: Float[np.ndarray, "people modifiers"]
    """Centred covariates whose product with g enters; no column when only main effects are asked for."""
    smallest: int
    """People in the smaller exposure group (a quantitative exposure is split at its mean)."""
    weights: Float[np.ndarray, "people traits"]
    """1 / error standard deviation given the exposure, mean square 1 over people; 1 where no model was asked for."""
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GxeDesign:
    """One exposure, all traits."""

    exposure_name: str
    quantitative: bool
    """More than two values, so that its square is in the model."""
    terms: Terms
    groups: tuple[GxeGroup, ...]
    n_samples: int
    skipped: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Traits that can be analysed, grouped by who has them."""
        return tuple(name for group in self.groups for name in group.names)


@dataclass(frozen=True, slots=True, eq=False)
class GxeScan:
    """Estimates of one block and group. Rows are variants, columns the group's traits; NaN where not estimable."""

    beta: Float[np.ndarray, "variants traits"]
    """Effect of g at the mean exposure, trait units per effect allele."""
    standard_error: Float[np.ndarray, "variants traits"]
    interaction_beta: Float[np.ndarray, "variants traits"]
    """Trait units per effect allele and unit of the exposure."""
    interaction_standard_error: Float[np.ndarray, "variants traits"]
    joint: Float[np.ndarray, "variants traits"]
    """Wald statistic of both."""
    degrees_of_freedom: Float[np.ndarray, " variants"]
    n: Int[np.ndarray, " variants"]
    effect_allele_frequency: Float[np.ndarray, " variants"]
    status: Int8[np.ndarray, " variants"]
    error_model: Int8[np.ndarray, " variants"]

    @property
    def t(self) -> Float[np.ndarray, "variants traits"]:
        """Of the interaction."""
        return np.asarray(self.interaction_beta / self.interaction_standard_error)


@dataclass(frozen=True, slots=True, eq=False)
class GxeFit:
    """One variant and trait on the people with a call, HC3 errors."""

    n: int
    beta: float
    standard_error: float
    interaction_beta: float
    interaction_standard_error: float
    interaction_neg_log10_p: float
    joint_neg_log10_p: float
    degrees_of_freedom: float
    slopes: Float[np.ndarray, " points"]
    """Effect of g at -1, 0 and +1 SD of the exposure, or at each of two levels."""
    slope_errors: Float[np.ndarray, " points"]
    slope_at: Float[np.ndarray, " points"]
    """Exposures of the slopes, in its own units."""
    johnson_neyman: tuple[float, float, str]
    """Exposures between which (inside) or beyond which (outside) the effect of g differs from 0 at p < 0.05;
    everywhere and nowhere have no bounds."""
    rank_normal_neg_log10_p: float
    """Interaction after the rank-based inverse normal transform of the trait."""
    log_neg_log10_p: float
    """Interaction for the logarithm of the trait; NaN when it is not positive."""
    exposure_r: float
    """Correlation of g and e."""
    exposure_r_neg_log10_p: float


def prepare_gxe(
    data: AlignedTraits,
    exposure: Float[np.ndarray, " samples"],
    exposure_name: str,
    *,
    terms: Terms = "all",
    variance_model: bool = True,
) -> GxeDesign:
    """Reduce traits, covariates and one exposure.

    Parameters
    ----------
    exposure
        NaN where missing: such people are left out.
    terms
        ``all``: products of every covariate with g and with e. ``main``: none of them, which inflates the test
        wherever a covariate itself modifies the effect of g (Keller 2014).
    variance_model
        Fit the error variance of every trait, which ``auto`` and ``hlm`` errors need.

    Raises
    ------
    ValueError
        The exposure does not vary, or no trait can be analysed.
    """
    known = ~np.isnan(exposure)
    levels = np.unique(exposure[known])
    if levels.size < 2:
        raise ValueError(f"Exposure {exposure_name!r} has {levels.size} distinct values; it must vary.")
    covariates = np.array([k for k, name in enumerate(data.covariate_names) if name != exposure_name], dtype=np.int64)
    quantitative = levels.size > 2
    groups: list[GxeGroup] = []
    skipped: list[tuple[str, str]] = []
    for mask, members in same_people(~np.isnan(data.traits) & known[:, None]):
        rows = np.flatnonzero(mask)
        labels = [data.names[k] for k in members]
        made = _group(
            labels,
            rows,
            data.traits[np.ix_(rows, members)],
            data.covariates[np.ix_(rows, covariates)],
            exposure[rows],
            quantitative=quantitative,
            terms=terms,
            variance_model=variance_model,
            skipped=skipped,
        )
        groups += [made] if made is not None else []
    if not groups:
        why = ", ".join(f"{name} ({reason})" for name, reason in skipped[:5])
        raise ValueError(f"No trait can be analysed with the exposure {exposure_name!r}: {why}.")
    return GxeDesign(exposure_name, quantitative, terms, tuple(groups), len(data.samples), tuple(skipped))


def _group(
    labels: list[str],
    rows: Int[np.ndarray, " people"],
    traits: Float[np.ndarray, "people traits"],
    covariates: Float[np.ndarray, "people covariates"],
    exposure: Float[np.ndarray, " people"],
    *,
    quantitative: bool,
    terms: Terms,
    variance_model: bool,
    skipped: list[tuple[str, str]],
) -> GxeGroup | None:
    """Return the reduced traits of the same people; None (with the reasons) when none can be analysed."""
    n, k = covariates.shape
    if n <= 2 * k + 4 + (k + 2):
        skipped += [(label, "too_few_people") for label in labels]
        return None
    mean = float(exposure.mean())
    e = exposure - mean
    if not np.abs(e).max() > 0:
        skipped += [(label, "constant_exposure") for label in labels]
        return None
    c = covariates - covariates.mean(axis=0)
    spread = c.std(axis=0)
    c = c / np.where(spread > 0, spread, 1.0)
    unit = e / e.std()
    names = [f"c{j}" for j in range(k)]
    parts, titles = [c, unit[:, None]], [*names, "e"]
    if quantitative:
        parts.append((unit**2)[:, None])
        titles.append("e2")
    if terms == "all":
        parts.append(unit[:, None] * c)
        titles += [f"e:{name}" for name in names]
    basis = covariate_basis(np.hstack(parts), titles)
    residual = project_out(basis.q, traits - traits.mean(axis=0))
    norm = np.sqrt((residual**2).mean(axis=0))
    good = norm**2 > _MIN_TRAIT_SHARE * np.maximum((traits**2).mean(axis=0), np.finfo(float).tiny)
    skipped += [(label, "constant") for label, fine in zip(labels, good, strict=True) if not fine]
    if not good.any():
        return None
    scaled = residual[:, good] / norm[good]
    weights = np.ones_like(scaled)
    if variance_model:
        weights = np.column_stack([_error_weights(basis.q, y, unit, quantitative=quantitative) for y in scaled.T])
    levels = (e > 0) if quantitative else (exposure == exposure.max())
    return GxeGroup(
        tuple(label for label, fine in zip(labels, good, strict=True) if fine),
        rows,
        traits[:, good],
        basis.q,
        scaled,
        norm[good],
        e,
        mean,
        np.ascontiguousarray(c[:, spread > 0]) if terms == "all" else np.empty((n, 0)),
        int(min(levels.sum(), n - levels.sum())),
        weights,
        basis.dropped,
    )


def _error_weights(
    q: Float[np.ndarray, "people rank"],
    trait: Float[np.ndarray, " people"],
    exposure: Float[np.ndarray, " people"],
    *,
    quantitative: bool,
) -> Float[np.ndarray, " people"]:
    """Return 1 / error SD of the model ``variance = exp(c0 + c1 e + c2 e^2)``, by maximum likelihood.

    Alternates weighted least squares of the mean with Fisher scoring of the variance, whose score is
    ``V'(r^2 / s^2 - 1) / 2`` and information ``V'V / 2`` (Harvey 1976, Econometrica 44:461).
    """
    columns = [np.ones_like(exposure), exposure, *([exposure**2] if quantitative else [])]
    v = np.column_stack(columns)
    pseudo = np.linalg.pinv(v)
    theta = np.zeros(v.shape[1])
    residual = trait
    for _ in range(_VARIANCE_STEPS):
        variance = np.exp(np.clip(v @ theta, -30.0, 30.0))
        step = pseudo @ (residual**2 / variance - 1.0)
        theta = theta + np.clip(step, -2.0, 2.0)
        root = np.exp(-0.5 * np.clip(v @ theta, -30.0, 30.0))
        weighted, _ = np.linalg.qr(q * root[:, None])
        y = trait * root
        residual = (y - weighted @ (weighted.T @ y)) / root
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(root / np.sqrt((root**2).mean()))


def gxe_peak_bytes(design: GxeDesign, block_size: int) -> int:
    """Return an upper estimate of the bytes `scan_gxe` holds, the block included."""
    n = design.n_samples
    traits = max(len(group.names) for group in design.groups)
    columns = 2 + max(int(group.modifiers.shape[1]) for group in design.groups)
    one = n * 8 * (4 * columns + 2 * traits + 8)
    return block_size * (4 * n * 2 + traits * 8 * 8) + max(_BLOCK_BYTES, one) * 2


def scan_gxe(
    design: GxeDesign,
    group: GxeGroup,
    dosage: Float32[np.ndarray, "variants samples"],
    settings: GxeSettings,
) -> GxeScan:
    """Test the interaction of every variant of a block for every trait of a group.

    Parameters
    ----------
    dosage
        Copies of the effect allele; NaN marks a missing call, which counts as the variant's mean.

    Raises
    ------
    AlignmentError
        The block has another number of people than the design.

    References
    ----------
    Module docstring.
    """
    if dosage.shape[1] != design.n_samples:
        raise AlignmentError(f"The block has {dosage.shape[1]} samples, the design {design.n_samples}; select first.")
    own = dosage[:, group.rows].astype(np.float64)
    called = ~np.isnan(own)
    count = called.sum(axis=1)
    total = np.where(called, own, 0.0).sum(axis=1)
    mean = total / np.maximum(count, 1)
    g = np.where(called, own - mean[:, None], 0.0)
    status = _survey(group, g, count, mean, settings)
    mac = np.minimum(total, 2 * count - total)
    model = _error_model(mac, settings)
    m, q = dosage.shape[0], len(group.names)
    estimates = np.full((5, m, q), np.nan)
    df = np.full(m, np.nan)
    for code, name in enumerate(ERROR_MODELS):
        rows = np.flatnonzero((status == 0) & (model == code))
        if rows.size:
            _fit_rows(group, g, rows, name, estimates, df, status)
    estimates[:, status != 0] = np.nan
    beta, error, interaction, interaction_error, joint = estimates
    frequency = np.where(count > 0, mean / 2, np.nan)
    return GxeScan(
        beta, error, interaction, interaction_error, joint, df, count.astype(np.int64), frequency,
        status.astype(np.int8), model.astype(np.int8),
    )  # fmt: skip


def _survey(
    group: GxeGroup,
    g: Float[np.ndarray, "variants people"],
    count: Int[np.ndarray, " variants"],
    mean: Float[np.ndarray, " variants"],
    settings: GxeSettings,
) -> Int[np.ndarray, " variants"]:
    """Return why variants cannot be tested, 0 where they can."""
    rarer = np.minimum(mean / 2, 1 - mean / 2)
    status = np.where(rarer * group.smallest < settings.min_carriers, GXE_STATUS.index("few_carriers"), 0)
    status[(g**2).sum(axis=1) <= 1e-8 * np.maximum(count, 1)] = GXE_STATUS.index("constant")
    status[count == 0] = GXE_STATUS.index("no_calls")
    return np.asarray(status, dtype=np.int64)


def _error_model(mac: Float[np.ndarray, " variants"], settings: GxeSettings) -> Int[np.ndarray, " variants"]:
    if settings.errors != "auto":
        return np.full(mac.size, ERROR_MODELS.index(settings.errors), dtype=np.int64)
    return np.asarray((mac < settings.rare_mac).astype(np.int64))  # 0 is hc3, 1 is hlm


def _fit_rows(
    group: GxeGroup,
    g: Float[np.ndarray, "variants people"],
    rows: Int[np.ndarray, " chosen"],
    errors: str,
    estimates: Float[np.ndarray, "5 variants traits"],
    df: Float[np.ndarray, " variants"],
    status: Int[np.ndarray, " variants"],
) -> None:
    """Fill the estimates of the chosen variants, a few at a time."""
    n, q = group.residuals.shape
    columns = 2 + group.modifiers.shape[1]
    size = max(1, _BLOCK_BYTES // (n * 8 * (3 * columns + 2 * q + 6)))
    factors = np.vstack([np.ones(n), group.exposure, group.modifiers.T])
    weighted = [_weighted(group, k) for k in range(q)] if errors == "hlm" else []
    for first in range(0, rows.size, size):
        some = rows[first : first + size]
        z = g[some][:, None, :] * factors
        if errors == "hlm":
            parts = [_fit_block(z * w, basis, y, "ols") for w, basis, y in weighted]
            found = np.concatenate([p[0] for p in parts], axis=2)
            kept, fine = parts[0][1], np.all([p[2] for p in parts], axis=0)
        else:
            found, kept, fine = _fit_block(z, group.q, group.residuals, errors)
        found[:4] *= group.norm
        estimates[:, some] = found
        df[some] = n - group.q.shape[1] - kept
        status[some[~fine]] = GXE_STATUS.index("collinear")


def _weighted(
    group: GxeGroup, trait: int
) -> tuple[Float[np.ndarray, " people"], Float[np.ndarray, "people rank"], Float[np.ndarray, "people 1"]]:
    """Return weights, basis and residual trait of the heteroscedastic model of one trait."""
    w = group.weights[:, trait]
    basis, _ = np.linalg.qr(group.q * w[:, None])
    return w, basis, project_out(basis, (group.residuals[:, trait] * w)[:, None])


def _fit_block(
    z: Float[np.ndarray, "variants columns people"],
    q: Float[np.ndarray, "people rank"],
    y: Float[np.ndarray, "people traits"],
    errors: str,
) -> tuple[Float[np.ndarray, "5 variants traits"], Int[np.ndarray, " variants"], Shaped[np.ndarray, " variants"]]:
    """Return (b_g, se, b_ge, se, Wald), columns kept, and whether g and ge are estimable."""
    m, columns, n = z.shape
    flat = z.reshape(m * columns, n)
    raw = (z**2).sum(axis=2)
    left = (flat - (flat @ q) @ q.T).reshape(m, columns, n)
    gram = left @ left.transpose(0, 2, 1)
    inverse, kept = np.zeros_like(gram), np.zeros(m, dtype=np.int64)
    fine = np.zeros(m, dtype=np.bool_)
    _columns.invert_kept(gram, raw, inverse, kept, fine)
    beta = inverse @ (left.reshape(m * columns, n) @ y).reshape(m, columns, -1)
    residual = (y.T - beta.transpose(0, 2, 1) @ left) ** 2
    df = n - q.shape[1] - kept
    if errors == "hc3":
        influence = inverse @ left
        leverage = (q**2).sum(axis=1) + (left * influence).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            omega = 1.0 / np.where(1.0 - leverage > 1e-10, 1.0 - leverage, np.nan) ** 2
        first, second = influence[:, 0], influence[:, 1]
        weights = np.stack([first * first * omega, first * second * omega, second * second * omega], axis=1)
        gg, ge, ee = (weights @ residual.transpose(0, 2, 1)).transpose(1, 0, 2)
    else:
        scale = residual.sum(axis=2) / df[:, None]
        gg, ge, ee = (inverse[:, a, b][:, None] * scale for a, b in ((0, 0), (0, 1), (1, 1)))
    b, d = beta[:, 0], beta[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = (ee * b * b - 2.0 * ge * b * d + gg * d * d) / (gg * ee - ge * ge)
        return np.stack([b, np.sqrt(gg), d, np.sqrt(ee), joint]), kept, fine


def joint_neg_log10_p(
    wald: Float[np.ndarray, "*shape"], df: Float[np.ndarray, "*broadcast"] | float
) -> Float[np.ndarray, "*shape"]:
    """Return -log10 p of a Wald statistic of two terms by F(2, df): ``p = (1 + W / df)^(-df / 2)`` exactly.

    Examples
    --------
    >>> joint_neg_log10_p(np.array([0.0, 40.0]), 1000.0).round(3).tolist()
    [0.0, 8.517]
    """
    return np.asarray(0.5 * np.asarray(df) * np.log1p(np.asarray(wald) / df) / np.log(10.0))


def refit_gxe(design: GxeDesign, group: GxeGroup, trait: int, dosage: Float32[np.ndarray, " samples"]) -> GxeFit | None:
    """Fit one variant and trait on the people with a call: HC3, simple slopes, Johnson-Neyman, other scales.

    Returns
    -------
    GxeFit or None
        None when g and ge are not estimable among these people.
    """
    own = dosage[group.rows].astype(np.float64)
    called = ~np.isnan(own)
    g = own[called] - own[called].mean()
    e, y = group.exposure[called], group.traits[called, trait]
    z = np.column_stack([g, g * e, g[:, None] * group.modifiers[called]])
    basis, _ = np.linalg.qr(group.q[called])
    kept = _columns.independent(project_out(basis, z), z)
    if kept[:2] != [0, 1]:
        return None
    x = np.column_stack([z[:, kept], basis])
    fit = fit_least_squares(x, y)
    if fit is None:
        return None
    b, cov, df = fit.beta[:2], fit.robust[:2, :2], float(fit.degrees_of_freedom)
    at = np.array([-e.std(), 0.0, e.std()]) if design.quantitative else np.unique(e)
    slopes = b[0] + b[1] * at
    errors = np.sqrt(cov[0, 0] + 2 * at * cov[0, 1] + at**2 * cov[1, 1])
    wald = float(b @ np.linalg.solve(cov, b))
    r = float(np.corrcoef(g, e)[0, 1])
    r_t = r * np.sqrt((g.size - 2) / max(1 - r * r, 1e-300))
    return GxeFit(
        int(called.sum()),
        float(b[0]),
        float(np.sqrt(cov[0, 0])),
        float(b[1]),
        float(np.sqrt(cov[1, 1])),
        _strength(b[1] / np.sqrt(cov[1, 1]), df),
        float(joint_neg_log10_p(np.array(wald), df)),
        df,
        slopes,
        errors,
        at + group.exposure_mean,
        _johnson_neyman(b, cov, df, group.exposure_mean),
        _other_scale(x, rank_normal(y)),
        _other_scale(x, np.log(y)) if y.min() > 0 else float("nan"),
        r,
        _strength(r_t, float(g.size - 2)),
    )


def _strength(t: float, df: float) -> float:
    return float(neg_log10_p_from_t(np.array([t]), df)[0])


def _other_scale(x: Float[np.ndarray, "people columns"], y: Float[np.ndarray, " people"]) -> float:
    """Return -log10 p of the interaction (second column) for a transformed trait."""
    fit = fit_least_squares(x, y)
    if fit is None:
        return float("nan")
    return _strength(fit.beta[1] / np.sqrt(fit.robust[1, 1]), float(fit.degrees_of_freedom))


def _johnson_neyman(
    b: Float[np.ndarray, " 2"], cov: Float[np.ndarray, "2 2"], df: float, mean: float
) -> tuple[float, float, str]:
    """Return where ``(b0 + b1 e)^2 = t^2 var(b0 + b1 e)``, and on which side the effect is significant."""
    t2 = float(stdtrit(df, 0.025)) ** 2
    quadratic = b[1] ** 2 - t2 * cov[1, 1]
    linear = 2 * (b[0] * b[1] - t2 * cov[0, 1])
    constant = b[0] ** 2 - t2 * cov[0, 0]
    discriminant = linear**2 - 4 * quadratic * constant
    nan = float("nan")
    if discriminant < 0 or quadratic == 0:
        return nan, nan, "everywhere" if constant > 0 else "nowhere"
    root = np.sqrt(discriminant)
    low, high = sorted(((-linear - root) / (2 * quadratic), (-linear + root) / (2 * quadratic)))
    return float(low + mean), float(high + mean), "outside" if quadratic > 0 else "inside"
