"""Results: registered columns in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from brainlocus.core.columns import COLUMNS
from brainlocus.core.errors import SchemaError, nearest

__all__ = ["ResultTable", "concat_results"]


@dataclass(frozen=True, slots=True, eq=False)
class ResultTable:
    """Columns of equal length whose names are registered in `core.columns`.

    Raises
    ------
    SchemaError
        A name is not registered, or lengths differ.

    Examples
    --------
    >>> table = ResultTable({"trait": np.array(["C2_1"]), "h2": np.array([0.4])})
    >>> len(table), table["h2"].tolist()
    (1, [0.4])
    """

    columns: Mapping[str, Shaped[np.ndarray, " rows"]]

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                raise SchemaError(
                    f"Column {name!r} is not registered in brainlocus.core.columns.{nearest(name, list(COLUMNS))}"
                )
        sizes = {name: int(column.shape[0]) for name, column in self.columns.items()}
        if len(set(sizes.values())) > 1:
            raise SchemaError(f"Columns differ in length: {sizes}.")

    def __len__(self) -> int:
        return int(next(iter(self.columns.values())).shape[0]) if self.columns else 0

    def __getitem__(self, name: str) -> Shaped[np.ndarray, " rows"]:
        if name not in self.columns:
            raise SchemaError(f"There is no column {name!r}. The table has: {', '.join(self.columns)}.")
        return self.columns[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(self.columns)

    def take(self, rows: Shaped[np.ndarray, " kept"]) -> "ResultTable":
        """Return the rows at integer indices, or where a boolean mask is true."""
        return ResultTable({name: column[rows] for name, column in self.columns.items()})


def concat_results(tables: Sequence[ResultTable]) -> ResultTable:
    """Return the rows of all tables, which have the same columns, in order.

    Raises
    ------
    SchemaError
        The tables have different columns.
    """
    names = {table.names for table in tables}
    if len(names) != 1:
        raise SchemaError(f"Tables to be joined must have the same columns, found {sorted(names)}.")
    return ResultTable({name: np.concatenate([t[name] for t in tables]) for name in names.pop()})
