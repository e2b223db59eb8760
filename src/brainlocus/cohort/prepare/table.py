"""Raw traits to traits fit for association: outliers, normal scores, confounds, scale - in this order.

Regressing after ranking keeps the confounds' linear effects out; the residuals are standardised again. Residuals of
normal scores may be skewed once more: `PrepareOptions.int_twice` ranks them again and regresses again, which removes
what the second ranking brought back (McCaw et al. 2020, Biometrics 76:1262).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int

from brainlocus.cohort.prepare.checks import CloseConfound, close_confounds, tied_share
from brainlocus.cohort.prepare.confound_set import (
    ConfoundSet,
    ConfoundSetOptions,
    build_confound_set,
    extend_confound_set,
)
from brainlocus.cohort.prepare.confounds import Deconfounded, deconfound
from brainlocus.cohort.prepare.explained import Explained, explained_by_group
from brainlocus.cohort.prepare.normalise import MIN_DISTINCT, Method, normalise, standardise
from brainlocus.cohort.prepare.outliers import Outliers, remove_outliers
from brainlocus.cohort.prepare.roles import ConfoundRole, check_roles, date_years, labels_of, time_hours
from brainlocus.core import PhenotypeTable, SchemaError
from brainlocus.numerics import Design, design_from_formula, rank_normal, refuse_infinite

__all__ = ["PrepareOptions", "PrepareReport", "Prepared", "prepare_table"]

MANY_TIES = 0.2
"""Share of tied values above which normal scores are a staircase."""


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What is done to every trait."""

    outlier_mads: float | None = 6.0
    """Removed beyond this many MADs; None keeps all."""
    outlier_scale: float = 1.0
    normalise: Method = "rank"
    min_people: int = 40
    """Traits with fewer values are listed, and left out of the result's numbers (all NaN)."""
    min_cases: int = 10
    """So are traits of two values with fewer people in the smaller class."""
    int_twice: bool = False
    """Rank the residuals of normal scores again and regress again; needs `normalise` by rank."""
    confound_set: ConfoundSetOptions = field(default_factory=ConfoundSetOptions)
    """How confounds with roles become columns."""


@dataclass(frozen=True, slots=True, eq=False)
class PrepareReport:
    """What happened to each trait."""

    traits: tuple[str, ...]
    n_before: Int[np.ndarray, " traits"]
    n_outliers: Int[np.ndarray, " traits"]
    n_after: Int[np.ndarray, " traits"]
    """Values left after outliers and missing confounds."""
    zero_mad: Bool[np.ndarray, " traits"]
    excessive: Bool[np.ndarray, " traits"]
    """More than 2 % were outliers."""
    explained: Float64[np.ndarray, " traits"]
    """Share of variance that the confounds explained."""
    skewness_before: Float64[np.ndarray, " traits"]
    skewness_after: Float64[np.ndarray, " traits"]
    kurtosis_before: Float64[np.ndarray, " traits"]
    """Excess over the normal distribution's."""
    kurtosis_after: Float64[np.ndarray, " traits"]
    reason: tuple[str, ...]
    """Why a trait has no values; empty where it has."""
    dropped_confounds: tuple[str, ...]
    n_without_confounds: int
    confounds: tuple[str, ...]
    """Columns of the confound matrix."""
    ties: Float64[np.ndarray, " traits"]
    """Share of values, after outliers, that another person has too."""
    many_ties: Bool[np.ndarray, " traits"]
    """More than 20 % of the values that got normal scores are tied."""
    close: tuple[CloseConfound, ...] = ()
    """Confounds correlated beyond 0.9 with a trait before it was regressed on them."""
    groups: Explained | None = None
    """By group of confounds; None without a confound set."""

    @property
    def halved(self) -> tuple[str, ...]:
        """Traits whose variance falls by more than half."""
        return tuple(name for name, share in zip(self.traits, self.explained, strict=True) if share > 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The table with changed traits, and the report."""

    table: PhenotypeTable
    report: PrepareReport
    confounds: ConfoundSet | None = None
    """The columns of a confound set."""


@dataclass(frozen=True, slots=True, eq=False)
class _TraitSet:
    """Confounds, and the traits that have exactly these."""

    confounds: ConfoundSet
    members: Int[np.ndarray, " members"]


def prepare_table(
    table: PhenotypeTable,
    traits: Sequence[str],
    *,
    confounds: str = "",
    confound_table: PhenotypeTable | None = None,
    roles: Sequence[ConfoundRole] = (),
    options: PrepareOptions | None = None,
) -> Prepared:
    """Return the table with its traits cleaned, normalised and freed of confounds; other columns stay.

    Parameters
    ----------
    confounds
        Formula such as ``age + I(age**2) + sex + C(site)``; empty for none.
    confound_table
        Where the confounds' columns are; `table` itself when None. Same people in the same order.
    roles
        Columns to make a confound set of (`build_confound_set`), to which the formula's columns are added.

    Raises
    ------
    SchemaError
        A trait or a column with a role is absent or text, or the formula cannot be evaluated.
    ValueError
        No person has every confound, a trait is infinite, or fewer people than confounds.
    """
    chosen = options if options is not None else PrepareOptions()
    if chosen.int_twice and chosen.normalise != "rank":
        raise ValueError(f"int_twice ranks twice and needs normalise='rank', found {chosen.normalise!r}.")
    people = confound_table if confound_table is not None else table
    raw = table.select(traits).matrix()
    refuse_infinite(raw, traits)
    design = design_from_formula(confounds, people)
    complete = design.complete & _have_site(people, roles)
    cleaned = _without_outliers(raw, chosen)
    reason = [_ineligible(cleaned.values[complete, k], chosen) for k in range(raw.shape[1])]
    normal = np.column_stack(
        [
            np.full(raw.shape[0], np.nan) if why else normalise(cleaned.values[:, k], method=chosen.normalise)
            for k, why in enumerate(reason)
        ]
    )
    ranked = np.array([chosen.normalise == "rank" and _distinct(v) > MIN_DISTINCT for v in cleaned.values.T])
    built = build_confound_set(people, roles, normal, options=chosen.confound_set, further=design) if roles else None
    sets = _sets_of_traits(built, people, roles, traits) if built is not None else []
    result, freed = _without_confounds(normal, design, sets, chosen, ranked)
    reason = [
        why or _nothing_left(result[:, k], normal[complete, k], int(freed.rank[k])) for k, why in enumerate(reason)
    ]
    before, after = _shape(raw), _shape(result)
    ties = np.array([tied_share(column) for column in cleaned.values.T])
    report = PrepareReport(
        traits=tuple(traits),
        n_before=(~np.isnan(raw)).sum(axis=0).astype(np.int64),
        n_outliers=cleaned.n_removed,
        n_after=(~np.isnan(result)).sum(axis=0).astype(np.int64),
        zero_mad=cleaned.zero_mad,
        excessive=cleaned.excessive,
        explained=freed.explained,
        skewness_before=before[0],
        skewness_after=after[0],
        kurtosis_before=before[1],
        kurtosis_after=after[1],
        reason=tuple(reason),
        dropped_confounds=freed.dropped,
        n_without_confounds=int((~complete).sum()),
        confounds=built.names if built is not None else design.names,
        ties=ties,
        many_ties=ranked & (ties > MANY_TIES),
        close=close_confounds(*_comparable(people, roles, design), cleaned.values, list(traits)),
        groups=_groups(sets, normal) if sets else None,
    )
    return Prepared(table.replace_values(list(traits), result), report, built)


def _without_outliers(raw: Float64[np.ndarray, "samples traits"], options: PrepareOptions) -> Outliers:
    if options.outlier_mads is not None:
        return remove_outliers(raw, mads=options.outlier_mads, scale=options.outlier_scale)
    none = np.zeros(raw.shape[1], dtype=bool)
    return Outliers(raw, np.zeros(raw.shape[1], dtype=np.int64), none, none)


def _have_site(people: PhenotypeTable, roles: Sequence[ConfoundRole]) -> Bool[np.ndarray, " samples"]:
    if roles:
        check_roles(roles, people)
    site = [item.column for item in roles if item.role == "site"]
    return labels_of(people, site[0]) != "" if site else np.ones(len(people.samples), dtype=bool)


def _without_confounds(
    normal: Float64[np.ndarray, "samples traits"],
    design: Design,
    sets: list[_TraitSet],
    options: PrepareOptions,
    ranked: Bool[np.ndarray, " traits"],
) -> tuple[Float64[np.ndarray, "samples traits"], Deconfounded]:
    """Return the traits' residuals, on unit variance where they were normalised, and what the confounds explained."""
    n_traits = normal.shape[1]
    if not sets and not design.names:
        nothing = Deconfounded(normal, np.zeros(n_traits), np.zeros(n_traits, dtype=np.int64), (), 0)
        return normal, nothing

    def regress(values: Float64[np.ndarray, "samples traits"]) -> Deconfounded:
        if sets:
            return _regress_sets(values, sets)
        return deconfound(values, design.matrix, names=design.names)

    freed = regress(normal)
    values = freed.values
    if options.int_twice and ranked.any():
        again = values.copy()
        for k in np.flatnonzero(ranked):
            again[:, k] = standardise(rank_normal(values[:, k]))
        values = np.where(ranked, regress(again).values, values)
    if options.normalise != "none":
        values = np.column_stack([standardise(values[:, k]) for k in range(n_traits)])
    return values, freed


def _sets_of_traits(
    built: ConfoundSet, people: PhenotypeTable, roles: Sequence[ConfoundRole], traits: Sequence[str]
) -> list[_TraitSet]:
    """Return the set of all traits, with further columns for traits that have confounds of their own."""
    special = [item for item in roles if item.traits]
    for item in special:
        if not any(item.concerns(trait) for trait in traits):
            raise SchemaError(
                f"Confound roles: {item.column!r} is for the traits {', '.join(item.traits[:3])}, and none of the "
                f"{len(traits)} traits has such a name ({', '.join(traits[:3])}, ...)."
            )
    members: dict[tuple[int, ...], list[int]] = {}
    for k, trait in enumerate(traits):
        members.setdefault(tuple(i for i, item in enumerate(special) if item.concerns(trait)), []).append(k)
    return [
        _TraitSet(
            extend_confound_set(built, people, roles, [special[i] for i in own]) if own else built,
            np.array(columns, dtype=np.int64),
        )
        for own, columns in members.items()
    ]


def _regress_sets(values: Float64[np.ndarray, "samples traits"], sets: list[_TraitSet]) -> Deconfounded:
    n_traits = values.shape[1]
    residuals, explained = np.full(values.shape, np.nan), np.full(n_traits, np.nan)
    rank = np.zeros(n_traits, dtype=np.int64)
    dropped: dict[str, None] = {}
    for item in sets:
        own, columns = item.confounds, item.members
        found = deconfound(values[:, columns], own.matrix, names=own.names, basis=own.basis)
        residuals[:, columns], explained[columns], rank[columns] = found.values, found.explained, found.rank
        dropped |= dict.fromkeys(found.dropped)
    return Deconfounded(residuals, explained, rank, tuple(dropped), int((~sets[0].confounds.complete).sum()))


def _groups(sets: list[_TraitSet], normal: Float64[np.ndarray, "samples traits"]) -> Explained:
    """Return the variance by group; a group that a trait has not explains nothing of it."""
    names = tuple(dict.fromkeys(group for item in sets for group in item.confounds.groups))
    shape = (len(names), normal.shape[1])
    total, marginal, unique = np.full(shape[1], np.nan), np.zeros(shape), np.zeros(shape)
    for item in sets:
        own, rows = item.confounds, item.confounds.complete
        found = explained_by_group(own.basis.q, own.matrix[rows], own.groups, normal[np.ix_(rows, item.members)])
        places = np.ix_([names.index(group) for group in found.groups], item.members)
        total[item.members], marginal[places], unique[places] = found.total, found.marginal, found.unique
    absent = np.isnan(total)
    marginal[:, absent], unique[:, absent] = np.nan, np.nan
    return Explained(names, total, marginal, unique)


def _comparable(
    people: PhenotypeTable, roles: Sequence[ConfoundRole], design: Design
) -> tuple[Float64[np.ndarray, "samples confounds"], list[str]]:
    """Return confounds as single columns of numbers: those of the formula, and roles that are numbers or two levels."""
    columns, names = [design.matrix], list(design.names)
    for item in roles:
        if item.role == "scan_date":
            column = date_years(people, item.column)
        elif item.role == "time_of_day":
            column = time_hours(people, item.column)
        elif item.categorical(people):
            labels = labels_of(people, item.column)
            levels = np.unique(labels[labels != ""])
            if levels.size != 2:
                continue
            column = np.where(labels == "", np.nan, (labels == levels[1]).astype(np.float64))
        else:
            column = np.asarray(people.column(item.column).values, dtype=np.float64)
        columns.append(column[:, None])
        names.append(item.column)
    return np.hstack(columns), names


def _distinct(values: Float64[np.ndarray, " samples"]) -> int:
    return int(np.unique(values[~np.isnan(values)]).size)


def _ineligible(values: Float64[np.ndarray, " samples"], options: PrepareOptions) -> str:
    present = values[~np.isnan(values)]
    if present.size < options.min_people:
        return f"{present.size} values, {options.min_people} are needed"
    if np.ptp(present) == 0:
        return "constant"
    first = present == present[0]
    smaller = int(min(first.sum(), (~first).sum()))
    if smaller < options.min_cases and np.ptp(present[~first]) == 0:
        return f"{smaller} in the smaller class, {options.min_cases} are needed"
    return ""


def _nothing_left(result: Float64[np.ndarray, " samples"], normal: Float64[np.ndarray, " complete"], rank: int) -> str:
    """Return why a trait that was eligible has no values."""
    if not np.isnan(result).all():
        return ""
    return f"{int((~np.isnan(normal)).sum())} people and {rank} columns of confounds leave nothing"


def _shape(
    values: Float64[np.ndarray, "samples traits"],
) -> tuple[Float64[np.ndarray, " traits"], Float64[np.ndarray, " traits"]]:
    """Return skewness and excess kurtosis by moments; NaN for constant or empty columns."""
    present = ~np.isnan(values)
    n = present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=0) / n
        centred = np.where(present, values - mean, 0.0)
        m2, m3, m4 = ((centred**power).sum(axis=0) / n for power in (2, 3, 4))
        return np.where(m2 > 0, m3 / m2**1.5, np.nan), np.where(m2 > 0, m4 / m2**2 - 3.0, np.nan)
