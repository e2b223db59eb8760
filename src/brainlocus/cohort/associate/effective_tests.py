r"""Effective number of tests of correlated traits: by simulation, and by the rules from eigenvalues.

Data flow::

    traits, covariates --prepare_effective--> EffectiveDesign             (once)
    EffectiveDesign + generator --simulate_smallest_p--> smallest p of a block of random predictors
    smallest p of all blocks --effective_tests--> EffectiveTests

*Simulation.* A predictor x of independent normal numbers, freed of the covariates, has nothing to do with the traits.
The 5 % quantile of the smallest p of its tests with all traits is the level alpha* at which 5 % of such predictors
would have a finding; ``Meff = log(1 - 0.05) / log(1 - alpha*)`` independent tests have that level. With complete
traits the tests depend on x only through its products with an orthonormal basis U of the freed traits and through what
is left of its sum of squares: ``z ~ N(0, I)`` and ``s ~ chi2(df + 1 - rank U)`` are drawn instead, so that a predictor
costs rank x traits, whatever the number of people. With missing values x is drawn itself and each trait uses its own
people.

*Rules*, from the eigenvalues l of the traits' correlation matrix, q traits::

    Nyholt     1 + (q - 1) (1 - var(l) / q)
    Li & Ji    sum [l >= 1] + (l - floor l)
    Galwey     (sum sqrt l)^2 / sum l
    Gao        eigenvalues, from the largest, to 99.5 % of their sum

They are approximations that disagree; the simulated number is the one to use.

References
----------
Nyholt (2004), Am. J. Hum. Genet. 74:765 (10.1086/383251); Li & Ji (2005), Heredity 95:221 (10.1038/sj.hdy.6800717);
Galwey (2009), Genet. Epidemiol. 33:559 (10.1002/gepi.20408); Gao, Starmer & Martin (2008), Genet. Epidemiol. 32:361;
Higham (2002), IMA J. Numer. Anal. 22:329 (nearest correlation matrix); Conover (1999), Practical Nonparametric
Statistics, 3.2 (interval of a quantile).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from brainlocus.numerics import (
    Basis,
    covariate_basis,
    masked_residuals,
    neg_log10_p_from_t,
    pattern_systems,
    project_out,
    same_people,
)

__all__ = [
    "EffectiveDesign",
    "EffectiveTests",
    "correlation_eigenvalues",
    "effective_tests",
    "galwey_tests",
    "gao_tests",
    "li_ji_tests",
    "nearest_correlation",
    "nyholt_tests",
    "prepare_effective",
    "sidak_level",
    "simulate_smallest_p",
]

GAO_SHARE = 0.995
LI_JI_DIGITS = 10
"""Eigenvalues are rounded so: one that is 1 but for rounding counts as 1."""
NO_VARIANCE = 1e-20
"""Residual share of a trait's sum of squares below which it is a combination of the covariates."""
RANK_TOLERANCE = 1e-10
"""Singular values of the freed traits below this share of the largest are rounding."""
MAX_HIGHAM_STEPS = 500
HIGHAM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class EffectiveDesign:
    """Traits and covariates, reduced once and reused for every block of predictors."""

    residuals: Float64[np.ndarray, "samples traits"]
    """Of the tested traits, freed of covariates on their own people, each of length 1; NaN = missing."""
    tested: Bool[np.ndarray, " given"]
    """Which of the traits given are tested: those that vary beyond the covariates."""
    basis: Basis
    degrees_of_freedom: Float64[np.ndarray, " traits"]
    """Of each test: people less rank of the covariates less 1."""
    loadings: Float64[np.ndarray, "rank traits"] | None
    """Freed traits in an orthonormal basis of their own, where all have the same people; None where not."""
    eigenvalues: Float64[np.ndarray, " traits"]
    """Of the correlation matrix of the residuals (pairwise where values are missing, then the nearest)."""
    shifted: float
    """Largest change of a correlation that made the matrix positive semidefinite; 0 with complete traits."""


@dataclass(frozen=True, slots=True)
class EffectiveTests:
    """Numbers of tests and levels for one family-wise level."""

    level: float
    """Family-wise, such as 0.05."""
    n_traits: int
    n_predictors: int
    alpha: float
    """Simulated level of a single test, alpha*."""
    simulated: float
    """Effective tests of that level."""
    standard_error: float
    """Monte-Carlo standard error of `simulated`."""
    lower: float
    upper: float
    """95 % interval of `simulated`, from order statistics."""
    nyholt: float
    li_ji: float
    galwey: float
    gao: float


def prepare_effective(
    traits: Float[np.ndarray, "samples traits"], *, covariates: Float[np.ndarray, "samples covariates"] | None = None
) -> EffectiveDesign:
    """Reduce traits and covariates to what every block of predictors shares.

    Parameters
    ----------
    traits
        NaN is missing; a trait that is constant or a combination of the covariates is not tested.
    covariates
        Without an intercept; people with NaN take no part.

    Raises
    ------
    ValueError
        An infinite trait, nobody with complete covariates, or no trait that can be tested.
    """
    values = np.asarray(traits, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError(f"Trait {int(np.isinf(values).any(axis=0).argmax()) + 1} has an infinite value.")
    design = np.empty((values.shape[0], 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    complete = np.isfinite(design).all(axis=1)
    if not complete.any():
        raise ValueError("Nobody has complete covariates; use fewer covariates or impute them first.")
    values, design = values[complete], design[complete]
    # People who have no trait at all would make complete traits look incomplete.
    some = ~np.isnan(values).all(axis=1)
    if not some.any():
        raise ValueError("No trait has a value in people with complete covariates.")
    values, basis = values[some], covariate_basis(design[some])
    residuals, rank = _freed(values, design[some], basis)
    present = ~np.isnan(values)
    mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    total = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0)
    left = np.nansum(residuals**2, axis=0)
    dof = present.sum(axis=0) - rank - 1.0
    rounding = (8.0 * np.finfo(np.float64).eps * np.abs(mean)) ** 2 * present.sum(axis=0)
    tested: Bool[np.ndarray, " given"] = (dof > 0) & (left > NO_VARIANCE * total + rounding) & (total > 0)
    if not tested.any():
        raise ValueError(
            f"None of the {tested.size} traits varies beyond the covariates on more people than there are covariates; "
            "nothing can be tested."
        )
    unit = residuals[:, tested] / np.sqrt(left[tested])
    loadings = _loadings(unit) if not np.isnan(unit).any() else None
    eigenvalues, shifted = correlation_eigenvalues(unit)
    return EffectiveDesign(unit, tested, basis, dof[tested], loadings, eigenvalues, shifted)


def simulate_smallest_p(
    design: EffectiveDesign, n_predictors: int, generator: np.random.Generator
) -> Float64[np.ndarray, " predictors"]:
    """Return -log10 of the smallest p of each of some random predictors."""
    if design.loadings is not None:
        rank = design.loadings.shape[0]
        z = generator.standard_normal((n_predictors, rank))
        # What the predictor has besides the traits, freed of the covariates.
        free = float(design.degrees_of_freedom[0]) + 1.0 - rank
        rest = generator.chisquare(free, n_predictors) if free > 0 else np.zeros(n_predictors)
        r = z @ design.loadings / np.sqrt((z**2).sum(axis=1) + rest)[:, None]
        strongest = np.abs(r).max(axis=1)
        return _neg_log10_p(strongest, np.full(n_predictors, design.degrees_of_freedom[0]))
    predictors = generator.standard_normal((design.residuals.shape[0], n_predictors))
    r = _masked_r(design, predictors)
    p = _neg_log10_p(np.abs(r), np.broadcast_to(design.degrees_of_freedom[:, None], r.shape))
    return np.asarray(p.max(axis=0))


def effective_tests(
    design: EffectiveDesign, neg_log10_smallest: Float[np.ndarray, " predictors"], *, level: float = 0.05
) -> EffectiveTests:
    """Return effective numbers of tests from the smallest p of random predictors, and by the rules.

    The interval takes the order statistics whose ranks bound a binomial count of the level at 95 %; the standard error
    is that of the normal with as wide an interval.

    Raises
    ------
    ValueError
        Too few predictors to have a quantile of the level with an interval.
    """
    smallest = np.sort(10.0 ** -np.asarray(neg_log10_smallest, dtype=np.float64))
    n = smallest.size
    half = 1.959963984540054 * np.sqrt(n * level * (1.0 - level))
    first, last = int(np.floor(n * level - half)), int(np.ceil(n * level + half))
    if first < 1 or last >= n:
        raise ValueError(f"{n} predictors are too few for an interval of the {level:g} quantile; draw more.")
    alpha = float(np.quantile(smallest, level))
    # A smaller alpha* means more tests.
    upper, lower = _tests_of(smallest[first - 1], level), _tests_of(smallest[last], level)
    eigenvalues = design.eigenvalues
    return EffectiveTests(
        level=level,
        n_traits=eigenvalues.size,
        n_predictors=n,
        alpha=alpha,
        simulated=_tests_of(alpha, level),
        standard_error=(upper - lower) / (2.0 * 1.959963984540054),
        lower=lower,
        upper=upper,
        nyholt=nyholt_tests(eigenvalues),
        li_ji=li_ji_tests(eigenvalues),
        galwey=galwey_tests(eigenvalues),
        gao=gao_tests(eigenvalues),
    )


def sidak_level(n_tests: float, level: float = 0.05) -> float:
    """Return ``1 - (1 - level)^(1 / n)``, the level of each of n independent tests.

    Examples
    --------
    >>> round(sidak_level(10.0), 6)
    0.005116
    """
    return float(-np.expm1(np.log1p(-level) / n_tests))


def nyholt_tests(eigenvalues: Float[np.ndarray, " traits"]) -> float:
    """Return Nyholt's number.

    Examples
    --------
    >>> nyholt_tests(np.ones(5)), nyholt_tests(np.array([5.0, 0, 0, 0, 0]))
    (5.0, 1.0)
    """
    q = eigenvalues.size
    return 1.0 if q == 1 else float(1.0 + (q - 1.0) * (1.0 - eigenvalues.var(ddof=1) / q))


def li_ji_tests(eigenvalues: Float[np.ndarray, " traits"]) -> float:
    """Return Li and Ji's number.

    Examples
    --------
    >>> round(li_ji_tests(np.array([2.5, 0.3, 0.2])), 6)
    2.0
    """
    rounded = np.round(np.abs(eigenvalues), LI_JI_DIGITS)
    return float((rounded >= 1.0).sum() + (rounded - np.floor(rounded)).sum())


def galwey_tests(eigenvalues: Float[np.ndarray, " traits"]) -> float:
    """Return Galwey's number.

    Examples
    --------
    >>> galwey_tests(np.ones(4))
    4.0
    """
    positive = np.maximum(eigenvalues, 0.0)
    return float(np.sqrt(positive).sum() ** 2 / positive.sum())


def gao_tests(eigenvalues: Float[np.ndarray, " traits"], share: float = GAO_SHARE) -> float:
    """Return how many eigenvalues, largest first, make up 99.5 % of their sum.

    Examples
    --------
    >>> gao_tests(np.array([2.98, 0.016, 0.004]))
    2.0
    """
    positive = np.sort(np.maximum(eigenvalues, 0.0))[::-1]
    reached = np.cumsum(positive) / positive.sum() >= share - 1e-12
    return float(np.argmax(reached) + 1)


def correlation_eigenvalues(
    values: Float64[np.ndarray, "samples traits"],
) -> tuple[Float64[np.ndarray, " traits"], float]:
    """Return the eigenvalues of the correlation matrix, largest first, and how far it had to be moved.

    With missing values each correlation is over the people who have both traits; such a matrix may have negative
    eigenvalues, and the nearest one that has not is taken.
    """
    present = ~np.isnan(values)
    if present.all():
        centred = values - values.mean(axis=0)
        unit = centred / np.sqrt((centred**2).sum(axis=0))
        return np.maximum(np.linalg.eigvalsh(unit.T @ unit)[::-1], 0.0), 0.0
    pairwise = _pairwise_correlations(values, present)
    nearest = nearest_correlation(pairwise)
    shifted = float(np.abs(nearest - pairwise).max())
    return np.maximum(np.linalg.eigvalsh(nearest)[::-1], 0.0), shifted


def nearest_correlation(matrix: Float64[np.ndarray, "traits traits"]) -> Float64[np.ndarray, "traits traits"]:
    """Return the correlation matrix that is nearest in Frobenius norm (Higham 2002, alternating projections).

    Examples
    --------
    >>> bad = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    >>> nearest_correlation(bad).round(4).tolist()[0]
    [1.0, 0.7607, 0.1573]
    """
    current, correction = matrix.copy(), np.zeros(matrix.shape)
    if np.linalg.eigvalsh(current)[0] >= 0:
        return current
    for _ in range(MAX_HIGHAM_STEPS):
        shifted = current - correction
        values, vectors = np.linalg.eigh(shifted)
        positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
        correction = positive - shifted
        new = positive.copy()
        np.fill_diagonal(new, 1.0)
        change = float(np.linalg.norm(new - current) / np.linalg.norm(new))
        current = new
        if change < HIGHAM_TOLERANCE:
            break
    return current


def _freed(
    values: Float64[np.ndarray, "samples traits"], covariates: Float64[np.ndarray, "samples covariates"], basis: Basis
) -> tuple[Float64[np.ndarray, "samples traits"], Float64[np.ndarray, " traits"]]:
    """Return residuals on each trait's people, and the rank of the covariates there."""
    residuals, poor = masked_residuals(basis.q, values)
    rank = np.full(values.shape[1], float(basis.rank))
    for rows, members in same_people(~np.isnan(values[:, poor])):
        columns = np.flatnonzero(poor)[members]
        if rows.any():
            own = covariate_basis(covariates[rows])
            rank[columns] = own.rank
            residuals[np.ix_(rows, columns)] = project_out(own.q, values[np.ix_(rows, columns)])
    return residuals, rank


def _loadings(unit: Float64[np.ndarray, "samples traits"]) -> Float64[np.ndarray, "rank traits"]:
    """Return the traits in an orthonormal basis of the space they span."""
    if unit.shape[0] >= unit.shape[1]:
        values, vectors = np.linalg.eigh(unit.T @ unit)
        kept = values > RANK_TOLERANCE * values[-1]
        return np.asarray(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)
    _, s, right = np.linalg.svd(unit, full_matrices=False)
    kept = s > np.sqrt(RANK_TOLERANCE) * s[0]
    return np.asarray(s[kept, None] * right[kept])


def _masked_r(
    design: EffectiveDesign, predictors: Float64[np.ndarray, "samples predictors"]
) -> Float64[np.ndarray, "traits predictors"]:
    """Return the correlation of each trait with each predictor, freed of the covariates on the trait's people.

    As in `masked_residuals`: over the trait's people M, with x freed of the basis over everyone,
    ``|x|^2 = x'M x - (Q_m'x_m)'(Q'MQ)^-1(Q_m'x_m)``; the product needs no more, since the trait is free already.
    """
    q, present = design.basis.q, ~np.isnan(design.residuals)
    freed = project_out(q, predictors)
    squares = present.astype(np.float64).T @ freed**2
    for system in pattern_systems(q, present):
        if system.factor is not None and system.missing.size:
            crossed = q[system.missing].T @ freed[system.missing]
            squares[system.members] -= np.einsum("ij,ij->j", crossed, system.solve(crossed))
        elif system.factor is None:
            rows = present[:, system.members[0]]
            own = covariate_basis(q[rows])
            squares[system.members] = (project_out(own.q, predictors[rows]) ** 2).sum(axis=0)
    return np.asarray((np.where(present, design.residuals, 0.0).T @ freed) / np.sqrt(squares))


def _neg_log10_p(
    r: Float64[np.ndarray, "*shape"], degrees_of_freedom: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    bounded = np.minimum(r, 1.0 - 1e-15)
    t = bounded * np.sqrt(degrees_of_freedom / (1.0 - bounded**2))
    return np.asarray(neg_log10_p_from_t(t.ravel(), degrees_of_freedom.ravel())).reshape(r.shape)


def _pairwise_correlations(
    values: Float64[np.ndarray, "samples traits"], present: Bool[np.ndarray, "samples traits"]
) -> Float64[np.ndarray, "traits traits"]:
    mask, filled = present.astype(np.float64), np.where(present, values, 0.0)
    n, sums, squares = mask.T @ mask, filled.T @ mask, (filled**2).T @ mask
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = filled.T @ filled - sums * sums.T / n
        variance = squares - sums**2 / n
        r = covariance / np.sqrt(variance * variance.T)
    # Two traits that nobody has both of are taken as uncorrelated.
    r = np.clip(np.where(np.isfinite(r), r, 0.0), -1.0, 1.0)
    np.fill_diagonal(r, 1.0)
    return np.asarray(0.5 * (r + r.T))


def _tests_of(alpha: float, level: float) -> float:
    return float(np.log1p(-level) / np.log1p(-min(alpha, 1.0 - 1e-15)))
