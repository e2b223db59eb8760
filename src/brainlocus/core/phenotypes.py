"""People x measures: typed columns aligned to a sample index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from brainlocus.core.errors import AlignmentError, SchemaError, nearest
from brainlocus.core.samples import SampleIndex

__all__ = ["Column", "Kind", "PhenotypeTable", "quantitative_table"]

Kind = Literal["quantitative", "binary", "categorical", "count"]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One measure of every person."""

    name: str
    values: Shaped[np.ndarray, " samples"]
    """float64 with NaN = missing; for ``categorical`` a unicode array with ``""`` = missing."""
    kind: Kind = "quantitative"
    unit: str = ""
    """SI-style unit ("mm3", "years"), or "" when there is none or it is unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class PhenotypeTable:
    """Traits, covariates and batches of the same people.

    Raises
    ------
    AlignmentError
        A column has another number of rows than there are samples.
    SchemaError
        Two columns have one name.
    """

    samples: SampleIndex
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for column in self.columns:
            if column.values.shape != (len(self.samples),):
                raise AlignmentError(
                    f"Column {column.name!r} has shape {column.values.shape}, expected ({len(self.samples)},)."
                )
            if column.name in seen:
                raise SchemaError(f"Column {column.name!r} occurs twice; column names must be unique.")
            seen.add(column.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """Return one column.

        Raises
        ------
        SchemaError
            There is no such column; the message has the nearest name.
        """
        for column in self.columns:
            if column.name == name:
                return column
        shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        raise SchemaError(f"There is no column {name!r}.{nearest(name, self.names)} The table has: {shown}.")

    def matrix(self, names: Iterable[str] | None = None) -> Float[np.ndarray, "samples columns"]:
        """Return numeric columns side by side as float64.

        Raises
        ------
        SchemaError
            A column is categorical or absent.
        """
        wanted = [self.column(n) for n in names] if names is not None else list(self.columns)
        text = [c.name for c in wanted if c.kind == "categorical"]
        if text:
            raise SchemaError(f"Columns {text[:5]} hold text, numbers are needed; encode them first.")
        matrix = np.empty((len(self.samples), len(wanted)))
        for k, column in enumerate(wanted):
            matrix[:, k] = column.values
        return matrix

    def take(self, rows: "SampleIndex | Shaped[np.ndarray, ' kept']") -> "PhenotypeTable":
        """Return the given people, by index or by id.

        Raises
        ------
        AlignmentError
            An id is not in the table.
        """
        indices = self.samples.indices_of(rows) if isinstance(rows, SampleIndex) else np.asarray(rows)
        if isinstance(rows, SampleIndex) and (indices < 0).any():
            absent = ", ".join(repr(str(i)) for i in rows.ids[indices < 0][:5])
            raise AlignmentError(f"{int((indices < 0).sum())} participants are not in the table: {absent}.")
        return PhenotypeTable(
            self.samples.take(indices), tuple(replace(c, values=c.values[indices]) for c in self.columns)
        )

    def select(self, names: Sequence[str]) -> "PhenotypeTable":
        """Return only the named columns, in the given order."""
        return PhenotypeTable(self.samples, tuple(self.column(n) for n in names))

    def replace_values(self, names: Sequence[str], values: Float[np.ndarray, "samples columns"]) -> "PhenotypeTable":
        """Return the table with new numbers in the named columns, all else unchanged."""
        new = {name: values[:, k] for k, name in enumerate(names)}
        return PhenotypeTable(
            self.samples,
            tuple(replace(c, values=new[c.name].copy()) if c.name in new else c for c in self.columns),
        )


def quantitative_table(
    samples: SampleIndex,
    names: Sequence[str],
    values: Float[np.ndarray, "samples columns"],
    *,
    unit: str = "",
) -> PhenotypeTable:
    """Return a table of quantitative columns from a matrix."""
    return PhenotypeTable(
        samples,
        tuple(
            Column(name, np.ascontiguousarray(values[:, k], dtype=np.float64), unit=unit)
            for k, name in enumerate(names)
        ),
    )
