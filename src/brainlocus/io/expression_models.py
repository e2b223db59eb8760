"""PredictDB models of expression (sqlite) and the covariances of their SNPs (text).

A model file has the tables ``weights`` (rsid, gene, weight, ref_allele, eff_allele, often varID) and ``extra`` (gene,
genename, n.snps.in.model, pred.perf.R2, pred.perf.pval, pred.perf.qval, sometimes phi), in any order of columns. A
covariance file has the columns ``GENE RSID1 RSID2 VALUE``, separated by spaces or tabs, the rows of a gene together.

References
----------
Gamazon et al. (2015), Nature Genetics 47:1091; Barbeira et al. (2018), Nature Communications 9:1825.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import FormatError, SchemaError
from brainlocus.core.expression import ExpressionModel, GeneCovariance
from brainlocus.io.tables import MISSING_TEXT

__all__ = ["find_covariance", "iter_covariances", "model_tissue", "read_covariance", "read_expression_model"]

SnpKey = Literal["rsid", "varID"]

_WEIGHTS = ("gene", "weight", "ref_allele", "eff_allele")
_EXTRA = {
    "genename": ("genename", "gene_name"),
    "n_snps": ("n.snps.in.model", "n_snps_in_model"),
    "r2": ("pred.perf.R2", "pred_perf_r2"),
    "pval": ("pred.perf.pval", "pred_perf_pval"),
    "qval": ("pred.perf.qval", "pred_perf_qval"),
    "phi": ("phi",),
}
"""What is read of ``extra``, by any of its names."""
_VERSION = re.compile(r"\.\d+(_\d+)?$")
_COVARIANCE_BLOCK = 1 << 26
_HEADER_BYTES = 4096
_COVARIANCE = ("GENE", "RSID1", "RSID2", "VALUE")
_SHOWN = 3


def model_tissue(path: Path, pattern: str = "") -> str:
    r"""Return the tissue of a model file: its name without ``.db``, or what the group of a pattern matches.

    Raises
    ------
    SchemaError
        The name does not match the pattern.

    Examples
    --------
    >>> model_tissue(Path("TW_Liver_0.5.db"), r"TW_(.+)_0\.5")
    'Liver'
    """
    if not pattern:
        return path.name.removesuffix(".db")
    found = re.search(pattern, path.name)
    if found is None or not found.re.groups:
        raise SchemaError(
            f"{path.name} does not match the pattern {pattern!r} with one group for the tissue; correct the pattern."
        )
    return str(found[1])


def find_covariance(model: Path) -> Path | None:
    """Return the covariance file beside a model that is named after it, None where there is none.

    ``X.db`` goes with ``X.txt.gz`` (PredictDB), ``X.cov.txt.gz``, ``X_cov.txt.gz`` or ``X.cov`` (JTI).
    """
    stem = model.name.removesuffix(".db")
    for ending in (".txt.gz", ".cov.txt.gz", "_cov.txt.gz", ".cov.gz", ".cov", ".txt"):
        path = model.with_name(stem + ending)
        if path.is_file():
            return path
    return None


def read_expression_model(
    path: Path,
    *,
    tissue: str = "",
    snp_key: SnpKey = "rsid",
    strip_versions: bool = False,
    allow_empty: bool = False,
) -> ExpressionModel:
    """Return the weights of a PredictDB file, ordered by gene.

    Parameters
    ----------
    tissue
        What the model is called; the name of the file without ``.db`` by default.
    snp_key
        Column that names SNPs.
    strip_versions
        Take ``.13`` off the ids of genes.
    allow_empty
        A file without weights is a model without genes.

    Raises
    ------
    FormatError
        No sqlite file, a table is missing, or there are no weights.
    SchemaError
        A column is missing; a weight is no finite number; a gene has a SNP twice; two genes are one without versions.
    """
    if not path.is_file():
        raise FormatError(f"Expression model: expected a PredictDB file at {path}, found nothing. Check the path.")
    with path.open("rb") as stream:
        if stream.read(16) != b"SQLite format 3\x00":
            raise FormatError(f"{path}: expected a PredictDB model (sqlite, .db), found another kind of file.")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            weights = _select(connection, "weights", _weight_columns(connection, path, snp_key))
            extra = _read_extra(connection, path)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise FormatError(f"{path}: expected a PredictDB model, which sqlite cannot read: {error}.") from error
    if not weights[0]:
        if not allow_empty:
            raise FormatError(f"{path}: expected weights, found an empty table weights.")
        return _empty_model(tissue or model_tissue(path))
    return _model(path, tissue or model_tissue(path), weights, extra, strip_versions=strip_versions)


def _table_columns(connection: sqlite3.Connection, path: Path, table: str) -> list[str]:
    names = [str(row[1]) for row in connection.execute(f'PRAGMA table_info("{table}")')]
    if not names:
        found = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        raise FormatError(
            f"{path}: expected the tables weights and extra of PredictDB, found {', '.join(found) or 'no table'}."
        )
    return names


def _weight_columns(connection: sqlite3.Connection, path: Path, snp_key: str) -> list[str]:
    names = _table_columns(connection, path, "weights")
    for name in (snp_key, *_WEIGHTS):
        if name not in names:
            what = "Choose the other column with --snp-key." if name == snp_key else "The model is not of PredictDB."
            raise SchemaError(f"{path}: table weights has no column {name}, it has {', '.join(names)}. {what}")
    return [snp_key, *_WEIGHTS]


def _select(connection: sqlite3.Connection, table: str, columns: list[str]) -> list[list[Any]]:
    quoted = ", ".join(f'"{name}"' for name in columns)
    rows = connection.execute(f'SELECT {quoted} FROM "{table}"').fetchall()
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]


def _empty_model(tissue: str) -> ExpressionModel:
    text, number, whole = np.zeros(0, dtype="<U1"), np.zeros(0), np.zeros(0, dtype=np.int64)
    start = np.zeros(1, dtype=np.int64)
    return ExpressionModel(tissue, text, text, start, text, text, text, number, whole, number, number, number, number)


def _read_extra(connection: sqlite3.Connection, path: Path) -> dict[str, dict[str, Any]]:
    """Return what the file says of each gene; nothing where it has no such column."""
    names = _table_columns(connection, path, "extra")
    if "gene" not in names:
        raise SchemaError(f"{path}: table extra has no column gene, it has {', '.join(names)}.")
    used = {ours: next((n for n in theirs if n in names), None) for ours, theirs in _EXTRA.items()}
    chosen = ["gene", *[n for n in used.values() if n is not None]]
    quoted = ", ".join(f'"{name}"' for name in chosen)
    rows = connection.execute(f"SELECT {quoted} FROM extra").fetchall()
    keys = [ours for ours, theirs in used.items() if theirs is not None]
    return {str(row[0]): dict(zip(keys, row[1:], strict=True)) for row in rows}


def _number(value: Any) -> float:
    """Return a cell as a number: MASH-R has NULL, empty text or NA."""
    if value is None or (isinstance(value, str) and value.strip() in MISSING_TEXT):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _some(values: Iterable[object]) -> str:
    shown = list(dict.fromkeys(map(str, values)))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _model(
    path: Path, tissue: str, columns: list[list[Any]], extra: dict[str, dict[str, Any]], *, strip_versions: bool
) -> ExpressionModel:
    snp, gene = (np.array([str(v) for v in column], dtype=np.str_) for column in columns[:2])
    weight = np.array([_number(v) for v in columns[2]])
    bad = np.flatnonzero(~np.isfinite(weight))
    if bad.size:
        where = _some(f"{gene[k]} {snp[k]} ({columns[2][k]!r})" for k in bad)
        raise SchemaError(f"{path}: weights must be finite numbers, found {bad.size} that are not: {where}.")
    other, effect = (np.char.upper(np.array([str(v) for v in c], dtype=np.str_)) for c in columns[3:])
    names, inverse = np.unique(gene, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    gene_number = inverse[order]
    _, snp_number = np.unique(snp[order], return_inverse=True)
    pair = gene_number.astype(np.int64) * (int(snp_number.max()) + 1) + snp_number
    _, first, counts = np.unique(pair, return_index=True, return_counts=True)
    if (counts > 1).any():
        rows = order[first[counts > 1]]
        where = _some(f"{gene[r]} {snp[r]}" for r in rows)
        raise SchemaError(f"{path}: a gene may have a SNP once, found {rows.size} pairs more often: {where}.")
    shown = names
    if strip_versions:
        shown = np.array([_VERSION.sub("", name) for name in names.tolist()], dtype=np.str_)
        plain, first, counts = np.unique(shown, return_index=True, return_counts=True)
        if plain.size < shown.size:
            raise SchemaError(
                f"{path}: without versions {int((counts > 1).sum())} genes have the id of another: "
                f"{_some(plain[counts > 1])}. Keep the versions."
            )
    sizes = np.bincount(gene_number, minlength=names.size)
    known = [extra.get(name, {}) for name in names.tolist()]
    listed = np.array([_number(k.get("n_snps")) for k in known])
    return ExpressionModel(
        tissue=tissue,
        genes=shown,
        gene_names=np.array([str(k.get("genename") or "") for k in known], dtype=np.str_),
        offsets=np.r_[0, np.cumsum(sizes)].astype(np.int64),
        snps=snp[order],
        effect_allele=effect[order],
        other_allele=other[order],
        weight=weight[order],
        n_snps_in_model=np.where(np.isnan(listed), sizes, listed).astype(np.int64),
        pred_perf_r2=np.array([_number(k.get("r2")) for k in known]),
        pred_perf_pval=np.array([_number(k.get("pval")) for k in known]),
        pred_perf_qval=np.array([_number(k.get("qval")) for k in known]),
        phi=np.array([_number(k.get("phi")) for k in known]),
    )


def read_covariance(path: Path, *, strip_versions: bool = False) -> GeneCovariance:
    """Return the covariances of a file; pairs listed both ways with one value are one pair, ``NA`` is absent.

    Raises
    ------
    FormatError
        Not such a file; the rows of a gene are not together; a row occurs twice; a pair has two values.
    """
    return _gene_covariance(_covariance_table(path), path, 0, strip_versions=strip_versions)


def iter_covariances(
    path: Path, *, strip_versions: bool = False, block_bytes: int = _COVARIANCE_BLOCK
) -> Iterator[GeneCovariance]:
    """Yield the covariances of a file that need not fit in memory, whole genes at a time.

    Parameters
    ----------
    block_bytes
        Text read at a time; a gene may be larger.

    Raises
    ------
    FormatError
        As `read_covariance`.
    """
    seen: set[str] = set()
    for first_row, table in _whole_genes(path, block_bytes):
        found = _gene_covariance(table, path, first_row, strip_versions=strip_versions)
        again = next((gene for gene in found.genes.tolist() if gene in seen), None)
        if again is not None:
            raise FormatError(
                f"{path}, after line {first_row + 1}: expected the rows of a gene together, found {again} again. Sort "
                "the file by gene."
            )
        seen.update(found.genes.tolist())
        yield found


def _whole_genes(path: Path, block_bytes: int) -> Iterator[tuple[int, Any]]:
    """Yield the number of the first row and the rows of some genes, of which the file has no more after them."""
    first_row, pending = 0, None
    read = pacsv.ReadOptions(block_size=block_bytes)
    try:
        with _open_covariance(path) as (stream, parse, convert):
            for batch in pacsv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert):
                if batch.num_rows == 0:
                    continue
                table = pa.Table.from_batches([batch])
                table = table if pending is None else pa.concat_tables([pending, table])
                gene = table.column("GENE")
                ends = pc.index(pc.equal(gene, gene[table.num_rows - 1]), value=True).as_py()
                if ends:
                    yield first_row, table.slice(0, ends)
                    first_row += ends
                pending = table.slice(ends)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected lines of GENE RSID1 RSID2 VALUE: {error}") from error
    if pending is not None:
        yield first_row, pending


def _gene_covariance(table: Any, path: Path, first_row: int, *, strip_versions: bool) -> GeneCovariance:
    genes, gene = _codes(table.column("GENE"))
    starts = np.flatnonzero(np.r_[True, gene[1:] != gene[:-1]])
    if starts.size > len(genes):
        seen: set[int] = set()
        again = next(int(s) for s in starts if int(gene[s]) in seen or seen.add(int(gene[s])))  # type: ignore[func-returns-value]
        raise FormatError(
            f"{path}, line {first_row + again + 2}: expected the rows of a gene together, found {genes[gene[again]]} "
            "again. Sort the file by gene."
        )
    both = pa.chunked_array([*table.column("RSID1").chunks, *table.column("RSID2").chunks])
    names, snp = _codes(both)
    value = pc.fill_null(table.column("VALUE"), float("nan")).to_numpy()
    kept = _unique_pairs(path, genes, names, gene, snp[: gene.size], snp[gene.size :], value, first_row)
    present = kept[~np.isnan(value[kept])]
    counts = np.bincount(gene[present], minlength=len(genes))
    shown = [_VERSION.sub("", g) for g in genes] if strip_versions else genes
    return GeneCovariance(
        genes=np.array(shown, dtype=np.str_),
        offsets=np.r_[0, np.cumsum(counts)].astype(np.int64),
        names=np.array(names, dtype=np.str_),
        first=snp[: gene.size][present],
        second=snp[gene.size :][present],
        value=value[present],
    )


@contextmanager
def _open_covariance(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Give the text of a covariance file from its start, and how it is parsed and converted."""
    if not path.is_file():
        raise FormatError(f"Covariance: expected a file at {path}, found nothing. Check the path.")
    with path.open("rb") as raw:
        compression = "gzip" if raw.read(2) == b"\x1f\x8b" else None
    with pa.input_stream(str(path), compression=compression) as stream:
        start = stream.read(_HEADER_BYTES)
    header = start.split(b"\n", 1)[0].decode("utf-8", errors="replace").rstrip("\r")
    delimiter = "\t" if "\t" in header else ("," if "," in header else " ")
    if tuple(header.split(delimiter)) != _COVARIANCE:
        raise FormatError(f"{path}: expected the columns GENE RSID1 RSID2 VALUE, found {header[:80]!r}.")
    convert = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in _COVARIANCE[:3]} | {"VALUE": pa.float64()},
        null_values=list(MISSING_TEXT),
        strings_can_be_null=False,
    )
    with pa.input_stream(str(path), compression=compression) as stream:
        yield stream, pacsv.ParseOptions(delimiter=delimiter), convert


def _covariance_table(path: Path) -> Any:
    try:
        with _open_covariance(path) as (stream, parse, convert):
            return pacsv.read_csv(pa.BufferReader(stream.read()), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected lines of GENE RSID1 RSID2 VALUE: {error}") from error


def _codes(column: Any) -> tuple[list[str], Int[np.ndarray, " rows"]]:
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def _unique_pairs(
    path: Path,
    genes: list[str],
    names: list[str],
    gene: Int[np.ndarray, " rows"],
    first: Int[np.ndarray, " rows"],
    second: Int[np.ndarray, " rows"],
    value: Float[np.ndarray, " rows"],
    first_row: int,
) -> Int[np.ndarray, " kept"]:
    """Return the rows without those that give a pair a second time, the other way round."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((high, low, gene))
    same: Shaped[np.ndarray, " rows"] = np.zeros(gene.size, dtype=bool)
    a, b = order[:-1], order[1:]
    same[1:] = (gene[a] == gene[b]) & (low[a] == low[b]) & (high[a] == high[b])
    again = np.flatnonzero(same)
    if not again.size:
        return np.arange(gene.size)
    a, b = order[again - 1], order[again]

    def where(row: int) -> str:
        return f"{genes[gene[row]]} {names[first[row]]} {names[second[row]]}"

    twice = np.flatnonzero(first[a] == first[b])
    if twice.size:
        row = int(max(a[twice[0]], b[twice[0]]))
        raise FormatError(
            f"{path}, line {first_row + row + 2}: {where(row)} is listed a second time; remove one of the lines."
        )
    unequal = np.flatnonzero(~((value[a] == value[b]) | (np.isnan(value[a]) & np.isnan(value[b]))))
    if unequal.size:
        k = int(unequal[0])
        raise FormatError(
            f"{path}, lines {first_row + a[k] + 2} and {first_row + b[k] + 2}: {where(int(a[k]))} has the values "
            f"{value[a[k]]:g} and {value[b[k]]:g}; a pair may have one."
        )
    kept = np.ones(gene.size, dtype=bool)
    kept[np.maximum(a, b)] = False
    return np.flatnonzero(kept)
