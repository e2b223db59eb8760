"""A cohort in two: random halves alike in what matters, or the two levels of a column."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from brainlocus.core import PhenotypeTable, SampleIndex, SchemaError, shared_samples
from brainlocus.pipeline.people import batch_labels, draw_share, read_people

__all__ = ["Halves", "people_of", "split_by_column", "split_in_half", "strata"]

_FEW = 10
"""A column of numbers with no more distinct values than this is one of codes, such as sites."""


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Who is in which part."""

    names: tuple[str, str]
    first: Bool[np.ndarray, " people"]
    second: Bool[np.ndarray, " people"]
    """Nobody is in both; those without a value of the column are in neither."""


def split_in_half(keys: Sequence[Shaped[np.ndarray, " people"]], n: int, rng: np.random.Generator) -> Halves:
    """Return random halves that share every stratum alike, to within one person."""
    drawn = draw_share(keys, n, 0.5, rng)
    return Halves(("first", "second"), drawn, ~drawn)


def split_by_column(table: PhenotypeTable, name: str, path: Path) -> Halves:
    """Return the people of each of two levels.

    Raises
    ------
    SchemaError
        No such column, or it has other than two levels.
    """
    labels = batch_labels(table, name)
    levels, counts = np.unique(labels[labels != ""], return_counts=True)
    if levels.size != 2:
        shown = ", ".join(f"{level} ({n})" for level, n in zip(levels[:6], counts, strict=False))
        raise SchemaError(
            f"{path}: --split {name}: expected two levels, found {levels.size}{f': {shown}' if levels.size else ''}. "
            "Take a column of two levels, or --split half."
        )
    first, second = (str(level) for level in levels)
    return Halves((first, second), labels == first, labels == second)


def strata(table: PhenotypeTable, names: Sequence[str]) -> list[Shaped[np.ndarray, " people"]]:
    """Return a code per level of each column: ages by decade, other quantities by quartile, missing a level.

    Numbers with ten distinct values or fewer are levels as they are.
    """
    found: list[Shaped[np.ndarray, " people"]] = []
    for name in names:
        column = table.column(name)
        values = column.values
        if column.kind == "categorical":
            found.append(np.unique(values, return_inverse=True)[1])
            continue
        present = values[np.isfinite(values)]
        if np.unique(present).size <= _FEW:
            codes = np.unique(np.nan_to_num(values, nan=np.inf), return_inverse=True)[1]
        elif name.lower() == "age":
            codes = np.where(np.isnan(values), -1, np.nan_to_num(values) // 10).astype(np.int64)
        else:
            codes = np.where(np.isnan(values), -1, np.digitize(values, np.quantile(present, (0.25, 0.5, 0.75))))
        found.append(codes)
    return found


def people_of(
    samples: SampleIndex, participants: Path | None
) -> tuple[SampleIndex, PhenotypeTable | None, dict[str, Any]]:
    """Return who has an image and a row, the rows, and how many there were.

    Raises
    ------
    AlignmentError
        Nobody has both.
    """
    if participants is None:
        return samples, None, {"images": len(samples)}
    table = read_people(participants)
    shared = shared_samples(samples, table.samples, names=("the images", str(participants)))
    return shared, table.take(shared), {"images": len(samples), "rows": len(table.samples), "participants": len(shared)}
