"""Associations of genes: tables of ours, of S-PrediXcan and of NeuroimaGene, and our folders of whole matrices.

A folder (``twas associate --full``) holds every result of a scan, a row for each model of a gene in a tissue and a
column for each phenotype::

    models.parquet       tissue, gene, gene_name, pred_perf_r2 ..., ordered by tissue
    phenotypes.parquet   phenotype
    z.npy, effect.npy    float32 or float64, memory-mapped; effect.npy is absent where the scan had no betas
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from jaxtyping import Float, Int, Shaped
from scipy.special import ndtri

from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.core.gene_associations import GeneAssociations, GeneMatrix, PhenotypeAnnotation
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.gene_columns import (
    GENE_ALIASES,
    GENE_NUMBERS,
    GENE_TEXTS,
    coded_texts,
    gene_table_header,
    has_commas,
    named_by_pattern,
)
from brainlocus.io.matrices import open_matrix
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = [
    "GeneFolder",
    "GeneTables",
    "is_gene_folder",
    "open_gene_folder",
    "open_gene_results",
    "read_annotation",
    "read_gene_associations",
    "read_gene_matrices",
]

_BLOCK = 1 << 24
"""Cells of a matrix that are turned into a list at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneFolder:
    """An open folder of whole matrices; nothing but names is in memory."""

    path: Path
    tissues: tuple[str, ...]
    """In the order of the rows."""
    offsets: Int[np.ndarray, " tissues_and_one"]
    """Models of tissue t are rows ``offsets[t]:offsets[t + 1]``."""
    genes: Shaped[np.ndarray, " models"]
    gene_names: Shaped[np.ndarray, " models"]
    pred_perf_r2: Float[np.ndarray, " models"]
    phenotypes: Shaped[np.ndarray, " phenotypes"]
    z: Float[np.ndarray, "models phenotypes"]
    effect: Float[np.ndarray, "models phenotypes"] | None

    def matrix(self, tissue: str) -> GeneMatrix:
        """Return the matrix of a tissue, still on disk.

        Raises
        ------
        SchemaError
            There is no such tissue.
        """
        if tissue not in self.tissues:
            raise SchemaError(f"{self.path}: there is no tissue {tissue!r}.{nearest(tissue, list(self.tissues))}")
        number = self.tissues.index(tissue)
        rows = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        effect = None if self.effect is None else self.effect[rows]
        return GeneMatrix(
            tissue,
            self.genes[rows],
            self.gene_names[rows],
            self.phenotypes,
            self.z[rows],
            effect,
            self.pred_perf_r2[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class GeneTables:
    """Tests from tables, by tissue."""

    tests: GeneAssociations

    @property
    def tissues(self) -> tuple[str, ...]:
        """In the order in which the tables name them."""
        return tuple(self.tests.tissues.tolist())

    def matrix(self, tissue: str) -> GeneMatrix:
        """Return the matrix of a tissue: every gene it names against every phenotype, NaN where there is no test.

        Raises
        ------
        SchemaError
            There is no such tissue, or a gene is tested twice for a phenotype.
        """
        tests = self.tests
        if tissue not in self.tissues:
            known = ", ".join(self.tissues)
            raise SchemaError(
                f"There is no tissue {tissue!r}.{nearest(tissue, list(self.tissues))} The tables have: {known}."
            )
        mine = np.flatnonzero(tests.tissue == self.tissues.index(tissue))
        used, row = np.unique(tests.gene[mine], return_inverse=True)
        cell = row.astype(np.int64) * tests.phenotypes.size + tests.phenotype[mine]
        if np.unique(cell).size < cell.size:
            raise SchemaError(f"Tissue {tissue}: a gene has two results for one phenotype; each may have one.")
        z = np.full((used.size, tests.phenotypes.size), np.nan)
        effect, r2 = np.full(z.shape, np.nan), np.full(used.size, np.nan)
        z.flat[cell], effect.flat[cell], r2[row] = tests.z[mine], tests.effect[mine], tests.pred_perf_r2[mine]
        return GeneMatrix(
            tissue,
            tests.genes[used],
            tests.gene_names[used],
            tests.phenotypes,
            z,
            effect if np.isfinite(effect).any() else None,
            r2,
        )


def is_gene_folder(path: Path) -> bool:
    """Return whether a path is a folder of whole matrices."""
    return path.is_dir() and (path / "models.parquet").is_file() and (path / "z.npy").is_file()


def _texts(column: Any) -> Shaped[np.ndarray, " rows"]:
    return np.array(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=np.str_)


def open_gene_folder(path: Path) -> GeneFolder:
    """Open a folder that ``twas associate --full`` wrote.

    Raises
    ------
    FormatError
        Not such a folder, or its parts do not fit together.
    """
    if not is_gene_folder(path):
        raise FormatError(f"{path}: expected a folder of twas associate --full (models.parquet, z.npy), found none.")
    models, listed = read_arrow(path / "models.parquet"), read_arrow(path / "phenotypes.parquet")
    needed = {"models": ("tissue", "gene", "gene_name", "pred_perf_r2"), "phenotypes": ("phenotype",)}
    for name, table in (("models", models), ("phenotypes", listed)):
        absent = [column for column in needed[name] if column not in table.column_names]
        if absent:
            raise FormatError(f"{path}/{name}.parquet: expected a column {absent[0]}, found {table.column_names}.")
    phenotypes = _texts(listed.column("phenotype"))
    shape = (models.num_rows, phenotypes.size)
    z = open_matrix(path / "z.npy", shape)
    effect = open_matrix(path / "effect.npy", shape) if (path / "effect.npy").is_file() else None
    tissue = _texts(models.column("tissue"))
    starts = np.flatnonzero(np.r_[True, tissue[1:] != tissue[:-1]]) if tissue.size else np.zeros(0, dtype=np.int64)
    return GeneFolder(
        path,
        tuple(tissue[starts].tolist()),
        np.r_[starts, tissue.size].astype(np.int64),
        _texts(models.column("gene")),
        _texts(models.column("gene_name")),
        models.column("pred_perf_r2").to_numpy(zero_copy_only=False).astype(np.float64),
        phenotypes,
        z,
        effect,
    )


def read_annotation(path: Path, *, column: str = "") -> PhenotypeAnnotation:
    """Return an annotation of phenotypes: a table whose first column (or `column`) names them.

    Cells such as ``null``, ``NA`` or nothing become empty text.

    Raises
    ------
    FormatError, SchemaError
        Not a readable table, no such column, or a phenotype twice.
    """
    table = read_arrow(path)
    names = list(table.column_names)
    known = [n for n in ("phenotype", "gwas_phenotype", "trait") if n in names]
    key = column or (known[0] if known else names[0])
    if key not in names:
        raise SchemaError(f"{path}: there is no column {key!r}.{nearest(key, names)}")
    cleaned = {}
    for name in names:
        text = np.char.strip(_texts(table.column(name)))
        cleaned[name] = np.where(np.isin(text, MISSING_TEXT), "", text)
    try:
        return PhenotypeAnnotation(cleaned.pop(key), cleaned)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def _read_columns(path: Path) -> dict[str, Any]:
    """Return the columns we know, by our names: texts as they are, numbers as float64 with NaN."""
    if path.suffix.lower() == ".parquet":
        table = read_arrow(path)
    else:
        names = gene_table_header(path)
        kinds: dict[str, Any] = {
            n: pa.float64() if GENE_ALIASES.get(n, n) in GENE_NUMBERS else pa.string() for n in names
        }
        wanted = [n for n in names if GENE_ALIASES.get(n, n) in (*GENE_TEXTS, *GENE_NUMBERS)]
        try:
            with path.open("rb") as raw:
                gzipped = raw.read(2) == b"\x1f\x8b"
            with pa.input_stream(str(path), compression="gzip" if gzipped else None) as stream:
                table = pacsv.read_csv(
                    stream,
                    parse_options=pacsv.ParseOptions(delimiter="," if has_commas(path) else "\t"),
                    convert_options=pacsv.ConvertOptions(
                        include_columns=wanted, column_types=kinds, null_values=list(MISSING_TEXT)
                    ),
                )
        except (pa.ArrowException, OSError, EOFError) as error:
            raise FormatError(f"{path}: expected a table of gene associations: {error}") from error
    found = {}
    for name in table.column_names:
        ours = GENE_ALIASES.get(name, name)
        if ours in GENE_TEXTS:
            found[ours] = table.column(name).cast(pa.string())
        elif ours in GENE_NUMBERS:
            found[ours] = pc.fill_null(table.column(name).cast(pa.float64()), float("nan")).to_numpy()
    return found


@dataclass(slots=True)
class _Levels:
    """Names seen so far, over several files."""

    numbers: dict[str, int]

    def codes(self, names: list[str], codes: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        table = np.array([self.numbers.setdefault(name, len(self.numbers)) for name in names], dtype=np.int32)
        return table[codes] if codes.size else codes

    def names(self) -> Shaped[np.ndarray, " names"]:
        return np.array(list(self.numbers), dtype=np.str_)


def read_gene_associations(
    paths: Sequence[Path], *, pattern: str = "", max_p: float = 1.0, phenotype: str = "", tissue: str = ""
) -> GeneAssociations:
    r"""Return the tests of some files (or folders of whole matrices) as one list.

    Parameters
    ----------
    pattern
        Regular expression with groups ``phenotype`` and ``tissue`` that says what the names of files without such
        columns mean: ``(?P<phenotype>[^_]+)_xt_(?P<tissue>.+)\.csv``.
    max_p
        Only tests with p up to this; tests without a result are kept when it is 1.
    phenotype, tissue
        Of files that have no such column and no `pattern`; the file's name without extensions is the phenotype where
        nothing else is said.

    Raises
    ------
    FormatError, SchemaError
        Not readable, or no column ``gene`` or ``zscore``; a tissue that nothing names.
    """
    levels = {name: _Levels({}) for name in ("gene", "tissue", "phenotype")}
    symbols: dict[str, str] = {}
    parts: list[dict[str, Any]] = []
    for path in paths:
        pieces = (
            _folder_parts(open_gene_folder(path), levels, symbols, max_p)
            if path.is_dir()
            else [_table_part(path, levels, symbols, pattern, max_p, {"phenotype": phenotype, "tissue": tissue})]
        )
        parts += pieces
    columns = {name: np.concatenate([p[name] for p in parts]) if parts else np.zeros(0) for name in _PART}
    genes = levels["gene"].names()
    return GeneAssociations(
        genes,
        np.array([symbols.get(g, "") for g in genes.tolist()], dtype=np.str_),
        levels["tissue"].names(),
        levels["phenotype"].names(),
        columns["gene"].astype(np.int32),
        columns["tissue"].astype(np.int32),
        columns["phenotype"].astype(np.int32),
        columns["z"],
        columns["effect"],
        columns["neg_log10_p"],
        columns["pred_perf_r2"],
    )


_PART = ("gene", "tissue", "phenotype", "z", "effect", "neg_log10_p", "pred_perf_r2")


def _table_part(
    path: Path,
    levels: dict[str, _Levels],
    symbols: dict[str, str],
    pattern: str,
    max_p: float,
    given: dict[str, str],
) -> dict[str, Any]:
    columns = _read_columns(path)
    for name in ("gene", "zscore"):
        if name not in columns:
            hint = nearest(name, list(columns))
            raise SchemaError(f"{path}: expected columns gene and zscore, found {', '.join(columns) or 'none'}.{hint}")
    n = columns["zscore"].size
    named = named_by_pattern(path, pattern) if not {"phenotype", "tissue"} <= columns.keys() else {}
    z = columns["zscore"]
    nan = np.full(n, np.nan)
    found: dict[str, Any] = {"z": z, "effect": columns.get("effect_size", nan)}
    found["neg_log10_p"] = columns.get("neg_log10_p", neg_log10_p_from_z(z))
    found["pred_perf_r2"] = columns.get("pred_perf_r2", nan)
    for name in ("phenotype", "tissue", "gene"):
        if name in columns:
            found[name] = levels[name].codes(*coded_texts(columns[name]))
            continue
        text = named.get(name) or given.get(name) or (path.name.split(".")[0] if name == "phenotype" else "")
        if not text:
            raise SchemaError(f"{path}: expected a column {name}, or a pattern of file names that gives it.")
        found[name] = levels[name].codes([text], np.zeros(n, dtype=np.int32))
    if "gene_name" in columns:
        pairs = zip(columns["gene"].to_pylist(), columns["gene_name"].to_pylist(), strict=True)
        symbols.update({g: s for g, s in pairs if g and s and s not in MISSING_TEXT})
    if max_p < 1.0:
        kept = found["neg_log10_p"] >= -np.log10(max_p)
        found = {name: column[kept] for name, column in found.items()}
    return found


def _folder_parts(
    folder: GeneFolder, levels: dict[str, _Levels], symbols: dict[str, str], max_p: float
) -> Iterator[dict[str, Any]]:
    """Yield the tests of a folder, a block of models at a time."""
    symbols.update({g: s for g, s in zip(folder.genes.tolist(), folder.gene_names.tolist(), strict=True) if s})
    gene = levels["gene"].codes(folder.genes.tolist(), np.arange(folder.genes.size, dtype=np.int32))
    tissue = levels["tissue"].codes(list(folder.tissues), np.arange(len(folder.tissues), dtype=np.int32))
    tissue = np.repeat(tissue, np.diff(folder.offsets))
    phenotype = levels["phenotype"].codes(folder.phenotypes.tolist(), np.arange(folder.phenotypes.size, dtype=np.int32))
    smallest, near = -np.log10(max_p), -ndtri(max_p / 2) - 1e-6
    step = max(1, _BLOCK // max(folder.phenotypes.size, 1))
    for start in range(0, gene.size, step):
        z = np.asarray(folder.z[start : start + step], dtype=np.float64)
        # Most tests are far from significant: p is computed for those that may be.
        row, column = np.nonzero(np.abs(z) >= near) if max_p < 1.0 else np.nonzero(np.ones(z.shape, dtype=bool))
        values = z[row, column]
        strength = neg_log10_p_from_z(values)
        if max_p < 1.0:
            kept = strength >= smallest
            row, column, values, strength = row[kept], column[kept], values[kept], strength[kept]
        effect = np.full(row.size, np.nan)
        if folder.effect is not None:
            effect = np.asarray(folder.effect[start : start + step], dtype=np.float64)[row, column]
        yield {
            "gene": gene[start + row],
            "tissue": tissue[start + row],
            "phenotype": phenotype[column],
            "z": values,
            "effect": effect,
            "neg_log10_p": strength,
            "pred_perf_r2": folder.pred_perf_r2[start + row],
        }


def read_gene_matrices(
    paths: Sequence[Path], *, tissues: Sequence[str] = (), pattern: str = "", phenotype: str = "", tissue: str = ""
) -> Iterator[GeneMatrix]:
    """Yield the matrix of every tissue (or of `tissues`), from a folder or from tables.

    Parameters are as those of `read_gene_associations`.

    Raises
    ------
    FormatError, SchemaError
        As `read_gene_associations`; a tissue that is not there; a gene tested twice for a phenotype and tissue.
    """
    opened = open_gene_results(paths, pattern=pattern, phenotype=phenotype, tissue=tissue)
    yield from (opened.matrix(name) for name in (tissues or opened.tissues))


def open_gene_results(
    paths: Sequence[Path], *, pattern: str = "", phenotype: str = "", tissue: str = ""
) -> GeneFolder | GeneTables:
    """Open a folder, which stays on disk, or tables, which are read, to take matrices from by tissue.

    Parameters and errors are as those of `read_gene_associations`.
    """
    if len(paths) == 1 and paths[0].is_dir():
        return open_gene_folder(paths[0])
    return GeneTables(read_gene_associations(paths, pattern=pattern, phenotype=phenotype, tissue=tissue))
