"""Heritability by restricted maximum likelihood: one eigendecomposition for all traits of the same people.

Model: ``y = C b + g + e`` with ``g ~ N(0, sg2 A)``, ``e ~ N(0, se2 I)``, A the GRM, C intercept and covariates.
With K the orthonormal complement of C, ``K'AK = U diag(s) U'`` and ``eta = U'K'y``::

    d_i = h s_i + 1 - h        s2(h) = (1 / nu) sum eta_i^2 / d_i
    l(h) = -1/2 [nu ln s2 + sum ln d_i + nu (1 + ln 2 pi)]      nu = n - rank(C)

A grid of h serves all traits by one matrix product; safeguarded Newton steps on l'(h) finish.
``sg2 = h s2``, ``se2 = (1 - h) s2``; h2 is h, and pve = ``sg2 k / (sg2 k + se2)`` with k the mean diagonal of
the GRM after projection. Standard errors come from the expected information, the test of h2 = 0 from the
likelihood ratio with its half-half mixture.

References
----------
Kang et al. (2008), 10.1534/genetics.107.080101, eqs 2-4; Zhou & Stephens (2012), 10.1038/ng.2310;
Yang et al. (2011), 10.1016/j.ajhg.2010.11.011; Self & Liang (1987), 10.1080/01621459.1987.10478472.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core.errors import ResourceError, SchemaError
from brainlocus.core.grm import Grm
from brainlocus.core.phenotypes import PhenotypeTable
from brainlocus.core.results import ResultTable, concat_results
from brainlocus.core.samples import shared_samples
from brainlocus.core.text import text_array
from brainlocus.numerics.design import covariate_design
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis
from brainlocus.numerics.tails import neg_log10_p_from_chi2

__all__ = [
    "Decomposition",
    "RemlFit",
    "decompose_grm",
    "fit_reml",
    "greml",
    "greml_peak_bytes",
    "restricted_log_likelihood",
]

_GRID = 100
_HIGHEST = 1.0 - 1e-6
"""Largest h tried: at 1 the likelihood is degenerate when the GRM is singular."""
_MAX_STEPS = 60
_STEP_TOLERANCE = 1e-12
_BOUND_MARGIN = 1e-7
_TRAITS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """A GRM seen after projection, ready for any trait of the same people."""

    eigenvalues: Float[np.ndarray, " nu"]
    rotation: Float[np.ndarray, "nu samples"]
    """``U'K'``: its product with a trait gives independent coordinates."""
    mean_diagonal: float
    """Mean diagonal of the projected GRM."""


@dataclass(frozen=True, slots=True, eq=False)
class RemlFit:
    """Estimates per trait."""

    h2: Float[np.ndarray, " traits"]
    h2_standard_error: Float[np.ndarray, " traits"]
    pve: Float[np.ndarray, " traits"]
    pve_standard_error: Float[np.ndarray, " traits"]
    variance: Float[np.ndarray, " traits"]
    """s2: sg2 + se2, in squared trait units."""
    log_likelihood: Float[np.ndarray, " traits"]
    lrt: Float[np.ndarray, " traits"]
    neg_log10_p: Float[np.ndarray, " traits"]
    boundary: Bool[np.ndarray, " traits"]


def greml_peak_bytes(n_samples: int) -> int:
    """Return an upper estimate of the bytes held by `greml` besides the GRM: workspace of the decomposition."""
    return 5 * n_samples * n_samples * 8 + n_samples * _TRAITS_AT_ONCE * 8 * 6


def decompose_grm(
    matrix: Float[np.ndarray, "samples samples"], basis: Float[np.ndarray, "samples rank"]
) -> Decomposition:
    """Return the eigendecomposition of the GRM in the complement of the covariates.

    ``P A P - kappa Q Q'`` has the eigenvectors of PAP; those of Q's span lie at -kappa, below all others, and
    are left out.

    Raises
    ------
    ValueError
        The GRM has missing entries.
    """
    if not np.isfinite(matrix).all():
        raise ValueError("The GRM has missing entries (pairs without shared variants); leave out one of each pair.")
    n_samples, rank = basis.shape
    half = matrix - basis @ (basis.T @ matrix)
    projected = half - (half @ basis) @ basis.T
    projected = (projected + projected.T) / 2.0
    mean_diagonal = float(np.trace(projected) / n_samples)
    below = float(np.abs(projected).sum(axis=0).max()) + 1.0
    values, vectors = scipy.linalg.eigh(projected - below * (basis @ basis.T), overwrite_a=True, driver="evd")
    return Decomposition(values[rank:], np.ascontiguousarray(vectors[:, rank:].T), mean_diagonal)


def restricted_log_likelihood(
    decomposition: Decomposition, eta2: Float[np.ndarray, "nu traits"], h: Float[np.ndarray, " traits"]
) -> Float[np.ndarray, " traits"]:
    """Return l(h) of each trait at its own h, the residual variance profiled out."""
    nu = eta2.shape[0]
    d = h * (decomposition.eigenvalues[:, None] - 1.0) + 1.0
    s2 = (eta2 / d).sum(axis=0) / nu
    return np.asarray(-0.5 * (nu * np.log(s2) + np.log(d).sum(axis=0) + nu * (1.0 + np.log(2.0 * np.pi))))


def fit_reml(
    decomposition: Decomposition, traits: Float[np.ndarray, "samples traits"], *, unconstrained: bool = False
) -> RemlFit:
    """Fit every trait of the decomposition's people.

    Parameters
    ----------
    traits
        Complete.
    unconstrained
        Let h2 be negative, down to where a variance would be: unbiased for averages over many traits.
    """
    parts = [
        _fit_some(decomposition, traits[:, k : k + _TRAITS_AT_ONCE], unconstrained=unconstrained)
        for k in range(0, traits.shape[1], _TRAITS_AT_ONCE)
    ]
    names = RemlFit.__dataclass_fields__
    return RemlFit(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def greml(
    grm: Grm,
    traits: PhenotypeTable,
    *,
    covariates: PhenotypeTable | None = None,
    formula: str | None = None,
    names: Sequence[str] | None = None,
    unconstrained: bool = False,
    memory_bytes: int | None = None,
) -> ResultTable:
    """Return heritability of every trait; traits with the same missing people share a decomposition.

    Parameters
    ----------
    covariates, formula
        None: intercept only; see `brainlocus.genetics.gwas.prepare_scan`.

    Returns
    -------
    ResultTable
        trait, n, h2, h2_standard_error, pve, pve_standard_error, log_likelihood, lrt, neg_log10_p, boundary,
        status (ok, constant, too_few_people), in the order of the traits.

    Raises
    ------
    AlignmentError
        No participant is shared.
    ResourceError
        The decomposition does not fit in `memory_bytes`.
    ValueError
        An infinite trait value.
    """
    wanted = tuple(names) if names is not None else tuple(c.name for c in traits.columns if c.kind != "categorical")
    if not wanted:
        raise SchemaError("There is no trait to analyse: the table has no numeric column.")
    if covariates is None:
        people = shared_samples(grm.samples, traits.samples, names=("grm", "traits"))
        matrix = np.empty((len(people), 0))
    else:
        people = shared_samples(grm.samples, traits.samples, covariates.samples, names=("grm", "traits", "covariates"))
        design = covariate_design(covariates.take(people), formula)
        people, matrix = people.take(design.complete), design.matrix[design.complete]
    needed = greml_peak_bytes(len(people))
    if memory_bytes is not None and needed > memory_bytes:
        raise ResourceError(
            f"REML of {len(people)} people needs {needed / 2**30:.1f} GiB, {memory_bytes / 2**30:.1f} GiB are given."
            " Raise --memory or take fewer people."
        )
    values = traits.take(people).matrix(wanted)
    refuse_infinite(values, wanted)
    related = grm.take(people).matrix
    tables: list[ResultTable] = []
    for observed, members in same_people(~np.isnan(values)):
        tables.append(_fit_group(related, matrix, values, members, observed, wanted, unconstrained=unconstrained))
    joined = concat_results(tables)
    place = {name: k for k, name in enumerate(wanted)}
    return joined.take(np.argsort([place[name] for name in joined["trait"].tolist()], kind="stable"))


def _fit_group(
    related: Float[np.ndarray, "samples samples"],
    covariates: Float[np.ndarray, "samples covariates"],
    values: Float[np.ndarray, "samples traits"],
    members: Int[np.ndarray, " members"],
    observed: Bool[np.ndarray, " samples"],
    names: tuple[str, ...],
    *,
    unconstrained: bool,
) -> ResultTable:
    """Return the rows of traits that share their missing people."""
    status = np.full(members.size, "too_few_people", dtype="<U16")
    columns: dict[str, Shaped[np.ndarray, " traits"]] = {
        name: np.full(members.size, np.nan)
        for name in RemlFit.__dataclass_fields__
        if name not in ("variance", "boundary")
    }
    boundary = np.zeros(members.size, dtype=bool)
    if observed.sum() > covariates.shape[1] + 3:
        basis = covariate_basis(covariates[observed]).q
        y = values[np.ix_(observed, members)]
        centred = y - y.mean(axis=0)
        left = centred - basis @ (basis.T @ centred)
        total = np.maximum((y**2).sum(axis=0), np.finfo(float).tiny)
        varies = (left**2).sum(axis=0) > 1e-18 * total
        status[:] = np.where(varies, "ok", "constant")
        if varies.any():
            decomposition = decompose_grm(related[np.ix_(observed, observed)], basis)
            fit = fit_reml(decomposition, left[:, varies], unconstrained=unconstrained)
            for name, column in columns.items():
                column[varies] = getattr(fit, name)
            boundary[varies] = fit.boundary
    return ResultTable(
        {"trait": text_array([names[k] for k in members]), "n": np.full(members.size, int(observed.sum()))}
        | columns
        | {"boundary": boundary, "status": text_array(status)}
    )


def _fit_some(
    decomposition: Decomposition, traits: Float[np.ndarray, "samples traits"], *, unconstrained: bool
) -> RemlFit:
    s = decomposition.eigenvalues
    eta2 = (decomposition.rotation @ traits) ** 2
    lowest, highest = _bounds(s, unconstrained=unconstrained)
    h = _maximise(decomposition, eta2, np.linspace(lowest, highest, _GRID + 1))
    likelihood = restricted_log_likelihood(decomposition, eta2, h)
    null = restricted_log_likelihood(decomposition, eta2, np.zeros(h.size))
    lrt = np.maximum(2.0 * (likelihood - null), 0.0)
    variance = (eta2 / (h * (s[:, None] - 1.0) + 1.0)).mean(axis=0)
    k = decomposition.mean_diagonal
    h2_error, pve_error = _standard_errors(s, h, variance, k)
    positive = (lrt > 0.0) & (h > 0.0)
    # Half a point mass at 0, half chi-square: p = P(chi2_1 > lrt) / 2.
    p = np.where(positive, neg_log10_p_from_chi2(lrt) + np.log10(2.0), 0.0)
    return RemlFit(
        h2=h,
        h2_standard_error=h2_error,
        pve=h * k / (h * k + 1.0 - h),
        pve_standard_error=pve_error,
        variance=variance,
        log_likelihood=likelihood,
        lrt=lrt,
        neg_log10_p=p,
        boundary=(h <= lowest + _BOUND_MARGIN) | (h >= highest - _BOUND_MARGIN),
    )


def _bounds(s: Float[np.ndarray, " nu"], *, unconstrained: bool) -> tuple[float, float]:
    """Return the range of h in which every variance ``h s_i + 1 - h`` is positive."""
    if not unconstrained or s[-1] <= 1.0:
        return 0.0, _HIGHEST
    return -(1.0 - 1e-6) / (float(s[-1]) - 1.0), _HIGHEST


def _maximise(
    decomposition: Decomposition, eta2: Float[np.ndarray, "nu traits"], grid: Float[np.ndarray, " grid"]
) -> Float[np.ndarray, " traits"]:
    """Return the h of largest likelihood: best grid point, then safeguarded Newton on l' between its neighbours."""
    s, nu = decomposition.eigenvalues, eta2.shape[0]
    d = np.outer(s - 1.0, grid) + 1.0
    s2 = (eta2.T @ (1.0 / d)) / nu
    surface = -0.5 * (nu * np.log(s2) + np.log(d).sum(axis=0))
    best = np.argmax(surface, axis=1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, grid.size - 1)]
    at_bound = _slope(s, eta2, np.where(best == 0, grid[0], grid[-1]))[0]
    stuck = ((best == 0) & (at_bound <= 0.0)) | ((best == grid.size - 1) & (at_bound >= 0.0))
    h = np.where(stuck, grid[best], (low + high) / 2.0)
    low, high = np.where(stuck, h, low), np.where(stuck, h, high)
    for _ in range(_MAX_STEPS):
        first, second = _slope(s, eta2, h)
        low, high = np.where(first > 0.0, h, low), np.where(first > 0.0, high, h)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = h - first / second
        inside = (second < 0.0) & (newton > low) & (newton < high)
        following = np.where(stuck, h, np.where(inside, newton, (low + high) / 2.0))
        moved = np.abs(following - h)
        h = following
        if float(moved.max(initial=0.0)) < _STEP_TOLERANCE:
            break
    return np.asarray(h)


def _slope(
    s: Float[np.ndarray, " nu"], eta2: Float[np.ndarray, "nu traits"], h: Float[np.ndarray, " traits"]
) -> tuple[Float[np.ndarray, " traits"], Float[np.ndarray, " traits"]]:
    """Return l' and l'': with ``a = (s - 1) / d`` and sums over ``w = eta^2 / d``::

    l'  = -1/2 [sum a - nu sum(w a) / sum w]
    l'' =  1/2 [sum a^2 - nu (2 sum(w a^2) / sum w - (sum(w a) / sum w)^2)]
    """  # noqa: D400 - the formula belongs to the sentence
    d = h * (s[:, None] - 1.0) + 1.0
    a = (s[:, None] - 1.0) / d
    w = eta2 / d
    total = w.sum(axis=0)
    once = (w * a).sum(axis=0) / total
    twice = (w * a * a).sum(axis=0) / total
    nu = eta2.shape[0]
    first = -0.5 * (a.sum(axis=0) - nu * once)
    second = 0.5 * ((a * a).sum(axis=0) - nu * (2.0 * twice - once**2))
    return np.asarray(first), np.asarray(second)


def _standard_errors(
    s: Float[np.ndarray, " nu"], h: Float[np.ndarray, " traits"], variance: Float[np.ndarray, " traits"], k: float
) -> tuple[Float[np.ndarray, " traits"], Float[np.ndarray, " traits"]]:
    """Return standard errors of h2 and pve from the expected information and the delta method."""
    sg2, se2 = h * variance, (1.0 - h) * variance
    v = np.outer(s, sg2) + se2
    i_gg = 0.5 * (s[:, None] ** 2 / v**2).sum(axis=0)
    i_ge = 0.5 * (s[:, None] / v**2).sum(axis=0)
    i_ee = 0.5 * (1.0 / v**2).sum(axis=0)
    determinant = i_gg * i_ee - i_ge**2
    v_gg, v_ge, v_ee = i_ee / determinant, -i_ge / determinant, i_gg / determinant

    def delta(scale: float) -> Float[np.ndarray, " traits"]:
        total = (scale * sg2 + se2) ** 2
        by_g, by_e = scale * se2 / total, -scale * sg2 / total
        return np.asarray(np.sqrt(by_g**2 * v_gg + 2.0 * by_g * by_e * v_ge + by_e**2 * v_ee))

    return delta(1.0), delta(k)
