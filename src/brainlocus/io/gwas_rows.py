"""GWAS summary statistics of any program: the rows of wanted SNPs, in one pass over the file.

Text of any size is read in blocks; names of SNPs are looked up in the wanted ones first, and only the rows that are
found have their numbers parsed. gzip, bgzip and zstd are told by their first bytes.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import FormatError
from brainlocus.core.variants import canonical_chromosome
from brainlocus.io.arrow_tables import parquet_batches
from brainlocus.io.gwas_columns import GwasColumns
from brainlocus.io.tables import MISSING_TEXT

__all__ = ["GwasReader", "GwasRows", "gwas_header", "position_key"]

_BLOCK = 1 << 24
_NULLS = [*MISSING_TEXT, "#NA"]
_NUMBERS = ("z", "beta", "odds_ratio", "standard_error", "p", "neg_log10_p", "frequency", "sign")
_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class GwasRows:
    """Rows whose SNP is wanted, in the order of the file; numbers are NaN where missing."""

    snp: Int[np.ndarray, " rows"]
    """Place among the wanted names."""
    alleles: Shaped[np.ndarray, " alleles"]
    """Every allele that occurs, in upper case, once."""
    effect_allele: Int[np.ndarray, " rows"]
    """Place in `alleles`."""
    other_allele: Int[np.ndarray, " rows"]
    z: Float[np.ndarray, " rows"] | None
    beta: Float[np.ndarray, " rows"] | None
    """Or the logarithm of the odds ratio; NaN where that is not positive."""
    standard_error: Float[np.ndarray, " rows"] | None
    neg_log10_p: Float[np.ndarray, " rows"] | None
    """Of ``p`` as text, so that 3e-412 is 411.5; infinite for p = 0, NaN outside [0, 1]."""
    sign: Float[np.ndarray, " rows"] | None
    frequency: Float[np.ndarray, " rows"] | None
    n_read: int
    """Rows of the file."""
    n_without_id: int
    examples: tuple[str, ...]
    """First names in the file, for messages."""


def position_key(chromosome: str, position: int | str) -> str:
    """Return the name of a place, for files without ids.

    Examples
    --------
    >>> position_key("chr07", 1000)
    '7:1000'
    """
    return f"{canonical_chromosome(str(chromosome))}:{position}"


def _open(path: Path) -> Any:
    """Return a stream of decompressed bytes."""
    if not path.is_file():
        raise FormatError(f"GWAS: expected a file at {path}, found nothing. Check the path.")
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic[:2] == b"\x1f\x8b":
        return pa.input_stream(str(path), compression="gzip")
    if magic == b"\x28\xb5\x2f\xfd":
        return pa.input_stream(str(path), compression="zstd")
    return pa.input_stream(str(path), compression=None)


def _first_line(path: Path) -> str:
    """Return the header; comment lines (``##``) before it are not one."""
    try:
        with _open(path) as stream:
            start = stream.read(1 << 16)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected text, plain or compressed (gzip, zstd): {error}") from error
    for line in start.split(b"\n"):
        if not line.startswith(b"##"):
            return str(line.decode("utf-8-sig", errors="replace").rstrip("\r"))
    return ""


def _delimiter(line: str) -> str:
    """Return a tab, a comma or a space; two spaces where columns are padded."""
    if "\t" in line:
        return "\t"
    if "," in line:
        return ","
    return "  " if re.search(r"^ | {2,}", line) else " "


def gwas_header(path: Path) -> list[str]:
    """Return the column names of a file.

    Raises
    ------
    FormatError
        No such file, not text, or empty.
    """
    if path.suffix.lower() == ".parquet":
        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{path}: expected a Parquet table: {error}") from error
    line = _first_line(path)
    if not line.strip():
        raise FormatError(f"{path}: expected a header line, found an empty file.")
    if "\ufffd" in line or "\x00" in line:
        raise FormatError(f"{path}: expected text, plain or compressed (gzip, zstd), found other bytes.")
    delimiter = _delimiter(line)
    return line.split() if delimiter == "  " else [n.strip().strip('"') for n in line.split(delimiter)]


class _Squeezed(io.RawIOBase):
    """Text whose runs of spaces and tabs become one space: padded columns of PLINK 1 and METAL."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size if size and size > 0 else None)
        if not block and not self._left:
            return b""
        whole = self._left + bytes(block)
        cut = whole.rfind(b"\n") + 1 if block else len(whole)
        self._left = whole[cut:]
        if not cut:
            return self.read(size)
        return re.sub(rb"(?m)^ +| +$", b"", re.sub(rb"[ \t]+", b" ", whole[:cut]))


@dataclass(slots=True)
class _Found:
    """What the blocks gave so far."""

    snp: list[Int[np.ndarray, " rows"]] = field(default_factory=list)
    effect: list[Int[np.ndarray, " rows"]] = field(default_factory=list)
    other: list[Int[np.ndarray, " rows"]] = field(default_factory=list)
    numbers: dict[str, list[Any]] = field(default_factory=dict)
    n_read: int = 0
    n_without_id: int = 0
    examples: tuple[str, ...] = ()


class GwasReader:
    """Reads the rows of wanted SNPs from one file after another.

    Where a block of a file has the names and alleles of the same block of the file before it, as in BIG40, where the
    rows are is known already.

    Parameters
    ----------
    names
        Wanted names, each once: ids of SNPs, or places (`position_key`) for files without ids.
    by_position
        The names are places.
    decimal_comma
        Numbers are written 0,05.
    """

    def __init__(
        self, names: Shaped[np.ndarray, " names"], *, by_position: bool = False, decimal_comma: bool = False
    ) -> None:
        self._wanted = pa.array(names.tolist(), pa.string())
        self._by_position = by_position
        self._decimal_comma = decimal_comma
        self._alleles: dict[str, int] = {}
        self._known: dict[int, tuple[bytes, tuple[Any, ...]]] = {}

    def read(self, path: Path, columns: GwasColumns) -> GwasRows:
        """Return the wanted rows of a file.

        Raises
        ------
        FormatError
            Not a readable table, or a cell that is no number.
        """
        found = _Found()
        try:
            for number, batch in enumerate(self._batches(path, columns)):
                self._take(batch, columns, found, number, path)
        except pa.ArrowInvalid as error:
            raise FormatError(f"{path}: expected the same columns in every row: {error}") from error
        except (pa.ArrowException, OSError, EOFError) as error:
            raise FormatError(f"{path}: expected a whole table, found one that cannot be read: {error}") from error
        if not found.n_read:
            raise FormatError(f"{path}: expected rows below the header, found none. Is the file whole?")
        return self._rows(found)

    def first_names(self, path: Path, columns: GwasColumns) -> tuple[str, ...]:
        """Return the first names of SNPs in a file.

        Raises
        ------
        FormatError
            Not a readable table.
        """
        try:
            batch = next(iter(self._batches(path, columns)), None)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise FormatError(f"{path}: expected a whole table, found one that cannot be read: {error}") from error
        names = [] if batch is None else self._names(batch, columns).slice(0, _SHOWN).to_pylist()
        return tuple(str(n) for n in names if n is not None)

    def _batches(self, path: Path, columns: GwasColumns) -> Iterator[Any]:
        wanted = list(dict.fromkeys(columns.used().values()))
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in parquet_batches(file, 1 << 18, wanted):
                    yield pa.record_batch(
                        [c if _numeric(c.type) else c.cast(pa.string()) for c in batch.columns], batch.schema.names
                    )
            return
        line = _first_line(path)
        delimiter = _delimiter(line)
        with _open(path) as raw:
            stream = pa.PythonFile(_Squeezed(raw), mode="r") if delimiter == "  " else raw
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=_BLOCK, skip_rows=_comments(path)),
                parse_options=pacsv.ParseOptions(delimiter=delimiter[0]),
                convert_options=pacsv.ConvertOptions(
                    include_columns=wanted,
                    column_types={name: pa.string() for name in wanted},
                    null_values=_NULLS,
                    strings_can_be_null=True,
                ),
            )
            yield from reader

    def _take(self, batch: Any, columns: GwasColumns, found: _Found, number: int, path: Path) -> None:
        names = self._names(batch, columns)
        texts = [
            names,
            *(batch.column(n) for n in (columns.effect_allele, columns.other_allele, columns.alternate) if n),
        ]
        digest = _digest(texts)
        known = self._known.get(number)
        if known is not None and known[0] == digest:
            rows, snp, effect, other = known[1]
        else:
            rows, snp, effect, other = self._match(names, batch, columns)
            self._known[number] = (digest, (rows, snp, effect, other))
        found.n_read += batch.num_rows
        found.n_without_id += names.null_count
        if not found.examples and batch.num_rows:
            found.examples = tuple(str(v) for v in names.slice(0, _SHOWN).to_pylist())
        found.snp.append(snp)
        found.effect.append(effect)
        found.other.append(other)
        for key in _NUMBERS:
            column = getattr(columns, key)
            if column:
                cells = batch.column(column).take(rows)
                found.numbers.setdefault(key, []).append(self._parse(cells, key, column, path))

    def _names(self, batch: Any, columns: GwasColumns) -> Any:
        if not self._by_position:
            return batch.column(columns.snp)
        chromosome = batch.column(columns.chromosome).cast(pa.string()).dictionary_encode()
        plain = [None if c is None else canonical_chromosome(c) for c in chromosome.dictionary.to_pylist()]
        prefix = pa.array(plain, pa.string()).take(chromosome.indices)
        return pc.binary_join_element_wise(prefix, batch.column(columns.position).cast(pa.string()), ":")

    def _match(self, names: Any, batch: Any, columns: GwasColumns) -> tuple[Any, ...]:
        place = pc.index_in(names, value_set=self._wanted)
        usable = place.is_valid()
        if columns.test:
            usable = pc.and_(usable, pc.fill_null(pc.equal(batch.column(columns.test).cast(pa.string()), "ADD"), False))
        rows = pc.indices_nonzero(usable)
        snp = place.take(rows).to_numpy(zero_copy_only=False).astype(np.int32)
        effect = self._allele_codes(batch.column(columns.effect_allele).take(rows))
        other = self._allele_codes(batch.column(columns.other_allele).take(rows))
        if columns.alternate:
            alternate = self._allele_codes(batch.column(columns.alternate).take(rows))
            other = np.where(effect == other, alternate, other)
        return rows, snp, effect, other

    def _allele_codes(self, column: Any) -> Int[np.ndarray, " rows"]:
        coded = pc.fill_null(column, "").dictionary_encode()
        table = np.array(
            [
                self._alleles.setdefault(text.strip().upper(), len(self._alleles))
                for text in coded.dictionary.to_pylist()
            ],
            dtype=np.int32,
        )
        codes = coded.indices.to_numpy(zero_copy_only=False)
        return table[codes] if codes.size else np.zeros(0, dtype=np.int32)

    def _parse(self, cells: Any, key: str, column: str, path: Path) -> Float[np.ndarray, " rows"]:
        if _numeric(cells.type):
            numbers = pc.fill_null(cells.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
            text = None
        else:
            if self._decimal_comma:
                cells = pc.replace_substring(cells, ",", ".")
            text = cells
            if key == "sign":
                return _signs(cells)
            try:
                numbers = pc.fill_null(cells.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                numbers = _odd_numbers(cells, column, path)
        values = np.asarray(numbers, dtype=np.float64)
        return _from_p(values, text) if key == "p" else values

    def _rows(self, found: _Found) -> GwasRows:
        def joined(parts: list[Any]) -> Any:
            return np.concatenate(parts) if parts else np.zeros(0)

        numbers: dict[str, Any] = {key: joined(parts) for key, parts in found.numbers.items()}
        beta = numbers.get("beta")
        if beta is None and "odds_ratio" in numbers:
            ratio = numbers["odds_ratio"]
            beta = np.log(np.where(ratio > 0, ratio, np.nan))
        strength = numbers.get("p")
        if "neg_log10_p" in numbers:
            strength = np.where(numbers["neg_log10_p"] >= 0, numbers["neg_log10_p"], np.nan)
        return GwasRows(
            snp=joined(found.snp).astype(np.int32),
            alleles=np.array(list(self._alleles), dtype=np.dtypes.StringDType()),
            effect_allele=joined(found.effect).astype(np.int32),
            other_allele=joined(found.other).astype(np.int32),
            z=numbers.get("z"),
            beta=beta,
            standard_error=numbers.get("standard_error"),
            neg_log10_p=strength,
            sign=numbers.get("sign"),
            frequency=numbers.get("frequency"),
            n_read=found.n_read,
            n_without_id=found.n_without_id,
            examples=found.examples,
        )


def _comments(path: Path) -> int:
    """Return how many ``##`` lines come before the header."""
    with _open(path) as stream:
        start = stream.read(1 << 16)
    n = 0
    for line in start.split(b"\n"):
        if not line.startswith(b"##"):
            break
        n += 1
    return n


def _numeric(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _digest(columns: list[Any]) -> bytes:
    """Return what tells one block of texts from another, from their bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        for buffer in column.buffers():
            digest.update(b"-" if buffer is None else buffer)
        digest.update(f"|{column.offset}|{len(column)}|{column.type}|".encode())
    return digest.digest()


def _signs(cells: Any) -> Float[np.ndarray, " rows"]:
    """Return -1 or 1 from ``-``, ``+`` or numbers; NaN for anything else."""
    found = np.full(len(cells), np.nan)
    for k, text in enumerate(cells.to_pylist()):
        if text is None:
            continue
        first = text.strip()
        if first in {"+", "-"}:
            found[k] = 1.0 if first == "+" else -1.0
        else:
            try:
                found[k] = np.sign(float(first))
            except ValueError:
                continue
    return found


def _odd_numbers(cells: Any, column: str, path: Path) -> Float[np.ndarray, " rows"]:
    """Parse cell by cell what Arrow would not, or say which cell is no number."""
    values = np.full(len(cells), np.nan)
    for k, text in enumerate(cells.to_pylist()):
        if text is None:
            continue
        try:
            values[k] = float(text)
        except ValueError:
            comma = " Numbers with decimal commas need --decimal-comma." if re.fullmatch(r"-?\d+,\d+", text) else ""
            raise FormatError(f"{path}: expected numbers in column {column!r}, found {text!r}.{comma}") from None
    return values


def _from_p(p: Float[np.ndarray, " rows"], text: Any) -> Float[np.ndarray, " rows"]:
    """Return -log10 of p; from its digits where a double cannot hold it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.where((p >= 0) & (p <= 1), -np.log10(p), np.nan)
    tiny = np.flatnonzero((p >= 0) & (p < 1e-290))
    if tiny.size and text is not None:
        for row, cell in zip(tiny.tolist(), text.take(pa.array(tiny)).to_pylist(), strict=True):
            digits, _, exponent = str(cell).lower().partition("e")
            mantissa = float(digits)
            strength[row] = np.inf if mantissa == 0.0 else -float(np.log10(mantissa)) - float(exponent or 0)
    return strength
