"""What a store refuses or hides: participants, small cells, exact rare frequencies.

Method: methods of disclosure control for summary statistics; the cell floor follows UK Biobank's rule for
publications (no cell below 5; 10 is used unless told otherwise).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from brainlocus.core import SampleIndex, SchemaError

__all__ = ["PrivacyRules", "check_summary_table", "floor_frequency", "suppressed_cells"]

_PARTICIPANT_COLUMN = re.compile(
    r"^(eid|f\.eid|participant_?(id|\d+)?|subject_?(id)?|iid|fid|sample_?id|sub-.*)$", re.IGNORECASE
)
_PARTICIPANT_VALUE = re.compile(r"^sub-[A-Za-z0-9]+$")
LOWEST_MIN_CELL = 5


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """The thresholds of a store.

    Raises
    ------
    ValueError
        `min_cell` below 5, or `maf_floor` not in [0, 0.5).
    """

    min_cell: int = 10
    """Counts of people below this are hidden."""
    maf_floor: float = 0.01
    """Rarer allele frequencies are reported as this."""
    min_minor_allele_count: float = 20.0
    """Variants with fewer copies of the rarer allele are left out."""

    def __post_init__(self) -> None:
        if self.min_cell < LOWEST_MIN_CELL:
            raise ValueError(f"min_cell must be at least {LOWEST_MIN_CELL}, found {self.min_cell}.")
        if not 0 <= self.maf_floor < 0.5:
            raise ValueError(f"maf_floor must be in [0, 0.5), found {self.maf_floor}.")


def check_summary_table(
    columns: Mapping[str, Shaped[np.ndarray, " rows"]],
    *,
    what: str,
    participants: SampleIndex | None = None,
    look_at_values: bool = True,
) -> None:
    """Refuse a table that holds people rather than summaries.

    Parameters
    ----------
    participants
        The study's people, when known: a text column that names any of them is refused.
    look_at_values
        False checks the names of the columns only: for genome scans, whose rows are variants.

    Raises
    ------
    SchemaError
        A column is named like a participant identifier, or holds participant identifiers.
    """
    for name, column in columns.items():
        if _PARTICIPANT_COLUMN.match(name):
            raise SchemaError(
                f"{what} has the column {name!r}, which looks like a participant identifier. A store holds summary "
                "data only; remove the column, or aggregate over participants first."
            )
        if column.dtype.kind not in "UTO" or not look_at_values:
            continue
        values = sorted({str(v) for v in column.tolist()})
        people = sum(bool(_PARTICIPANT_VALUE.match(v)) for v in values)
        if participants is not None and not people:
            people = int((participants.indices_of(values) >= 0).sum()) if values else 0
        if people:
            raise SchemaError(
                f"Column {name!r} of {what} holds {people} participant identifiers (one row per participant?). "
                "A store holds summary data only; aggregate over participants first."
            )


def suppressed_cells(
    n: Shaped[np.ndarray, " rows"], n_cases: Shaped[np.ndarray, " rows"], *, min_cell: int
) -> Bool[np.ndarray, " rows"]:
    """Return where case and control counts must be hidden.

    Both are hidden together, because the total is shown and one would reveal the other. Rows with no cases
    are not case-control comparisons and are not touched.
    """
    cases, total = np.asarray(n_cases, dtype=np.float64), np.asarray(n, dtype=np.float64)
    return np.asarray((cases > 0) & ((cases < min_cell) | (total - cases < min_cell)))


def floor_frequency(frequency: Float[np.ndarray, " variants"], *, maf_floor: float) -> Float[np.ndarray, " variants"]:
    """Return frequencies whose rarer allele is reported as at least `maf_floor`; NaN is kept."""
    return np.asarray(np.clip(frequency, maf_floor, 1.0 - maf_floor))
