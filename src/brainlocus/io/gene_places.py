"""Where genes are: tables of genes, and BED files of intervals such as LD blocks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.io.tables import read_arrow

__all__ = ["GenePlaces", "Intervals", "read_gene_places", "read_intervals"]

_NAMES = {
    "chromosome": ("chromosome", "chr", "chrom"),
    "start": ("start", "left"),
    "stop": ("stop", "right", "end"),
    "gene": ("gene", "geneid", "gene_id", "ensembl"),
}


@dataclass(frozen=True, slots=True, eq=False)
class GenePlaces:
    """Places of genes, in an order that was asked for."""

    chromosome: Shaped[np.ndarray, " genes"]
    """Without ``chr``; empty where the gene is not known."""
    middle: Float[np.ndarray, " genes"]
    """Of the gene, base pairs; NaN where it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Intervals that do not overlap, numbered in order."""

    chromosome: Shaped[np.ndarray, " intervals"]
    start: Int[np.ndarray, " intervals"]
    stop: Int[np.ndarray, " intervals"]
    """The first base after the interval, counted as `start` is."""

    def find(
        self, chromosome: Shaped[np.ndarray, " places"], position: Float[np.ndarray, " places"]
    ) -> Int[np.ndarray, " places"]:
        """Return the interval of each place; -1 where there is none."""
        found = np.full(position.size, -1, dtype=np.int64)
        for name in np.unique(self.chromosome).tolist():
            mine = np.flatnonzero(self.chromosome == name)
            mine = mine[np.argsort(self.start[mine], kind="stable")]
            asked = np.flatnonzero((chromosome == name) & np.isfinite(position))
            at = np.searchsorted(self.start[mine], position[asked], side="right") - 1
            inside = (at >= 0) & (position[asked] < self.stop[mine[np.maximum(at, 0)]])
            found[asked[inside]] = mine[at[inside]]
        return found


def _without_prefix(names: list[str]) -> Shaped[np.ndarray, " rows"]:
    return np.array([str(name).strip().removeprefix("chr") for name in names], dtype=np.str_)


def read_gene_places(path: Path, genes: Shaped[np.ndarray, " genes"]) -> GenePlaces:
    """Return the places of genes, compared without the versions of their ids.

    Parameters
    ----------
    path
        Table with columns chromosome (chr), start (left), stop (right) and gene (geneid).

    Raises
    ------
    FormatError, SchemaError
        Not a readable table, a column is absent, or a place is not a number.
    """
    table = read_arrow(path)
    columns = {}
    for ours, names in _NAMES.items():
        known = [name for name in names if name in table.column_names]
        if not known:
            raise SchemaError(
                f"{path}: expected a column {' or '.join(names)}, found {', '.join(table.column_names[:10])}."
                f"{nearest(ours, table.column_names)}"
            )
        columns[ours] = table.column(known[0]).to_pylist()
    try:
        middle = (np.array(columns["start"], dtype=np.float64) + np.array(columns["stop"], dtype=np.float64)) / 2
    except ValueError as error:
        raise FormatError(f"{path}: expected positions to be numbers: {error}.") from error
    chromosome = _without_prefix(columns["chromosome"])
    row: dict[str, int] = {}
    for k, name in enumerate(columns["gene"]):
        row.setdefault(str(name).split(".")[0], k)
    at = np.array([row.get(name.split(".")[0], -1) for name in genes.tolist()], dtype=np.int64)
    return GenePlaces(np.where(at >= 0, chromosome[at], ""), np.where(at >= 0, middle[at], np.nan))


def read_intervals(path: Path) -> Intervals:
    """Return the intervals of a BED file (chromosome, start, stop, more ignored), with or without a header.

    Raises
    ------
    FormatError
        Missing, a line of fewer than three columns or without numbers, or no interval at all.
    """
    if not path.is_file():
        raise FormatError(f"Intervals: expected a BED file at {path}, found nothing. Check the path.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(("#", "track", "browser")):
            continue
        if number == 1 and len(fields) >= 3 and not fields[1].isdigit():
            continue
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise FormatError(f"{path}: line {number}: expected chromosome, start and stop, found {line[:60]!r}.")
        rows.append((fields[0], int(fields[1]), int(fields[2])))
    if not rows:
        raise FormatError(f"{path}: expected intervals, found none.")
    names, start, stop = zip(*rows, strict=True)
    return Intervals(_without_prefix(list(names)), np.array(start, dtype=np.int64), np.array(stop, dtype=np.int64))
