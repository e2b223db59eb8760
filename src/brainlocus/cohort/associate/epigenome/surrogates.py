r"""Surrogate variables: what moves many features together beyond the covariates, such as unrecorded batches.

Data flow::

    covariates --start_surrogates--> VariableFeatures           (once)
    VariableFeatures + block of features --add_surrogates--> VariableFeatures, changed
    VariableFeatures --surrogate_variables--> Surrogates

Features are freed of the covariates and the most variable of them kept, each scaled to norm 1. Their principal
components over the people are the surrogates. How many is found by parallel analysis: with l_k, l_(k+1) ... the m
variances that the components before k have left, component k is kept while its share of them is above the 95th
percentile of the largest share in data of independent normal features. Neighbouring CpGs are not independent, so that
there are not as many as features but the effective number that the same variances show ::

    n' = (m + 1 - 2 s) / (m s - 1)    s = sum l^2 / (sum l)^2

from the moments of a Wishart matrix of m dimensions (as Patterson et al.). The first component that is not above ends
the list. Variances of normal data are drawn without the data: they are the squared singular values of a bidiagonal
matrix of chi variables (Dumitriu & Edelman).

References
----------
Leek & Storey (2007), PLoS Genet. 3:e161; Horn (1965), Psychometrika 30:179; Patterson, Price & Reich (2006), PLoS
Genet. 2:e190, eq. 10; Dumitriu & Edelman (2002), J. Math. Phys. 43:5830.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.numerics import covariate_basis, project_out

__all__ = [
    "MOST_FEATURES",
    "Surrogates",
    "VariableFeatures",
    "add_surrogates",
    "start_surrogates",
    "surrogate_variables",
]

MOST_FEATURES = 10_000
"""Features whose components are taken: the most variable."""
_DRAWS = 199
"""Data sets without components: the 190th of the largest shares is their 95th percentile."""
_RANK = 190
_NO_SPREAD = 1e-10
"""Share of a feature's sum of squares below which the covariates leave none of it."""
_MOST = 50


@dataclass(slots=True, eq=False)
class VariableFeatures:
    """The most variable features so far; `add_surrogates` changes them."""

    basis: Float64[np.ndarray, "people rank"]
    most: int
    kept: list[Float64[np.ndarray, "some people"]] = field(default_factory=list)
    """Residuals, not yet scaled."""
    variance: list[Float64[np.ndarray, " some"]] = field(default_factory=list)
    least: float = 0.0
    """Sum of squares that a feature needs to be among the most variable."""


@dataclass(frozen=True, slots=True, eq=False)
class Surrogates:
    """Components that are covariates from now on."""

    scores: Float64[np.ndarray, "people surrogates"]
    """Uncorrelated with one another and with the covariates, mean 0, standard deviation 1."""
    share: Float64[np.ndarray, " components"]
    """Share of the variance of the first components, surrogates or not."""
    threshold: Float64[np.ndarray, " tested"]
    """What a component's share of the remaining variance had to be above, to the first that was not; empty where the
    number of surrogates was given."""
    remaining: Float64[np.ndarray, " components"]
    """Component's share of what those before it have left."""
    n_features: int


def start_surrogates(
    covariates: Float[np.ndarray, "people covariates"], *, most: int = MOST_FEATURES
) -> VariableFeatures:
    """Return no features.

    Parameters
    ----------
    covariates
        Complete, without an intercept.
    """
    return VariableFeatures(covariate_basis(covariates).q, most)


def add_surrogates(chosen: VariableFeatures, values: Float[np.ndarray, "features people"]) -> None:
    """Take the most variable features of a block, and let go of those that no longer are.

    Missing values are put at the mean of their feature; features without half of the people are left out.
    """
    present = np.isfinite(values)
    known = present.sum(axis=1)
    rows = np.flatnonzero(2 * known >= values.shape[1])
    if not rows.size:
        return
    filled = np.array(values if rows.size == values.shape[0] else values[rows], dtype=np.float64)
    lacking = np.flatnonzero(known[rows] < values.shape[1])
    filled[lacking] = np.where(present[rows[lacking]], filled[lacking], 0.0)
    filled -= (filled.sum(axis=1) / known[rows])[:, None]
    filled[lacking] = np.where(present[rows[lacking]], filled[lacking], 0.0)
    squares = np.einsum("ij,ij->i", filled, filled)
    explained = filled @ chosen.basis
    left = squares - np.einsum("ij,ij->i", explained, explained)
    # Residuals themselves are taken only of features that may stay.
    best = np.flatnonzero((left > _NO_SPREAD * squares) & (left > chosen.least))
    chosen.kept.append(np.ascontiguousarray(project_out(chosen.basis, filled[best].T).T))
    chosen.variance.append(left[best])
    if sum(v.size for v in chosen.variance) > 2 * chosen.most:
        _prune(chosen)


def _prune(chosen: VariableFeatures) -> None:
    variance = np.concatenate(chosen.variance) if chosen.variance else np.empty(0)
    rows = np.sort(np.argsort(-variance, kind="stable")[: chosen.most])
    if chosen.kept:
        chosen.kept[:] = [np.concatenate(chosen.kept)[rows]]
    chosen.variance[:] = [variance[rows]]
    chosen.least = float(variance[rows].min()) if rows.size == chosen.most else 0.0


def surrogate_variables(chosen: VariableFeatures, rng: np.random.Generator, *, number: int | None = None) -> Surrogates:
    """Return the surrogate variables.

    Parameters
    ----------
    number
        How many; None finds it by parallel analysis.

    Raises
    ------
    ValueError
        More surrogates than the people allow, or no feature that varies.
    """
    _prune(chosen)
    residuals = chosen.kept[0] if chosen.kept else np.empty((0, chosen.basis.shape[0]))
    n_people, rank = chosen.basis.shape
    room = min(n_people - rank - 2, residuals.shape[0])
    if room < 1 or (number or 0) > room:
        raise ValueError(
            f"{number or 'Some'} surrogates were asked of {n_people} people, {rank - 1} covariates and "
            f"{residuals.shape[0]} features that vary; there is room for {max(room, 0)}."
        )
    scaled = residuals / np.sqrt((residuals**2).sum(axis=1))[:, None]
    values, vectors = _components(scaled, n_people - rank)
    most = min(_MOST, room, max(values.size - 1, 1))
    remaining = _remaining(values)[:most]
    threshold = np.empty(0)
    if number is None:
        threshold = _thresholds(values, remaining, rng)
        number = int((remaining[: threshold.size] > threshold).sum())
    scores = vectors[:, :number] * np.sqrt(n_people)
    # A component has no direction of its own: its largest score is made positive.
    largest = np.abs(scores).argmax(axis=0) if number else np.empty(0, dtype=np.int64)
    scores = scores * np.sign(scores[largest, np.arange(number)])
    return Surrogates(scores, (values / values.sum())[:most], threshold, remaining, residuals.shape[0])


def _components(
    scaled: Float[np.ndarray, "features people"], rank: int
) -> tuple[Float64[np.ndarray, " components"], Float64[np.ndarray, "people components"]]:
    """Return variances and unit vectors over the people, largest first; no more than the rank of the residuals."""
    values, vectors = np.linalg.eigh(np.asarray(scaled.T @ scaled, dtype=np.float64))
    order = np.arange(values.size)[::-1][:rank]
    return np.maximum(values[order], 0.0), vectors[:, order]


def _remaining(values: Float64[np.ndarray, " components"]) -> Float64[np.ndarray, " components"]:
    left = np.cumsum(values[::-1])[::-1]
    return np.asarray(values / np.maximum(left, 1e-300))


def _thresholds(
    values: Float64[np.ndarray, " components"], remaining: Float64[np.ndarray, " most"], rng: np.random.Generator
) -> Float64[np.ndarray, " tested"]:
    """Return what each component has to be above, up to the first that is not."""
    found: list[float] = []
    for k in range(remaining.size):
        left = values[k:]
        found.append(float(np.sort(_largest_shares(left.size, _effective_features(left), rng))[_RANK - 1]))
        if not remaining[k] > found[-1]:
            break
    return np.array(found)


def _effective_features(values: Float64[np.ndarray, " components"]) -> float:
    """Return the number of independent features whose variances over the components spread as these do.

    Of a Wishart matrix of m dimensions and n degrees of freedom, E tr W^2 / E (tr W)^2 = (n + m + 1) / (n m + 2).
    """
    m, total, squares = values.size, float(values.sum()), float((values**2).sum())
    share = squares / total**2
    return max((m + 1 - 2 * share) / max(m * share - 1.0, 1e-12), 1.0)


def _largest_shares(m: int, n_features: float, rng: np.random.Generator) -> Float64[np.ndarray, " draws"]:
    """Return the largest share of variance in draws of independent normal features of m people."""
    from scipy.linalg import eigvalsh_tridiagonal

    small, large = (m, n_features) if n_features >= m else (max(int(n_features), 2), float(m))
    shares = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        diagonal = np.sqrt(rng.chisquare(large - np.arange(small)))
        below = np.sqrt(rng.chisquare(np.arange(small - 1, 0, -1)))
        main = diagonal**2 + np.r_[0.0, below**2]
        top = eigvalsh_tridiagonal(main, diagonal[:-1] * below, select="i", select_range=(small - 1, small - 1))
        shares[draw] = top[0] / main.sum()
    return shares
