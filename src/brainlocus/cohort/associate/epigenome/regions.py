r"""Regions: neighbouring features that are associated together, with the correlation among them (as dmrff).

Data flow::

    p, beta, chromosome, position --candidate_regions--> Candidates
    beta, standard errors, correlation of a candidate --shrink_region--> its strongest parts

Candidates are runs of features with p below a level, effects of one sign and no more than `gap` bases from one to the
next; what lies between them belongs to them. A part of a candidate, features i to j, has the generalised least squares
of one common effect::

    O_kl = se_k se_l (r_kl + 0.05 [k = l])      B = 1'O^-1 b / 1'O^-1 1      S^2 = 1 / 1'O^-1 1      z = B / S

and the same with r = 0 between features; the smaller |z| counts, so that neither a misjudged correlation nor its
neglect makes a region. Of a candidate the part with the largest |z| is taken, then the best of what remains to its left
and right, and so on. p is from the normal distribution and corrected (Bonferroni) for every feature and every part::

    tests = features + sum over candidates of max(1, c (c - 1) / 2)

The Cholesky factor of O for features i to the end gives all parts that begin at i: with L y = 1 and L x = b, sums of
the first elements of y^2 and x y are 1'O^-1 1 and 1'O^-1 b.

References
----------
Suderman et al. (2018), bioRxiv 508556 (dmrff); Burgess et al. (2016), Stat. Med. 35:1880, section 2.3.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

__all__ = [
    "NUDGE",
    "Candidates",
    "Parts",
    "candidate_regions",
    "n_region_tests",
    "pairwise_correlation",
    "shrink_region",
]

NUDGE = 0.05
"""Added to the correlation of a feature with itself, so that equal neighbours can be told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Ranges of features in the order of the genome."""

    order: Int[np.ndarray, " placed"]
    """Features with a place, by chromosome and position."""
    start: Int[np.ndarray, " candidates"]
    """First feature, a place in `order`."""
    stop: Int[np.ndarray, " candidates"]
    """One beyond the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Parts of one candidate, the strongest first."""

    start: Int[np.ndarray, " parts"]
    """First feature of the part, from 0 in the candidate."""
    stop: Int[np.ndarray, " parts"]
    beta: Float64[np.ndarray, " parts"]
    standard_error: Float64[np.ndarray, " parts"]

    @property
    def z(self) -> Float64[np.ndarray, " parts"]:
        """Effect over its standard error."""
        return np.asarray(self.beta / self.standard_error)


def candidate_regions(
    neg_log10_p: Float[np.ndarray, " features"],
    beta: Float[np.ndarray, " features"],
    chromosome: Shaped[np.ndarray, " features"],
    position: Int[np.ndarray, " features"],
    *,
    level: float = 0.05,
    gap: int = 500,
) -> Candidates:
    """Return runs of associated features.

    Parameters
    ----------
    neg_log10_p
        NaN is no test: such features are left out of regions.
    chromosome
        Empty: the feature has no place.

    Examples
    --------
    >>> found = candidate_regions(
    ...     np.array([3.0, 2.0, 0.1, 2.0]), np.ones(4), np.array(["1"] * 4), np.array([100, 200, 300, 2000])
    ... )
    >>> found.start.tolist(), found.stop.tolist()
    ([0, 3], [2, 4])
    """
    placed = np.flatnonzero((chromosome != "") & np.isfinite(neg_log10_p) & np.isfinite(beta))
    _, number = np.unique(chromosome[placed], return_inverse=True)
    order = placed[np.lexsort((position[placed], number))]
    strong = np.flatnonzero(neg_log10_p[order] > -np.log10(level))
    if not strong.size:
        return Candidates(order, strong, strong)
    features = order[strong]
    joined = (
        (chromosome[features][1:] == chromosome[features][:-1])
        & (np.diff(position[features]) <= gap)
        & (np.sign(beta[features][1:]) == np.sign(beta[features][:-1]))
    )
    first = np.flatnonzero(np.r_[True, ~joined])
    last = np.r_[first[1:] - 1, strong.size - 1]
    return Candidates(order, strong[first], strong[last] + 1)


def n_region_tests(candidates: Candidates) -> int:
    """Return the tests that p-values of regions are corrected for."""
    size = candidates.stop - candidates.start
    return int(candidates.order.size + np.maximum(size * (size - 1) // 2, 1).sum())


def pairwise_correlation(values: Float[np.ndarray, "features people"]) -> Float64[np.ndarray, "features features"]:
    """Return correlations of features over the people who have both; 0 where they cannot be known."""
    present = np.isfinite(values)
    mask = present.astype(np.float64)
    known = np.maximum(mask.sum(axis=1), 1.0)
    filled = np.where(present, values, 0.0)
    filled = np.where(present, filled - (filled.sum(axis=1) / known)[:, None], 0.0)
    n = mask @ mask.T
    with np.errstate(divide="ignore", invalid="ignore"):
        sx = filled @ mask.T
        covariance = filled @ filled.T - sx * sx.T / n
        squares = (filled**2) @ mask.T - sx**2 / n
        r = covariance / np.sqrt(squares * squares.T)
    r = np.where(np.isfinite(r), np.clip(r, -1.0, 1.0), 0.0)
    np.fill_diagonal(r, 1.0)
    return r


def shrink_region(
    beta: Float[np.ndarray, " features"],
    standard_error: Float[np.ndarray, " features"],
    correlation: Float[np.ndarray, "features features"],
) -> Parts:
    """Return the parts of a candidate region, the strongest first.

    Parameters
    ----------
    correlation
        Of the features among the people, 1 on the diagonal.
    """
    n = beta.size
    scaled = np.outer(standard_error, standard_error)
    plain = _all_parts(scaled * (1.0 + NUDGE) * np.eye(n), beta)
    joint = _all_parts(scaled * (correlation + NUDGE * np.eye(n)), beta)
    chosen = np.where(_weaker(plain, joint)[None], plain, joint)
    z = np.abs(chosen[0] / chosen[1])
    z[np.tril_indices(n, -1)] = -np.inf
    z = np.where(np.isnan(z), -np.inf, z)
    parts: list[tuple[int, int]] = []
    waiting = [(0, n)]
    while waiting:
        first, stop = waiting.pop()
        if first >= stop:
            continue
        part = z[first:stop, first:stop]
        if not np.isfinite(part).any():
            continue
        i, j = np.unravel_index(int(part.argmax()), part.shape)
        parts.append((first + int(i), first + int(j)))
        waiting += [(first, first + int(i)), (first + int(j) + 1, stop)]
    parts.sort(key=lambda ij: -z[ij])
    start = np.array([i for i, _ in parts], dtype=np.int64)
    last = np.array([j for _, j in parts], dtype=np.int64)
    return Parts(start, last + 1, chosen[0][start, last], chosen[1][start, last])


def _weaker(
    plain: Float64[np.ndarray, "two features features"], joint: Float64[np.ndarray, "two features features"]
) -> Bool[np.ndarray, "features features"]:
    """Return where the first |z| is the smaller, or the only one."""
    first, second = np.abs(plain[0] / plain[1]), np.abs(joint[0] / joint[1])
    return np.asarray((first < second) | np.isnan(second))


def _all_parts(
    covariance: Float64[np.ndarray, "features features"], beta: Float[np.ndarray, " features"]
) -> Float64[np.ndarray, "two features features"]:
    """Return B and S of every range of features: first in rows, last in columns; NaN below the diagonal."""
    n = beta.size
    found = np.full((2, n, n), np.nan)
    right = np.column_stack([np.ones(n), beta])
    for i in range(n):
        try:
            factor = np.linalg.cholesky(covariance[i:, i:])
        except np.linalg.LinAlgError:
            _by_inverse(covariance, beta, i, found)
            continue
        solved = _forward(factor, right[i:])
        ones = np.cumsum(solved[:, 0] ** 2)
        found[0, i, i:] = np.cumsum(solved[:, 0] * solved[:, 1]) / ones
        found[1, i, i:] = 1.0 / np.sqrt(ones)
    return found


def _forward(
    factor: Float64[np.ndarray, "some some"], right: Float64[np.ndarray, "some two"]
) -> Float64[np.ndarray, "some two"]:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(factor, right, lower=True, check_finite=False))


def _by_inverse(
    covariance: Float64[np.ndarray, "features features"],
    beta: Float[np.ndarray, " features"],
    i: int,
    found: Float64[np.ndarray, "two features features"],
) -> None:
    """Fill a row whose covariance is not positive definite, as of correlations over different people."""
    for j in range(i, beta.size):
        part = slice(i, j + 1)
        one = np.ones(j + 1 - i)
        try:
            weights = np.linalg.solve(covariance[part, part], one)
        except np.linalg.LinAlgError:
            continue
        total = float(weights.sum())
        if total > 0:
            found[0, i, j], found[1, i, j] = float(weights @ beta[part]) / total, 1.0 / np.sqrt(total)
