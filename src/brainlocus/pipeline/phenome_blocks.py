"""Blocks of a phenotype table that need not fit in memory: read some columns, scan them, next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlocus.cohort.associate import PhenomeDesign, PhenomeScan, scan_phenome, scan_phenome_peak_bytes
from brainlocus.core import PhenotypeTable, ResourceError, SampleIndex
from brainlocus.io import measure_names, read_fam, read_table
from brainlocus.pipeline.executors import make_executor
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.step import Context

__all__ = ["Block", "PhenomePlan", "ScannedBlock", "plan_phenome", "read_columns", "scan_blocks", "table_names"]

SCANNED_AT_ONCE = 256
"""Phenotypes whose products are made together; more do not make them faster."""
_READ_AT_ONCE = 1_024
"""Columns of Parquet read together where memory is plenty: opening a table of 17,485 columns takes 0.3 seconds."""
_PARQUET_CELL, _TEXT_CELL = 40, 64
"""Bytes that a cell takes while its column is read, aligned and scanned."""
_RESULT = 200
"""Bytes of a pair: ten numbers, corrections, and the order of p-values while they are corrected."""
_ROW = 1_000
"""Bytes of a row while it is written, with its names."""


@dataclass(frozen=True, slots=True)
class Block:
    """Columns that are read together; picklable."""

    path: Path
    names: tuple[str, ...]
    na_values: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ScannedBlock:
    """What a block gave."""

    names: tuple[str, ...]
    """Numeric phenotypes, in order."""
    text: tuple[str, ...]
    """Columns left out because they hold text."""
    scans: tuple[PhenomeScan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """Reads and scans one block; picklable."""

    design: PhenomeDesign
    people: SampleIndex

    def __call__(self, block: Block) -> ScannedBlock:
        table = read_columns(block.path, block.names, block.na_values)
        rows = table.samples.indices_of(self.people)
        scans = []
        # Products of the same columns whatever the workers and their blocks: rounding depends on the shapes.
        for start in range(0, len(table.columns), SCANNED_AT_ONCE):
            numeric = [c for c in table.columns[start : start + SCANNED_AT_ONCE] if c.kind != "categorical"]
            if numeric:
                # One phenotype after the other in memory, as the file has them.
                scans.append(scan_phenome(self.design, np.stack([c.values[rows] for c in numeric]).T))
        kinds = [(c.name, c.kind == "categorical") for c in table.columns]
        text, names = (tuple(name for name, is_text in kinds if is_text == wanted) for wanted in (True, False))
        return ScannedBlock(names, text, tuple(scans))


@dataclass(frozen=True, slots=True)
class PhenomePlan:
    """How a table is gone through within a memory budget."""

    columns_at_once: int
    workers: int
    """All of the executor's, or 1."""
    needed_bytes: int


def table_names(path: Path) -> tuple[str, ...]:
    """Return the names of a table's measures without reading them.

    Raises
    ------
    FormatError, SchemaError
        As `read_people`.
    """
    return read_fam(path).phenotypes.names if path.suffix == ".fam" else measure_names(path)


def read_columns(path: Path, names: Sequence[str], na_values: Sequence[str] = ()) -> PhenotypeTable:
    """Read some measures of a table of people.

    Raises
    ------
    FormatError, SchemaError
        As `read_people`.
    """
    if path.suffix == ".fam":
        return read_people(path).select(names)
    return read_table(path, columns=names, na_values=na_values)


def plan_phenome(
    path: Path, *, n_rows: int, n_traits: int, n_phenotypes: int, design: PhenomeDesign, workers: int, memory_bytes: int
) -> PhenomePlan:
    """Return how many columns are read at once, and by how many workers, within `memory_bytes`.

    Text is gone through once for each block, so that blocks are as large as they can be; Parquet has columns.

    Raises
    ------
    ResourceError
        Not even one phenotype at a time fits.
    """
    text = path.suffix != ".parquet"
    cell = _TEXT_CELL if text else _PARQUET_CELL
    n_samples = design.traits.shape[0]
    held = 8 * n_samples * n_traits * 5 + _RESULT * n_traits * n_phenotypes
    held += _ROW * n_traits * min(SCANNED_AT_ONCE, n_phenotypes) + 100 * n_rows

    def needed(columns: int, count: int) -> int:
        at_once = min(columns, SCANNED_AT_ONCE)
        scan = scan_phenome_peak_bytes(n_samples, n_traits, at_once, design.rank, mode=design.mode)
        return int(held + count * (cell * n_rows * columns + scan))

    columns = min(SCANNED_AT_ONCE, n_phenotypes)
    # An executor has all its workers or one.
    count = workers if needed(columns, workers) <= memory_bytes else 1
    while columns > 1 and needed(columns, count) > memory_bytes:
        columns //= 2
    if needed(columns, count) > memory_bytes:
        raise ResourceError(
            f"{n_phenotypes} phenotypes against {n_traits} traits of {n_samples} people need "
            f"{needed(columns, count) / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are given. Raise --memory."
        )
    most = n_phenotypes if text else _READ_AT_ONCE
    while columns * count < n_phenotypes and columns < most:
        if needed(columns + SCANNED_AT_ONCE, count) > memory_bytes:
            break
        columns += SCANNED_AT_ONCE
    return PhenomePlan(columns, count, needed(columns, count))


def scan_blocks(
    path: Path,
    names: Sequence[str],
    *,
    plan: PhenomePlan,
    design: PhenomeDesign,
    people: SampleIndex,
    na_values: Sequence[str],
    context: Context,
) -> Iterator[ScannedBlock]:
    """Yield every block of a table's columns, scanned, in order.

    Parameters
    ----------
    people
        Those of the design, in its order; all are in the table.

    Raises
    ------
    FormatError, SchemaError
        As `read_people`.
    """
    step = plan.columns_at_once
    blocks = [Block(path, tuple(names[k : k + step]), tuple(na_values)) for k in range(0, len(names), step)]
    executor = context.executor if plan.workers > 1 else make_executor("serial", threads=1)
    done = executor.map(_Scan(design, people), blocks)
    yield from context.progress.track(done, "Scanning phenotypes", len(blocks))
