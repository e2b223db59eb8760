"""Columns of tables of gene associations: what other programs call them, and how text is read."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from jaxtyping import Int

from brainlocus.core.errors import FormatError, SchemaError

__all__ = [
    "GENE_ALIASES",
    "GENE_NUMBERS",
    "GENE_TEXTS",
    "coded_texts",
    "gene_table_header",
    "has_commas",
    "named_by_pattern",
]

GENE_ALIASES = {
    "gwas_phenotype": "phenotype",
    "training_model": "tissue",
    "z": "zscore",
    "p": "pvalue",
}
"""Names of other programs for our columns."""
GENE_TEXTS = ("phenotype", "tissue", "gene", "gene_name")
GENE_NUMBERS = ("zscore", "effect_size", "pvalue", "neg_log10_p", "pred_perf_r2")


def named_by_pattern(path: Path, pattern: str) -> dict[str, str]:
    """Return what the name of a file says of its phenotype and tissue."""
    if not pattern:
        return {}
    found = re.search(pattern, path.name)
    if found is None:
        raise SchemaError(f"{path.name} does not match the pattern {pattern!r}; correct the pattern of file names.")
    return {name: text for name, text in found.groupdict().items() if text is not None}


def has_commas(path: Path) -> bool:
    """Return whether a text table has commas between its columns; others have tabs."""
    return ".csv" in [s.lower() for s in path.suffixes]


def gene_table_header(path: Path) -> list[str]:
    """Return the column names of a text table.

    Raises
    ------
    FormatError
        The file is missing or empty.
    """
    if not path.is_file():
        raise FormatError(f"Gene associations: expected a file or folder at {path}, found nothing. Check the path.")
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
        with pa.input_stream(str(path), compression="gzip" if gzipped else None) as stream:
            delimiter = "," if has_commas(path) else "\t"
            return list(pacsv.open_csv(stream, parse_options=pacsv.ParseOptions(delimiter=delimiter)).schema.names)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a table with a header, found {error}.") from error


def coded_texts(column: Any) -> tuple[list[str], Int[np.ndarray, " rows"]]:
    """Return the texts of a column, each once, and the place of every row's; missing is empty text."""
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
