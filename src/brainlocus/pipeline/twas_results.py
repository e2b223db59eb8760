"""What a transcriptome-wide scan writes: the table of tests with their false discovery rates, and whole matrices."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from brainlocus.core import PhenotypeAnnotation, ResourceError, SchemaError
from brainlocus.io import arrow_column, atomic_path, check_table_name
from brainlocus.numerics import neg_log10_p_from_z, z_from_neg_log10_p
from brainlocus.numerics.streaming_fdr import FdrCurve, TestBlock, fdr_curves
from brainlocus.pipeline.progress import Progress
from brainlocus.pipeline.twas_scan import GeneScan

__all__ = [
    "Adjustment",
    "Scope",
    "adjust_scan",
    "count_tests",
    "scopes_of",
    "write_gene_folder",
    "write_gene_table",
]

Method = Literal["bh", "by", "bonferroni"]

_CELLS = 1 << 21
"""Cells of the matrices that are looked at together: arrays of 16 MiB, whose memory is used again."""
_COLUMNS_AT_ONCE = 128
"""Phenotypes whose own rates are made together: 2 MiB of counts each."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Tests that are corrected for together: a group of every model's tissue and of every phenotype; their sum."""

    name: str
    tissue_group: Int[np.ndarray, " tissues"]
    phenotype_group: Int[np.ndarray, " phenotypes"]
    groups: tuple[str, ...]
    """Name of each group."""


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """Rates of one scope by one method."""

    scope: Scope
    method: Method
    curves: Sequence[FdrCurve]
    """Of every group."""

    @property
    def column(self) -> str:
        """Name of the column: ``q_bh_study``, ``p_bonferroni_modality``."""
        return f"{'p' if self.method == 'bonferroni' else 'q'}_{self.method}_{self.scope.name.replace('-', '_')}"

    def of(
        self, z: Float[np.ndarray, " tests"], tissue: int, phenotype: Int[np.ndarray, " tests"]
    ) -> Float[np.ndarray, " tests"]:
        """Return the adjusted p of tests of one tissue."""
        group = self.scope.tissue_group[tissue] + self.scope.phenotype_group[phenotype]
        found = np.full(z.size, np.nan)
        if self.method == "bonferroni":
            n_tests = np.array([c.n_tests for c in self.curves], dtype=np.float64)
            return np.asarray(np.minimum(10.0 ** (np.log10(n_tests[group]) - neg_log10_p_from_z(z)), 1.0))
        order = np.argsort(group, kind="stable")
        if not order.size:
            return found
        cuts = np.flatnonzero(np.r_[True, group[order][1:] != group[order][:-1]]).tolist()
        for start, stop in zip(cuts, [*cuts[1:], order.size], strict=True):
            mine = order[start:stop]
            found[mine] = self.curves[int(group[mine[0]])].of(z[mine])
        return found


def scopes_of(names: Sequence[str], scan: GeneScan, annotation: PhenotypeAnnotation | None) -> list[Scope]:
    """Return the scopes by name: study, tissue, phenotype, phenotype-tissue, or a column of the annotation.

    Raises
    ------
    SchemaError
        A name is none of these.
    """
    n_tissues, phenotypes = len(scan.tissues), np.array(scan.gwas.phenotypes, dtype=np.str_)
    n = phenotypes.size
    tissues = tuple(t.tissue for t in scan.tissues)
    zero_t, zero_p = np.zeros(n_tissues, dtype=np.int64), np.zeros(n, dtype=np.int64)
    found = []
    for name in names:
        if name == "study":
            found.append(Scope(name, zero_t, zero_p, ("study",)))
        elif name == "tissue":
            found.append(Scope(name, np.arange(n_tissues), zero_p, tissues))
        elif name == "phenotype":
            found.append(Scope(name, zero_t, np.arange(n), scan.gwas.phenotypes))
        elif name == "phenotype-tissue":
            labels = tuple(f"{p} {t}" for t in tissues for p in scan.gwas.phenotypes)
            found.append(Scope(name, np.arange(n_tissues) * n, np.arange(n), labels))
        elif annotation is not None:
            levels, codes = np.unique(annotation.of(name, phenotypes), return_inverse=True)
            found.append(Scope(name, zero_t, codes.astype(np.int64), tuple(levels.tolist())))
        else:
            raise SchemaError(
                f"--scope {name}: expected study, tissue, phenotype, phenotype-tissue, or a column of --annotation, "
                "which is not given."
            )
    return found


def adjust_scan(
    scan: GeneScan,
    scopes: Sequence[Scope],
    methods: Sequence[Method],
    *,
    max_p: float,
    memory_bytes: int,
    progress: Progress,
) -> list[Adjustment]:
    """Return the adjusted p of all tests up to `max_p`, counted against all tests of their scope.

    Raises
    ------
    ResourceError
        The tests up to `max_p` do not fit in memory.
    """
    found = []
    pairs = [(scope, method) for scope in scopes for method in methods]
    _check_memory(scan, [m for _, m in pairs], max_p, memory_bytes)
    for scope, method in progress.track(pairs, "False discovery rates", len(pairs)):
        fdr: Literal["bh", "by"] = "by" if method == "by" else "bh"
        smallest = float(z_from_neg_log10_p(-np.log10(max_p))) if max_p < 1 else 0.0
        if method == "bonferroni":
            smallest = np.inf
        own = scope.name in ("phenotype", "phenotype-tissue")
        curves = _narrow_curves(scan, scope, smallest, fdr) if own else _wide_curves(scan, scope, smallest, fdr)
        found.append(Adjustment(scope, method, curves))
    return found


def _check_memory(scan: GeneScan, methods: Sequence[Method], max_p: float, memory_bytes: int) -> None:
    """Count the tests whose rates are held, and refuse more than fit."""
    n_curves = sum(method != "bonferroni" for method in methods)
    if not n_curves:
        return
    smallest = float(z_from_neg_log10_p(-np.log10(max_p))) if max_p < 1 else 0.0
    step = max(1, _CELLS // max(scan.z.shape[1], 1))
    starts = range(0, scan.z.shape[0], step)
    n = sum(int(np.count_nonzero(np.abs(scan.z[start : start + step]) >= smallest)) for start in starts)
    needed = n * (_BYTES_WHILE_SORTED + n_curves * _BYTES_OF_CURVE)
    if needed > memory_bytes:
        raise ResourceError(
            f"False discovery rates of {n:,} tests with p <= {max_p:g} need {needed / 2**20:,.0f} MiB, "
            f"{memory_bytes / 2**20:,.0f} MiB are given. Raise --memory, write fewer tests with --hits, or give fewer "
            "--scope."
        )


def _wide_curves(scan: GeneScan, scope: Scope, smallest: float, method: Literal["bh", "by"]) -> list[FdrCurve]:
    """Return the curves of few groups, from passes over the matrix by rows."""
    tissue = np.repeat(np.arange(len(scan.tissues)), np.diff(scan.offsets))
    step = max(1, _CELLS // max(scan.z.shape[1], 1))

    def blocks() -> Iterator[TestBlock]:
        for start in range(0, scan.z.shape[0], step):
            rows = slice(start, start + step)
            yield TestBlock(np.asarray(scan.z[rows]), scope.tissue_group[tissue[rows]], scope.phenotype_group)

    return fdr_curves(blocks, len(scope.groups), smallest=smallest, to_neg_log10_p=neg_log10_p_from_z, method=method)


def _narrow_curves(scan: GeneScan, scope: Scope, smallest: float, method: Literal["bh", "by"]) -> list[FdrCurve]:
    """Return a curve for each phenotype (and tissue): a stretch of columns at a time."""
    by_tissue = scope.name == "phenotype-tissue"
    cuts = [(int(a), int(b)) for a, b in zip(scan.offsets[:-1], scan.offsets[1:], strict=True)]
    stretches = cuts if by_tissue else [(0, scan.z.shape[0])]
    found: list[FdrCurve] = []
    for low, high in stretches:
        for start in range(0, scan.z.shape[1], _COLUMNS_AT_ONCE):
            block = np.ascontiguousarray(scan.z[low:high, start : start + _COLUMNS_AT_ONCE])
            one = TestBlock(block, np.zeros(block.shape[0], dtype=np.int64), np.arange(block.shape[1]))
            found += fdr_curves(
                _again(one), block.shape[1], smallest=smallest, to_neg_log10_p=neg_log10_p_from_z, method=method
            )
    return found


def _again(block: TestBlock) -> Callable[[], list[TestBlock]]:
    return lambda: [block]


def count_tests(adjustments: Sequence[Adjustment]) -> dict[str, Any]:
    """Return, by column, the number of tests and of groups."""
    sizes = {a.column: sum(c.n_tests for c in a.curves) for a in adjustments}
    return {a.column: {"tests": int(sizes[a.column]), "groups": len(a.scope.groups)} for a in adjustments}


_BYTES_WHILE_SORTED, _BYTES_OF_CURVE = 40, 16
"""Of a test: taken, sorted, ranked and joined; then kept."""
_BYTES_OF_CELL = 400
"""Of a cell that is looked at, if it is written: its numbers, its row as columns of Arrow, and the row as Parquet."""


class _TableWriter:
    """Writes rows as they come, in the format of the name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._suffix = check_table_name(path)
        self._writer: Any = None
        self._stream: Any = None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._open(table.schema)
        if self._suffix != ".parquet":
            for k, field in enumerate(table.schema):
                if pa.types.is_floating(field.type):
                    column = table.column(k)
                    table = table.set_column(k, field, _null_where_nan(column))
        self._writer.write_table(table)

    def _open(self, schema: pa.Schema) -> None:
        if self._suffix == ".parquet":
            self._writer = pq.ParquetWriter(self._path, schema, compression="zstd")
            return
        gz = self._path.suffix.lower() == ".gz"
        self._stream = pa.output_stream(str(self._path), compression="gzip" if gz else None)
        delimiter = "," if self._suffix == ".csv" else "\t"
        options = pacsv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        self._writer = pacsv.CSVWriter(self._stream, schema, write_options=options)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._stream is not None:
            self._stream.close()


def _null_where_nan(column: Any) -> Any:
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def write_gene_table(
    scan: GeneScan,
    adjustments: Sequence[Adjustment],
    path: Path,
    *,
    max_p: float,
    every_gene: bool,
    memory_bytes: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the tests up to a p, by tissue and phenotype, the strongest first; return counts.

    Parameters
    ----------
    max_p
        1 writes every gene that has a SNP in the GWAS, also those without a result.
    every_gene
        With `max_p` 1, also genes of which the GWAS has no SNP.
    """
    counts: dict[str, Any] = {"tests": 0, "rows": 0, "genes_without_snp": 0, "genes_without_result": 0}
    significant = {a.column: 0 for a in adjustments}
    smallest = float(z_from_neg_log10_p(-np.log10(max_p))) if max_p < 1 else 0.0
    with atomic_path(path) as partial:
        writer = _TableWriter(partial)
        try:
            stretches = list(_stretches(scan, min(_CELLS, max(1, memory_bytes // (4 * _BYTES_OF_CELL)))))
            for tissue, start, stop in progress.track(stretches, "Writing", len(stretches)):
                table = _rows(scan, adjustments, tissue, start, stop, smallest, max_p, every_gene, counts, significant)
                if table.num_rows or (tissue, start) == stretches[-1][:2]:
                    writer.write(table)
        finally:
            writer.close()
    counts["significant_5_percent"] = significant
    return counts


def _stretches(scan: GeneScan, cells: int) -> Iterator[tuple[int, int, int]]:
    for tissue in range(len(scan.tissues)):
        n_genes = int(scan.offsets[tissue + 1] - scan.offsets[tissue])
        step = max(1, cells // max(n_genes, 1))
        for start in range(0, scan.z.shape[1], step):
            yield tissue, start, min(start + step, scan.z.shape[1])


def _text(levels: Shaped[np.ndarray, " levels"], codes: Int[np.ndarray, " rows"]) -> Any:
    return pa.array(levels.tolist(), pa.string()).take(arrow_column(codes.astype(np.int64)))


def _rows(
    scan: GeneScan,
    adjustments: Sequence[Adjustment],
    tissue: int,
    start: int,
    stop: int,
    smallest: float,
    max_p: float,
    every_gene: bool,
    counts: dict[str, Any],
    significant: dict[str, int],
) -> pa.Table:
    model = scan.tissues[tissue]
    first = int(scan.offsets[tissue])
    z = np.asarray(scan.z[first : int(scan.offsets[tissue + 1]), start:stop], dtype=np.float64)
    kept = np.abs(z) >= smallest if max_p < 1 else np.ones(z.shape, dtype=bool)
    column, gene = np.nonzero(kept.T)
    z = z[gene, column]
    row, phenotype = first + gene, start + column
    var_g, n_used, in_gwas = scan.patterns.of(row, phenotype)
    if max_p >= 1:
        counts["genes_without_snp"] += int((~in_gwas).sum())
        if not every_gene:
            gene, row, phenotype, z = gene[in_gwas], row[in_gwas], phenotype[in_gwas], z[in_gwas]
            var_g, n_used = var_g[in_gwas], n_used[in_gwas]
        counts["genes_without_result"] += int(np.isnan(z).sum())
    # By phenotype, then the strongest first, genes in alphabetical order where they tie.
    order = np.lexsort((gene, -np.nan_to_num(np.abs(z), nan=-1.0), phenotype))
    gene, row, phenotype, z = gene[order], row[order], phenotype[order], z[order]
    var_g, n_used = var_g[order], n_used[order]
    strength = neg_log10_p_from_z(z)
    counts["rows"] += int(z.size)
    counts["tests"] += int(np.isfinite(z).sum())
    effect = (
        np.full(z.size, np.nan) if scan.effect is None else np.asarray(scan.effect[row, phenotype], dtype=np.float64)
    )
    columns: dict[str, Any] = {
        "phenotype": _text(np.array(scan.gwas.phenotypes, dtype=np.str_), phenotype),
        "tissue": pa.array([model.tissue], pa.string()).take(arrow_column(np.zeros(z.size, dtype=np.int64))),
        "gene": _text(model.genes, gene),
        "gene_name": _text(model.gene_names, gene),
        "zscore": arrow_column(z),
        "effect_size": arrow_column(effect),
        "pvalue": arrow_column(10.0**-strength),
        "neg_log10_p": arrow_column(strength),
        "var_g": arrow_column(var_g),
        "pred_perf_r2": arrow_column(model.pred_perf_r2[gene]),
        "pred_perf_pval": arrow_column(model.pred_perf_pval[gene]),
        "pred_perf_qval": arrow_column(model.pred_perf_qval[gene]),
        "n_snps_used": arrow_column(n_used.astype(np.int64)),
        "n_snps_in_cov": arrow_column(model.n_snps_in_cov[gene].astype(np.int64)),
        "n_snps_in_model": arrow_column(model.n_snps_in_model[gene].astype(np.int64)),
    }
    if scan.n_h2 is not None:
        inflation = scan.inflation(row, phenotype)
        plain = z * np.sqrt(inflation)
        columns["uncalibrated_zscore"] = arrow_column(plain)
        columns["uncalibrated_pvalue"] = arrow_column(10.0 ** -neg_log10_p_from_z(plain))
        columns["calibrated"] = arrow_column(~np.isnan(scan.phi[row]) & ~np.isnan(scan.n_h2[phenotype]))
    stored = z.astype(scan.z.dtype)
    for adjustment in adjustments:
        adjusted = adjustment.of(stored, tissue, phenotype)
        significant[adjustment.column] += int((adjusted < 0.05).sum())
        columns[adjustment.column] = arrow_column(adjusted)
    return pa.table(columns)


def write_gene_folder(scan: GeneScan, folder: Path) -> None:
    """Write the whole matrices with the names of their rows and columns (`io.gene_associations`)."""
    folder.mkdir(parents=True, exist_ok=True)
    tissue = np.repeat(np.arange(len(scan.tissues)), np.diff(scan.offsets))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(t, name) for t in scan.tissues])

    models = {
        "tissue": _text(np.array([t.tissue for t in scan.tissues], dtype=np.str_), tissue),
        **{name: arrow_column(joined(name)) for name in ("genes", "gene_names")},
        **{name: arrow_column(joined(name)) for name in ("pred_perf_r2", "pred_perf_pval", "pred_perf_qval")},
        **{name: arrow_column(joined(name).astype(np.int64)) for name in ("n_snps_in_cov", "n_snps_in_model")},
        "var_g": arrow_column(scan.patterns.var_g),
        "n_snps_used": arrow_column(scan.patterns.n_snps_used.astype(np.int64)),
    }
    models = {{"genes": "gene", "gene_names": "gene_name"}.get(name, name): c for name, c in models.items()}
    pq.write_table(pa.table(models), folder / "models.parquet", compression="zstd")
    phenotypes = {
        "phenotype": pa.array(scan.gwas.phenotypes, pa.string()),
        "pattern": arrow_column(scan.patterns.number),
    }
    pq.write_table(pa.table(phenotypes), folder / "phenotypes.parquet", compression="zstd")
    for name, matrix in (("z.npy", scan.z), ("effect.npy", scan.effect)):
        if matrix is None:
            continue
        stored = getattr(matrix, "filename", None)
        if stored is not None:
            matrix.flush()  # type: ignore[attr-defined]
            shutil.move(stored, folder / name)
        else:
            np.save(folder / name, matrix)
