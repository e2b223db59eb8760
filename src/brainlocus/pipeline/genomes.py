"""What the genetic steps share: which people and variants of a genotype file, lists, covariates."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from brainlocus.core import AlignmentError, GenotypeSource, PhenotypeTable, SampleIndex, VariantTable, shared_samples
from brainlocus.core.errors import FormatError, ResourceError, SchemaError
from brainlocus.io import read_arrow, read_lines, require_path
from brainlocus.pipeline.people import choose_traits, formula_columns, read_people

__all__ = [
    "TABLE_SUFFIXES",
    "TraitInputs",
    "ambiguity_notes",
    "ambiguous_ids",
    "count_minus_nine",
    "keep_people",
    "keep_variants",
    "naming_inputs",
    "read_covariates",
    "read_list",
    "read_traits",
    "require_memory",
    "source_counts",
    "table_bytes",
]

TABLE_SUFFIXES = (".parquet", ".tsv", ".csv", ".gz")
"""Lists with these extensions are tables with named columns; others have one name per line."""


def read_list(path: Path, column: str, *, every_row: bool = False) -> list[str]:
    """Return the names of a list: one per line, or a column of a table (rows with a reason are left out).

    Parameters
    ----------
    every_row
        Take rows with a reason too, and let the list be empty: for lists of what is left out.

    Raises
    ------
    FormatError
        The file is missing, empty, or a table without that column.
    """
    require_path(path, what="list")
    if path.suffix in TABLE_SUFFIXES:
        table = read_arrow(path)
        if column not in table.column_names:
            raise FormatError(f"{path}: expected a column {column}, found {', '.join(table.column_names[:8])}.")
        names = np.array([str(v) for v in table.column(column).to_pylist()], dtype=object)
        if "reason" in table.column_names and not every_row:
            reasons = table.column("reason").to_pylist()
            names = names[[r in (None, "") for r in reasons]]
        found = [str(name) for name in names]
    else:
        found = [line.split()[-1] for line in read_lines(path, what=f"a list of {column}") if line.strip()]
    if not found and not every_row:
        raise FormatError(f"{path}: expected names, one per line, found none.")
    return found


def keep_people(samples: SampleIndex, lists: Iterable[Path]) -> SampleIndex:
    """Return the samples that are in every list, in their order.

    Raises
    ------
    AlignmentError
        A list shares nobody with those before it.
    """
    kept = samples
    for path in lists:
        listed = set(read_list(path, "participant_id"))
        inside = np.array([i in listed for i in kept.ids.tolist()], dtype=bool)
        if not inside.any():
            raise AlignmentError(
                f"{path}: none of its {len(listed)} participants ({', '.join(sorted(listed)[:3])}, ...) is among the "
                f"{len(kept)} genotyped ({', '.join(kept.ids[:3].tolist())}, ...). Ids are compared as exact strings."
            )
        kept = kept.take(inside)
    return kept


def keep_variants(variants: VariantTable, lists: Iterable[Path]) -> Bool[np.ndarray, " variants"]:
    """Return which variants are in every list.

    A list is one id per line, or a table with a column variant_id. A table with as many rows as the genotypes,
    the same ids in the same order and a column reason (as ``genotypes qc`` writes) is taken row by row, which
    tells variants of one id apart.

    Raises
    ------
    AlignmentError
        A list shares no variant with those before it. A table without rows (the leads of a study that found none)
        is no mistake: it keeps nothing.
    """
    kept = np.ones(len(variants), dtype=bool)
    for path in lists:
        if _is_empty_table(path):
            return np.zeros(len(variants), dtype=bool)
        rows = _row_by_row(variants, path)
        if rows is None:
            listed = set(read_list(path, "variant_id"))
            rows = np.array([name in listed for name in variants.variant_id.tolist()], dtype=bool)
        kept &= rows
        if not kept.any():
            raise AlignmentError(
                f"{path}: none of its variants is among the {len(variants)} of the genotypes "
                f"({', '.join(variants.variant_id[:3].tolist())}, ...). Variants are matched by id."
            )
    return kept


def _is_empty_table(path: Path) -> bool:
    if path.suffix not in TABLE_SUFFIXES:
        return False
    table = read_arrow(path)
    return "variant_id" in table.column_names and not table.num_rows


def _row_by_row(variants: VariantTable, path: Path) -> Bool[np.ndarray, " variants"] | None:
    if path.suffix != ".parquet":
        return None
    table = read_arrow(path)
    if table.num_rows != len(variants) or not {"variant_id", "reason"} <= set(table.column_names):
        return None
    if table.column("variant_id").to_pylist() != variants.variant_id.tolist():
        return None
    return np.array([r in (None, "") for r in table.column("reason").to_pylist()], dtype=bool)


def ambiguous_ids(ids: Shaped[np.ndarray, " variants"], kept: Bool[np.ndarray, " variants"]) -> int:
    """Return how many ids are those of variants that stay and of others that do not."""
    return len(set(ids[kept].tolist()) & set(ids[~kept].tolist()))


def ambiguity_notes(n_ids: int, what: str) -> tuple[str, ...]:
    """Return what to tell of `ambiguous_ids`."""
    return (f"{n_ids:,} ids that stay are also ids of variants left out: {what}",) if n_ids else ()


def read_covariates(paths: tuple[Path, ...], na_values: Sequence[str] = ()) -> PhenotypeTable | None:
    """Return the columns of all tables for the people in all of them; None when there is no table.

    Raises
    ------
    AlignmentError
        No participant is shared.
    """
    if not paths:
        return None
    tables = [read_people(path, na_values) for path in paths]
    people = shared_samples(*(t.samples for t in tables), names=tuple(str(p) for p in paths))
    return PhenotypeTable(people, tuple(column for table in tables for column in table.take(people).columns))


def table_bytes(n_variants: int) -> int:
    """Return what a variant table takes while a step works with it: read, selected, and written with results.

    Measured: 175 bytes a variant when it is opened, 380 with the selection and the results of a scan, and the buffers
    of the table reader and writer whatever the size.
    """
    return 600 * n_variants + (16 << 20)


def require_memory(needed: int, memory_bytes: int, what: str) -> None:
    """Refuse a plan that does not fit, before it starts.

    Raises
    ------
    ResourceError
        With the memory needed.
    """
    if needed > memory_bytes:
        raise ResourceError(
            f"{what} needs {needed / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are given. Raise --memory."
        )


@dataclass(frozen=True, slots=True, eq=False)
class TraitInputs:
    """What a genetic analysis of traits starts from, besides genotypes."""

    table: PhenotypeTable
    names: list[str]
    """Traits to analyse."""
    covariates: PhenotypeTable | None
    """None: intercept only."""
    formula: str | None
    """Model over the covariates; None: the sum of all their columns."""


def read_traits(
    path: Path,
    columns: Sequence[str],
    covariates: tuple[Path, ...],
    formula: str,
    na_values: Sequence[str] = (),
) -> TraitInputs:
    """Return traits and covariates.

    With a formula, its columns alone are covariates, wherever else they stand; without one, all columns of the tables
    of covariates. A formula without tables of covariates reads the table of traits.

    Raises
    ------
    AlignmentError, FormatError, SchemaError
        See `read_people`, `read_covariates` and `choose_traits`.
    """
    table, given = read_people(path, na_values), read_covariates(covariates, na_values)
    besides = formula_columns(formula) if formula.strip() or given is None else set(given.names)
    both = sorted(besides & set(table.names))
    if not formula.strip() and both and set(both) >= {c.name for c in table.columns if c.kind != "categorical"}:
        raise SchemaError(
            f"--covariates: without --formula all its columns are covariates, and that leaves no trait in {path}. "
            "Name the covariates with --formula, such as 'age + sex'."
        )
    if given is None and formula:
        given = table
    names = choose_traits(table, columns, besides=besides, option="--columns")
    return TraitInputs(table, names, given, formula or None)


def count_minus_nine(inputs: TraitInputs) -> dict[str, int]:
    """Return how often -9 is in each trait of which it is the only negative value: likely PLINK's missing code."""
    found = {}
    for name in inputs.names:
        values = inputs.table.column(name).values
        negative = values < 0
        if negative.any() and (values[negative] == -9).all():
            found[name] = int(negative.sum())
    return found


@contextmanager
def naming_inputs(genotypes: Path, traits: Path, covariates: tuple[Path, ...]) -> Iterator[None]:
    """Say in an error of aligning or preparing traits which files it is about.

    Raises
    ------
    AlignmentError, SchemaError
        What was raised inside, with the files before the message.
    """
    try:
        yield
    except AlignmentError as error:
        files = ", ".join(str(p) for p in (genotypes, traits, *covariates))
        raise AlignmentError(f"{files}: {error}") from error
    except (SchemaError, ValueError) as error:
        raise SchemaError(f"{', '.join(str(p) for p in (traits, *covariates))}: {error}") from error


def source_counts(source: GenotypeSource) -> dict[str, Any]:
    """Return the size of a genotype source for the counts of a manifest."""
    counts: dict[str, Any] = {"genotyped_people": len(source.samples), "genotyped_variants": len(source.variants)}
    left_out = getattr(source, "left_out", None)
    return {**counts, **({"variants_not_readable": left_out} if left_out else {})}
