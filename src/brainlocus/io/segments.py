"""Copy-number calls (PennCNV, PLINK .cnv and .cfile, plain tables) and named regions.

References
----------
Wang et al. (2007), 10.1101/gr.6861907 (PennCNV); PLINK 1.07 manual, "Rare copy number variant (CNV) data".
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from brainlocus.core.errors import FormatError, SchemaError
from brainlocus.core.segments import RegionTable, SegmentTable
from brainlocus.core.text import text_array
from brainlocus.core.variants import canonical_chromosome
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.text import read_lines

__all__ = ["read_array_quality", "read_named_regions", "read_segments"]

_PENNCNV = re.compile(
    r"^(?P<chromosome>\S+):(?P<start>\d+)-(?P<stop>\d+)\s+numsnp=(?P<n_snps>\d+)\s+length=[\d,]+\s+"
    r"state\d+,cn=(?P<copies>\d+)\s+(?P<participant_id>\S+)(?:.*?\bconf=(?P<score>[-\d.eE+]+))?"
)
_NAMES: dict[str, tuple[str, ...]] = {
    "participant_id": ("participant_id", "id", "iid", "sample", "sample_id", "file"),
    "chromosome": ("chromosome", "chr", "chrom"),
    "start": ("start", "bp1", "begin"),
    "stop": ("stop", "end", "bp2"),
    "copies": ("copies", "type", "cn", "copy_number"),
    "n_snps": ("n_snps", "nsnp", "nsnps", "numsnp", "sites"),
    "score": ("score", "conf", "confidence"),
    "name": ("name", "locus", "gene", "cnv_locus", "gene_name"),
    "direction": ("direction",),
    "loeuf": ("loeuf", "oe_lof_upper"),
    "lrr_sd": ("lrr_sd",),
    "baf_median": ("baf_median",),
    "baf_drift": ("baf_drift",),
    "gc_wave": ("gc_wave", "wf", "gcwf"),
}
"""Our column and what it is called in the field, compared without case."""
_DIRECTIONS = ("deletion", "duplication", "both")


def read_segments(path: Path, *, genome_build: str) -> SegmentTable:
    """Return copy-number calls.

    By extension ``.cnv`` and ``.cfile`` (PLINK), ``.tsv``, ``.csv``, ``.parquet`` (columns ID, chr, start, end,
    copies and, if there, nsnp and score); anything else is the output of PennCNV. PennCNV names signal files: the
    folder and the extensions ``.txt``, ``.gz`` and ``.csv`` are taken off to give the participant.

    Raises
    ------
    FormatError
        A line or column is not as the format says (with its line), or a number is missing.
    """
    suffix = path.suffix.lower()
    if suffix in (".tsv", ".csv", ".parquet", ".gz"):
        rows = _from_table(path, ("participant_id", "chromosome", "start", "stop", "copies"), ("n_snps", "score"))
    elif suffix in (".cnv", ".cfile"):
        rows = _from_plink(path)
    else:
        rows = _from_penncnv(path)
    ids = [str(name) for name in rows["participant_id"]]
    with _of_file(path):
        return SegmentTable(
            np.array(ids, dtype=np.str_),
            _chromosomes(rows["chromosome"]),
            _whole(rows["start"], "start", path),
            _whole(rows["stop"], "end", path),
            _whole(rows["copies"], "copies", path),
            _whole(rows.get("n_snps", ["0"] * len(ids)), "n_snps", path),
            _numbers(rows.get("score", [""] * len(ids)), "score", path),
            genome_build,
        )


@contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Say which file a wrong row is of."""
    try:
        yield
    except SchemaError as error:
        raise FormatError(f"{path}: {error}") from error


def read_named_regions(path: Path, *, genome_build: str) -> RegionTable:
    """Return named regions from a table with chromosome, start, end and name.

    Optional columns: direction (deletion, duplication, both) and LOEUF.

    Raises
    ------
    FormatError
        A column is missing, a number is none, or a direction is another word.
    """
    rows = _from_table(path, ("chromosome", "start", "stop", "name"), ("direction", "loeuf"))
    count = len(rows["name"])
    direction = [str(v or "both").lower() for v in rows.get("direction", ["both"] * count)]
    odd = next((k for k, v in enumerate(direction) if v not in _DIRECTIONS), None)
    if odd is not None:
        raise FormatError(f"{path}, row {odd + 1}: expected {', '.join(_DIRECTIONS)}, found {direction[odd]!r}.")
    with _of_file(path):
        return RegionTable(
            text_array(rows["name"]),
            _chromosomes(rows["chromosome"]),
            _whole(rows["start"], "start", path),
            _whole(rows["stop"], "end", path),
            np.array(direction, dtype=np.str_),
            _numbers(rows.get("loeuf", [""] * count), "loeuf", path),
            genome_build,
        )


def read_array_quality(path: Path) -> tuple[Shaped[np.ndarray, " people"], dict[str, Shaped[np.ndarray, " people"]]]:
    """Return participants and what a table says of their arrays: lrr_sd, baf_median, baf_drift, gc_wave (NaN: unknown).

    Raises
    ------
    FormatError
        There is no participant, or a number is none.
    """
    metrics = ("lrr_sd", "baf_median", "baf_drift", "gc_wave")
    rows = _from_table(path, ("participant_id",), metrics)
    ids = np.array([_plain(str(name)) for name in rows["participant_id"]], dtype=np.str_)
    return ids, {name: _numbers(rows.get(name, [""] * ids.size), name, path) for name in metrics}


def _from_penncnv(path: Path) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {n: [] for n in ("participant_id", "chromosome", "start", "stop", "copies", "n_snps",
                                                   "score")}  # fmt: skip
    for number, line in enumerate(read_lines(path, what="copy-number calls of PennCNV"), start=1):
        if not line.strip() or line.startswith(("NOTICE", "#")):
            continue
        found = _PENNCNV.match(line.strip())
        if found is None:
            raise FormatError(
                f"{path}, line {number}: expected 'chr1:100-200 numsnp=10 length=101 state2,cn=1 SAMPLE ...', found "
                f"{line[:60]!r}. Tables of calls must end in .tsv, .csv or .parquet."
            )
        for name, value in found.groupdict().items():
            rows[name].append(_plain(value) if name == "participant_id" else value or "")
    return rows


def _plain(name: str) -> str:
    """Return the participant of a signal file."""
    return re.sub(r"(\.(txt|gz|csv))+$", "", name.replace("\\", "/").rsplit("/", 1)[-1])


def _from_plink(path: Path) -> dict[str, list[Any]]:
    lines = [line.split() for line in read_lines(path, what="copy-number calls of PLINK") if line.strip()]
    header = [name.upper() for name in lines[0]] if lines else []
    wanted = ("FID", "IID", "CHR", "BP1", "BP2", "TYPE", "SCORE", "SITES")
    if header[: len(wanted)] != list(wanted):
        raise FormatError(f"{path}, line 1: expected {' '.join(wanted)}, found {' '.join(header[:8]) or 'nothing'}.")
    for number, fields in enumerate(lines[1:], start=2):
        if len(fields) < len(wanted):
            raise FormatError(f"{path}, line {number}: expected {len(wanted)} fields, found {len(fields)}.")
    columns = list(zip(*(fields[: len(wanted)] for fields in lines[1:]), strict=True)) or [()] * len(wanted)
    ours = ("participant_id", "chromosome", "start", "stop", "copies", "score", "n_snps")
    return {name: list(column) for name, column in zip(ours, columns[1:], strict=True)}


def _from_table(path: Path, needed: Sequence[str], optional: Sequence[str]) -> dict[str, list[Any]]:
    table = read_arrow(path)
    known = {str(name).lower(): str(name) for name in table.column_names}
    found: dict[str, list[Any]] = {}
    for name in (*needed, *optional):
        column = next((known[alias] for alias in _NAMES[name] if alias in known), None)
        if column is not None:
            found[name] = ["" if v is None else str(v) for v in table.column(column).to_pylist()]
        elif name in needed:
            raise FormatError(
                f"{path}: expected a column {name} (or {', '.join(_NAMES[name])}), found "
                f"{', '.join(map(str, table.column_names[:8]))}."
            )
    return found


def _chromosomes(names: Sequence[Any]) -> Shaped[np.ndarray, " rows"]:
    return np.array([canonical_chromosome(str(name)) for name in names], dtype=np.str_)


def _numbers(values: Sequence[Any], name: str, path: Path) -> Shaped[np.ndarray, " rows"]:
    result = np.empty(len(values))
    for k, value in enumerate(values):
        try:
            result[k] = float(value) if str(value) not in ("", "NA", "nan", ".") else np.nan
        except ValueError:
            raise FormatError(f"{path}, row {k + 1}: expected a number for {name}, found {value!r}.") from None
    return result


def _whole(values: Sequence[Any], name: str, path: Path) -> Shaped[np.ndarray, " rows"]:
    numbers = _numbers(values, name, path)
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.rint(numbers)) & (numbers >= 0)))
    if bad.size:
        row = int(bad[0])
        raise FormatError(f"{path}, row {row + 1}: expected a whole number for {name}, found {values[row]!r}.")
    return numbers.astype(np.int64)
