"""Where the variants of a BGEN file are: its header, the headers of its variants, and the ``.bgi`` index.

The index is the SQLite file of bgenix: a table ``Variant`` with place, name, alleles, byte and length of every
variant, and a table ``Metadata`` with the size and the first 1,000 bytes of the file it belongs to.

References
----------
BGEN format specification 1.1 to 1.3; Band & Marchini (2018), bioRxiv 308296 (10.1101/308296).
"""

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from brainlocus.core.errors import FormatError

__all__ = [
    "BgenHeader",
    "VariantEntry",
    "index_of",
    "read_entry",
    "read_header",
    "read_index",
    "scan_variants",
    "write_index",
]

_MAGIC = (b"bgen", b"\0\0\0\0")


@dataclass(frozen=True, slots=True)
class BgenHeader:
    """The header block of a BGEN file."""

    n_variants: int
    n_samples: int
    layout: int
    """1 (BGEN 1.1) or 2 (1.2 and 1.3)."""
    compression: int
    """0 none, 1 zlib, 2 zstd."""
    sample_ids: list[str] | None
    """None when the file has none."""
    first_variant: int
    """Byte at which the variants begin."""


@dataclass(frozen=True, slots=True)
class VariantEntry:
    """What the file says about one variant before its genotypes, and where it lies."""

    chromosome: str
    position: int
    name: str
    """The rsid."""
    alleles: tuple[str, ...]
    start: int
    """Byte at which the variant begins."""
    size: int
    """Bytes until the next one."""


def index_of(path: Path) -> Path:
    """Return the index of a BGEN file: ``file.bgen.bgi``."""
    return path.with_name(path.name + ".bgi")


def read_header(path: Path) -> BgenHeader:
    """Return the header of a BGEN file.

    Raises
    ------
    FormatError
        The magic bytes are wrong, the layout or compression is unknown, or the file ends early.
    """
    with path.open("rb") as stream:
        offset, length = struct.unpack("<II", _exactly(stream, 8, path, "the header"))
        n_variants, n_samples, magic = struct.unpack("<II4s", _exactly(stream, 12, path, "the header"))
        if magic not in _MAGIC:
            raise FormatError(f"{path}: expected the magic bytes 'bgen' at byte 17, found {magic.hex(' ')}.")
        if not 20 <= length <= offset:
            raise FormatError(
                f"{path}: expected a header of 20 to {offset} bytes, found {length}. The file is damaged."
            )
        stream.seek(length - 20, 1)
        flags = struct.unpack("<I", _exactly(stream, 4, path, "the header"))[0]
        compression, layout = flags & 3, flags >> 2 & 15
        if layout not in (1, 2) or compression > layout:
            raise FormatError(
                f"{path}: expected BGEN layout 1 (with zlib or none) or 2 (zlib, zstd or none), found layout {layout} "
                f"with compression {compression}."
            )
        ids = _sample_ids(stream, n_samples, path) if flags >> 31 else None
    return BgenHeader(n_variants, n_samples, layout, compression, ids, offset + 4)


def _sample_ids(stream: IO[bytes], n_samples: int, path: Path) -> list[str]:
    _, count = struct.unpack("<II", _exactly(stream, 8, path, "the sample ids"))
    if count != n_samples:
        raise FormatError(f"{path}: expected the ids of {n_samples} people, found {count}. The file is damaged.")
    return [_text(stream, "<H", path, "the sample ids") for _ in range(count)]


def _exactly(stream: IO[bytes], size: int, path: Path, where: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise FormatError(f"{path}: expected {size} more bytes in {where}, found {len(data)}. The file is truncated.")
    return data


def _text(stream: IO[bytes], kind: str, path: Path, where: str) -> str:
    size = struct.unpack(kind, _exactly(stream, struct.calcsize(kind), path, where))[0]
    try:
        return _exactly(stream, size, path, where).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected text in {where}, found other bytes. The file is damaged.") from error


def scan_variants(path: Path, header: BgenHeader) -> Iterator[VariantEntry]:
    """Yield all variants by reading what precedes their genotypes, which are skipped.

    Raises
    ------
    FormatError
        The file ends before the last variant, or goes on after it (expected and found are given).
    """
    size = path.stat().st_size
    with path.open("rb", buffering=4096) as stream:
        at = header.first_variant
        stream.seek(at)
        for number in range(header.n_variants):
            where = f"variant {number + 1} of {header.n_variants} (byte {at + 1})"
            entry = read_entry(stream, header, at, path, where)
            at += entry.size
            if at > size:
                raise FormatError(f"{path}: expected {at} bytes up to the end of {where}, found {size}: truncated.")
            stream.seek(at)
            yield entry
    if at != size:
        raise FormatError(f"{path}: expected {at} bytes for {header.n_variants} variants, found {size}: too long.")


def read_entry(stream: IO[bytes], header: BgenHeader, at: int, path: Path, where: str) -> VariantEntry:
    """Return what stands before the genotypes of the variant at byte `at`; the stream is then at their length.

    Raises
    ------
    FormatError
        The file ends within it, or its number of people is another than that of the header.
    """
    if header.layout == 1:
        n_samples = struct.unpack("<I", _exactly(stream, 4, path, where))[0]
        if n_samples != header.n_samples:
            raise FormatError(f"{path}: expected {header.n_samples} people in {where}, found {n_samples}.")
    _text(stream, "<H", path, where)
    name, chromosome = _text(stream, "<H", path, where), _text(stream, "<H", path, where)
    position = struct.unpack("<I", _exactly(stream, 4, path, where))[0]
    n_alleles = 2 if header.layout == 1 else struct.unpack("<H", _exactly(stream, 2, path, where))[0]
    alleles = tuple(_text(stream, "<I", path, where) for _ in range(n_alleles))
    if header.layout == 1 and header.compression == 0:
        return VariantEntry(chromosome, position, name, alleles, at, stream.tell() - at + 6 * header.n_samples)
    begin = stream.tell()
    length = struct.unpack("<I", _exactly(stream, 4, path, where))[0]
    stream.seek(begin)
    return VariantEntry(chromosome, position, name, alleles, at, begin + 4 + length - at)


def read_index(path: Path, header: BgenHeader) -> Iterator[VariantEntry] | None:
    """Return the variants from the ``.bgi`` index in file order; None when there is no index.

    Raises
    ------
    FormatError
        It is no such index, or belongs to another file.
    """
    index = index_of(path)
    if not index.is_file():
        return None
    _check_index(index, path, header)
    return _indexed(index)


def _check_index(index: Path, path: Path, header: BgenHeader) -> None:
    advice = f"Make it anew with bgenix -index, or remove it: {path.name} is then read without."
    try:
        with closing(_connect(index)) as database:
            query = "SELECT COUNT(*), MAX(file_start_position + size_in_bytes) FROM Variant"
            n_variants, end = database.execute(query).fetchone()
            about = _metadata(database)
    except sqlite3.Error as error:
        raise FormatError(f"{index}: expected an index of bgenix, found {error}. {advice}") from error
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(1000)
    if about is not None and about != (size, first):
        raise FormatError(
            f"{index}: expected the index of {path.name} ({size} bytes), found that of a file of {about[0]} bytes with "
            f"another beginning or length. {advice}"
        )
    if n_variants != header.n_variants or (end or header.first_variant) != size:
        raise FormatError(
            f"{index}: expected {header.n_variants} variants and {size} bytes of {path.name}, found {n_variants} and "
            f"{end}: the index belongs to another file, or {path.name} is truncated. {advice}"
        )


def _connect(index: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{index.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _indexed(index: Path) -> Iterator[VariantEntry]:
    """Yield the variants of an index that has been checked."""
    query = (
        "SELECT chromosome, position, rsid, number_of_alleles, allele1, allele2, file_start_position, size_in_bytes "
        "FROM Variant ORDER BY file_start_position"
    )
    with closing(_connect(index)) as database:
        for c, p, name, k, a1, a2, start, length in database.execute(query):
            alleles = (str(a1), str(a2), *["?"] * (k - 2))[:k]
            yield VariantEntry(str(c), int(p), str(name), alleles, start, length)


def _metadata(database: sqlite3.Connection) -> tuple[int, bytes] | None:
    """Return size and first bytes of the file an index was made of; older indexes do not say."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Metadata'").fetchone():
        return None
    row = database.execute("SELECT file_size, first_1000_bytes FROM Metadata").fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


_SCHEMA = """
CREATE TABLE Metadata (
  filename TEXT NOT NULL, file_size INT NOT NULL, last_write_time INT NOT NULL, first_1000_bytes BLOB NOT NULL,
  index_creation_time INT NOT NULL
);
CREATE TABLE Variant (
  chromosome TEXT NOT NULL, position INT NOT NULL, rsid TEXT NOT NULL, number_of_alleles INT NOT NULL,
  allele1 TEXT NOT NULL, allele2 TEXT NULL, file_start_position INT NOT NULL, size_in_bytes INT NOT NULL,
  PRIMARY KEY (chromosome, position, rsid, allele1, allele2, file_start_position)
) WITHOUT ROWID;
"""


def write_index(bgen: Path, filename: str, entries: Sequence[VariantEntry], index: Path) -> None:
    """Write the index of a finished BGEN file.

    The times of the file and of the index are 0, so that the same genotypes make the same bytes.

    Parameters
    ----------
    bgen
        Where the file is now.
    filename
        What it will be called.
    """
    index.unlink(missing_ok=True)
    with bgen.open("rb") as stream:
        first = stream.read(1000)
    rows = [(e.chromosome, e.position, e.name, len(e.alleles), *e.alleles[:2], e.start, e.size) for e in entries]
    with closing(sqlite3.connect(index)) as database, database:
        database.executescript(_SCHEMA)
        database.execute("INSERT INTO Metadata VALUES (?, ?, 0, ?, 0)", (filename, bgen.stat().st_size, first))
        database.executemany("INSERT INTO Variant VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
