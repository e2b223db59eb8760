"""Columns by who has them: what is computed for a set of people is computed once for all columns of that set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["refuse_infinite", "same_people"]


def same_people(
    present: Bool[np.ndarray, "samples columns"],
) -> list[tuple[Bool[np.ndarray, " samples"], Int[np.ndarray, " members"]]]:
    """Return each distinct set of people with the columns that exactly these people have.

    Sets come in the order of their first column; a set may be empty.

    Examples
    --------
    >>> values = np.array([[1.0, np.nan, 2.0], [3.0, 4.0, 5.0]])
    >>> [(rows.tolist(), columns.tolist()) for rows, columns in same_people(~np.isnan(values))]
    [([True, True], [0, 2]), ([False, True], [1])]
    """
    groups: dict[bytes, list[int]] = {}
    for column in range(present.shape[1]):
        groups.setdefault(np.packbits(present[:, column]).tobytes(), []).append(column)
    return [(present[:, members[0]].copy(), np.array(members, dtype=np.int64)) for members in groups.values()]


def refuse_infinite(values: Float[np.ndarray, "samples columns"], names: Sequence[str]) -> None:
    """Check that traits are finite or missing (NaN).

    Raises
    ------
    ValueError
        A trait has an infinite value; all such are named.
    """
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        named = ", ".join(name for name, bad in zip(names, infinite, strict=True) if bad)
        raise ValueError(f"Traits must be finite or missing; these have infinite values: {named}. Set them missing.")
