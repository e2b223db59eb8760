"""What the steps on gene associations share: how tables are named, which genes and phenotypes a list means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field, field_validator

from brainlocus.core import GeneAssociations, SchemaError
from brainlocus.core.errors import FormatError, nearest
from brainlocus.io import read_arrow
from brainlocus.io.gene_associations import (
    GeneFolder,
    GeneTables,
    open_gene_folder,
    open_gene_results,
    read_gene_associations,
)
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import StepConfig

__all__ = [
    "MatchedNames",
    "ResultFiles",
    "StudyTests",
    "match_genes",
    "match_names",
    "read_names",
    "read_study",
    "without_version",
]

_TABLES = (".tsv", ".csv", ".parquet")
_CELLS = 1 << 24
"""Cells of a matrix that are counted at a time."""


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
class StudyTests:
    """The stronger tests of a study, and what else was tested."""

    tests: GeneAssociations
    modelled: Bool[np.ndarray, "genes tissues"]
    """Which tissues model which genes."""
    r2: Float[np.ndarray, "genes tissues"]
    """pred_perf_r2 of the models; NaN where unknown."""
    n_tested: Int[np.ndarray, "tissues phenotypes"]
    """Tests with a result."""
    n_read: int
    """Tests with a result, in all."""


def read_study(paths: Sequence[Path], files: ResultFiles, *, max_p: float, models: Path | None = None) -> StudyTests:
    """Read the tests with p up to `max_p` of folders (block by block) or of tables.

    Parameters
    ----------
    models
        Table with columns gene and tissue (models.parquet of a folder) that says which tissues model which genes,
        for tables that hold only some of the tests. By default a model is what has a test.

    Raises
    ------
    FormatError, SchemaError
        As `read_gene_associations`; folders and tables together; a table of models without gene or tissue.
    """
    are_folders = {path.is_dir() for path in paths}
    if len(are_folders) > 1:
        raise SchemaError("Expected folders of twas associate --full, or tables, found both; give one kind.")
    if are_folders == {True}:
        tests = read_gene_associations(paths, max_p=max_p)
        grid, n_tested = _folder_models([open_gene_folder(path) for path in paths], tests)
    else:
        tests = read_gene_associations(
            paths, pattern=files.file_pattern, phenotype=files.phenotype, tissue=files.tissue
        )
        tested = ~np.isnan(tests.neg_log10_p)
        n_tissues, n_phenotypes = tests.tissues.size, tests.phenotypes.size
        cell = tests.tissue[tested].astype(np.int64) * n_phenotypes + tests.phenotype[tested]
        n_tested = np.bincount(cell, minlength=n_tissues * n_phenotypes).reshape(n_tissues, n_phenotypes)
        grid = _Grid.empty(tests)
        grid.modelled[tests.gene[tested], tests.tissue[tested]] = True
        grid.r2[tests.gene, tests.tissue] = tests.pred_perf_r2
        tests = tests.take(np.flatnonzero(tests.neg_log10_p >= -np.log10(max_p)))
    if models is not None:
        tests, grid = _given_models(models, tests, grid)
    return _sorted_by_name(StudyTests(tests, grid.modelled, grid.r2, n_tested, int(n_tested.sum())))


def _sorted_by_name(study: StudyTests) -> StudyTests:
    """Return the study with names in order, so that results do not depend on the order of rows and files."""
    tests = study.tests
    orders = [np.argsort(names, kind="stable") for names in (tests.genes, tests.tissues, tests.phenotypes)]
    ranks = [np.argsort(order).astype(np.int32) for order in orders]
    gene, tissue, phenotype = orders
    renamed = GeneAssociations(
        tests.genes[gene],
        tests.gene_names[gene],
        tests.tissues[tissue],
        tests.phenotypes[phenotype],
        ranks[0][tests.gene],
        ranks[1][tests.tissue],
        ranks[2][tests.phenotype],
        tests.z,
        tests.effect,
        tests.neg_log10_p,
        tests.pred_perf_r2,
    )
    models = np.ix_(gene, tissue)
    n_tested = study.n_tested[np.ix_(tissue, phenotype)]
    return StudyTests(renamed, study.modelled[models], study.r2[models], n_tested, study.n_read)


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    modelled: Bool[np.ndarray, "genes tissues"]
    r2: Float[np.ndarray, "genes tissues"]

    @classmethod
    def empty(cls, tests: GeneAssociations) -> "_Grid":
        shape = (tests.genes.size, tests.tissues.size)
        return cls(np.zeros(shape, dtype=bool), np.full(shape, np.nan))


def _folder_models(
    folders: Sequence[GeneFolder], tests: GeneAssociations
) -> tuple[_Grid, Int[np.ndarray, "tissues phenotypes"]]:
    """Return models, and how many tests have a result, of folders."""
    gene_at, tissue_at, phenotype_at = (
        {name: k for k, name in enumerate(names.tolist())} for names in (tests.genes, tests.tissues, tests.phenotypes)
    )
    grid, n_tested = _Grid.empty(tests), np.zeros((tests.tissues.size, tests.phenotypes.size), dtype=np.int64)
    for folder in folders:
        columns = np.array([phenotype_at[name] for name in folder.phenotypes.tolist()], dtype=np.int64)
        genes = np.array([gene_at[name] for name in folder.genes.tolist()], dtype=np.int64)
        for number, name in enumerate(folder.tissues):
            start, stop = int(folder.offsets[number]), int(folder.offsets[number + 1])
            row = tissue_at[name]
            grid.modelled[genes[start:stop], row] = True
            grid.r2[genes[start:stop], row] = folder.pred_perf_r2[start:stop]
            step = max(1, _CELLS // max(columns.size, 1))
            for first in range(start, stop, step):
                z = np.asarray(folder.z[first : min(first + step, stop)])
                n_tested[row, columns] += (~np.isnan(z)).sum(axis=0)
    return grid, n_tested


def _given_models(path: Path, tests: GeneAssociations, grid: _Grid) -> tuple[GeneAssociations, _Grid]:
    """Return tests whose genes are those of a table of models, and the models it names."""
    table = read_arrow(path)
    for name in ("gene", "tissue"):
        if name not in table.column_names:
            raise SchemaError(
                f"{path}: expected columns gene and tissue, found {', '.join(table.column_names[:8])}."
                f"{nearest(name, table.column_names)}"
            )
    gene, tissue = (table.column(name).to_pylist() for name in ("gene", "tissue"))
    at = {name: k for k, name in enumerate(tests.genes.tolist())}
    for name in gene:
        at.setdefault(name, len(at))
    tissue_at = {name: k for k, name in enumerate(tests.tissues.tolist())}
    absent = sorted(set(tests.tissues.tolist()) - set(tissue))
    if absent:
        raise SchemaError(f"{path}: expected models of every tissue of the results, found none of {absent[0]}.")
    genes = np.array(list(at), dtype=np.str_)
    symbols = np.full(genes.size, "", dtype=f"<U{max(tests.gene_names.dtype.itemsize // 4, 24)}")
    symbols[: tests.genes.size] = tests.gene_names
    if "gene_name" in table.column_names:
        for name, symbol in zip(gene, table.column("gene_name").to_pylist(), strict=True):
            symbols[at[name]] = symbols[at[name]] or (symbol or "")
    wider = GeneAssociations(
        genes,
        symbols,
        tests.tissues,
        tests.phenotypes,
        tests.gene,
        tests.tissue,
        tests.phenotype,
        tests.z,
        tests.effect,
        tests.neg_log10_p,
        tests.pred_perf_r2,
    )
    full = _Grid.empty(wider)
    full.r2[: tests.genes.size] = grid.r2
    rows = np.array([at[g] for g, t in zip(gene, tissue, strict=True) if t in tissue_at], dtype=np.int64)
    columns = np.array([tissue_at[t] for t in tissue if t in tissue_at], dtype=np.int64)
    full.modelled[rows, columns] = True
    return wider, full


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
