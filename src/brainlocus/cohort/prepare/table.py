"""Raw traits to traits fit for association: outliers, normal scores, confounds, scale - in this order.

Regressing after ranking keeps the confounds' linear effects out; the residuals are standardised again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from brainlocus.cohort.prepare.confounds import deconfound
from brainlocus.cohort.prepare.normalise import Method, normalise, standardise
from brainlocus.cohort.prepare.outliers import remove_outliers
from brainlocus.core import PhenotypeTable
from brainlocus.numerics import Design, design_from_formula

__all__ = ["PrepareOptions", "PrepareReport", "Prepared", "prepare_table"]


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What is done to every trait."""

    outlier_mads: float | None = 6.0
    """Removed beyond this many MADs; None keeps all."""
    outlier_scale: float = 1.0
    normalise: Method = "rank"
    min_people: int = 40
    """Traits with fewer values are listed, and left out of the result's numbers (all NaN)."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The table with changed traits, and the report."""

    table: PhenotypeTable
    report: PrepareReport


def prepare_table(
    table: PhenotypeTable,
    traits: Sequence[str],
    *,
    confounds: str = "",
    confound_table: PhenotypeTable | None = None,
    options: PrepareOptions | None = None,
) -> Prepared:
    """Return the table with its traits cleaned, normalised and freed of confounds; other columns stay.

    Parameters
    ----------
    confounds
        Formula such as ``age + I(age**2) + sex + C(site)``; empty for none.
    confound_table
        Where the formula's columns are; `table` itself when None. Same people in the same order.

    Raises
    ------
    SchemaError
        A trait is absent or text, or the formula cannot be evaluated.
    ValueError
        No person has every confound.
    """
    chosen = options if options is not None else PrepareOptions()
    raw = table.select(traits).matrix()
    design = design_from_formula(confounds, confound_table if confound_table is not None else table)
    if chosen.outlier_mads is None:
        cleaned, n_outliers = raw, np.zeros(raw.shape[1], dtype=np.int64)
        zero, excessive = np.zeros(raw.shape[1], dtype=bool), np.zeros(raw.shape[1], dtype=bool)
    else:
        outliers = remove_outliers(raw, mads=chosen.outlier_mads, scale=chosen.outlier_scale)
        cleaned, n_outliers, zero, excessive = (
            outliers.values,
            outliers.n_removed,
            outliers.zero_mad,
            outliers.excessive,
        )
    reason = [_ineligible(cleaned[design.complete, k], chosen.min_people) for k in range(raw.shape[1])]
    normal = np.column_stack(
        [
            np.full(raw.shape[0], np.nan) if why else normalise(cleaned[:, k], method=chosen.normalise)
            for k, why in enumerate(reason)
        ]
    )
    result, explained, dropped = _without_confounds(normal, design, scale=chosen.normalise != "none")
    before, after = _shape(raw), _shape(result)
    report = PrepareReport(
        traits=tuple(traits),
        n_before=(~np.isnan(raw)).sum(axis=0).astype(np.int64),
        n_outliers=n_outliers,
        n_after=(~np.isnan(result)).sum(axis=0).astype(np.int64),
        zero_mad=zero,
        excessive=excessive,
        explained=explained,
        skewness_before=before[0],
        skewness_after=after[0],
        kurtosis_before=before[1],
        kurtosis_after=after[1],
        reason=tuple(reason),
        dropped_confounds=dropped,
        n_without_confounds=int((~design.complete).sum()),
        confounds=design.names,
    )
    return Prepared(table.replace_values(list(traits), result), report)


def _without_confounds(
    normal: Float64[np.ndarray, "samples traits"], design: Design, *, scale: bool
) -> tuple[Float64[np.ndarray, "samples traits"], Float64[np.ndarray, " traits"], tuple[str, ...]]:
    if not design.names:
        return normal, np.zeros(normal.shape[1]), ()
    freed = deconfound(normal, design.matrix, names=design.names)
    values = freed.values
    if scale:
        values = np.column_stack([standardise(values[:, k]) for k in range(values.shape[1])])
    return values, freed.explained, freed.dropped


def _ineligible(values: Float64[np.ndarray, " samples"], min_people: int) -> str:
    present = values[~np.isnan(values)]
    if present.size < min_people:
        return f"{present.size} values, {min_people} are needed"
    return "constant" if np.ptp(present) == 0 else ""


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
