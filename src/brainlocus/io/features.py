"""Matrices of omics features x people (methylation, proteins, expression ...), a block of features at a time.

* tables (.tsv, .csv, text may be gzipped; .parquet) with one feature a row: the first column (of Parquet: the first of
  text) has the features' names, the other columns are named by participant; a header without a name for the first
  column, as R writes it, will do;
* tables with one person a row: a column participant_id (or another usual name of ids), one feature a column;
* NumPy matrices (.npy), either way round, with a file of feature names and one of participant ids, one a line.

Which way round a table is shows by where the ids of the known people are. Tables with a feature a row, .npy and Parquet
are read block by block; text with a person a row is held in memory.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float64, Shaped

from brainlocus.core.errors import AlignmentError, FormatError, SchemaError
from brainlocus.core.samples import SampleIndex
from brainlocus.core.text import text_array
from brainlocus.io.arrow_tables import parquet_batches
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.io.text import read_lines

__all__ = ["FeatureBlock", "FeatureMatrix", "Rows", "open_features"]

Rows = Literal["auto", "features", "people"]

_ID_COLUMNS = ("participant_id", "IID", "#IID", "eid", "subject_id", "sub_id", "sample_id", "ID")
_TILE = 256
"""Features that are transposed at once, so that they stay in the cache."""
_TEXT_BLOCK = 4 << 20
"""Least bytes of text that are parsed at a time."""

_GROUPS = 2
"""Times its bytes that a row group of Parquet takes while it is read."""
_BATCH = 4
"""Blocks that are read of Parquet at once: fewer, larger reads cost half the time."""
_PACKED = 4
"""Bytes of text in a byte of a .gz file, about."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBlock:
    """Some features of some people."""

    features: Shaped[np.ndarray, " features"]
    """Names."""
    values: Float64[np.ndarray, "features people"]
    """NaN is missing; never infinite."""


class FeatureMatrix(ABC):
    """A matrix of features x people in a file."""

    path: Path
    samples: SampleIndex
    """Everybody in the file."""
    rows: Literal["features", "people"]
    """What a row of the file is."""
    n_features: int | None
    """None where only reading all of it would tell."""
    about: int
    """Number of features, or an estimate of it."""
    held_bytes: int
    """Memory that the matrix takes while it is open, besides blocks."""

    def blocks(self, samples: SampleIndex, size: int) -> Iterator[FeatureBlock]:
        """Yield all features of some people, in the order of the file, `size` at a time (the last block fewer).

        Raises
        ------
        AlignmentError
            A participant is not in the file.
        FormatError
            A row has another number of cells, a cell is no number, or a value is infinite.
        """
        at = self.samples.indices_of(samples)
        if (at < 0).any():
            absent = ", ".join(repr(str(i)) for i in samples.ids[at < 0][:5])
            raise AlignmentError(f"{self.path}: {int((at < 0).sum())} participants are not in it: {absent}.")
        for block in _exact(self._blocks(at, size), size):
            infinite = np.isinf(block.values)
            if infinite.any():
                row, column = np.argwhere(infinite)[0]
                raise FormatError(
                    f"{self.path}: feature {str(block.features[row])!r} of participant {str(samples.ids[column])!r} is "
                    "infinite; numbers must be finite, or empty where they are missing."
                )
            yield block

    @abstractmethod
    def _blocks(self, at: Shaped[np.ndarray, " people"], size: int) -> Iterator[FeatureBlock]:
        """Yield features of the people at these places of the file, about `size` to a few times as many at a time."""


def open_features(
    path: Path,
    people: Sequence[SampleIndex],
    *,
    rows: Rows = "auto",
    feature_names: Path | None = None,
    participant_ids: Path | None = None,
) -> FeatureMatrix:
    """Open a matrix of features x people.

    Parameters
    ----------
    people
        The participants of the other tables: they tell which way round the matrix is.
    rows
        What a row is; it is checked.
    feature_names, participant_ids
        Lists that go with a .npy matrix.

    Raises
    ------
    FormatError
        Not such a file, or not of the size that the lists say.
    SchemaError
        A participant or feature occurs twice, or the rows are not what they are said to be.
    AlignmentError
        Nobody of the other tables is in it.
    """
    if not path.is_file():
        raise FormatError(f"Features: expected a file at {path}, found nothing. Check the path.")
    kind = _kind(path)
    if kind == "npy":
        return _open_npy(path, rows, feature_names, participant_ids)
    if feature_names is not None or participant_ids is not None:
        raise SchemaError("--feature-names and --participant-ids go with a .npy matrix; a table has its names inside.")
    known = {str(i) for index in people for i in index.ids.tolist()}
    return _open_parquet(path, known, rows) if kind == "parquet" else _open_text(path, known, rows, kind)


def _kind(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
    kinds = {".tsv": "\t", ".txt": "\t", ".csv": ",", ".parquet": "parquet", ".npy": "npy"}
    if suffix not in kinds:
        raise FormatError(
            f"{path}: expected features as .tsv, .csv, .txt (may end in .gz), .parquet or .npy, found {suffix!r}."
        )
    return kinds[suffix]


def _unique(ids: Sequence[str], path: Path) -> SampleIndex:
    try:
        return SampleIndex.of(ids)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def _unique_features(names: Sequence[str], path: Path) -> Shaped[np.ndarray, " features"]:
    array = text_array(names)
    found, counts = np.unique(array, return_counts=True)
    if found.size < array.size:
        twice = ", ".join(repr(str(n)) for n in found[counts > 1][:5])
        raise SchemaError(f"{path}: features must be unique, found more than once: {twice}. Keep one of each.")
    return array


def _which_rows(
    path: Path, columns: Sequence[str], first: Sequence[str], known: set[str], rows: Rows
) -> Literal["features", "people"]:
    """Return what a row is, by whether columns or rows are named by participants."""
    of_columns, of_rows = known.intersection(columns), known.intersection(first)
    found: Literal["features", "people"] = "features" if len(of_columns) >= len(of_rows) else "people"
    if not of_columns and not of_rows:
        raise AlignmentError(
            f"{path}: no participant of the other tables names a column ({_some(columns)}) or a row ({_some(first)}); "
            f"they have {_some(sorted(known))}. Ids are compared as exact strings; check leading zeros and prefixes."
        )
    if rows != "auto" and rows != found:
        other = "columns" if found == "features" else "rows"
        raise SchemaError(
            f"{path}: expected {rows} in rows, as --rows says, found participants in {other} "
            f"({_some(sorted(of_columns or of_rows))}). Correct --rows, or leave it out."
        )
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, list(names)[:3])) + (", ..." if len(names) > 3 else "")


def _transposed(columns: Float64[np.ndarray, "people features"]) -> Float64[np.ndarray, "features people"]:
    values = np.empty(columns.shape[::-1])
    for start in range(0, values.shape[0], _TILE):
        values[start : start + _TILE] = columns[:, start : start + _TILE].T
    return values


def _numbers(column: Any, name: str, path: Path) -> Float64[np.ndarray, " rows"]:
    """Return a column of Arrow as float64, NaN where null."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise FormatError(f"{path}: column {name!r} holds {column.type}; expected numbers.")
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = array.cast(pa.float64())
    if filled.null_count:
        filled = filled.fill_null(float("nan"))
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def _table_block(table: Any, id_name: str, people: Sequence[str], path: Path) -> FeatureBlock:
    """Return the rows of a table or record batch as a block."""
    names = [str(v) if v is not None else "" for v in table.column(id_name).to_pylist()]
    if "" in names:
        raise FormatError(f"{path}: a row has no feature name in column {id_name!r}; every row needs one.")
    columns = np.empty((len(people), table.num_rows))
    for k, person in enumerate(people):
        columns[k] = _numbers(table.column(person), person, path)
    return FeatureBlock(text_array(names), _transposed(columns))


def _exact(blocks: Iterator[FeatureBlock], size: int) -> Iterator[FeatureBlock]:
    """Yield blocks of exactly `size` features, the last fewer, of blocks of any size."""
    left: FeatureBlock | None = None
    for block in blocks:
        if left is not None:
            block = FeatureBlock(
                np.concatenate([left.features, block.features]), np.concatenate([left.values, block.values])
            )
        whole = block.features.size // size * size
        for start in range(0, whole, size):
            part = slice(start, start + size)
            yield FeatureBlock(block.features[part], block.values[part])
        left = FeatureBlock(block.features[whole:], block.values[whole:]) if whole < block.features.size else None
    if left is not None:
        yield left


class _ParquetFeatures(FeatureMatrix):
    """Parquet with a feature a row."""

    def __init__(self, path: Path, id_name: str, samples: SampleIndex, n_features: int, held_bytes: int) -> None:
        self.path, self.samples, self.rows, self.held_bytes = path, samples, "features", held_bytes
        self.n_features = self.about = n_features
        self._id_name = id_name

    def _blocks(self, at: Shaped[np.ndarray, " people"], size: int) -> Iterator[FeatureBlock]:
        people = self.samples.ids[at].tolist()
        with pq.ParquetFile(self.path) as file:
            for batch in parquet_batches(file, _BATCH * size, [self._id_name, *people]):
                yield _table_block(batch, self._id_name, people, self.path)


class _ParquetPeople(FeatureMatrix):
    """Parquet with a person a row."""

    def __init__(self, path: Path, samples: SampleIndex, features: Shaped[np.ndarray, " features"]) -> None:
        self.path, self.samples, self.rows, self.held_bytes = path, samples, "people", 0
        self.n_features = self.about = features.size
        self._features = features

    def _blocks(self, at: Shaped[np.ndarray, " people"], size: int) -> Iterator[FeatureBlock]:
        with pq.ParquetFile(self.path) as file:
            for start in range(0, self._features.size, size):
                names = self._features[start : start + size]
                table = file.read(columns=names.tolist())
                rows = [_numbers(table.column(str(n)), str(n), self.path)[at] for n in names]
                yield FeatureBlock(names, np.stack(rows))


def _open_parquet(path: Path, known: set[str], rows: Rows) -> FeatureMatrix:
    try:
        with pq.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(k).total_byte_size for k in range(file.num_row_groups)]
            names = list(schema.names)
            of_text = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
            named = [n for n in _ID_COLUMNS if n in names]
            if not (named or of_text):
                raise SchemaError(
                    f"{path}: expected a column of feature names or participant_id, found numbers only. Add one."
                )
            id_name = named[0] if named else of_text[0]
            first = [str(v) for v in file.read(columns=[id_name]).column(id_name).to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: expected a whole .parquet file, found one that cannot be read: {error}") from error
    others = [n for n in names if n != id_name and (n not in of_text)]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise SchemaError(f"{path}: column names must be unique, found twice: {', '.join(twice[:5])}. Rename one.")
    if _which_rows(path, others, first, known, rows) == "features":
        _unique_features(first, path)
        return _ParquetFeatures(path, id_name, _unique(others, path), n_rows, _GROUPS * max(groups, default=0))
    return _ParquetPeople(path, _unique(first, path), text_array(others))


def _stream(path: Path) -> Any:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return pa.input_stream(str(path), compression="gzip" if gzipped else None)


def _first_lines(path: Path, delimiter: str) -> tuple[list[str], list[str], int]:
    """Return the cells of the header and of the first row, and the bytes of that row."""
    data = b""
    try:
        with _stream(path) as stream:
            while data.count(b"\n") < 2 and (part := stream.read(1 << 20)):
                data += part
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a whole table, found one that cannot be read: {error}") from error
    lines = data.decode("utf-8-sig", errors="replace").split("\n")
    if not lines[0].strip():
        raise FormatError(f"{path}: expected a header line, found an empty file.")
    if len(lines) < 2 or not lines[1].strip():
        raise FormatError(f"{path}: expected rows below the header, found none.")

    def cells(line: str) -> list[str]:
        return [c.strip().strip('"') for c in line.rstrip("\r").split(delimiter)]

    header, row = cells(lines[0]), cells(lines[1])
    if len(row) == len(header) + 1:
        header = ["feature", *header]
    return header, row, len(lines[1]) + 1


class _TextFeatures(FeatureMatrix):
    """Text with a feature a row."""

    def __init__(self, path: Path, delimiter: str, names: list[str], line_bytes: int) -> None:
        self.path, self.rows, self.n_features, self.held_bytes = path, "features", None, 0
        self.samples = _unique(names[1:], path)
        self._delimiter, self._names, self._line = delimiter, names, line_bytes
        packed = _PACKED if path.suffix.lower() == ".gz" else 1
        self.about = packed * path.stat().st_size // line_bytes + 1

    def _blocks(self, at: Shaped[np.ndarray, " people"], size: int) -> Iterator[FeatureBlock]:
        people = self.samples.ids[at].tolist()
        wanted = [self._names[0], *people]
        read = pacsv.ReadOptions(
            column_names=self._names, skip_rows=1, block_size=max(_TEXT_BLOCK, (min(size, 1 << 14) + 1) * self._line)
        )
        types = {name: pa.float64() for name in people} | {self._names[0]: pa.string()}
        convert = pacsv.ConvertOptions(
            column_types=types, include_columns=wanted, null_values=list(MISSING_TEXT), strings_can_be_null=False
        )
        parse = pacsv.ParseOptions(delimiter=self._delimiter)
        try:
            with _stream(self.path) as stream, pacsv.open_csv(stream, read, parse, convert) as batches:
                for batch in batches:
                    yield _table_block(batch, self._names[0], people, self.path)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise _text_error(self.path, self._names, error) from error


_BAD_CELL = re.compile(r"column #(\d+): (?:Row #(\d+): )?.*invalid value '(.*)'", re.DOTALL)
"""What pyarrow says of a cell that is no number: its column from 0, its line from 1, and its text."""


def _text_error(path: Path, names: Sequence[str], error: Exception) -> FormatError:
    what = str(error)
    cell = _BAD_CELL.search(what)
    if cell is not None:
        line = f"line {cell[2]}, " if cell[2] else ""
        return FormatError(
            f"{path}: expected numbers, or empty cells where they are missing, found {cell[3]!r} in {line}column "
            f"{names[int(cell[1])]!r}. Correct the cell."
        )
    if "conversion error" in what:
        return FormatError(
            f"{path}: expected numbers, or empty cells where they are missing: {what}. Correct the cell."
        )
    return FormatError(f"{path}: expected {len(names)} columns in every row: {what}")


class _HeldFeatures(FeatureMatrix):
    """Text with a person a row, or a .npy matrix, either way round."""

    def __init__(
        self,
        path: Path,
        samples: SampleIndex,
        features: Shaped[np.ndarray, " features"],
        matrix: Any,
        rows: Literal["features", "people"],
        held_bytes: int,
    ) -> None:
        self.path, self.samples, self.rows = path, samples, rows
        self.n_features = self.about = features.size
        self._features, self._matrix, self.held_bytes = features, matrix, held_bytes

    def _blocks(self, at: Shaped[np.ndarray, " people"], size: int) -> Iterator[FeatureBlock]:
        everybody = np.array_equal(at, np.arange(len(self.samples)))
        for start in range(0, self._features.size, size):
            part = slice(start, min(start + size, self._features.size))
            if self.rows == "features":
                values = np.array(self._matrix[part] if everybody else self._matrix[part][:, at], dtype=np.float64)
            else:
                values = _transposed(np.asarray(self._matrix[:, part][at], dtype=np.float64))
            yield FeatureBlock(self._features[part], values)


def _open_text(path: Path, known: set[str], rows: Rows, delimiter: str) -> FeatureMatrix:
    header, row, line_bytes = _first_lines(path, delimiter)
    if len(header) < 2:
        raise FormatError(
            f"{path}: expected columns separated by {'commas' if delimiter == ',' else 'tabs'}, found one: "
            f"{header[0][:60]!r}. Convert the file, or correct its extension."
        )
    id_name = next((n for n in _ID_COLUMNS if n in header), header[0])
    in_header = bool(known.intersection(header[1:]))
    first = row[:1] if in_header else _read_text(path, header, id_name, delimiter, only_ids=True)[0]
    if _which_rows(path, header[1:], first, known, rows) == "features":
        return _TextFeatures(path, delimiter, header, line_bytes)
    ids, table = _read_text(path, header, id_name, delimiter)
    features = [n for n in header if n != id_name]
    matrix = np.empty((len(ids), len(features)))
    for k, name in enumerate(features):
        matrix[:, k] = _numbers(table.column(name), name, path)
    return _HeldFeatures(
        path, _unique(ids, path), _unique_features(features, path), matrix, "people", 3 * matrix.nbytes
    )


def _read_text(
    path: Path, header: list[str], id_name: str, delimiter: str, *, only_ids: bool = False
) -> tuple[list[str], pa.Table]:
    """Return the ids of the rows, and the table, or of it only the ids."""
    if len(set(header)) < len(header):
        twice = sorted({n for n in header if header.count(n) > 1})
        raise SchemaError(f"{path}: column names must be unique, found twice: {', '.join(twice[:5])}. Rename one.")
    types = {name: pa.float64() for name in header if name != id_name} | {id_name: pa.string()}
    convert = pacsv.ConvertOptions(
        column_types=types,
        include_columns=[id_name] if only_ids else header,
        null_values=list(MISSING_TEXT),
        strings_can_be_null=False,
    )
    read = pacsv.ReadOptions(column_names=header, skip_rows=1, block_size=256 << 20)
    try:
        with _stream(path) as stream:
            table = pacsv.read_csv(stream, read, pacsv.ParseOptions(delimiter=delimiter), convert)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _text_error(path, header, error) from error
    return [str(v) for v in table.column(id_name).to_pylist()], table


def _open_npy(path: Path, rows: Rows, feature_names: Path | None, participant_ids: Path | None) -> FeatureMatrix:
    if feature_names is None or participant_ids is None:
        raise SchemaError(
            f"{path}: a .npy matrix has no names; give --feature-names and --participant-ids, one name a line."
        )
    features = _unique_features(_names(feature_names, "feature names"), feature_names)
    samples = _unique(_names(participant_ids, "participant ids"), participant_ids)
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a whole matrix (.npy), which cannot be read: {error}.") from error
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise FormatError(f"{path}: expected a matrix of numbers, found {matrix.dtype} of shape {matrix.shape}.")
    shapes: dict[Literal["features", "people"], tuple[int, int]] = {
        "features": (features.size, len(samples)),
        "people": (len(samples), features.size),
    }
    if rows == "auto" and features.size == len(samples) and matrix.shape == shapes["features"]:
        raise SchemaError(f"{path}: there are as many features as people; say what a row is with --rows.")
    fitting = [kind for kind, shape in shapes.items() if rows in ("auto", kind) and matrix.shape == shape]
    if not fitting:
        wanted = " or ".join(f"{a:,} x {b:,}" for kind, (a, b) in shapes.items() if rows in ("auto", kind))
        raise FormatError(
            f"{path}: expected {wanted}, of {features.size:,} features and {len(samples):,} participants in the lists, "
            f"found {matrix.shape[0]:,} x {matrix.shape[1]:,}. Give the lists of this matrix, or correct --rows."
        )
    return _HeldFeatures(path, samples, features, matrix, fitting[0], 0)


def _names(path: Path, what: str) -> list[str]:
    return [line.strip() for line in read_lines(path, what=what) if line.strip()]
