"""Tables: TSV, CSV and Parquet to `PhenotypeTable` and `ResultTable`, and back.

Text tables may be gzipped. Missing values are empty cells, ``NA``, ``NaN``, ``n/a`` (BIDS) and ``.``; every other
sentinel is data unless named. A BIDS sidecar (``participants.json`` beside ``participants.tsv``) gives units and says
which columns are categories.
"""

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped

from brainlocus.core.columns import COLUMNS
from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.core.phenotypes import Column, Kind, PhenotypeTable
from brainlocus.core.results import ResultTable
from brainlocus.core.samples import SampleIndex
from brainlocus.io.arrow_tables import DELIMITERS, check_header, read_arrow, table_columns, table_suffix
from brainlocus.io.atomic import atomic_path

__all__ = [
    "MISSING_TEXT",
    "ResultWriter",
    "arrow_column",
    "check_table_name",
    "measure_names",
    "read_results",
    "read_table",
    "read_visits",
    "write_results",
    "write_table",
]

MISSING_TEXT = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", ".", "None", "NULL", "null", "<NA>")

_ID_COLUMNS = ("participant_id", "IID", "#IID", "eid", "subject_id", "sub_id", "ID")
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


def _id_column(names: Sequence[str], wanted: str | None, path: Path) -> str:
    if wanted is not None:
        if wanted not in names:
            raise SchemaError(f"{path}: there is no column {wanted!r}.{nearest(wanted, list(names))}")
        return wanted
    for name in _ID_COLUMNS:
        if name in names:
            return name
    raise SchemaError(
        f"{path}: expected a column participant_id (or {', '.join(_ID_COLUMNS[1:])}), found {', '.join(names[:8])}."
    )


def _sidecar(path: Path) -> dict[str, Any]:
    stem = path.name.split(".")[0]
    sidecar = path.with_name(f"{stem}.json")
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text())
    except ValueError as error:
        raise FormatError(f"{sidecar}: expected JSON, found {error}.") from error
    return {k: v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}


def _numbers(
    text: Shaped[np.ndarray, " rows"], missing: Shaped[np.ndarray, " rows"]
) -> tuple[Shaped[np.ndarray, " rows"] | None, list[int]]:
    """Return the numbers (None when the column is text) and the rows that are typing mistakes in a column of them."""
    values = np.full(text.size, np.nan)
    present = np.flatnonzero(~missing)
    try:
        values[present] = text[present].astype(np.float64)
    except ValueError:
        if all(_WITH_COMMA.fullmatch(str(text[row])) or _is_number(str(text[row])) for row in present):
            raise FormatError(
                f"numbers with commas such as {next(str(t) for t in text[present] if ',' in str(t))!r}; write a "
                "decimal point and no thousands separator, or say in the sidecar (Levels) that they are categories"
            ) from None
        bad = [row for row in present if not _is_number(str(text[row]))]
        # A column of numbers with one typo is an error to report; a column of words is a category.
        if len(bad) * 10 > present.size:
            return None, []
        return None, [int(row) for row in bad]
    return values, []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(name: str, array: pa.ChunkedArray, note: dict[str, Any], path: Path, na_values: frozenset[str]) -> Column:
    unit = str(note.get("Units", ""))
    if pa.types.is_nested(array.type):
        raise FormatError(f"{path}: column {name!r} holds {array.type}; expected one number or text in every row.")
    if pa.types.is_boolean(array.type):
        return Column(name, array.cast(pa.float64()).to_numpy(zero_copy_only=False), "binary", unit)
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        fast = None if "Levels" in note else _plain_numbers(array, na_values)
        if fast is not None:
            return _number_column(name, _blanked(fast, na_values), unit, path)
        text = np.asarray(["" if v is None else v for v in array.cast(pa.string()).to_pylist()], dtype=np.str_)
        text = np.char.strip(text)
        missing = np.isin(text, list(na_values))
        try:
            numbers, bad_rows = (None, []) if "Levels" in note else _numbers(text, missing)
        except FormatError as error:
            raise FormatError(f"{path}: column {name!r} holds {error}.") from None
        if bad_rows:
            more = f" ({len(bad_rows)} such cells)" if len(bad_rows) > 1 else ""
            first = bad_rows[0]
            raise FormatError(
                f"{path}: column {name!r} holds numbers, but line {first + 2} has {str(text[first])!r}{more}. "
                "Correct it, or leave the cell empty if it is missing."
            )
        if numbers is None:
            return Column(name, np.where(missing, "", text), "categorical", unit)
        values = numbers
    return _number_column(name, _blanked(values, na_values), unit, path)


def _blanked(values: Float[np.ndarray, " rows"], na_values: frozenset[str]) -> Float[np.ndarray, " rows"]:
    """Return numbers with NaN where they are one of the texts that mean missing, however it is written (-9, -9.0)."""
    codes = [float(text) for text in na_values - set(MISSING_TEXT) if _is_number(text)]
    return np.where(np.isin(values, codes), np.nan, values) if codes else values


def _plain_numbers(array: pa.ChunkedArray, na_values: frozenset[str]) -> Float[np.ndarray, " rows"] | None:
    """Return a text column whose every cell is a plain number or missing; None when one is not."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    missing = pc.is_in(text, value_set=_arrow_text(sorted(na_values)))
    try:
        numbers = pc.if_else(missing, pa.nulls(len(text), pa.string()), text).cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    return np.concatenate([np.empty(0), *(_floats(chunk) for chunk in numbers.chunks)])


def _floats(chunk: pa.Array) -> Float[np.ndarray, " rows"]:
    """Return float64 numbers, NaN where null; ``to_numpy`` would do but imports pandas."""
    bits, data = chunk.buffers()
    values = np.frombuffer(data, dtype=np.float64)[chunk.offset : chunk.offset + len(chunk)]
    if bits is None or not chunk.null_count:
        return values
    valid = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
    return np.where(valid[chunk.offset : chunk.offset + len(chunk)] == 1, values, np.nan)


def _number_column(name: str, values: Float[np.ndarray, " rows"], unit: str, path: Path) -> Column:
    if np.isinf(values).any():
        rows = np.flatnonzero(np.isinf(values))
        more = f" ({rows.size} such cells)" if rows.size > 1 else ""
        raise FormatError(
            f"{path}: column {name!r} has an infinite value in line {rows[0] + 2}{more}; numbers must be finite."
        )
    present = values[~np.isnan(values)]
    kind: Kind = "binary" if present.size and np.isin(present, (0.0, 1.0)).all() else "quantitative"
    return Column(name, values, kind, unit)


def read_table(
    path: Path,
    *,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    na_values: Sequence[str] = (),
) -> PhenotypeTable:
    """Return a table of people x measures.

    Parameters
    ----------
    id_column
        Where the participant ids are; by default ``participant_id`` or one of the field's usual names.
        Ids stay strings, leading zeros included.
    columns
        Read only these (besides the ids); by default all, but not the family ids (FID) that go with IID.
    na_values
        Further texts that mean missing, such as ``-9999``.

    Raises
    ------
    FormatError
        Not a readable table; a typing mistake in a column of numbers; an infinite value.
    SchemaError
        No id column, duplicate ids or column names, or a wanted column is absent.
    """
    table, id_name, ids = _with_ids(path, id_column, columns)
    try:
        samples = SampleIndex.of(ids)
    except SchemaError as error:
        raise SchemaError(f"{path}, column {id_name!r}: {error}") from error
    wanted = _measures(table.column_names, id_name) if columns is None else list(columns)
    notes = _sidecar(path)
    missing = frozenset((*MISSING_TEXT, *na_values))
    return PhenotypeTable(samples, tuple(_column(n, table.column(n), notes.get(n, {}), path, missing) for n in wanted))


def read_visits(
    path: Path, *, session: str = "session_id", id_column: str | None = None, na_values: Sequence[str] = ()
) -> PhenotypeTable:
    """Return a table with a row for every participant and session.

    The rows are called ``sub-1_ses-2``; the columns ``participant_id`` and ``session_id`` (text, whatever they are
    called in the file) come first.

    Parameters
    ----------
    session
        Column of the sessions.

    Raises
    ------
    FormatError, SchemaError
        As `read_table`; or a row lacks its session, or a participant has a session twice.
    """
    table, id_name, ids = _with_ids(path, id_column)
    names = list(table.column_names)
    if session not in names:
        raise SchemaError(f"{path}: there is no column {session!r}.{nearest(session, names)} Name it with --session.")
    sessions = ["" if v is None else str(v).strip() for v in table.column(session).to_pylist()]
    for line, (person, label) in enumerate(zip(ids, sessions, strict=True), 2):
        if not person or label in MISSING_TEXT:
            raise SchemaError(
                f"{path}: line {line} lacks its {id_name if not person else session}; every row needs one."
            )
    try:
        samples = SampleIndex.of([f"{person}_{label}" for person, label in zip(ids, sessions, strict=True)])
    except SchemaError as error:
        raise SchemaError(f"{path}, columns {id_name!r} and {session!r}: {error}") from error
    notes, missing = _sidecar(path), frozenset((*MISSING_TEXT, *na_values))
    measures = [n for n in names if n not in (id_name, session, "FID", "#FID", "participant_id", "session_id")]
    return PhenotypeTable(
        samples,
        (
            Column("participant_id", np.asarray(ids, dtype=np.str_), "categorical"),
            Column("session_id", np.asarray(sessions, dtype=np.str_), "categorical"),
            *(_column(n, table.column(n), notes.get(n, {}), path, missing) for n in measures),
        ),
    )


def _measures(names: Sequence[str], id_name: str) -> list[str]:
    """Return the columns that are not ids; PLINK's family ids (FID) go with IID."""
    others = {id_name, "FID", "#FID"} if id_name in ("IID", "#IID") else {id_name}
    return [name for name in names if name not in others]


def measure_names(path: Path, id_column: str | None = None) -> tuple[str, ...]:
    """Return the names of the columns that `read_table` reads by default, without reading them.

    Raises
    ------
    FormatError, SchemaError
        As `read_table`.
    """
    names = table_columns(path)
    return tuple(_measures(names, _id_column(names, id_column, path)))


def _with_ids(
    path: Path, id_column: str | None, columns: Sequence[str] | None = None
) -> tuple[pa.Table, str, list[str]]:
    """Return a table (of the given columns besides the ids), the name of its ids, and the ids as text."""
    if columns is None:
        table = read_arrow(path)
        check_header(list(table.column_names), path)
        id_name = _id_column(table.column_names, id_column, path)
    else:
        id_name = _id_column(table_columns(path), id_column, path)
        table = read_arrow(path, list(dict.fromkeys((id_name, *columns))))
    if pa.types.is_floating(table.column(id_name).type):
        raise FormatError(
            f"{path}: column {id_name!r} holds floating-point numbers; ids are text and compared exactly. Store them "
            "as text or whole numbers."
        )
    return table, id_name, [str(i) if i is not None else "" for i in table.column(id_name).to_pylist()]


def read_results(path: Path) -> ResultTable:
    """Return a result table whose columns are registered in `core.columns`.

    Raises
    ------
    FormatError
        Not a readable table.
    SchemaError
        A column is not registered.
    """
    table = read_arrow(path)
    columns: dict[str, Shaped[np.ndarray, " rows"]] = {}
    for name in table.column_names:
        array = table.column(name)
        dtype = COLUMNS[name].dtype if name in COLUMNS else "str"
        if dtype == "str":
            columns[name] = np.asarray(pc.fill_null(array.cast(pa.string()), "").to_pylist(), dtype=np.str_)
        elif pa.types.is_string(array.type):
            filled = pc.if_else(pc.is_in(array, value_set=_arrow_text(MISSING_TEXT)), "nan", array)
            if dtype == "bool":
                filled = pc.if_else(pc.equal(filled, "true"), "1", "0")
            columns[name] = _result_numbers(filled, name, dtype, path)
        else:
            columns[name] = array.to_numpy(zero_copy_only=False)
    return ResultTable(columns)


def _result_numbers(text: pa.ChunkedArray, name: str, dtype: str, path: Path) -> Shaped[np.ndarray, " rows"]:
    """Return a text column as the numbers it is registered to hold."""
    cells = text.to_numpy(zero_copy_only=False)
    try:
        values = cells.astype(np.float64)
    except ValueError:
        row = next(k for k, cell in enumerate(cells) if not _is_number(str(cell)))
        raise FormatError(
            f"{path}: column {name!r} holds numbers, but line {row + 2} has {str(cells[row])!r}. Correct it, or leave "
            "the cell empty if it is missing."
        ) from None
    if dtype == "float":
        return np.asarray(values)
    lacking = np.flatnonzero(np.isnan(values))
    if lacking.size:
        raise FormatError(f"{path}: column {name!r} is empty in line {lacking[0] + 2}; expected a value in every row.")
    return np.asarray(values.astype(np.int64 if dtype == "int" else np.bool_))


def check_table_name(path: Path) -> str:
    """Return the format of a table to be written, its extension without ``.gz``.

    Raises
    ------
    FormatError
        Another extension.
    """
    suffix = table_suffix(path)
    if suffix != ".parquet" and suffix not in DELIMITERS:
        raise FormatError(
            f"{path}: expected a name ending in .parquet, .tsv or .csv (text may end in .gz), found {suffix!r}."
        )
    return suffix


def _write_arrow(table: pa.Table, path: Path) -> None:
    suffix = check_table_name(path)
    with atomic_path(path) as partial:
        if suffix == ".parquet":
            pq.write_table(table, partial, compression="zstd")
        else:
            compression = "gzip" if path.suffix.lower() == ".gz" else None
            options = pacsv.WriteOptions(delimiter=DELIMITERS[suffix], quoting_style="needed")
            with pa.output_stream(str(partial), compression=compression) as stream:
                pacsv.write_csv(_without_nan(table), stream, options)


def _without_nan(table: pa.Table) -> pa.Table:
    """NaN becomes an empty cell in text files; pyarrow quotes every header, which readers accept."""
    for k, column in enumerate(table.columns):
        if pa.types.is_floating(column.type):
            table = table.set_column(
                k, table.field(k), pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            )
    return table


def arrow_column(values: Shaped[np.ndarray, " rows"]) -> pa.Array:
    """Return a column for Arrow from its bytes; ``pa.array`` would do but imports pandas, a tenth of a second."""
    if values.dtype.kind in "UTO":
        found = values.tolist()
        return pa.array(found, pa.string()) if None in found else _arrow_text(list(map(str, found)))
    if values.dtype == bool:
        return arrow_column(values.view(np.int8)).cast(pa.bool_())
    plain = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(plain.dtype), plain.size, [None, pa.py_buffer(plain)])


def _arrow_text(values: Sequence[str]) -> pa.Array:
    data = "".join(values)
    content = data.encode()
    if len(content) == len(data):
        lengths = [len(value) for value in values]
    else:
        lengths = [len(value.encode()) for value in values]
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(np.array(lengths, dtype=np.int64), out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    text = pa.Array.from_buffers(pa.large_string(), len(values), buffers)
    return text.cast(pa.string()) if len(content) < 1 << 31 else text


def write_table(table: PhenotypeTable, path: Path, *, participant_id: Sequence[str] | None = None) -> None:
    """Write people x measures, by extension; participant_id comes first, missing cells are empty.

    Parameters
    ----------
    participant_id
        Written in place of the table's ids, for tables with a row a visit (`read_visits`).
    """
    ids = table.samples.ids if participant_id is None else np.asarray(participant_id, dtype=np.str_)
    columns: dict[str, pa.Array] = {"participant_id": arrow_column(ids)}
    for column in table.columns:
        columns[column.name] = arrow_column(column.values)
    _write_arrow(pa.table(columns), path)


def write_results(table: ResultTable, path: Path) -> None:
    """Write a result table, by extension; NaN is NaN in Parquet and an empty cell in text."""
    _write_arrow(pa.table({name: arrow_column(column) for name, column in table.columns.items()}), path)


class ResultWriter:
    """Writes a result table part by part, by extension; for tables that are not held in memory whole.

    Every part has the columns of the first, of the same kinds. Use as a context manager: without an error the file gets
    its name at the end.
    """

    def __init__(self, path: Path) -> None:
        self._suffix = check_table_name(path)
        self._path = path
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> "ResultWriter":
        self._partial = self._stack.enter_context(atomic_path(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def append(self, part: ResultTable) -> None:
        """Write the rows of one part."""
        table = pa.table({name: arrow_column(column) for name, column in part.columns.items()})
        if self._writer is None:
            self._writer = self._stack.enter_context(self._open(table.schema))
        self._writer.write_table(table if self._suffix == ".parquet" else _without_nan(table))

    def _open(self, schema: pa.Schema) -> Any:
        if self._suffix == ".parquet":
            return pq.ParquetWriter(self._partial, schema, compression="zstd")
        compression = "gzip" if self._path.suffix.lower() == ".gz" else None
        stream = self._stack.enter_context(pa.output_stream(str(self._partial), compression=compression))
        options = pacsv.WriteOptions(delimiter=DELIMITERS[self._suffix], quoting_style="needed")
        return pacsv.CSVWriter(stream, schema, write_options=options)
