"""``cohort join`` and ``cohort split``: tables of people put together, and people divided."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from brainlocus.core import PhenotypeTable, SchemaError, shared_samples
from brainlocus.io import atomic_path, write_table
from brainlocus.pipeline.config import CommaList, InputPath, InputPaths, Positional, StepConfig
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["JOIN", "SPLIT", "JoinConfig", "SplitConfig"]


class JoinConfig(StepConfig):
    """Settings of ``cohort join``."""

    tables: Annotated[InputPaths, Positional()] = Field(description="Tables with participant ids")
    columns: CommaList = Field((), description="Keep only these columns, besides the ids")


def join_tables(config: JoinConfig, out: Path, context: Context) -> StepResult:  # noqa: ARG001
    """Write the people that are in every table, with the columns of all."""
    tables = [read_people(path) for path in config.tables]
    people = shared_samples(*(t.samples for t in tables), names=tuple(str(p) for p in config.tables))
    columns = [column for table in tables for column in table.take(people).columns]
    joined = PhenotypeTable(people, tuple(columns))
    if config.columns:
        joined = joined.select(config.columns)
    write_table(joined, out)
    counts = {"shared": len(people), **{str(p): len(t.samples) for p, t in zip(config.tables, tables, strict=True)}}
    sizes = ", ".join(f"{p} has {len(t.samples)}" for p, t in zip(config.tables, tables, strict=True))
    return StepResult(counts, summary=(f"{len(people)} people are in all tables ({sizes})",))


class SplitConfig(StepConfig):
    """Settings of ``cohort split``."""

    table: Annotated[InputPath, Positional()] = Field(description="Table with participant ids")
    by: str = Field("split", description="Column that says which part a person belongs to")


def split_people(config: SplitConfig, out: Path, context: Context) -> StepResult:  # noqa: ARG001
    """Write one list of participant ids per level of a column: ``<level>.txt``."""
    table = read_people(config.table)
    column = table.column(config.by)
    if column.kind != "categorical" and not np.isfinite(column.values).any():
        raise SchemaError(f"{config.table}: column {config.by!r} has no values; expected names of parts.")
    if column.kind != "categorical":
        raise SchemaError(f"{config.table}: column {config.by!r} holds numbers, expected names of parts.")
    counts = {}
    odd = sorted({str(v) for v in column.values if "/" in v or v in (".", "..") or "\0" in v})
    if odd:
        raise SchemaError(
            f"{config.table}: {odd[0]!r} in column {config.by!r} cannot be the name of a file; rename it."
        )
    for level in np.unique(column.values[column.values != ""]):
        ids = table.samples.ids[column.values == level]
        with atomic_path(out / f"{level}.txt") as partial:
            partial.write_text("\n".join(ids.tolist()) + "\n")
        counts[str(level)] = int(ids.size)
    return StepResult(counts, summary=(", ".join(f"{k}: {v} people" for k, v in counts.items()),))


JOIN = Step("cohort join", "Join tables by participant id.", JoinConfig, join_tables)
SPLIT = Step(
    "cohort split", "List the participants of each level of a column.", SplitConfig, split_people, out="folder"
)
