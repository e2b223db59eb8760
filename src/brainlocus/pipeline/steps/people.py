"""``cohort join`` and ``cohort split``: tables of people put together, and people divided."""

from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int, Shaped
from pydantic import Field

from brainlocus.core import PhenotypeTable, SchemaError, shared_samples
from brainlocus.io import atomic_path, write_table
from brainlocus.pipeline.config import CommaList, InputPath, InputPaths, Positional, StepConfig
from brainlocus.pipeline.people import draw_share, read_people
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
    fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Instead of --by: draw this share for discovery (--seed), the rest for replication",
    )
    within: CommaList = Field((), description="Columns, such as site,sex, whose every combination is shared alike")


def split_people(config: SplitConfig, out: Path, context: Context) -> StepResult:
    """Write one list of participant ids per level of a column (``<level>.txt``), or of a seeded draw."""
    table = read_people(config.table)
    if config.fraction is not None:
        keys = [_stratum_codes(table, name) for name in config.within]
        drawn = draw_share(keys, len(table.samples), config.fraction, np.random.default_rng(context.seed))
        if drawn.all() or not drawn.any():
            raise SchemaError(
                f"--fraction {config.fraction:g} of the {drawn.size} people of {config.table} leaves nobody for "
                f"{'replication' if drawn.any() else 'discovery'}; take another share."
            )
        return _write_parts(table, np.where(drawn, "discovery", "replication"), out)
    if config.within:
        raise SchemaError("--within shares the combinations of columns alike in a draw; give --fraction too.")
    column = table.column(config.by)
    if column.kind != "categorical" and not np.isfinite(column.values).any():
        raise SchemaError(f"{config.table}: column {config.by!r} has no values; expected names of parts.")
    if column.kind != "categorical":
        raise SchemaError(f"{config.table}: column {config.by!r} holds numbers, expected names of parts.")
    odd = sorted({str(v) for v in column.values if "/" in v or v in (".", "..") or "\0" in v})
    if odd:
        raise SchemaError(
            f"{config.table}: {odd[0]!r} in column {config.by!r} cannot be the name of a file; rename it."
        )
    return _write_parts(table, column.values, out)


def _stratum_codes(table: PhenotypeTable, name: str) -> Int[np.ndarray, " people"]:
    """Return a number per level of a column; a quantitative one is cut at its quartiles, missing is a level."""
    column = table.column(name)
    if column.kind == "quantitative":
        edges = np.nanquantile(column.values, (0.25, 0.5, 0.75)) if np.isfinite(column.values).any() else np.empty(0)
        return np.where(np.isnan(column.values), -1, np.digitize(column.values, edges))
    return np.unique(column.values, return_inverse=True)[1]


def _write_parts(table: PhenotypeTable, part: Shaped[np.ndarray, " people"], out: Path) -> StepResult:
    counts = {}
    for level in np.unique(part[part != ""]):
        ids = table.samples.ids[part == level]
        with atomic_path(out / f"{level}.txt") as partial:
            partial.write_text("\n".join(ids.tolist()) + "\n", encoding="utf-8")
        counts[str(level)] = int(ids.size)
    return StepResult(counts, summary=(", ".join(f"{k}: {v} people" for k, v in counts.items()),))


JOIN = Step("cohort join", "Join tables by participant id.", JoinConfig, join_tables)
SPLIT = Step(
    "cohort split",
    "List the participants of each level of a column, or of a random draw.",
    SplitConfig,
    split_people,
    out="folder",
)
