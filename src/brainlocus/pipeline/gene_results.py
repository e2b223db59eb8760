"""What the steps on gene associations share: how tables are named, which genes and phenotypes a list means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from pydantic import Field, field_validator

from brainlocus.core import SchemaError
from brainlocus.core.errors import FormatError, nearest
from brainlocus.io import read_arrow
from brainlocus.io.gene_associations import GeneFolder, GeneTables, open_gene_results
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import StepConfig

__all__ = ["MatchedNames", "ResultFiles", "match_genes", "match_names", "read_names", "without_version"]

_TABLES = (".tsv", ".csv", ".parquet")


class ResultFiles(StepConfig):
    """How files of gene associations that do not say their phenotype or tissue are to be read."""

    file_pattern: str = Field(
        "",
        description="Regular expression with groups phenotype and tissue, for tables whose file name says what they "
        r"are: '(?P<phenotype>[^_]+)_xt_(?P<tissue>.+)\.csv'",
    )
    phenotype: str = Field("", description="Phenotype of tables without such a column; their file name by default")
    tissue: str = Field("", description="Tissue of tables without such a column")

    @field_validator("file_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from error
        if value and not groups.keys() & {"phenotype", "tissue"}:
            raise ValueError("expected a group (?P<phenotype>...) or (?P<tissue>...) in it")
        return value

    def open(self, paths: Sequence[Path]) -> GeneFolder | GeneTables:
        """Open a folder of whole matrices, or read tables."""
        return open_gene_results(paths, pattern=self.file_pattern, phenotype=self.phenotype, tissue=self.tissue)


@dataclass(frozen=True, slots=True, eq=False)
class MatchedNames:
    """Names of a list that were found in the results, and those that were not."""

    found: Int[np.ndarray, " found"]
    """Places, ascending, each once."""
    unmatched: tuple[str, ...]


def read_names(path: Path, columns: Sequence[str]) -> list[str]:
    """Return the names of a list (one a line; lines from # on are comments) or of a table's column.

    Parameters
    ----------
    columns
        Names of the column, the first that is there is taken; of a table with one column, that.

    Raises
    ------
    FormatError, SchemaError
        Not readable, no such column, or nothing in it.
    """
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    if suffixes and suffixes[-1] in _TABLES:
        table = read_arrow(path)
        known = [name for name in columns if name in table.column_names]
        if not known and table.num_columns > 1:
            raise SchemaError(
                f"{path}: expected a column {' or '.join(columns)}, found {', '.join(table.column_names[:8])}."
            )
        cells = table.column(known[0] if known else 0).to_pylist()
    elif not path.is_file():
        raise FormatError(f"List: expected a file at {path}, found nothing. Check the path.")
    else:
        try:
            cells = [line.split("#")[0] for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: expected a list of names, one a line, found a binary file.") from error
    names = [str(cell).strip() for cell in cells if cell is not None]
    names = list(dict.fromkeys(name for name in names if name not in MISSING_TEXT))
    if not names:
        raise SchemaError(f"{path}: expected names, one a line, found none.")
    return names


def without_version(gene: str) -> str:
    """Return an Ensembl id without its version; other names as they are."""
    return gene.split(".")[0] if re.fullmatch(r"ENS[A-Z]*G\d+\.\d+(_\d+)?", gene) else gene


def match_genes(
    wanted: Sequence[str], genes: Shaped[np.ndarray, " genes"], gene_names: Shaped[np.ndarray, " genes"], what: str
) -> MatchedNames:
    """Return the genes that ids (with or without a version) or symbols (whatever their case) name.

    Raises
    ------
    SchemaError
        None of them is there; some that are not are named.
    """
    exact = {name: k for k, name in enumerate(genes.tolist())}
    plain = {without_version(name): k for name, k in exact.items()}
    symbols: dict[str, int] = {}
    for k, symbol in enumerate(gene_names.tolist()):
        if symbol:
            symbols.setdefault(symbol.upper(), k)
    places = {name: exact.get(name, plain.get(without_version(name), symbols.get(name.upper(), -1))) for name in wanted}
    return _matched(places, genes.tolist(), what, "genes")


def match_names(wanted: Sequence[str], known: Shaped[np.ndarray, " known"], what: str) -> MatchedNames:
    """Return the places of names.

    Raises
    ------
    SchemaError
        None of them is there.
    """
    at = {name: k for k, name in enumerate(known.tolist())}
    return _matched({name: at.get(name, -1) for name in wanted}, known.tolist(), what, "phenotypes")


def _matched(places: dict[str, int], known: list[Any], what: str, kind: str) -> MatchedNames:
    missing = tuple(name for name, place in places.items() if place < 0)
    found = np.array(sorted({place for place in places.values() if place >= 0}), dtype=np.int64)
    if not found.size:
        raise SchemaError(
            f"{what}: none of its {len(places)} {kind} is in the results: {', '.join(missing[:5])}."
            f"{nearest(missing[0], known)} The results have, for example, {', '.join(map(str, known[:3]))}."
        )
    return MatchedNames(found, missing)
