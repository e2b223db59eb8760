"""Tables of association results of other programs and ours: GWAS-SSF, or our column names; text or Parquet.

GWAS-SSF is told by its column ``base_pair_location``; numbers of chromosomes become our names (23 X, 24 Y, 25 MT), and
a ``p_value`` becomes -log10 p, also where it is below what a double can hold.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Float

from brainlocus.core.columns import COLUMNS
from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.core.results import ResultTable
from brainlocus.core.text import text_array
from brainlocus.core.variants import canonical_chromosome
from brainlocus.io.tables import MISSING_TEXT

__all__ = ["read_associations"]

_FROM_SSF = {"base_pair_location": "position", "neg_log_10_p_value": "neg_log10_p", "variant_name": "variant_id"}
_SSF_NAMES = ("variant_name", "rsid", "variant_id")
"""Where the name of a variant is, the best first."""
_NUMBERS = {"23": "X", "24": "Y", "25": "MT"}
_NEEDED = ("chromosome", "position", "neg_log10_p")
_NULLS = [*MISSING_TEXT, "#NA"]


def read_associations(path: Path, columns: Sequence[str] | None = None) -> ResultTable:
    """Return association results, one row per test, in the order of the file.

    Parameters
    ----------
    columns
        Read only these of our columns, and those of chromosome, position and neg_log10_p; those that the file lacks are
        left out.

    Returns
    -------
    ResultTable
        NaN where a number is missing; ``n`` is 0 there.

    Raises
    ------
    FormatError
        Not a readable table, or a cell that is not of its column.
    SchemaError
        It lacks chromosome, position or p.
    """
    path = path.resolve()
    names = _header(path)
    ssf = "base_pair_location" in names
    source = _sources(names, ssf=ssf, path=path)
    if columns is not None:
        source = {ours: theirs for ours, theirs in source.items() if ours in {*columns, *_NEEDED}}
    wanted = list(dict.fromkeys(t for theirs in source.values() for t in theirs))
    table = _read(path, wanted)
    found: dict[str, Any] = {}
    for ours, theirs in source.items():
        found[ours] = _column(table, ours, theirs, path)
    chromosomes, inverse = found["chromosome"]
    plain = [_NUMBERS.get(name, name) if ssf else canonical_chromosome(name) for name in chromosomes]
    found["chromosome"] = np.array(plain, dtype=np.str_)[inverse]
    if "trait" in found:
        traits, inverse = found["trait"]
        found["trait"] = np.array(traits, dtype=np.str_)[inverse]
    return ResultTable(found)


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise FormatError(f"Table: expected a file at {path}, found nothing. Check the path.")
    try:
        if _is_parquet(path):
            return list(pq.read_schema(path).names)
        with _text(path) as stream:
            first = pacsv.open_csv(stream, parse_options=_parsing(path)).schema.names
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a table with a header, found {error}.") from error
    return [name.strip() for name in first]


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _text(path: Path) -> Any:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return pa.input_stream(str(path), compression="gzip" if gzipped else None)


def _parsing(path: Path) -> Any:
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in {".tsv", ".txt", ".csv"}:
        raise FormatError(f"{path}: expected .tsv, .csv, .txt or .parquet (text may end in .gz), found {suffix!r}.")
    return pacsv.ParseOptions(delimiter="," if suffix == ".csv" else "\t")


def _sources(names: list[str], *, ssf: bool, path: Path) -> dict[str, tuple[str, ...]]:
    """Return, by our name, the columns of the file that make it."""
    source: dict[str, tuple[str, ...]] = {}
    for name in names:
        ours = _FROM_SSF.get(name, name) if ssf else name
        if ours in COLUMNS and not (ssf and ours == "variant_id"):
            source[ours] = (name,)
    if ssf and any(name in names for name in _SSF_NAMES):
        source["variant_id"] = tuple(name for name in _SSF_NAMES if name in names)
    if "neg_log10_p" not in source and "p_value" in names:
        source["neg_log10_p"] = ("p_value",)
    for name in _NEEDED:
        if name not in source:
            theirs = {"position": "base_pair_location", "neg_log10_p": "neg_log_10_p_value or p_value"}.get(name, "")
            of_ssf = f" (GWAS-SSF: {theirs})" if theirs else ""
            hint = nearest(name, names)
            raise SchemaError(f"{path}: expected a column {name}{of_ssf}, found {', '.join(names[:12])}.{hint}")
    return source


def _read(path: Path, wanted: list[str]) -> pa.Table:
    try:
        if _is_parquet(path):
            return pq.read_table(path, columns=wanted)
        with _text(path) as stream:
            return pacsv.read_csv(
                stream,
                parse_options=_parsing(path),
                convert_options=pacsv.ConvertOptions(
                    include_columns=wanted,
                    column_types={name: _type(name) for name in wanted},
                    null_values=_NULLS,
                    strings_can_be_null=True,
                ),
            )
    except pa.ArrowInvalid as error:
        raise FormatError(f"{path}: expected a table whose cells are of their columns: {error}") from error
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a whole table, found one that cannot be read: {error}") from error


def _type(name: str) -> Any:
    ours = _FROM_SSF.get(name, name)
    if name in {"p_value", "rsid"} or ours not in COLUMNS:
        return pa.string()
    return {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}[COLUMNS[ours].dtype]


def _column(table: pa.Table, ours: str, theirs: tuple[str, ...], path: Path) -> Any:
    """Return a column as NumPy holds it; those of few names as these and each row's place among them."""
    column = table.column(theirs[0])
    for other in theirs[1:]:
        column = pc.coalesce(column, table.column(other))
    if theirs == ("p_value",):
        return _from_p(column.cast(pa.string()), path)
    dtype = COLUMNS[ours].dtype
    if ours in {"chromosome", "trait"}:
        coded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)
    if dtype == "str":
        return text_array(pc.fill_null(column.cast(pa.string()), "").to_pylist())
    if dtype == "float":
        return _floats(column, ours, path)
    filled = pc.fill_null(column, False if dtype == "bool" else 0)
    if ours == "position" and column.null_count:
        raise FormatError(f"{path}: column {theirs[0]} is empty in {column.null_count} rows; expected a position.")
    return np.asarray(_floats(filled, ours, path)).astype(np.int64 if dtype == "int" else np.bool_)


def _floats(column: Any, ours: str, path: Path) -> Float[np.ndarray, " rows"]:
    try:
        numbers = pc.fill_null(column.cast(pa.float64()), float("nan"))
    except pa.ArrowInvalid as error:
        raise FormatError(f"{path}: expected numbers in the column of {ours}: {error}") from error
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def _from_p(column: Any, path: Path) -> Float[np.ndarray, " rows"]:
    """Return -log10 of p as text: ``3e-412`` is 411.52, although no double holds it."""
    p = _floats(column, "p_value", path)
    if np.any((p < 0) | (p > 1)):
        row = int(np.flatnonzero((p < 0) | (p > 1))[0])
        raise FormatError(f"{path}: expected p from 0 to 1, found {p[row]:g} in line {row + 2}.")
    with np.errstate(divide="ignore"):
        result = -np.log10(p)
    tiny = np.flatnonzero(p < 1e-290)
    if tiny.size:
        texts = column.take(pa.array(tiny.tolist())).to_pylist()
        result[tiny] = [_tiny(str(text)) for text in texts]
    return np.asarray(result)


def _tiny(text: str) -> float:
    """Return -log10 of a small number from its digits and exponent; NaN for zero, whose p is not known."""
    digits, _, exponent = text.lower().partition("e")
    mantissa = float(digits)
    return float("nan") if mantissa == 0.0 else -float(np.log10(mantissa)) - float(exponent or 0)
