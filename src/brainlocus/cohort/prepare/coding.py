"""Confounds coded within sites: a column of numbers or of categories becomes columns that are 0 outside one site.

*Continuous*: ``x - median``, over ``1.48 MAD`` (the standard deviation where the MAD is 0), over everyone; then one
column a site, in which ``|x| > 8`` and missing values become the site's median, z-scored over the site's people.

*Categorical*, within a site: one column for each level but the first; people of the first level have -1 in all of them,
people of another level 1 in theirs; the entries that are not 0 are z-scored. A level that is missing has 0 everywhere.

References
----------
Alfaro-Almagro et al. (2021), NeuroImage 224:117002.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from brainlocus.cohort.prepare.normalise import standardise

__all__ = ["CodedColumns", "code_categorical", "code_continuous", "code_sites", "standardise_within"]

MAD_TO_SD = 1.48
"""Makes the MAD of normal data a standard deviation, as rounded in the published program."""
FAR = 8.0
"""Robust standard deviations beyond which a confound's value is replaced."""
ZERO_MAD = np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True, eq=False)
class CodedColumns:
    """Columns of one confound."""

    matrix: Float64[np.ndarray, "samples columns"]
    site: Int[np.ndarray, " columns"]
    """Number of the site each column belongs to."""
    level: tuple[str, ...]
    """Level of a categorical column, else empty."""
    n_replaced: int = 0
    """Values that were missing or too far, and became the site's median (continuous) or 0 (categorical)."""


def code_continuous(
    values: Float[np.ndarray, " samples"], site: Int[np.ndarray, " samples"], n_sites: int
) -> CodedColumns:
    """Return one column a site.

    Parameters
    ----------
    values
        NaN is missing.
    site
        Number of each person's site.

    Examples
    --------
    >>> code_continuous(np.array([1.0, 2.0, 3.0, 10.0]), np.array([0, 0, 0, 1]), 2).matrix[:, 0].round(3).tolist()
    [-1.0, 0.0, 1.0, 0.0]
    """
    scaled = _robust_scale(np.asarray(values, dtype=np.float64))
    matrix = np.zeros((values.size, n_sites))
    n_replaced = 0
    for k in range(n_sites):
        rows = np.flatnonzero(site == k)
        own = scaled[rows]
        known = own[~np.isnan(own)]
        bad = ~(np.abs(own) <= FAR)
        n_replaced += int(bad.sum())
        # A site that has no value of the confound at all keeps 0.
        own = np.where(bad, np.median(known) if known.size else 0.0, own)
        matrix[rows, k] = standardise(own)
    return CodedColumns(matrix, np.arange(n_sites), ("",) * n_sites, n_replaced)


def code_categorical(
    labels: Shaped[np.ndarray, " samples"], site: Int[np.ndarray, " samples"], n_sites: int
) -> CodedColumns:
    """Return, for each site, one column for each level that occurs there but the first in sorted order.

    Parameters
    ----------
    labels
        Text; ``""`` is missing.
    """
    columns, sites, levels = [], [], []
    for k in range(n_sites):
        rows = np.flatnonzero(site == k)
        own = labels[rows]
        found = np.unique(own[own != ""])
        for level in found[1:]:
            column = np.zeros(labels.size)
            column[rows] = _against_first(own == found[0], own == level)
            columns.append(column)
            sites.append(k)
            levels.append(str(level))
    matrix = np.column_stack(columns) if columns else np.empty((labels.size, 0))
    return CodedColumns(matrix, np.array(sites, dtype=np.int64), tuple(levels), int((labels == "").sum()))


def code_sites(site: Int[np.ndarray, " samples"], n_sites: int) -> Float64[np.ndarray, "samples columns"]:
    """Return the sites themselves, coded against the first: one column for each other site."""
    columns = [_against_first(site == 0, site == k) for k in range(1, n_sites)]
    return np.column_stack(columns) if columns else np.empty((site.size, 0))


def standardise_within(
    matrix: Float64[np.ndarray, "samples columns"],
    column_site: Int[np.ndarray, " columns"],
    site: Int[np.ndarray, " samples"],
) -> Float64[np.ndarray, "samples columns"]:
    """Return the columns z-scored over the people of each column's site, 0 elsewhere."""
    result = np.zeros(matrix.shape)
    for k in np.unique(column_site):
        rows, columns = np.flatnonzero(site == k), np.flatnonzero(column_site == k)
        block = matrix[np.ix_(rows, columns)]
        centred = block - block.mean(axis=0)
        spread = centred.std(axis=0, ddof=1) if rows.size > 1 else np.zeros(columns.size)
        # What rounding leaves of a constant is not spread.
        spread[spread <= 1e-12 * np.abs(block).max(axis=0, initial=0.0)] = np.inf
        result[np.ix_(rows, columns)] = centred / np.where(spread > 0, spread, np.inf)
    return result


def _against_first(
    first: Shaped[np.ndarray, " samples"], other: Shaped[np.ndarray, " samples"]
) -> Float64[np.ndarray, " samples"]:
    column = other.astype(np.float64) - first
    held = column != 0
    column[held] = standardise(column[held])
    return np.asarray(column)


def _robust_scale(values: Float64[np.ndarray, " samples"]) -> Float64[np.ndarray, " samples"]:
    known = values[~np.isnan(values)]
    if not known.size:
        return values
    centred = values - np.median(known)
    spread = MAD_TO_SD * float(np.nanmedian(np.abs(centred)))
    if spread < ZERO_MAD:
        spread = float(np.nanstd(centred, ddof=1)) if known.size > 1 else 0.0
    return np.asarray(centred / spread if spread > 0 else centred)
