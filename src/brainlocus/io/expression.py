"""Measured expression, where genes are, and covariates, in the forms that expression studies share.

Expression is a table of one tissue:

* BED of genes: ``#chr start end gene_id SAMPLE ...`` (GTEx, FastQTL, tensorQTL); start is 0-based;
* genes x samples: the first column is called ``gene_id``, ``gene``, ``Name`` ...; GCT files too;
* samples x genes: with a column ``participant_id`` (or another usual name of ids).

Text may be gzipped. Missing values are ``NA``, empty cells and their like.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped

from brainlocus.core.errors import AlignmentError, FormatError, SchemaError
from brainlocus.core.expression import ExpressionMatrix, GenePlace
from brainlocus.core.phenotypes import PhenotypeTable, quantitative_table
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import canonical_chromosome
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.tables import MISSING_TEXT, read_table

__all__ = ["expression_samples", "read_expression", "read_expression_covariates", "read_gene_places", "read_similarity"]

_GENE_NAMES = ("gene_id", "gene", "geneid", "name", "phenotype_id", "pid", "ensembl_id", "ensembl_gene_id", "targetid")
"""What the column of gene ids is called, in lower case."""
_BESIDE_GENES = ("description", "gene_name", "genename", "symbol", "gid", "strand", "gene_type", "genetype")
"""Columns beside the gene ids that hold no sample, in lower case."""
_PEOPLE_NAMES = ("participant_id", "IID", "#IID", "eid", "subject_id", "sub_id", "sample_id", "sampleid", "ID")
_CHROMOSOME_NAMES = ("#chr", "#chrom", "#chromosome")
_PLACE = {
    "chromosome": ("chromosome", "chr", "chrom", "#chr", "#chrom", "seqname"),
    "start": ("start", "left", "gene_start", "txstart"),
    "stop": ("stop", "end", "right", "gene_end", "txend"),
    "name": ("gene_name", "genename", "symbol", "name"),
    "kind": ("gene_type", "genetype", "gene_biotype", "biotype"),
    "strand": ("strand",),
}
"""What the columns of an annotation of genes are called, in lower case."""
_PLACE_GENES = ("geneid_full", "gene_id", "geneid", "gene", "ensembl_id", "ensembl_gene_id", "id")
_ATTRIBUTE = re.compile(r'(\w+) "?([^";]*)"?')


class _Layout:
    """What the header of an expression file says."""

    def __init__(self, path: Path, names: list[str]) -> None:
        lower = [n.lower() for n in names]
        self.is_bed = lower[0] in _CHROMOSOME_NAMES or lower[:3] in (["chr", "start", "end"], ["chrom", "start", "end"])
        if self.is_bed:
            if len(names) < 5:
                raise FormatError(f"{path}: expected #chr, start, end, gene_id and samples, found {', '.join(names)}.")
            self.gene: str | None = names[3]
            self.text = [names[0], names[3], *(n for n in names[4:6] if n.lower() in _BESIDE_GENES)]
            skipped = {*self.text, names[1], names[2]}
        elif lower[0] in _GENE_NAMES:
            self.gene = names[0]
            self.text = [names[0], *(n for n in names[1:4] if n.lower() in _BESIDE_GENES)]
            skipped = set(self.text)
        else:
            people = next((n for n in _PEOPLE_NAMES if n in names), None)
            if people is None:
                raise SchemaError(
                    f"{path}: expected expression as BED (#chr, start, end, gene_id, samples), as genes x samples "
                    "(first column gene_id, gene or Name) or as samples x genes (a column participant_id), found the "
                    f"columns {', '.join(names[:6])}. Rename the column of the ids."
                )
            self.gene, self.people = None, people
            self.text = [people, *(n for n in ("FID", "#FID") if n in names)]
            skipped = set(self.text)
        self.numbers = [n for n in names if n not in skipped]
        if not self.numbers:
            raise FormatError(f"{path}: expected columns of expression beside {', '.join(names[:5])}, found none.")


def _open_text(path: Path) -> Any:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return pa.input_stream(str(path), compression="gzip" if gzipped else None)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _header(path: Path) -> tuple[list[str], int]:
    """Return the column names and the lines before them."""
    if not path.is_file():
        raise FormatError(f"Expression: expected a file at {path}, found nothing. Check the path.")
    try:
        if _is_parquet(path):
            return list(pq.read_schema(path).names), 0
        with _open_text(path) as stream:
            start = b""
            while (part := stream.read(1 << 16)) and start.count(b"\n") < 3:
                start += part
            start += part
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a table of expression: {error}") from error
    lines = start.decode("utf-8-sig", errors="replace").split("\n")
    skipped = 2 if lines[0].startswith("#1.") else 0
    names = [n.strip().strip('"') for n in lines[min(skipped, len(lines) - 1)].rstrip("\r").split(_delimiter(path))]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SchemaError(f"{path}: column names must be unique, found twice: {', '.join(twice[:3])}.")
    return names, skipped


def _delimiter(path: Path) -> str:
    return "," if ".csv" in [s.lower() for s in path.suffixes[-2:]] else "\t"


def expression_samples(path: Path) -> SampleIndex:
    """Return the samples of an expression file without reading its numbers where the header has them.

    Raises
    ------
    FormatError, SchemaError
        As `read_expression`.
    """
    names, _ = _header(path)
    layout = _Layout(path, names)
    return SampleIndex.of(layout.numbers) if layout.gene is not None else read_expression(path).samples


def read_expression(path: Path) -> ExpressionMatrix:
    """Return the expression of one tissue.

    Raises
    ------
    FormatError
        Not a readable table, or a cell is no number.
    SchemaError
        No column of gene or sample ids; a gene or a sample twice.
    """
    names, skipped = _header(path)
    layout = _Layout(path, names)
    table = _read(path, layout, names, skipped)
    values = np.empty((len(layout.numbers), table.num_rows))
    for row, name in enumerate(layout.numbers):
        values[row] = _numbers(table.column(name), name, path)
    try:
        if layout.gene is None:
            samples = SampleIndex.of(_texts(table.column(layout.people)))
            return ExpressionMatrix(np.array(layout.numbers, dtype=np.str_), samples, values, ())
        genes = np.array(_texts(table.column(layout.gene)), dtype=np.str_)
        places = _bed_places(table, names, genes) if layout.is_bed else ()
        return ExpressionMatrix(genes, SampleIndex.of(layout.numbers), np.ascontiguousarray(values.T), places)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def _read(path: Path, layout: _Layout, names: list[str], skipped: int) -> pa.Table:
    if _is_parquet(path):
        return read_arrow(path)
    texts = set(layout.text)
    kinds = {n: pa.string() if n in texts else pa.float64() for n in names}
    try:
        with _open_text(path) as stream:
            return pacsv.read_csv(
                stream,
                read_options=pacsv.ReadOptions(column_names=names, skip_rows=skipped + 1),
                parse_options=pacsv.ParseOptions(delimiter=_delimiter(path)),
                convert_options=pacsv.ConvertOptions(
                    column_types=kinds, null_values=list(MISSING_TEXT), strings_can_be_null=False
                ),
            )
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a table of expression with a number in every cell: {error}") from error


def _texts(column: Any) -> list[str]:
    return ["" if v is None else str(v).strip() for v in column.cast(pa.string()).to_pylist()]


def _numbers(column: Any, name: str, path: Path) -> Float[np.ndarray, " rows"]:
    try:
        found = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    except (pa.ArrowException, ValueError) as error:
        raise FormatError(f"{path}: column {name!r} holds no numbers: {error}") from error
    if np.isinf(found).any():
        row = int(np.flatnonzero(np.isinf(found))[0])
        raise FormatError(f"{path}: column {name!r} has an infinite value in row {row + 1}; expected finite numbers.")
    return np.asarray(found, dtype=np.float64)


def _cells(column: Any, name: str, path: Path) -> Float[np.ndarray, " rows"]:
    """Return a column of text or numbers as numbers, NaN where it is missing."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(text, value_set=pa.array(MISSING_TEXT)), pa.scalar(None, text.type), text)
    return _numbers(column, name, path)


def _bed_places(table: pa.Table, names: list[str], genes: Shaped[np.ndarray, " genes"]) -> tuple[GenePlace, ...]:
    chromosomes = _texts(table.column(names[0]))
    starts, stops = (_numbers(table.column(n), n, Path("BED")).astype(np.int64) for n in names[1:3])
    return tuple(
        GenePlace(gene, "", "", canonical_chromosome(chromosome), start + 1, max(stop, start + 1), "")
        for gene, chromosome, start, stop in zip(
            genes.tolist(), chromosomes, starts.tolist(), stops.tolist(), strict=True
        )
    )


def read_gene_places(path: Path) -> list[GenePlace]:
    """Return where genes are: a table with gene, chromosome, start and stop by their usual names, or a GTF.

    Further columns are the symbol, the biotype and the strand. A table with both ``geneid_full`` and ``geneid`` gives
    the first. Positions are 1-based and both ends belong to the gene.

    Raises
    ------
    FormatError
        Not a readable table, a position is no whole number, or an end comes before its start.
    SchemaError
        A column is missing.
    """
    if ".gtf" in [s.lower() for s in path.suffixes[-2:]]:
        return _read_gtf(path)
    table = read_arrow(path)
    lower = {name.lower(): name for name in table.column_names}
    gene = next((lower[n] for n in _PLACE_GENES if n in lower), None)
    columns = {ours: next((lower[n] for n in theirs if n in lower), None) for ours, theirs in _PLACE.items()}
    absent = [n for n in ("chromosome", "start", "stop") if columns[n] is None] + ([] if gene else ["gene"])
    if absent:
        raise SchemaError(
            f"{path}: expected columns gene, chromosome, start and stop (or geneid, chr, left, right), found "
            f"{', '.join(table.column_names[:9])}; there is no {absent[0]}."
        )
    texts = {ours: _texts(table.column(name)) if name else [""] * table.num_rows for ours, name in columns.items()}
    start, stop = (_positions(texts[n], n, path) for n in ("start", "stop"))
    backwards = np.flatnonzero(stop < start)
    if backwards.size:
        row = int(backwards[0])
        raise FormatError(f"{path}, line {row + 2}: expected an end not before the start, found {stop[row]}.")
    return [
        GenePlace(g, name, kind, canonical_chromosome(chromosome), first, last, strand)
        for g, name, kind, chromosome, first, last, strand in zip(
            _texts(table.column(gene)), texts["name"], texts["kind"], texts["chromosome"], start.tolist(),
            stop.tolist(), texts["strand"], strict=True,
        )
    ]  # fmt: skip


def _positions(texts: list[str], name: str, path: Path) -> Shaped[np.ndarray, " rows"]:
    for row, text in enumerate(texts):
        if not text.isdigit():
            raise FormatError(f"{path}, line {row + 2}: expected a position in column {name}, found {text!r}.")
    return np.array([int(t) for t in texts], dtype=np.int64)


def _read_gtf(path: Path) -> list[GenePlace]:
    if not path.is_file():
        raise FormatError(f"Genes: expected a file at {path}, found nothing. Check the path.")
    found = []
    try:
        with _open_text(path) as stream:
            lines = stream.read().decode("utf-8").split("\n")
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: expected a GTF file, found {error}.") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if line.startswith("#") or len(fields) < 3 or fields[2] != "gene":
            continue
        if len(fields) < 9 or not (fields[3].isdigit() and fields[4].isdigit()):
            raise FormatError(f"{path}, line {number}: expected nine columns with start and end, found {line[:60]!r}.")
        about = dict(_ATTRIBUTE.findall(fields[8]))
        kind = about.get("gene_type") or about.get("gene_biotype") or ""
        start, stop = int(fields[3]), int(fields[4])
        gene, name = about.get("gene_id", ""), about.get("gene_name", "")
        found.append(GenePlace(gene, name, kind, canonical_chromosome(fields[0]), start, stop, fields[6]))
    if not found:
        raise FormatError(f"{path}: expected lines of the feature gene, found none.")
    return found


def read_expression_covariates(path: Path, people: SampleIndex) -> PhenotypeTable:
    """Return covariates of people, from samples x covariates or covariates x samples (as GTEx writes them).

    Which of the two a file is shows in where `people` are named: in a column of ids, or in the header.

    Raises
    ------
    AlignmentError
        People are named in neither, or in both.
    FormatError, SchemaError
        As `brainlocus.io.read_table`.
    """
    names = read_arrow(path).column_names
    known = set(people.ids.tolist())
    across = [n for n in names[1:] if n in known]
    down, problem = None, None
    try:
        down = read_table(path)
    except (FormatError, SchemaError) as error:
        problem = error
    shared = 0 if down is None else sum(i in known for i in down.samples.ids.tolist())
    if across and not shared:
        return _turned(path, names)
    if shared and not across and down is not None:
        return down
    if problem is not None and not across:
        raise problem
    found = "in both" if across else "in neither"
    raise AlignmentError(
        f"{path}: expected people of the expression ({', '.join(people.ids[:3].tolist())}, ...) in the column of ids "
        f"or in the header, found them {found}. The header begins {', '.join(names[:4])}."
    )


def _turned(path: Path, names: list[str]) -> PhenotypeTable:
    table = read_arrow(path)
    rows = _texts(table.column(names[0]))
    values = np.empty((len(names) - 1, len(rows)))
    for k, name in enumerate(names[1:]):
        values[k] = _cells(table.column(name), name, path)
    try:
        return quantitative_table(SampleIndex.of(names[1:]), rows, values)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def read_similarity(path: Path) -> tuple[list[str], Float[np.ndarray, "names names"]]:
    """Return the names and values of a square table: names in the first column and, in the same order, the header.

    Raises
    ------
    FormatError
        Not a readable table, or a cell is no number (empty cells are NaN).
    SchemaError
        Rows and columns have different names, or a name occurs twice.
    """
    table = read_arrow(path)
    across = list(table.column_names[1:])
    down = _texts(table.column(table.column_names[0]))
    if sorted(across) != sorted(down) or len(set(down)) < len(down):
        lacking = next((n for n in [*across, *down] if (n in across) != (n in down) or down.count(n) > 1), "")
        raise SchemaError(
            f"{path}: expected a square table with the same names in its first column and its header, found "
            f"{len(down)} rows and {len(across)} columns that differ, such as {lacking!r}."
        )
    values = np.column_stack([_cells(table.column(name), name, path) for name in across])
    return across, np.ascontiguousarray(values[[down.index(n) for n in across]])
