"""Table files as Arrow tables: TSV and CSV (gzipped or not) and Parquet, whole or some columns."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from brainlocus.core.errors import FormatError, SchemaError, nearest

__all__ = ["DELIMITERS", "check_header", "parquet_batches", "read_arrow", "table_columns", "table_suffix"]

DELIMITERS = {".tsv": "\t", ".csv": ",", ".txt": "\t"}


def table_suffix(path: Path) -> str:
    """Return the extension of a table, without that of its compression."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def read_arrow(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table file as it is; text columns are not interpreted.

    Parameters
    ----------
    columns
        Hold only these, in this order; by default all. Text is read through once for them, Parquet in its columns.

    Raises
    ------
    FormatError
        Missing, of an unknown extension, empty, or broken (the parser's line is named).
    SchemaError
        Two columns have one name, or one of `columns` is absent.
    """
    suffix = _known_suffix(path)
    if suffix == ".parquet":
        try:
            if columns is None:
                return pq.read_table(path)
            with pq.ParquetFile(path) as file:
                check_header(list(file.schema_arrow.names), path)
                _check_present(columns, file.schema_arrow.names, path)
                return file.read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error
    names = _text_header(path)
    wanted = None if columns is None else list(columns)
    if wanted is not None:
        _check_present(wanted, names, path)
    try:
        with _text_stream(path) as stream:
            table = pacsv.read_csv(
                stream,
                # A block must hold a row and a header: of 17,485 columns that is a quarter of a mebibyte.
                read_options=pacsv.ReadOptions(block_size=max(1 << 20, 64 * len("\t".join(names)))),
                parse_options=pacsv.ParseOptions(delimiter=DELIMITERS[suffix]),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=wanted
                ),
            )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise FormatError(f"{path}: expected text in UTF-8: {error}. Save it as UTF-8.") from error
        raise FormatError(f"{path}: expected {len(names)} columns in every row: {error}") from error
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _broken(path, error) from error
    return _without_unnamed(table, path)


def table_columns(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, without reading the rest.

    Raises
    ------
    FormatError, SchemaError
        As `read_arrow`.
    """
    if _known_suffix(path) != ".parquet":
        return tuple(name for name in _text_header(path) if name)
    try:
        names = tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error
    check_header(list(names), path)
    return names


def parquet_batches(file: pq.ParquetFile, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a Parquet file, at most `rows` rows at a time, holding one row group.

    One call of ``iter_batches`` for all groups holds every group that it has read until the end.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))


def _known_suffix(path: Path) -> str:
    if not path.is_file():
        raise FormatError(f"Table: expected a file at {path}, found nothing. Check the path.")
    suffix = table_suffix(path)
    if suffix != ".parquet" and suffix not in DELIMITERS:
        raise FormatError(f"{path}: expected .tsv, .csv, .txt or .parquet (tables may end in .gz), found {suffix!r}.")
    return suffix


def _broken(path: Path, error: BaseException) -> FormatError:
    return FormatError(f"{path}: expected a whole {table_suffix(path)} file, found one that cannot be read: {error}")


def _text_stream(path: Path) -> pa.NativeFile:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return pa.input_stream(str(path), compression="gzip" if gzipped else None)


def _text_header(path: Path) -> list[str]:
    """Return the names in the first line of a text table.

    Raises
    ------
    FormatError
        It cannot be read, is empty, in UTF-16, or has other delimiters than its extension says.
    SchemaError
        Two columns have one name.
    """
    try:
        line = _first_line(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _broken(path, error) from error
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError(f"{path}: expected text in UTF-8, found UTF-16. Save it as UTF-8.")
    header = line.decode("utf-8-sig", errors="replace").rstrip("\r")
    if not header.strip():
        raise FormatError(f"{path}: expected a header line, found an empty file.")
    suffix = table_suffix(path)
    names = header.split(DELIMITERS[suffix])
    _check_delimiter(names, suffix, path)
    names = [n.strip('"') for n in names]
    check_header([n.strip() for n in names if n.strip()], path)
    return names


def _first_line(path: Path) -> bytes:
    line = b""
    with _text_stream(path) as stream:
        while b"\n" not in line:
            part = stream.read(1 << 18)
            if not part:
                break
            line += part
    return line.split(b"\n", 1)[0]


def _check_present(wanted: Sequence[str], names: Sequence[str], path: Path) -> None:
    known = set(names)
    absent = [name for name in wanted if name not in known]
    if absent:
        raise SchemaError(f"{path}: there is no column {absent[0]!r}.{nearest(absent[0], list(names))}")


def _without_unnamed(table: pa.Table, path: Path) -> pa.Table:
    """Return a table without the columns that have neither a name nor a value, as spreadsheets leave at the right.

    Raises
    ------
    SchemaError
        Several columns have values but no name.
    """
    unnamed = [k for k, name in enumerate(table.column_names) if not name.strip()]
    if len(unnamed) < 2:
        return table
    filled = [k for k in unnamed if any(str(cell or "").strip() for cell in table.column(k).to_pylist())]
    if len(filled) > 1:
        where = ", ".join(str(k + 1) for k in filled)
        raise SchemaError(f"{path}: column names must be unique, found none at columns {where}. Name them.")
    return table.select([k for k in range(table.num_columns) if k not in unnamed or k in filled])


def _check_delimiter(names: list[str], suffix: str, path: Path) -> None:
    wanted = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces"}
    other = max((d for d in wanted if d != DELIMITERS[suffix]), key=names[0].count)
    if len(names) == 1 and names[0].strip().count(other):
        raise FormatError(
            f"{path}: expected columns separated by {wanted[DELIMITERS[suffix]]} in a {suffix} file, found a header "
            f"with {wanted[other]}: {names[0].strip()[:60]!r}. Convert the file, or correct its extension."
        )


def check_header(names: Sequence[str], path: Path) -> None:
    """Check that column names are unique.

    Raises
    ------
    SchemaError
        Some are not; the first five are named.
    """
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SchemaError(f"{path}: column names must be unique, found twice: {', '.join(twice[:5])}. Rename one.")
