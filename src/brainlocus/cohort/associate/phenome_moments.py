r"""Second moments of every phenotype with every trait, each pair on its own people: masked products.

People are gone through in tiles that stay in the cache, phenotypes are rows. Let M be the mask of a phenotype x (1 =
present), centred and zero-filled, Q an orthonormal basis of intercept and covariates (0 for people without them).

``per_variable``: two passes. The first gives each phenotype its own system ``(Q'MQ) a = Q'x``, the second the
residuals ``r = x - MQa`` and the six products of masks, values and squares with the traits' residuals y ::

    N = M'My   Sx = r'My   Sy = M'Y   Sxy = r'Y   Sxx = (r*r)'My   Syy = M'(Y*Y)

``exact``: one pass a set of traits with the same people, J being the mask of the people that phenotype and trait
share. With ``G = Q'JQ``, ``u = Q'Jx`` and ``c = Q'Jy`` (Frisch-Waugh on the shared people) ::

    Sxx = x'Jx - u'G^-1 u   Sxy = x'Jy - u'G^-1 c   Syy = y'Jy - c'G^-1 c

and c of all traits is a product of M with the columns ``Q*Y``. Heteroscedasticity-consistent errors (HC3) need a
second pass with the weights ``w = x~^2 / (1 - h)^2`` in place of M, where x~ is the phenotype's residual and h the
leverage; ``beta`` has the variance ``sum(w e^2) / Sxx^2`` with residuals e, whose square is expanded in the same way.

Phenotypes whose people leave the covariates nearly collinear, or that the covariates explain almost wholly, are
redone with a pivoted QR of their own people.

References
----------
Lovell (1963), JASA 58:993; MacKinnon & White (1985), J. Econometrics 29:305.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int
from numba import njit

from brainlocus.numerics import covariate_basis, project_out

__all__ = ["Group", "Moments", "PhenotypeFacts", "exact_moments", "facts", "freed", "tiled_moments"]

TILE = 1_024
"""People at a time: a tile of 256 phenotypes has 2 MiB."""
TRAITS_AT_ONCE = 64
"""Traits whose products with the covariates are made together: 64 x 10 columns a tile have 5 MiB."""
POOR_CONDITION = 1e-4
"""Smallest eigenvalue of a system as a share of the largest, below which QR is used: 12 digits are left above."""
LITTLE_LEFT = 1e-6
"""Share of a sum of squares left by the covariates, below which QR, which centres first, is used."""
NO_VARIANCE = 1e-20
"""Residual share of a variable's sum of squares below which it is a combination of the covariates."""


@dataclass(frozen=True, slots=True, eq=False)
class PhenotypeFacts:
    """What one reading of a block says of each phenotype, over the people with complete covariates."""

    n: Int[np.ndarray, " phenotypes"]
    mean: Float64[np.ndarray, " phenotypes"]
    """0 where nobody has a value."""
    largest: Float64[np.ndarray, " phenotypes"]
    two_valued: Bool[np.ndarray, " phenotypes"]
    infinite: Bool[np.ndarray, " phenotypes"]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Traits that exactly the same people have."""

    people: Float64[np.ndarray, " samples"]
    """1 for those people."""
    members: Int[np.ndarray, " members"]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of each pair, on its own people."""

    n: Float64[np.ndarray, "phenotypes traits"]
    n_cases: Float64[np.ndarray, "phenotypes traits"]
    """People with the larger value of a two-valued phenotype, 0 of others."""
    covariance: Float64[np.ndarray, "phenotypes traits"]
    phenotype_ss: Float64[np.ndarray, "phenotypes traits"]
    trait_ss: Float64[np.ndarray, "phenotypes traits"]
    rank: Float64[np.ndarray, "phenotypes traits"]
    """Columns of the covariates on these people, intercept included."""
    meat: Float64[np.ndarray, "phenotypes traits"] | None = None
    """``sum(w e^2)`` of HC3; None when not asked for."""

    @classmethod
    def empty(cls, n_phenotypes: int, n_traits: int, *, robust: bool = False) -> "Moments":
        """Return zeros to be filled."""
        zeros = [np.zeros((n_phenotypes, n_traits)) for _ in range(6 + robust)]
        return cls(*zeros)

    def set(self, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " columns"], part: "Moments") -> None:
        """Put the moments of some phenotypes and traits in their place."""
        place = np.ix_(rows, columns)
        for name in ("n", "n_cases", "covariance", "phenotype_ss", "trait_ss", "rank"):
            getattr(self, name)[place] = getattr(part, name)
        if self.meat is not None and part.meat is not None:
            self.meat[place] = part.meat


def facts(
    phenotypes: Float64[np.ndarray, "phenotypes samples"], complete: Bool[np.ndarray, " samples"]
) -> PhenotypeFacts:
    """Return count, mean, and kind of every phenotype of a block."""
    n, mean, largest, two, infinite = _facts(phenotypes, complete)
    return PhenotypeFacts(n, mean, largest, two, infinite)


@njit(cache=True, nogil=True)
@no_type_check
def _facts(
    phenotypes: np.ndarray, complete: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = phenotypes.shape[0]
    n = np.zeros(size, dtype=np.int64)
    mean, largest = np.zeros(size), np.full(size, np.nan)
    two, infinite = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    for i in range(size):
        count, total, first, second, more = 0, 0.0, np.nan, np.nan, False
        for j in range(phenotypes.shape[1]):
            value = phenotypes[i, j]
            if not complete[j] or np.isnan(value):
                continue
            if np.isinf(value):
                infinite[i] = True
                continue
            if count == 0:
                first = value
            elif value != first:
                if np.isnan(second):
                    second = value
                elif value != second:
                    more = True
            count += 1
            total += value - first
        n[i] = count
        if count:
            mean[i] = first + total / count
            two[i] = not more and not np.isnan(second)
            largest[i] = max(first, second) if two[i] else first
    return n, mean, largest, two, infinite


def freed(
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


def tiled_moments(
    phenotypes: Float64[np.ndarray, "phenotypes samples"],
    known: PhenotypeFacts,
    traits: Float64[np.ndarray, "samples traits"],
    *,
    covariates: Float64[np.ndarray, "samples covariates"],
    basis: Float64[np.ndarray, "samples rank"],
    complete: Bool[np.ndarray, " samples"],
) -> Moments:
    """Return moments of residuals, each variable freed of the covariates on its own people.

    Parameters
    ----------
    phenotypes
        NaN is missing; people who are not `complete` are passed over.
    traits
        Freed of the covariates; NaN is missing.
    """
    n_phenotypes, n_traits = phenotypes.shape[0], traits.shape[1]
    gram, rhs, squares = _normal_equations(phenotypes, known.mean, basis, complete)
    coefficients, poor = _solved(gram, rhs, squares)
    with_mask, with_values = np.zeros((n_phenotypes, 3 * n_traits)), np.zeros((n_phenotypes, 2 * n_traits))
    with_squares, cases = np.zeros((n_phenotypes, n_traits)), np.zeros((n_phenotypes, n_traits))
    two = np.flatnonzero(known.two_valued)
    for tile, mask, x in _tiles(phenotypes, known.mean, complete):
        right = _sides(traits[tile])
        fitted = coefficients @ basis[tile].T
        _subtract_fit(x, mask, fitted)
        with_mask += mask @ right
        with_values += x @ right[:, : 2 * n_traits]
        with_squares += fitted @ right[:, :n_traits]
        cases[two] += _cases(phenotypes[two, tile], known.largest[two], mask[two]) @ right[:, :n_traits]
    moments = _finished(with_mask, with_values, with_squares, cases, basis.shape[1])
    every = np.arange(n_traits)
    for row in np.flatnonzero(poor & (known.n > 0)).tolist():
        values = np.where(complete, phenotypes[row], np.nan)
        rows = ~np.isnan(values)
        residual = freed(values[rows, None], covariate_basis(covariates[rows]).q)
        moments.set(np.array([row]), every, _direct(residual[:, 0], _sides(traits[rows]), cases[row], basis.shape[1]))
    return moments


def _sides(traits: Float64[np.ndarray, "people traits"]) -> Float64[np.ndarray, "people three_traits"]:
    """Return [My | Y | Y*Y], whose products with masks, residuals and squared residuals are the six sums."""
    present = ~np.isnan(traits)
    y = np.where(present, traits, 0.0)
    return np.hstack([present.astype(np.float64), y, y * y])


def _direct(
    residual: Float64[np.ndarray, " present"],
    right: Float64[np.ndarray, "present columns"],
    cases: Float64[np.ndarray, " traits"],
    rank: int,
) -> Moments:
    n_traits = cases.size
    ones = np.ones((1, residual.size))
    return _finished(
        ones @ right,
        residual[None] @ right[:, : 2 * n_traits],
        (residual * residual)[None] @ right[:, :n_traits],
        cases[None],
        rank,
    )


def _finished(
    with_mask: Float64[np.ndarray, "phenotypes three_traits"],
    with_values: Float64[np.ndarray, "phenotypes two_traits"],
    with_squares: Float64[np.ndarray, "phenotypes traits"],
    cases: Float64[np.ndarray, "phenotypes traits"],
    rank: int,
) -> Moments:
    n, sum_y, squares_y = np.split(with_mask, 3, axis=1)
    sum_x, products = np.split(with_values, 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = products - sum_x * sum_y / n
        phenotype_ss = with_squares - sum_x**2 / n
        trait_ss = squares_y - sum_y**2 / n
    # What differences of equal sums leave is rounding, not variance.
    phenotype_ss[phenotype_ss <= 1e-13 * with_squares] = 0.0
    trait_ss[trait_ss <= 1e-13 * squares_y] = 0.0
    return Moments(n, cases, covariance, phenotype_ss, trait_ss, np.full(n.shape, float(rank)))


def exact_moments(
    phenotypes: Float64[np.ndarray, "phenotypes samples"],
    known: PhenotypeFacts,
    traits: Float64[np.ndarray, "samples traits"],
    *,
    groups: list[Group],
    covariates: Float64[np.ndarray, "samples covariates"],
    basis: Float64[np.ndarray, "samples rank"],
    complete: Bool[np.ndarray, " samples"],
    robust: bool = False,
) -> Moments:
    """Return moments of residuals on the people of each pair.

    Parameters
    ----------
    phenotypes
        NaN is missing; people who are not `complete` are passed over.
    traits
        Freed of the covariates on the trait's own people (which saves digits); NaN is missing.
    groups
        All traits, by the people who have them.
    robust
        Also compute the HC3 sums.
    """
    moments = Moments.empty(phenotypes.shape[0], traits.shape[1], robust=robust)
    every = np.arange(phenotypes.shape[0])
    for group in groups:
        y = np.where(group.people[:, None] > 0, traits[:, group.members], 0.0)
        gram, rhs, squares = _normal_equations(phenotypes, known.mean, basis, complete & (group.people > 0))
        coefficients, poor = _solved(gram, rhs, squares)
        gram[poor] = np.eye(basis.shape[1])
        for start in range(0, group.members.size, TRAITS_AT_ONCE):
            part = slice(start, start + TRAITS_AT_ONCE)
            scan = _GroupScan(phenotypes, known, y[:, part], basis, complete & (group.people > 0), robust)
            moments.set(every, group.members[part], scan.moments(gram, coefficients, rhs, squares))
        for row in np.flatnonzero(poor).tolist():
            values = np.where(complete & (group.people > 0), phenotypes[row], np.nan)
            part_of = _pivoted(values, known, row, y, covariates, robust=robust)
            moments.set(np.array([row]), group.members, part_of)
    return moments


@dataclass(frozen=True, slots=True, eq=False)
class _GroupScan:
    """Phenotypes of a block against traits that the same people have."""

    phenotypes: Float64[np.ndarray, "phenotypes samples"]
    known: PhenotypeFacts
    y: Float64[np.ndarray, "samples traits"]
    """0 for people without them."""
    basis: Float64[np.ndarray, "samples rank"]
    people: Bool[np.ndarray, " samples"]
    robust: bool

    def moments(
        self,
        gram: Float64[np.ndarray, "phenotypes rank rank"],
        coefficients: Float64[np.ndarray, "phenotypes rank"],
        rhs: Float64[np.ndarray, "phenotypes rank"],
        squares: Float64[np.ndarray, " phenotypes"],
    ) -> Moments:
        """Return the moments of all pairs; `gram`, `rhs` and `squares` are G, u and x'x, `coefficients` G^-1 u."""
        size, n_traits, rank = self.phenotypes.shape[0], self.y.shape[1], self.basis.shape[1]
        crossed, yy = np.zeros((size, rank * n_traits)), np.zeros((size, n_traits))
        xy, n, cases = np.zeros((size, n_traits)), np.zeros(size), np.zeros(size)
        two = np.flatnonzero(self.known.two_valued)
        for tile, mask, x in self.tiles():
            y = self.y[tile]
            crossed += mask @ _crossed(self.basis[tile], y)
            yy += mask @ (y * y)
            xy += x @ y
            n += mask.sum(axis=1)
            cases[two] += _cases(self.phenotypes[two, tile], self.known.largest[two], mask[two]).sum(axis=1)
        c = crossed.reshape(size, rank, n_traits)
        trait_coefficients = np.linalg.solve(gram, c)
        covariance = xy - np.einsum("ik,ikj->ij", coefficients, c)
        phenotype_ss = np.repeat((squares - np.einsum("ik,ik->i", coefficients, rhs))[:, None], n_traits, axis=1)
        trait_ss = yy - np.einsum("ikj,ikj->ij", trait_coefficients, c)
        trait_ss[trait_ss <= 1e-13 * yy] = 0.0
        meat = None
        if self.robust:
            meat = self.meat(gram, coefficients, trait_coefficients, covariance / phenotype_ss, phenotype_ss[:, 0])
        repeated = (np.repeat(value[:, None], n_traits, axis=1) for value in (n, cases, np.full(size, float(rank))))
        n_pairs, n_cases, ranks = repeated
        return Moments(n_pairs, n_cases, covariance, phenotype_ss, trait_ss, ranks, meat)

    def meat(
        self,
        gram: Float64[np.ndarray, "phenotypes rank rank"],
        coefficients: Float64[np.ndarray, "phenotypes rank"],
        trait_coefficients: Float64[np.ndarray, "phenotypes rank traits"],
        beta: Float64[np.ndarray, "phenotypes traits"],
        phenotype_ss: Float64[np.ndarray, " phenotypes"],
    ) -> Float64[np.ndarray, "phenotypes traits"]:
        """Return ``sum(w e^2)`` with ``e = y - QG^-1 c - beta x~`` by products of the weights of HC3."""
        size, n_traits, rank = self.phenotypes.shape[0], self.y.shape[1], self.basis.shape[1]
        first, second = np.triu_indices(rank)
        inverse = np.linalg.inv(gram)[:, first, second] * np.where(first == second, 1.0, 2.0)
        w_qq, w_qy = np.zeros((size, first.size)), np.zeros((size, rank * n_traits))
        w_yy, w_xy = np.zeros((size, n_traits)), np.zeros((size, n_traits))
        w_xq, w_xx = np.zeros((size, rank)), np.zeros(size)
        for tile, mask, x in self.tiles():
            q, y = self.basis[tile], self.y[tile]
            pairs = q[:, first] * q[:, second]
            residual = x - mask * (coefficients @ q.T)
            leverage = inverse @ pairs.T + residual**2 / phenotype_ss[:, None]
            # A person whom only one parameter describes has leverage 1 and residual 0: 0/0, no part in the sum.
            weight = mask * (residual / np.maximum(1.0 - leverage, np.finfo(np.float64).eps)) ** 2
            w_qq += weight @ pairs
            w_qy += weight @ _crossed(q, y)
            w_yy += weight @ (y * y)
            weight *= residual
            w_xy += weight @ y
            w_xq += weight @ q
            weight *= residual
            w_xx += weight.sum(axis=1)
        square = np.empty((size, rank, rank))
        square[:, first, second] = w_qq
        square[:, second, first] = w_qq
        fitted = np.einsum("ikj,ikl,ilj->ij", trait_coefficients, square, trait_coefficients, optimize=True)
        cross = np.einsum("ikj,ikj->ij", trait_coefficients, w_qy.reshape(size, rank, n_traits))
        with_x = w_xy - np.einsum("ik,ikj->ij", w_xq, trait_coefficients)
        return np.asarray(w_yy - 2.0 * cross + fitted - 2.0 * beta * with_x + beta**2 * w_xx[:, None])

    def tiles(self) -> "Iterator[_Tile]":
        """Yield the phenotypes by tiles of people."""
        return _tiles(self.phenotypes, self.known.mean, self.people)


_Tile = tuple[slice, Float64[np.ndarray, "phenotypes tile"], Float64[np.ndarray, "phenotypes tile"]]


def _tiles(
    phenotypes: Float64[np.ndarray, "phenotypes samples"],
    centre: Float64[np.ndarray, " phenotypes"],
    people: Bool[np.ndarray, " samples"],
) -> Iterator[_Tile]:
    """Yield, tile by tile of people, who has a phenotype (1 or 0) and the centred values (0 where missing).

    The arrays are those of the tile before, filled anew; the caller may write to them.
    """
    # One pair of buffers for all tiles: fresh ones of this size come from the system, page by page.
    size = (phenotypes.shape[0], min(TILE, phenotypes.shape[1]))
    mask, x = np.empty(size), np.empty(size)
    for start in range(0, phenotypes.shape[1], TILE):
        tile = slice(start, min(start + TILE, phenotypes.shape[1]))
        if people[tile].any():
            width = tile.stop - tile.start
            _fill_tile(phenotypes[:, tile], centre, people[tile], mask[:, :width], x[:, :width])
            yield tile, mask[:, :width], x[:, :width]


@njit(cache=True, nogil=True)
@no_type_check
def _fill_tile(values: np.ndarray, centre: np.ndarray, people: np.ndarray, mask: np.ndarray, x: np.ndarray) -> None:
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            # Without branches, which would be mispredicted: whether a value is there is as good as random.
            value = values[i, j] - centre[i]
            present = people[j] & (value == value)
            mask[i, j] = np.float64(present)
            x[i, j] = value if present else 0.0


@njit(cache=True, nogil=True)
@no_type_check
def _subtract_fit(x: np.ndarray, mask: np.ndarray, fitted: np.ndarray) -> None:
    """Replace x by its residual and `fitted` by the square of that."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            residual = x[i, j] - mask[i, j] * fitted[i, j]
            x[i, j] = residual
            fitted[i, j] = residual * residual


def _crossed(
    q: Float64[np.ndarray, "tile rank"], y: Float64[np.ndarray, "tile traits"]
) -> Float64[np.ndarray, "tile columns"]:
    return np.asarray((q[:, :, None] * y[:, None, :]).reshape(q.shape[0], -1))


def _cases(
    values: Float64[np.ndarray, "two tile"],
    largest: Float64[np.ndarray, " two"],
    mask: Float64[np.ndarray, "two tile"],
) -> Float64[np.ndarray, "two tile"]:
    return np.asarray((values == largest[:, None]) * mask)


def _normal_equations(
    phenotypes: Float64[np.ndarray, "phenotypes samples"],
    centre: Float64[np.ndarray, " phenotypes"],
    basis: Float64[np.ndarray, "samples rank"],
    people: Bool[np.ndarray, " samples"],
) -> tuple[
    Float64[np.ndarray, "phenotypes rank rank"],
    Float64[np.ndarray, "phenotypes rank"],
    Float64[np.ndarray, " phenotypes"],
]:
    """Return ``Q'MQ``, ``Q'Mx`` and ``x'Mx`` of every phenotype."""
    size, rank = phenotypes.shape[0], basis.shape[1]
    first, second = np.triu_indices(rank)
    packed, rhs, squares = np.zeros((size, first.size)), np.zeros((size, rank)), np.zeros(size)
    for tile, mask, x in _tiles(phenotypes, centre, people):
        q = basis[tile]
        packed += mask @ (q[:, first] * q[:, second])
        rhs += x @ q
        squares += np.einsum("ij,ij->i", x, x)
    gram = np.empty((size, rank, rank))
    gram[:, first, second] = packed
    gram[:, second, first] = packed
    return gram, rhs, squares


def _solved(
    gram: Float64[np.ndarray, "phenotypes rank rank"],
    rhs: Float64[np.ndarray, "phenotypes rank"],
    squares: Float64[np.ndarray, " phenotypes"],
) -> tuple[Float64[np.ndarray, "phenotypes rank"], Bool[np.ndarray, " phenotypes"]]:
    """Return the coefficients of each phenotype on the basis, 0 for those that need QR, and which these are."""
    eigenvalues = np.linalg.eigvalsh(gram)
    poor = eigenvalues[:, 0] <= POOR_CONDITION * np.maximum(eigenvalues[:, -1], np.finfo(np.float64).tiny)
    safe = np.where(poor[:, None, None], np.eye(gram.shape[1]), gram)
    coefficients = np.linalg.solve(safe, rhs[:, :, None])[:, :, 0]
    poor |= squares - np.einsum("ik,ik->i", coefficients, rhs) <= LITTLE_LEFT * squares
    coefficients[poor] = 0.0
    return coefficients, poor


def _pivoted(
    values: Float64[np.ndarray, " samples"],
    known: PhenotypeFacts,
    row: int,
    y: Float64[np.ndarray, "samples traits"],
    covariates: Float64[np.ndarray, "samples covariates"],
    *,
    robust: bool,
) -> Moments:
    """Return the moments of one phenotype with a basis of its own people, which drops what is redundant there."""
    moments = Moments.empty(1, y.shape[1], robust=robust)
    rows = ~np.isnan(values)
    moments.n[:] = rows.sum()
    if not rows.any():
        return moments
    moments.n_cases[:] = (values[rows] == known.largest[row]).sum() if known.two_valued[row] else 0.0
    q = covariate_basis(covariates[rows]).q
    x, freed_y = freed(values[rows, None], q), freed(y[rows], q)
    moments.rank[:] = q.shape[1]
    moments.covariance[:] = x.T @ freed_y
    moments.phenotype_ss[:] = (x**2).sum()
    moments.trait_ss[:] = (freed_y**2).sum(axis=0)
    if moments.meat is not None and moments.phenotype_ss[0, 0] > 0:
        leverage = (q**2).sum(axis=1, keepdims=True) + x**2 / moments.phenotype_ss[0, 0]
        weight = (x / np.maximum(1.0 - leverage, np.finfo(np.float64).eps)) ** 2
        moments.meat[:] = (weight * (freed_y - x * moments.covariance / moments.phenotype_ss) ** 2).sum(axis=0)
    return moments
