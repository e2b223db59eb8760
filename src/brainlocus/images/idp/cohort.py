"""Rows of regions of every scan to tables of people: the phenotypes, their confounds, and adjusted variants.

``QSM_left_putamen_median`` is a measure's median in a region; of the substantia nigra after its rule, see
`images.idp.regions`. ``QSM_wmh_difference`` is the mean of white matter hyperintensities less the median of
normal-appearing white matter.

Three variants need the whole cohort, since they are residuals of a regression over people, with the measure's mean
added back: every region's measure on the region's volume (``..._volumeadjusted``), the lesion difference on the volume
of lesions (same), and T2* on the region's own field-gradient confound (``..._gradientadjusted``; T2* only, for
susceptibility does not suffer from it).
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.core import Column, PhenotypeTable, ResultTable, SampleIndex, SchemaError
from brainlocus.images.idp.regions import LESIONS, NORMAL_APPEARING
from brainlocus.images.idp.structures import REGIONS
from brainlocus.numerics import covariate_basis, project_out

__all__ = ["CohortIdps", "assemble_idps", "residual_on"]

GRADIENT = "fieldgradient"
"""Measure whose rows are confounds rather than phenotypes."""
_LEAST_PEOPLE = 4
"""A slope and an intercept need more people than this to leave anything."""


@dataclass(frozen=True, slots=True, eq=False)
class CohortIdps:
    """Tables of one row a person, or a scan; same rows in all.

    Where people have several sessions, the rows are scans, called ``sub-01_ses-2``, in `every_scan`; the other tables
    have every person's first session.
    """

    phenotypes: PhenotypeTable
    """Medians and lesion differences, with ``session_id`` where there are sessions."""
    confounds: PhenotypeTable
    """``fieldgradient_..._median`` and volumes (mm3) of every region."""
    adjusted: PhenotypeTable
    """Residual variants; NaN where a person lacks either, or fewer than five people have both."""
    participant_id: tuple[str, ...]
    """Of every row of `every_scan`."""
    session_id: tuple[str, ...]
    every_scan: PhenotypeTable


def assemble_idps(rows: ResultTable) -> CohortIdps:
    """Return the tables of a cohort from the rows of all scans (`subject_idps`).

    Regions and measures are columns as soon as one scan has them; a scan without them, or with a status other than
    ``ok``, has NaN there.

    Raises
    ------
    SchemaError
        A scan has a region twice, or there is no row.
    """
    if not len(rows):
        raise SchemaError("There are no rows of regions to put together: no scan was measured.")
    both = np.char.add(np.char.add(rows["participant_id"], "\x1f"), rows["session_id"])
    keys, at = np.unique(both, return_inverse=True)
    order = np.array(sorted(range(len(keys)), key=lambda k: _by_number(str(keys[k]))), dtype=np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    scans = [tuple(str(keys[k]).split("\x1f")) for k in order]
    wide = _Wide(rows, rank[at], len(scans))
    people = [p for p, _ in scans]
    sessions = tuple(s for _, s in scans)
    visits = Counter(people)
    names = [p if visits[p] == 1 else f"{p}_{s}" for p, s in scans]
    every = PhenotypeTable(SampleIndex.of(names), (*_session_column(sessions), *wide.phenotypes()))
    first = np.array([k for k, p in enumerate(people) if k == 0 or people[k - 1] != p], dtype=np.int64)
    ids = SampleIndex.of([people[k] for k in first])
    confounds = PhenotypeTable(ids, _taken(wide.confounds(), first))
    phenotypes = PhenotypeTable(ids, _taken(every.columns, first))
    adjusted = PhenotypeTable(ids, _adjusted(phenotypes, confounds))
    return CohortIdps(phenotypes, confounds, adjusted, tuple(people), sessions, every)


def _by_number(key: str) -> tuple[str, list[tuple[int, str]]]:
    """Return what sorts scans: by participant, then by session with ``ses-2`` before ``ses-10``."""
    participant, session = key.split("\x1f")
    parts = re.split(r"(\d+)", session)
    return participant, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


class _Wide:
    """Columns by measure and region from rows."""

    def __init__(self, rows: ResultTable, at: Int[np.ndarray, " rows"], n_scans: int) -> None:
        self.rows, self.at, self.n_scans = rows, at, n_scans
        self.where: dict[tuple[str, str], Int[np.ndarray, " rows"]] = {}
        both = np.char.add(np.char.add(rows["measure"], "\x1f"), rows["region"])
        keys, first, code, count = np.unique(both, return_index=True, return_inverse=True, return_counts=True)
        groups = np.split(np.argsort(code, kind="stable").astype(np.int64), np.cumsum(count)[:-1])
        for k in np.argsort(first):
            measure, region = str(keys[k]).split("\x1f")
            if np.unique(at[groups[k]]).size != groups[k].size:
                raise SchemaError(f"A scan has {measure} of {region} twice; expected one row. Measure each scan once.")
            self.where[measure, region] = groups[k]
        self.measures = list(dict.fromkeys(measure for measure, _ in self.where))

    def values(self, measure: str, region: str, column: str) -> Float64[np.ndarray, " scans"]:
        values = np.full(self.n_scans, np.nan)
        found = self.where.get((measure, region))
        if found is not None:
            values[self.at[found]] = self.rows[column][found]
        return values

    def unit(self, measure: str) -> str:
        found = next(rows for (name, _), rows in self.where.items() if name == measure)
        return str(self.rows["unit"][found[0]])

    def regions(self, measure: str) -> list[str]:
        return [region for region in REGIONS if (measure, region) in self.where]

    def phenotypes(self) -> list[Column]:
        columns = []
        for measure in self.measures:
            if measure == GRADIENT:
                continue
            unit = self.unit(measure)
            for region in self.regions(measure):
                name = f"{measure}_{region}_median"
                columns.append(Column(name, self.values(measure, region, "median"), "quantitative", unit))
            if (measure, LESIONS) in self.where:
                lesions = self.values(measure, LESIONS, "mean")
                difference = lesions - self.values(measure, NORMAL_APPEARING, "median")
                columns.append(Column(f"{measure}_wmh_difference", difference, "quantitative", unit))
        return columns

    def confounds(self) -> list[Column]:
        columns = []
        if GRADIENT in self.measures:
            unit = self.unit(GRADIENT)
            for region in self.regions(GRADIENT):
                name = f"{GRADIENT}_{region}_median"
                columns.append(Column(name, self.values(GRADIENT, region, "median"), "quantitative", unit))
        source = self.measures[0]
        for region in (*self.regions(source), *([LESIONS] if (source, LESIONS) in self.where else [])):
            volume = self.values(source, region, "volume_mm3")
            columns.append(Column(f"{_short(region)}_volume", volume, "quantitative", "mm3"))
        return columns


def _short(region: str) -> str:
    return "wmh" if region == LESIONS else region


def _session_column(sessions: tuple[str, ...]) -> tuple[Column, ...]:
    if not any(sessions):
        return ()
    return (Column("session_id", np.array(sessions, dtype=np.str_), "categorical"),)


def _taken(columns: "list[Column] | tuple[Column, ...]", rows: Int[np.ndarray, " kept"]) -> tuple[Column, ...]:
    return tuple(Column(c.name, c.values[rows], c.kind, c.unit) for c in columns)


def _adjusted(phenotypes: PhenotypeTable, confounds: PhenotypeTable) -> tuple[Column, ...]:
    known = set(confounds.names)
    columns = []
    for column in phenotypes.columns:
        if column.kind == "categorical":
            continue
        measure, rest = column.name.split("_", 1)
        region = rest.removesuffix("_median").removesuffix("_difference")
        pairs = [(f"{region}_volume", "volumeadjusted")]
        if measure == "T2star":
            pairs.append((f"{GRADIENT}_{region}_median", "gradientadjusted"))
        for confound, suffix in pairs:
            if confound in known:
                values = residual_on(column.values, confounds.column(confound).values)
                columns.append(Column(f"{column.name}_{suffix}", values, "quantitative", column.unit))
    return tuple(columns)


def residual_on(
    values: Float64[np.ndarray, " samples"], confound: Float64[np.ndarray, " samples"]
) -> Float64[np.ndarray, " samples"]:
    """Return values with the straight line on a confound taken out and their mean kept, in the same unit.

    NaN where either is missing; all NaN where fewer than five people have both.

    Examples
    --------
    >>> x = np.arange(6.0)
    >>> residual_on(3.0 + 2.0 * x, x).round(6).tolist()
    [8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    """
    result = np.full(values.shape, np.nan)
    both = np.isfinite(values) & np.isfinite(confound)
    if both.sum() <= _LEAST_PEOPLE:
        return result
    basis = covariate_basis(confound[both][:, None])
    result[both] = project_out(basis.q, values[both][:, None])[:, 0] + values[both].mean()
    return result
