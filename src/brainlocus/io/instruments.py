"""Tables of instruments: variants with effects on a gene's expression (eQTL) and on a phenotype (GWAS).

Columns ``rsid``, ``eqtl_beta``, ``gwas_beta``, and where there are any ``eqtl_se``, ``gwas_se``, ``gwas_p`` and
``ldscore`` (the names of MR-JTI), with effects per the same allele. A table has one gene, or a column ``gene``; one
phenotype, or a column ``phenotype``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Shaped

from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.core.instruments import Instruments
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.tables import MISSING_TEXT

__all__ = ["GeneInstruments", "read_instruments"]

_NUMBERS = {
    "eqtl_beta": "exposure_beta",
    "gwas_beta": "outcome_beta",
    "eqtl_se": "exposure_se",
    "gwas_se": "outcome_se",
    "gwas_p": "outcome_p",
    "ldscore": "ld_score",
}
_TEXT = ("rsid", "gene", "phenotype")
_NEEDED = ("rsid", "eqtl_beta", "gwas_beta")


@dataclass(frozen=True, slots=True, eq=False)
class GeneInstruments:
    """Instruments of one gene and phenotype."""

    gene: str
    phenotype: str
    """Empty where the table names none."""
    instruments: Instruments


def read_instruments(
    path: Path, *, columns: Mapping[str, str] | None = None, needed: tuple[str, ...] = ()
) -> list[GeneInstruments]:
    """Return the instruments of every gene and phenotype of a table, in its order.

    Parameters
    ----------
    columns
        Names of the columns in the file, by our names.
    needed
        Columns that must be there besides rsid, eqtl_beta and gwas_beta.

    Raises
    ------
    FormatError, SchemaError
        Not a readable table; a column is missing; text where numbers are; an infinite value; a gene with a variant
        twice, a standard error of 0, or a p outside [0, 1].
    """
    table = _renamed(read_arrow(path), columns or {}, path)
    names = table.column_names
    for name in (*_NEEDED, *needed):
        if name not in names:
            raise SchemaError(
                f"{path}: expected a column {name}, found {', '.join(names)}.{nearest(name, names)} Say which column "
                f"it is with --columns {name}=NAME."
            )
    if table.num_rows == 0:
        raise FormatError(f"{path}: expected variants, found a header without rows.")
    variants = _text(table.column("rsid"))
    numbers = {ours: _numbers(table.column(name), name, path) for name, ours in _NUMBERS.items() if name in names}
    count = variants.size
    gene = _text(table.column("gene")) if "gene" in names else np.full(count, path.name.split(".")[0])
    phenotype = _text(table.column("phenotype")) if "phenotype" in names else np.full(count, "")
    for name, found in (("rsid", variants), ("gene", gene)):
        if (found == "").any():
            raise SchemaError(f"{path}: {name} is empty in line {int(np.flatnonzero(found == '')[0]) + 2}.")
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(gene.tolist(), phenotype.tolist(), strict=True)):
        groups.setdefault(key, []).append(row)
    result = []
    for (one, other), members in groups.items():
        rows = np.array(members)
        try:
            part = Instruments(variants[rows], **{ours: column[rows] for ours, column in numbers.items()})
        except SchemaError as error:
            raise SchemaError(f"{path}, gene {one}{f', phenotype {other}' if other else ''}: {error}") from error
        result.append(GeneInstruments(one, other, part))
    return result


def _renamed(table: pa.Table, columns: Mapping[str, str], path: Path) -> pa.Table:
    names = list(table.column_names)
    for ours, theirs in columns.items():
        if ours not in (*_NUMBERS, *_TEXT):
            known = [*_TEXT, *_NUMBERS]
            raise SchemaError(
                f"--columns: there is no column {ours!r}.{nearest(ours, known)} Ours: {', '.join(known)}."
            )
        if theirs not in names:
            raise SchemaError(f"{path}: there is no column {theirs!r}.{nearest(theirs, names)}")
    back = {theirs: ours for ours, theirs in columns.items()}
    kept = [name for name in names if name in back or name not in columns]
    return table.select(kept).rename_columns([back.get(name, name) for name in kept])


def _text(column: Any) -> Shaped[np.ndarray, " rows"]:
    return np.array([cell.strip() for cell in pc.fill_null(column.cast(pa.string()), "").to_pylist()], dtype=np.str_)


def _numbers(column: Any, name: str, path: Path) -> Float64[np.ndarray, " rows"]:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values = np.full(len(column), np.nan)
    for row, cell in enumerate(column.to_pylist()):
        if cell is None or cell.strip() in MISSING_TEXT:
            continue
        try:
            values[row] = float(cell)
        except ValueError:
            raise FormatError(
                f"{path}: column {name} holds numbers, but line {row + 2} has {cell!r}. Correct it, or leave the cell "
                "empty if it is missing."
            ) from None
    return values
