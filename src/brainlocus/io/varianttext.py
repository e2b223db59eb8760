"""PLINK's lists of variants (.bim, .pvar[.zst]), read piece by piece.

Pieces of a few megabytes go through Arrow's reader of delimited text, so that millions of variants take the bytes of
their table and not those of as many Python objects. What Arrow refuses is read again line by line, which finds the
line to blame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from jaxtyping import Int, Shaped

from brainlocus.core.errors import FormatError
from brainlocus.core.text import STRING
from brainlocus.core.variants import VariantTable, canonical_chromosome
from brainlocus.io.plinktext import explained, open_text

__all__ = ["read_bim", "read_pvar"]

_BIM = ("chromosome", "id", "cm", "position", "a1", "a2")
_PVAR = ("CHROM", "POS", "ID", "REF", "ALT")
_PIECE_BYTES = 4 << 20
_PIECE_ROWS = 50_000


def read_bim(path: Path, *, genome_build: str) -> VariantTable:
    """Return the variants of a .bim file; the effect allele is A1, the fifth column.

    Raises
    ------
    FormatError
        A line does not have six fields, or its position is not a whole number (with the line).
    """
    with explained(path):
        found = _read_plain(path, _BIM, _BIM, skip=0)
        if found is None:
            found = _read_lines(path, _split_lines(path), _BIM, "chromosome, id, cM, position, A1, A2")
    return found.table(("chromosome", "position", "a1", "a2", "id"), genome_build)


def read_pvar(path: Path, *, genome_build: str) -> VariantTable:
    """Return the variants of a .pvar or .pvar.zst file; the effect allele is ALT.

    Raises
    ------
    FormatError
        No header, a column missing, a line that does not fit, or a variant with several ALT alleles.
    """
    with explained(path):
        header, skip = _pvar_header(path)
        absent = [name for name in _PVAR if name not in header]
        if absent:
            raise FormatError(f"{path}: the header lacks {absent}; expected '#CHROM POS ID REF ALT'.")
        found = _read_plain(path, header, _PVAR, skip=skip)
        if found is None:
            found = _read_lines(path, _split_lines(path), header, " ".join(header), skip=skip)
    return found.table(("CHROM", "POS", "ALT", "REF", "ID"), genome_build)


@dataclass(slots=True)
class _Pieces:
    """Columns collected piece by piece."""

    path: Path
    pieces: dict[str, list[Shaped[np.ndarray, " _rows"]]] = field(default_factory=dict)

    def add(self, name: str, values: Shaped[np.ndarray, " rows"]) -> None:
        """Append a piece of a column."""
        self.pieces.setdefault(name, []).append(values)

    def table(self, names: Sequence[str], genome_build: str) -> VariantTable:
        """Return the columns named for chromosome, position, effect allele, other allele and id."""
        chromosome, position, effect, other, variant = (self.pieces.pop(name, []) for name in names)
        return VariantTable(
            np.concatenate([np.empty(0, dtype="U1"), *chromosome]),
            np.concatenate([np.empty(0, dtype=np.int64), *position]),
            np.concatenate([np.empty(0, dtype=STRING), *effect]),
            np.concatenate([np.empty(0, dtype=STRING), *other]),
            np.concatenate([np.empty(0, dtype=STRING), *variant]),
            genome_build,
        )


def _read_plain(path: Path, names: Sequence[str], wanted: Sequence[str], *, skip: int) -> _Pieces | None:
    """Return a well-formed tab-separated file; None when it is anything else."""
    with open_text(path) as stream:
        for _ in range(skip):
            stream.readline()
        first = stream.readline()
    if not first:
        return _Pieces(path)
    if "\t" not in first:
        return None
    found = _Pieces(path)
    compression = "zstd" if path.suffix == ".zst" else None
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(
                    column_names=list(names), skip_rows=skip, block_size=_PIECE_BYTES, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=list(wanted),
                    strings_can_be_null=False,
                ),
            )
            line = skip + 1
            for batch in reader:
                _add_batch(found, batch, line)
                line += batch.num_rows
    except pa.ArrowInvalid:
        return None
    return found


def _add_batch(found: _Pieces, batch: pa.RecordBatch, line: int) -> None:
    for name in batch.schema.names:
        column = batch.column(name)
        if name in ("position", "POS"):
            positions = column.cast(pa.int64())  # ArrowInvalid leads to the lines, which name the first that is none
            values = np.frombuffer(positions.buffers()[1], dtype=np.int64)
            found.add(name, np.maximum(values[positions.offset : positions.offset + len(positions)], 0))
            continue
        texts = column.to_pylist()
        if name == "ALT":
            several = pc.match_substring(column, ",").to_pylist()
            if True in several:
                row = several.index(True)
                _refuse_several(found.path, line + row, batch.column("ID")[row].as_py(), texts[row])
        found.add(name, _column(name, texts))


def _column(name: str, values: list[str]) -> Shaped[np.ndarray, " rows"]:
    if name in ("chromosome", "CHROM"):
        plain = {c: canonical_chromosome(c) for c in set(values)}
        return np.array([plain[c] for c in values], dtype=np.str_)
    return np.array(values, dtype=STRING)


def _split_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and fields: separated by tabs where there are any, else by blanks."""
    with open_text(path) as stream:
        for number, text in enumerate(stream, start=1):
            fields = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
            if fields and not text.startswith("##"):
                yield number, [f.strip() for f in fields]


def _read_lines(
    path: Path, rows: Iterator[tuple[int, list[str]]], names: Sequence[str], what: str, *, skip: int = 0
) -> _Pieces:
    """Return a file read line by line, or say which line is wrong."""
    found = _Pieces(path)
    lines: list[int] = []
    piece: list[list[str]] = []
    for number, fields in rows:
        if number <= skip:
            continue
        if len(fields) != len(names):
            raise FormatError(f"{path}, line {number}: expected {len(names)} fields ({what}), found {len(fields)}.")
        lines.append(number)
        piece.append(fields)
        if len(piece) == _PIECE_ROWS:
            _add_lines(found, names, lines, piece)
            lines, piece = [], []
    _add_lines(found, names, lines, piece)
    return found


def _add_lines(found: _Pieces, names: Sequence[str], lines: list[int], rows: list[list[str]]) -> None:
    for k, name in enumerate(names):
        values = [fields[k] for fields in rows]
        if name in ("position", "POS"):
            found.add(name, _positions(found.path, lines, values))
        elif name in (*_BIM, *_PVAR) and name != "cm":
            found.add(name, _column(name, values))
        if name == "ALT":
            for line, fields, allele in zip(lines, rows, values, strict=True):
                if "," in allele:
                    _refuse_several(found.path, line, fields[list(names).index("ID")], allele)


def _positions(path: Path, lines: list[int], position: list[str]) -> Int[np.ndarray, " variants"]:
    """Return positions; PLINK writes unknown ones as 0 or below, which become 0."""
    for line, text in zip(lines, position, strict=True):
        if not text.removeprefix("-").isdigit():
            raise FormatError(f"{path}, line {line}: expected a position (a whole number), found {text!r}.")
    return np.maximum(np.array(position, dtype=np.int64), 0)


def _refuse_several(path: Path, line: int, name: str, alleles: str) -> None:
    raise FormatError(
        f"{path}, line {line}: variant {name!r} has several ALT alleles "
        f"({alleles}), one was expected. Split it first: plink2 --make-pgen multiallelics=-."
    )


def _pvar_header(path: Path) -> tuple[list[str], int]:
    """Return the names of the columns and the number of lines up to and with the header."""
    with open_text(path) as stream:
        for number, text in enumerate(stream, start=1):
            if text.startswith("##"):
                continue
            if not text.startswith("#CHROM"):
                raise FormatError(
                    f"{path}, line {number}: expected the header '#CHROM POS ID REF ALT', found {text!r}."
                )
            fields = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
            return ["CHROM", *fields[1:]], number
    return [], 0
