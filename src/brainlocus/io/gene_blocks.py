"""Gene associations of any size, block by block: folders of whole matrices and tables, never whole in memory.

Beside the columns of `read_gene_associations`, tables may say how many tests were made, which a table of the
significant ones cannot show: ``n_tests`` (of the study) and ``n_tests_modality``, ``n_tests_atlas``,
``n_tests_phenotype``, ``n_tests_phenotype_tissue``; or show it by ``p_bonferroni_study`` ...; or bring q-values of
these scopes: ``q_bh_study``, ``q_bh_modality`` ... (NeuroimaGene's ``mod_BHpval`` is that of the modality).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import norm

from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.core.gene_associations import SCOPES, GeneAssociations, GeneBlock
from brainlocus.io.arrow_tables import parquet_batches
from brainlocus.io.gene_associations import GeneFolder, open_gene_folder
from brainlocus.io.gene_columns import (
    GENE_ALIASES,
    GENE_NUMBERS,
    GENE_TEXTS,
    coded_texts,
    gene_table_header,
    has_commas,
    named_by_pattern,
)
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = ["read_gene_blocks"]

CELLS = 1 << 19
"""Cells of a matrix, or rows of a table, in a block."""
_TEXT_BYTES = 16 << 20
"""Text that is parsed at a time."""
_SMALLEST = 1e-290
"""A corrected p below this has lost digits."""

_GIVEN = {"mod_BHpval": ("q", "modality"), "n_tests": ("n_tests", "study")}
for _scope in SCOPES:
    _name = _scope.replace("-", "_")
    _GIVEN |= {
        f"{kind}_{_name}": (kind.removesuffix("_bh"), _scope) for kind in ("q", "q_bh", "n_tests", "p_bonferroni")
    }


def read_gene_blocks(
    paths: Sequence[Path],
    *,
    max_p: float = 1.0,
    complete: bool = False,
    pattern: str = "",
    phenotype: str = "",
    tissue: str = "",
    cells: int = CELLS,
) -> Iterator[GeneBlock]:
    """Yield the tests of some files or folders of whole matrices, a block at a time.

    Parameters
    ----------
    max_p
        Tests with a greater p are left out of the blocks but counted, where they can be.
    complete
        The tables list every test that was made, so that tests can be counted; folders always do.
    pattern, phenotype, tissue
        As those of `read_gene_associations`.

    Raises
    ------
    FormatError, SchemaError
        As `read_gene_associations`.
    """
    for path in paths:
        if path.is_dir():
            yield from _folder_blocks(open_gene_folder(path), max_p, cells)
        else:
            yield from _table_blocks(path, max_p, complete, pattern, {"phenotype": phenotype, "tissue": tissue}, cells)


def _least_z(max_p: float) -> float:
    """Return |z| below which p is surely greater than `max_p`; a little less than the exact bound."""
    return float(norm.isf(max_p / 2.0)) - 1e-6 if max_p < 1.0 else -1.0


def _folder_blocks(folder: GeneFolder, max_p: float, cells: int) -> Iterator[GeneBlock]:
    least, smallest = _least_z(max_p), -np.log10(max_p)
    n_phenotypes = folder.phenotypes.size
    step = max(1, cells // max(n_phenotypes, 1))
    for number, tissue in enumerate(folder.tissues):
        first, last = int(folder.offsets[number]), int(folder.offsets[number + 1])
        for start in range(first, last, step):
            rows = slice(start, min(start + step, last))
            z = np.asarray(folder.z[rows])
            finite = np.isfinite(z)
            row, column = np.nonzero(finite & (np.abs(z) >= least))
            values = z[row, column].astype(np.float64)
            strength = neg_log10_p_from_z(values)
            kept = strength >= smallest
            row, column = row[kept], column[kept]
            effect = np.full(row.size, np.nan)
            if folder.effect is not None:
                effect = np.asarray(folder.effect[rows], dtype=np.float64)[row, column]
            n = z.shape[0]
            tests = GeneAssociations(
                folder.genes[rows],
                folder.gene_names[rows],
                np.array([tissue]),
                folder.phenotypes,
                row.astype(np.int32),
                np.zeros(row.size, dtype=np.int32),
                column.astype(np.int32),
                values[kept],
                effect,
                strength[kept],
                folder.pred_perf_r2[rows][row],
            )
            counted = finite.sum(axis=0, dtype=np.int64)[:, None]
            yield GeneBlock(
                tests, counted, np.arange(n), np.zeros(n, dtype=np.int64), folder.pred_perf_r2[rows], {}, {}
            )


def _batches(path: Path, cells: int) -> Iterator[pa.Table]:
    """Yield the rows of a table file, only the columns we know.

    Raises
    ------
    FormatError
        Not readable.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                wanted = [n for n in file.schema_arrow.names if _known(n)]
                for batch in parquet_batches(file, cells, wanted):
                    yield pa.Table.from_batches([batch])
            return
        names = gene_table_header(path)
        numbers = {n for n in names if n in _GIVEN or GENE_ALIASES.get(n, n) in GENE_NUMBERS}
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
        with (
            pa.input_stream(str(path), compression="gzip" if gzipped else None) as stream,
            pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=_TEXT_BYTES),
                parse_options=pacsv.ParseOptions(delimiter="," if has_commas(path) else "\t"),
                convert_options=pacsv.ConvertOptions(
                    include_columns=[n for n in names if _known(n)],
                    column_types={n: pa.float64() if n in numbers else pa.string() for n in names},
                    null_values=list(MISSING_TEXT),
                    strings_can_be_null=True,
                ),
            ) as reader,
        ):
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a table of gene associations: {error}") from error


def _known(name: str) -> bool:
    return name in _GIVEN or GENE_ALIASES.get(name, name) in (*GENE_TEXTS, *GENE_NUMBERS)


def _number(column: Any) -> Float[np.ndarray, " rows"]:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy())


def _table_blocks(
    path: Path, max_p: float, complete: bool, pattern: str, given: dict[str, str], cells: int
) -> Iterator[GeneBlock]:
    seen = False
    for table in _batches(path, cells):
        seen = True
        columns = {GENE_ALIASES.get(n, n): table.column(n) for n in table.column_names if n not in _GIVEN}
        missing = [name for name in ("gene", "zscore") if name not in columns]
        if missing:
            hint = nearest(missing[0], list(columns))
            found = ", ".join(columns) or "none of our columns"
            raise SchemaError(f"{path}: expected columns gene and zscore, found {found}.{hint}")
        named = {**given, **named_by_pattern(path, pattern)} if not {"phenotype", "tissue"} <= columns.keys() else given
        yield _table_block(path, table, columns, named, max_p, complete)
    if not seen:
        raise FormatError(f"{path}: expected gene associations, found a table without rows.")


def _levels(
    path: Path, columns: dict[str, Any], name: str, given: dict[str, str], n: int
) -> tuple[list[str], Int[np.ndarray, " rows"]]:
    if name in columns:
        return coded_texts(columns[name].cast(pa.string()))
    text = given.get(name) or (path.name.split(".")[0] if name == "phenotype" else "")
    if not text:
        raise SchemaError(f"{path}: expected a column {name}, or a pattern of file names that gives it.")
    return [text], np.zeros(n, dtype=np.int32)


def _table_block(
    path: Path, table: pa.Table, columns: dict[str, Any], given: dict[str, str], max_p: float, complete: bool
) -> GeneBlock:
    z = _number(columns["zscore"])
    n = z.size
    levels = {name: _levels(path, columns, name, given, n) for name in ("gene", "tissue", "phenotype")}
    strength = _number(columns["neg_log10_p"]) if "neg_log10_p" in columns else neg_log10_p_from_z(z)
    has_result = np.isfinite(z) & ~np.isnan(strength)
    kept = np.flatnonzero(has_result & (strength >= -np.log10(max_p)))
    gene, tissue, phenotype = (levels[name][1] for name in ("gene", "tissue", "phenotype"))
    r2 = _number(columns["pred_perf_r2"]) if "pred_perf_r2" in columns else np.full(n, np.nan)
    effect = _number(columns["effect_size"]) if "effect_size" in columns else np.full(n, np.nan)
    n_tissues, n_phenotypes = len(levels["tissue"][0]), len(levels["phenotype"][0])
    counted = None
    if complete:
        pair = phenotype[has_result].astype(np.int64) * n_tissues + tissue[has_result]
        counted = np.bincount(pair, minlength=n_phenotypes * n_tissues).reshape(n_phenotypes, n_tissues)
    _, first = np.unique(gene.astype(np.int64) * max(n_tissues, 1) + tissue, return_index=True)
    tests = GeneAssociations(
        np.array(levels["gene"][0], dtype=np.str_),
        _symbols(columns, levels["gene"]),
        np.array(levels["tissue"][0], dtype=np.str_),
        np.array(levels["phenotype"][0], dtype=np.str_),
        gene[kept],
        tissue[kept],
        phenotype[kept],
        z[kept],
        effect[kept],
        strength[kept],
        r2[kept],
    )
    extra: dict[str, dict[str, Any]] = {"q": {}, "n_tests": {}, "p_bonferroni": {}}
    for name in table.column_names:
        if name in _GIVEN:
            kind, scope = _GIVEN[name]
            extra[kind][scope] = _number(table.column(name))[kept]
    for scope, corrected in extra["p_bonferroni"].items():
        extra["n_tests"].setdefault(scope, _factor(corrected, strength[kept]))
    return GeneBlock(tests, counted, gene[first], tissue[first], r2[first], extra["q"], extra["n_tests"])


def _factor(
    corrected: Float[np.ndarray, " tests"], neg_log10_p: Float[np.ndarray, " tests"]
) -> Float[np.ndarray, " tests"]:
    """Return the number of tests that a Bonferroni p shows; NaN where it is 1 or too small to say."""
    shown = (corrected < 1.0) & (corrected > _SMALLEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shown, np.rint(10.0 ** (np.log10(corrected) + neg_log10_p)), np.nan)


def _symbols(
    columns: dict[str, Any], genes: tuple[list[str], Int[np.ndarray, " rows"]]
) -> Shaped[np.ndarray, " genes"]:
    """Return the symbol of every gene of a block: that of its last row with one."""
    found = np.full(len(genes[0]), "", dtype=object)
    if "gene_name" in columns:
        names, codes = coded_texts(columns["gene_name"].cast(pa.string()))
        has: Bool[np.ndarray, " rows"] = np.array([bool(name) for name in names], dtype=bool)[codes]
        found[genes[1][has]] = np.array(names, dtype=object)[codes[has]]
    return found.astype(np.str_)
