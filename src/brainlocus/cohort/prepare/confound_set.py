"""Confound sets as UK Biobank's imaging studies make them, from columns whose roles the user declares.

In this order, every column within a site (0 outside it):

1. ``small``: age, age^2, sex, age x sex, age^2 x sex, head size, head motion, site, date, date^2.
2. ``ukb``: also table position, time of day, protocol, quality and further columns; then
   squares, normal scores and their squares of the continuous ones, kept where they explain something beyond 1 and 2;
   then products of pairs, kept likewise beyond all kept so far;
   then the slow drift along date and time of day of the traits freed of all kept so far.
3. Columns whose variance is below 1e-12 go; a singular value decomposition gives the basis.

Powers and products are of the coded columns, z-scored again within the site: with the sites among the columns their
span is the same. People without a site have no confounds.

References
----------
Alfaro-Almagro et al. (2021), NeuroImage 224:117002.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

from brainlocus.cohort.prepare.coding import code_categorical, code_continuous, code_sites, standardise_within
from brainlocus.cohort.prepare.drift import DATE_SIGMA_YEARS, TIME_SIGMA_SHARE, drift_components
from brainlocus.cohort.prepare.expansion import (
    free_traits,
    nonlinear_columns,
    pairs_of_columns,
    partial_r2_with,
    screen_candidates,
)
from brainlocus.cohort.prepare.normalise import standardise
from brainlocus.cohort.prepare.roles import ConfoundRole, check_roles, date_years, labels_of, time_hours
from brainlocus.core import PhenotypeTable
from brainlocus.numerics import Basis, Design, masked_residuals

__all__ = ["ConfoundSet", "ConfoundSetOptions", "Screening", "build_confound_set", "extend_confound_set", "svd_basis"]

SetKind = Literal["small", "ukb"]

_SMALL = ("age", "sex", "head_size", "head_motion", "scan_date")
MIN_VARIANCE = 1e-12
ONE_SITE = "\x1f"
"""Stands for the site of everyone where no column has that role."""
CANDIDATE_BYTES = 512 << 20
"""Memory of the candidates that are made at a time."""


@dataclass(frozen=True, slots=True)
class ConfoundSetOptions:
    """Which set, and when a further column is kept."""

    kind: SetKind = "ukb"
    min_variance: float = 0.0075
    """Partial r2 with any one trait from which a non-linear or crossed column is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Screening:
    """What became of the non-linear and crossed columns."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    largest: Float64[np.ndarray, " candidates"]
    """Largest partial r2 with a trait beyond the columns kept before; NaN for a combination of them."""
    mean: Float64[np.ndarray, " candidates"]
    keep: Bool[np.ndarray, " candidates"]


@dataclass(frozen=True, slots=True, eq=False)
class ConfoundSet:
    """Confound columns and their basis."""

    matrix: Float64[np.ndarray, "samples columns"]
    """Without an intercept; NaN in people who lack a confound."""
    names: tuple[str, ...]
    groups: tuple[str, ...]
    """Role of each column, or ``non_linear``, ``crossed``, ``drift_date``, ``drift_time``, ``formula``."""
    complete: Bool[np.ndarray, " samples"]
    basis: Basis
    """Of the complete people, intercept first; `Basis.dropped` has the columns without variance."""
    screening: Screening
    replaced: dict[str, int]
    """Column of the table to values that were missing or too far and became the site's median (a category: 0)."""


@dataclass(slots=True)
class _Columns:
    """Columns as they come together."""

    n_samples: int
    parts: list[Float64[np.ndarray, "samples some"]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def add(self, part: Float64[np.ndarray, "samples some"], names: Sequence[str], group: str) -> None:
        self.parts.append(part)
        self.names += names
        self.groups += [group] * len(names)

    def matrix(self) -> Float64[np.ndarray, "samples columns"]:
        return np.hstack([np.empty((self.n_samples, 0)), *self.parts])


@dataclass(frozen=True, slots=True, eq=False)
class _Coded:
    """The coded columns of all confounds, of which powers and products are made."""

    matrix: Float64[np.ndarray, "samples columns"]
    site: Int[np.ndarray, " columns"]
    variable: Int[np.ndarray, " columns"]
    """Number of the confound among `roles`."""
    continuous: Bool[np.ndarray, " columns"]
    names: tuple[str, ...]
    roles: tuple[ConfoundRole, ...]
    replaced: dict[str, int]

    def of_role(self, role: str) -> Int[np.ndarray, " columns"]:
        return np.flatnonzero([self.roles[v].role == role for v in self.variable])


def build_confound_set(
    people: PhenotypeTable,
    roles: Sequence[ConfoundRole],
    traits: Float[np.ndarray, "samples traits"],
    *,
    options: ConfoundSetOptions | None = None,
    further: Design | None = None,
) -> ConfoundSet:
    """Return the confound columns of a set.

    Parameters
    ----------
    traits
        On the scale on which the confounds are regressed out; NaN is missing. They decide which columns of ``ukb``
        are kept, and its drift.
    further
        Columns that are confounds as they are (a formula's).

    Raises
    ------
    SchemaError
        See `check_roles`; a date or time cannot be read.
    ValueError
        Nobody has every confound, or fewer people than columns.
    """
    chosen = options if options is not None else ConfoundSetOptions()
    check_roles(roles, people)
    labels = _site_labels(people, roles)
    complete = np.asarray(labels != "")
    if further is not None:
        complete &= further.complete
    if not complete.any():
        raise ValueError("No person has every confound: the site or a variable of the formula is missing in everyone.")
    rows = np.flatnonzero(complete)
    sites, site = _numbered(labels[rows])
    roles = [item for item in roles if not item.traits]
    used = [r for r in roles if r.role != "site" and (chosen.kind == "ukb" or r.role in _SMALL)]
    coded = _code(people.take(rows), used, site, sites)
    columns = _Columns(rows.size)
    _add_small(columns, coded, site, sites)
    if further is not None and further.matrix.shape[1]:
        columns.add(further.matrix[rows], further.names, "formula")
    screening = _NOTHING
    if chosen.kind == "ukb":
        screening = _add_further(columns, coded, site, traits[rows], chosen.min_variance)
        _add_drift(columns, people.take(rows), roles, site, traits[rows])
    return _assemble(columns, complete, screening, coded.replaced)


def extend_confound_set(
    built: ConfoundSet, people: PhenotypeTable, roles: Sequence[ConfoundRole], extra: Sequence[ConfoundRole]
) -> ConfoundSet:
    """Return a set with the columns of further confounds, coded within sites, that some traits have besides.

    Parameters
    ----------
    roles
        Those of the set, for the site.
    """
    rows = np.flatnonzero(built.complete)
    sites, site = _numbered(_site_labels(people, roles)[rows])
    coded = _code(people.take(rows), extra, site, sites)
    columns = _Columns(rows.size)
    for name, group in zip(built.names, built.groups, strict=True):
        columns.names.append(name)
        columns.groups.append(group)
    columns.parts.append(built.matrix[rows])
    columns.add(coded.matrix, coded.names, "extra")
    return _assemble(columns, built.complete, built.screening, built.replaced | coded.replaced)


def svd_basis(columns: Float64[np.ndarray, "samples columns"], names: Sequence[str]) -> Basis:
    """Return an orthonormal basis of the intercept and the columns, by singular value decomposition.

    Columns of variance below 1e-12 are left out (`Basis.dropped`), and so are directions whose singular value is at
    most ``max(n, k) eps`` times the largest.

    Examples
    --------
    >>> age = np.array([20.0, 30.0, 45.0, 60.0])
    >>> svd_basis(np.column_stack([age, 2 * age, np.ones(4)]), ["age", "twice", "one"]).dropped
    ('one',)
    >>> svd_basis(np.column_stack([age, 2 * age]), ["age", "twice"]).rank
    2
    """
    n_samples = columns.shape[0]
    intercept = np.full((n_samples, 1), 1.0 / np.sqrt(n_samples))
    centred = columns - columns.mean(axis=0)
    varies = (centred**2).mean(axis=0) >= MIN_VARIANCE
    dropped = tuple(name for name, keep in zip(names, varies, strict=True) if not keep)
    centred = centred[:, varies]
    if not centred.shape[1]:
        return Basis(intercept, dropped)
    # The decomposition of the small triangle is that of the tall matrix.
    tall, triangle = np.linalg.qr(centred)
    left, values, _ = np.linalg.svd(triangle, full_matrices=False)
    kept = values > max(centred.shape) * np.finfo(np.float64).eps * values[0]
    basis = tall @ left[:, kept]
    basis -= intercept @ (intercept.T @ basis)
    return Basis(np.ascontiguousarray(np.hstack([intercept, np.linalg.qr(basis)[0]])), dropped)


_NOTHING = Screening((), (), np.empty(0), np.empty(0), np.empty(0, dtype=bool))


def _assemble(
    columns: _Columns, complete: Bool[np.ndarray, " samples"], screening: Screening, replaced: dict[str, int]
) -> ConfoundSet:
    matrix = columns.matrix()
    names = _unique_names(columns.names)
    basis = svd_basis(matrix, names)
    if matrix.shape[0] <= basis.rank + 1:
        raise ValueError(
            f"{matrix.shape[0]} people have every confound, and the set has {basis.rank - 1} independent columns: "
            "nothing would be left of any trait. Use --confound-set small or fewer confounds."
        )
    kept = [k for k, name in enumerate(names) if name not in basis.dropped]
    whole = np.full((complete.size, len(kept)), np.nan)
    whole[complete] = matrix[:, kept]
    return ConfoundSet(
        whole,
        tuple(names[k] for k in kept),
        tuple(columns.groups[k] for k in kept),
        complete,
        basis,
        screening,
        replaced,
    )


def _site_labels(people: PhenotypeTable, roles: Sequence[ConfoundRole]) -> Shaped[np.ndarray, " samples"]:
    name = next((item.column for item in roles if item.role == "site"), None)
    return labels_of(people, name) if name is not None else np.full(len(people.samples), ONE_SITE)


def _numbered(labels: Shaped[np.ndarray, " samples"]) -> tuple[tuple[str, ...], Int[np.ndarray, " samples"]]:
    sites, site = np.unique(labels, return_inverse=True)
    return tuple(str(s) for s in sites), site.astype(np.int64)


def _code(
    people: PhenotypeTable, roles: Sequence[ConfoundRole], site: Int[np.ndarray, " samples"], sites: tuple[str, ...]
) -> _Coded:
    parts, column_site, variable, continuous, names = [], [], [], [], []
    replaced: dict[str, int] = {}
    for k, item in enumerate(roles):
        if item.categorical(people):
            coded = code_categorical(labels_of(people, item.column), site, len(sites))
        else:
            coded = code_continuous(_numbers(people, item), site, len(sites))
        parts.append(coded.matrix)
        column_site += coded.site.tolist()
        variable += [k] * coded.site.size
        continuous += [not item.categorical(people)] * coded.site.size
        levels = [f"{item.column}_{level}" if level else item.column for level in coded.level]
        names += [_named(level, sites[s]) for level, s in zip(levels, coded.site, strict=True)]
        if coded.n_replaced:
            replaced[item.column] = coded.n_replaced
    return _Coded(
        np.hstack([np.empty((site.size, 0)), *parts]),
        np.array(column_site, dtype=np.int64),
        np.array(variable, dtype=np.int64),
        np.array(continuous, dtype=bool),
        tuple(names),
        tuple(roles),
        replaced,
    )


def _numbers(people: PhenotypeTable, item: ConfoundRole) -> Float64[np.ndarray, " samples"]:
    if item.role == "scan_date":
        return date_years(people, item.column)
    if item.role == "time_of_day":
        return time_hours(people, item.column)
    return np.asarray(people.column(item.column).values, dtype=np.float64)


def _add_small(columns: _Columns, coded: _Coded, site: Int[np.ndarray, " samples"], sites: tuple[str, ...]) -> None:
    """Add the coded columns, the sites, and the powers and products of the conventional set."""
    for k, item in enumerate(coded.roles):
        own = np.flatnonzero(coded.variable == k)
        columns.add(coded.matrix[:, own], [coded.names[c] for c in own], item.role)
        if item.role in ("age", "scan_date"):
            squares = standardise_within(coded.matrix[:, own] ** 2, coded.site[own], site)
            columns.add(squares, [f"{coded.names[c]}__squared" for c in own], item.role)
    columns.add(code_sites(site, len(sites)), [f"site_{_safe(s)}" for s in sites[1:]], "site")
    for a in coded.of_role("age"):
        for s in coded.of_role("sex"):
            if coded.site[a] == coded.site[s]:
                age, sex, where = coded.matrix[:, a], coded.matrix[:, s], coded.site[[a, a]]
                both = standardise_within(np.column_stack([age * sex, age**2 * sex]), where, site)
                names = [f"{coded.names[a]}__x__{coded.names[s]}", f"{coded.names[a]}__squared__x__{coded.names[s]}"]
                columns.add(both, names, "age_x_sex")


def _add_further(
    columns: _Columns,
    coded: _Coded,
    site: Int[np.ndarray, " samples"],
    traits: Float[np.ndarray, "samples traits"],
    min_variance: float,
) -> Screening:
    """Add the non-linear columns worth keeping, then the crossed ones."""
    first = _screen(columns, _nonlinear(columns, coded, site), "non_linear", traits, min_variance)
    second = _screen(columns, _crossed(coded, site), "crossed", traits, min_variance)
    return Screening(
        first.names + second.names,
        first.groups + second.groups,
        np.concatenate([first.largest, second.largest]),
        np.concatenate([first.mean, second.mean]),
        np.concatenate([first.keep, second.keep]),
    )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Columns that are made when they are wanted: there may be thousands of them."""

    names: tuple[str, ...]
    make: Callable[[Int[np.ndarray, " wanted"]], Float64[np.ndarray, "samples wanted"]]


def _nonlinear(columns: _Columns, coded: _Coded, site: Int[np.ndarray, " samples"]) -> _Candidates:
    own = np.flatnonzero(coded.continuous)
    powers = np.hstack(nonlinear_columns(coded.matrix[:, own], coded.site[own], site))
    names = [f"{coded.names[c]}__{what}" for what in ("squared", "int", "int_squared") for c in own]
    where = np.tile(coded.site[own], 3)
    # The squares of age and date are in the set already.
    fresh = np.flatnonzero([name not in columns.names for name in names])

    def make(wanted: Int[np.ndarray, " wanted"]) -> Float64[np.ndarray, "samples wanted"]:
        return standardise_within(powers[:, fresh[wanted]], where[fresh[wanted]], site)

    return _Candidates(tuple(names[k] for k in fresh), make)


def _crossed(coded: _Coded, site: Int[np.ndarray, " samples"]) -> _Candidates:
    one, two = pairs_of_columns(coded.site, coded.variable)
    role = np.array([item.role for item in coded.roles], dtype=np.str_)[coded.variable]
    # Age x sex is in the set already.
    twin = np.isin(role[one], ("age", "sex")) & np.isin(role[two], ("age", "sex")) & (role[one] != role[two])
    one, two = one[~twin], two[~twin]

    def make(wanted: Int[np.ndarray, " wanted"]) -> Float64[np.ndarray, "samples wanted"]:
        products = coded.matrix[:, one[wanted]] * coded.matrix[:, two[wanted]]
        return standardise_within(products, coded.site[one[wanted]], site)

    return _Candidates(tuple(f"{coded.names[i]}__x__{coded.names[j]}" for i, j in zip(one, two, strict=True)), make)


def _screen(
    columns: _Columns,
    candidates: _Candidates,
    group: str,
    traits: Float[np.ndarray, "samples traits"],
    min_variance: float,
) -> Screening:
    """Add the candidates that are worth keeping, looking at them by blocks."""
    count = len(candidates.names)
    basis = svd_basis(columns.matrix(), columns.names)
    if not count or basis.rank + 1 >= traits.shape[0]:
        return _NOTHING
    freed = free_traits(basis.q, traits)
    step = max(64, CANDIDATE_BYTES // (8 * traits.shape[0]))
    blocks = [np.arange(start, min(start + step, count)) for start in range(0, count, step)]
    found = screen_candidates(
        np.vstack([partial_r2_with(freed, candidates.make(block)) for block in blocks]), min_variance=min_variance
    )
    kept = np.flatnonzero(found.keep)
    columns.add(candidates.make(kept), [candidates.names[k] for k in kept], group)
    return Screening(candidates.names, (group,) * count, found.largest, found.mean, found.keep)


def _add_drift(
    columns: _Columns,
    people: PhenotypeTable,
    roles: Sequence[ConfoundRole],
    site: Int[np.ndarray, " samples"],
    traits: Float[np.ndarray, "samples traits"],
) -> None:
    """Add the components of slow drift of every site; people without a date have 0, the mean."""
    dated = [r for r in roles if r.role in ("scan_date", "time_of_day")]
    if not dated:
        return
    basis = svd_basis(columns.matrix(), columns.names)
    residuals, _ = masked_residuals(basis.q, traits)
    scaled = np.column_stack([standardise(residuals[:, k]) for k in range(residuals.shape[1])])
    scaled = np.where(np.isnan(scaled).all(axis=0), 0.0, scaled)
    for item in sorted(dated, key=lambda r: r.role):
        times = _numbers(people, item)
        short = "date" if item.role == "scan_date" else "time"
        for k in range(int(site.max()) + 1):
            rows = np.flatnonzero((site == k) & ~np.isnan(times))
            spread = float(np.ptp(times[rows])) if rows.size else 0.0
            sigma = DATE_SIGMA_YEARS if short == "date" else TIME_SIGMA_SHARE * spread
            found = drift_components(times[rows], scaled[rows], sigma)
            part = np.zeros((site.size, found.shape[1]))
            part[rows] = found
            columns.add(part, [f"drift_{short}_{k + 1}_{c + 1}" for c in range(found.shape[1])], f"drift_{short}")


def _named(column: str, site: str) -> str:
    return _safe(column) if site == ONE_SITE else f"{_safe(column)}__{_safe(site)}"


def _safe(text: str) -> str:
    """Return a text that can stand in a column name and in a formula."""
    return re.sub(r"\W+", "_", text)


def _unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with a number added to those that would occur twice."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}__{seen[name]}")
    return found
