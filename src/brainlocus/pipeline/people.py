"""What the cohort's steps share: choosing columns, meeting a participants table, report folders."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from brainlocus.core import PhenotypeTable, SchemaError, shared_samples
from brainlocus.core.errors import nearest
from brainlocus.io import partial_name, read_fam, read_table, replace_path
from brainlocus.numerics import formula_variables

__all__ = [
    "Joined",
    "batch_labels",
    "choose_traits",
    "draw_share",
    "formula_columns",
    "join_participants",
    "outlier_mads",
    "read_people",
    "report_folder",
    "two_classes",
    "write_report_table",
]


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A table and what is known of its people, same rows."""

    table: PhenotypeTable
    people: PhenotypeTable
    """Where covariates, batch and diagnosis are found: columns of both tables."""
    counts: dict[str, Any]
    """People in each table and in both."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """A line on the people who are in one table only; nothing when all are in both."""
        kept = self.counts["participants"]
        tables = (("the table", "participants_table"), ("the participants table", "participants_file"))
        lost = [f"{self.counts[key] - kept:,} of {self.counts[key]:,} in {name}" for name, key in tables
                if self.counts.get(key, kept) > kept]  # fmt: skip
        return (f"People who are not in both tables are left out: {' and '.join(lost)}",) if lost else ()


def read_people(path: Path, na_values: Sequence[str] = ()) -> PhenotypeTable:
    """Read a table of people; of a PLINK .fam file, its phenotype columns (from the sixth on).

    Parameters
    ----------
    na_values
        Further texts that mean missing in a table; in a .fam file it is -9 as always.

    Raises
    ------
    FormatError, SchemaError
        As `brainlocus.io.read_table` and `brainlocus.io.read_fam`.
    """
    return read_fam(path).phenotypes if path.suffix == ".fam" else read_table(path, na_values=na_values)


def join_participants(table: PhenotypeTable, participants: Path | None, na_values: Sequence[str] = ()) -> Joined:
    """Return the rows of people in both tables, in the table's order.

    Raises
    ------
    AlignmentError
        No participant is in both.
    """
    if participants is None:
        return Joined(table, table, {"participants": len(table.samples)})
    other = read_people(participants, na_values)
    shared = shared_samples(table.samples, other.samples, names=("the table", "the participants table"))
    first, second = table.take(shared), other.take(shared)
    # A column of both tables is taken from the first: that is what the user works on.
    extra = tuple(c for c in second.columns if c.name not in set(first.names))
    counts = {
        "participants_table": len(table.samples),
        "participants_file": len(other.samples),
        "participants": len(shared),
    }
    return Joined(first, PhenotypeTable(shared, first.columns + extra), counts)


def formula_columns(*formulas: str) -> set[str]:
    """Return the columns that formulas read."""
    return {name for formula in formulas if formula.strip() for name in formula_variables(formula)}


def choose_traits(
    table: PhenotypeTable, wanted: Sequence[str], *, besides: set[str], option: str = "--traits"
) -> list[str]:
    """Return the names of the columns to work on.

    Parameters
    ----------
    wanted
        Names, or patterns such as ``C32_*``; empty for all numeric columns not in `besides`.
    besides
        Columns that are something else: covariates, batch.
    option
        What the command calls `wanted`, for messages.

    Raises
    ------
    SchemaError
        A name or pattern matches nothing, a column holds text, or no column is left.
    """
    if not wanted:
        chosen = [c.name for c in table.columns if c.kind != "categorical" and c.name not in besides]
    else:
        chosen = []
        for pattern in wanted:
            found = [name for name in table.names if name == pattern or fnmatchcase(name, pattern)]
            if not found:
                raise SchemaError(f"{option}: no column matches {pattern!r}.{nearest(pattern, table.names)}")
            chosen += [name for name in found if name not in chosen]
    if not chosen:
        raise SchemaError(f"The table has no numeric column to work on besides covariates; name some with {option}.")
    text = [name for name in chosen if table.column(name).kind == "categorical"]
    if text:
        verb = "holds" if len(text) == 1 else "hold"
        raise SchemaError(f"{option}: expected numbers, but {', '.join(map(repr, text[:5]))} {verb} text.")
    both = sorted(set(chosen) & besides)
    if both:
        raise SchemaError(f"{option}: {', '.join(map(repr, both[:5]))} cannot be trait and covariate at once.")
    return chosen


def two_classes(table: PhenotypeTable, name: str, *, patient: str | None) -> np.ndarray:
    """Return 1 for patients, 0 for controls, NaN where the diagnosis is missing.

    Numbers: two values, the larger is the patient. Text: `patient` names the level of patients.

    Raises
    ------
    SchemaError
        Other than two values, or `patient` is not one of them.
    """
    column = table.column(name)
    if column.kind == "categorical":
        levels = sorted({str(v) for v in column.values} - {""})
        if patient is None or patient not in levels or len(levels) != 2:
            raise SchemaError(
                f"Column {name!r} has the levels {levels[:6]}; expected two, and --patient to name that of patients."
            )
        return np.where(column.values == "", np.nan, (column.values == patient).astype(np.float64))
    levels_found = np.unique(column.values[~np.isnan(column.values)])
    if levels_found.size != 2:
        raise SchemaError(
            f"Column {name!r} has {levels_found.size} distinct values ({levels_found[:5].tolist()}); expected two, the "
            "larger for patients."
        )
    return np.where(np.isnan(column.values), np.nan, (column.values == levels_found[1]).astype(np.float64))


def batch_labels(table: PhenotypeTable, name: str) -> np.ndarray:
    """Return a site column as text: numbers lose a needless ``.0``, missing is ``""``."""
    column = table.column(name)
    if column.kind == "categorical":
        return column.values.astype(np.str_)
    return np.array(["" if np.isnan(v) else f"{v:g}" for v in column.values], dtype=np.str_)


def outlier_mads(text: str) -> float | None:
    """Return K of ``--outliers mad:K``, None of ``none``.

    Raises
    ------
    SchemaError
        Anything else.
    """
    if text == "none":
        return None
    kind, _, number = text.partition(":")
    try:
        mads = float(number)
    except ValueError:
        mads = 0.0
    if kind != "mad" or not mads > 0:
        raise SchemaError(f"--outliers: expected mad:K with K above 0 (mad:6) or none, found {text!r}.")
    return mads


def draw_share(
    keys: Sequence[Shaped[np.ndarray, " people"]], n: int, fraction: float, rng: np.random.Generator
) -> Bool[np.ndarray, " people"]:
    """Return who is drawn: by systematic sampling through people ordered by stratum and, within it, at random.

    Every run of people in that order, hence every stratum, has its share to within one person.

    Parameters
    ----------
    keys
        Codes whose combinations are the strata, the first above all.
    n
        Number of people.

    References
    ----------
    Cochran (1977), Sampling Techniques, chapter 8.
    """
    order = np.lexsort((rng.permutation(n), *reversed(keys)))
    passed = np.floor(fraction * np.arange(n + 1) + rng.random())
    drawn = np.zeros(n, dtype=bool)
    drawn[order] = np.diff(passed) > 0
    return drawn


@contextmanager
def report_folder(path: Path | None) -> Iterator[Path | None]:
    """Give a temporary folder for a report that appears whole, under its name, at the end; None when not wanted."""
    if path is None:
        yield None
        return
    partial = partial_name(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_path(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_report_table(columns: Mapping[str, Iterable[Any]], path: Path) -> None:
    """Write columns of a report as tab-separated text: six digits, empty cells for NaN."""
    rows = ["\t".join(columns)]
    rows += ["\t".join(_cell(value) for value in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(rows) + "\n")


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{float(value):.6g}"
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)
