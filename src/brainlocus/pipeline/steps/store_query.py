"""``store query``: from a list of genes to brain phenotypes, from phenotypes to genes, as a table.

Data flow::

    store, names of genes or phenotypes --LocalStore--> numbers; unknown names are told
    filters, scope, alpha               --stream-----> associations, a file of the store at a time --> table
                                        --summarise--> one row a phenotype, gene, region, tissue or modality
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from brainlocus.core import ResultTable, SchemaError
from brainlocus.io import ResultWriter, read_lines, write_results
from brainlocus.pipeline.config import CommaList, InputTree, Positional, StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.store import GeneFilter, GeneResults, GeneRows, LocalStore, public_id

__all__ = ["STORE_QUERY", "StoreQueryConfig"]

_SHOWN = 20
"""Unknown names that the summary lists; the manifest has all."""
_PART = 200_000
"""Rows written at a time."""


def _names(value: object) -> object:
    """Return the names in a text with commas between, or in a file with one a line (the first column)."""
    if isinstance(value, str):
        path = Path(value)
        if "," not in value and path.is_file():
            lines = [line.split("\t")[0].strip() for line in read_lines(path, what="a list of names")]
            return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class StoreQueryConfig(StepConfig):
    """Settings of ``store query``."""

    store: Annotated[InputTree, Positional()] = Field(description="Folder of store build")
    genes: Names = Field((), description="Symbols or Ensembl ids with commas between, or a file with one a line")
    phenotypes: Names = Field((), description="Phenotypes with commas between, or a file with one a line")
    modality: CommaList = Field((), description="Only phenotypes of these modalities")
    atlas: CommaList = Field((), description="Only phenotypes of these atlases")
    region: CommaList = Field((), description="Only phenotypes of these regions")
    side: CommaList = Field((), description="Only phenotypes of these sides")
    measurement: CommaList = Field((), description="Only phenotypes of these measurements")
    tissue: CommaList = Field((), description="Only these tissues")
    scope: Literal["study", "modality", "atlas", "phenotype", "phenotype-tissue", "nominal"] = Field(
        "study", description="Tests that alpha holds over; nominal compares p itself"
    )
    correction: Literal["bh", "bonferroni"] = Field("bh", description="Benjamini-Hochberg or Bonferroni")
    alpha: float = Field(0.05, gt=0, le=1, description="Largest q, corrected p or p of an association")
    summary: Literal["none", "phenotype", "gene", "region", "tissue", "modality"] = Field(
        "none", description="One row for each of these instead of one for each association"
    )


def _known(names: tuple[str, ...], find: Any, near: Any, what: str, missing: dict[str, list[str]]) -> set[int] | None:
    """Return the numbers of names, None where none were asked for; add the unknown ones to `missing`."""
    if not names:
        return None
    found: set[int] = set()
    for name in names:
        numbers = find(name)
        found.update(numbers)
        if not numbers:
            missing.setdefault(what, []).append(name)
    if not found:
        hints = near(names[0])
        hint = f" Did you mean {', '.join(map(repr, hints))}?" if hints else ""
        raise SchemaError(
            f"None of the {len(names)} {what} is in the store (first: {names[0]!r}).{hint} Give Ensembl ids or symbols "
            "of genes, and phenotypes by the names in the results."
        )
    return found


def store_query(config: StoreQueryConfig, out: Path, context: Context) -> StepResult:
    """Write the associations of genes or phenotypes that pass a filter."""
    with closing(LocalStore(config.store)) as store:
        twas = store.twas
        if twas is None:
            raise SchemaError(
                f"{config.store}: expected a store with associations of genes, found none in it. Build one with: "
                "brainlocus store build --twas RESULTS --out FOLDER"
            )
        missing: dict[str, list[str]] = {}
        gids = _known(config.genes, lambda n: [g["gid"] for g in twas.find_genes(n)], twas.near_genes, "genes", missing)
        pids = _known(config.phenotypes, lambda n: _pids(store, n), store.near_phenotypes, "phenotypes", missing)
        counts: dict[str, Any] = {"store_sha256": store.digest, "associations_read": 0, "associations": 0}
        if gids is not None:
            counts["genes"] = len(gids)
        if pids is not None:
            counts["phenotypes"] = len(pids)
        parts = _counted(twas.stream(_filter(config), gids=gids, pids=pids), counts)
        if config.summary == "none":
            _write_rows(twas, config, parts, out)
        else:
            rows = twas.summarise(parts, config.summary)
            counts[f"{config.summary}_rows"] = len(rows)
            write_results(_summary_table(rows, config), out)
    n_unknown = 0
    for what, names in missing.items():
        counts[f"{what}_unknown"] = len(names)
        counts[f"{what}_unknown_names"] = names
        n_unknown += len(names)
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        context.progress.say(f"{len(names)} of the {what} are not in the store: {shown}")
    bound = "p" if config.scope == "nominal" else "q" if config.correction == "bh" else "Bonferroni p"
    over = "" if config.scope == "nominal" else f" over the {config.scope}"
    text = f"{counts['associations']:,} associations at {bound} <= {config.alpha:g}{over}"
    return StepResult(counts, n_failed=n_unknown, summary=(text,))


def _pids(store: LocalStore, name: str) -> list[int]:
    row = store.phenotype(public_id(name))
    return [row["pid"]] if row is not None else []


def _filter(config: StoreQueryConfig) -> GeneFilter:
    names = ("modality", "atlas", "side", "region", "measurement", "tissue", "scope", "correction", "alpha")
    return GeneFilter(**{name: getattr(config, name) for name in names})


def _counted(parts: Iterator[tuple[int, GeneRows]], counts: dict[str, Any]) -> Iterator[GeneRows]:
    for n_read, rows in parts:
        counts["associations_read"] += n_read
        counts["associations"] += len(rows)
        yield rows


_TEXT = ("gene", "gene_name", "phenotype", "tissue", "modality", "atlas", "side", "region", "measurement")
_NUMBERS = ("zscore", "effect_size", "pvalue", "neg_log10_p", "q_bh", "p_bonferroni", "pred_perf_r2")


def _write_rows(twas: GeneResults, config: StoreQueryConfig, parts: Iterator[GeneRows], out: Path) -> None:
    """Write associations in the order of the store: by gene, or by phenotype where only phenotypes were asked for."""
    with ResultWriter(out) as writer:
        empty = True
        for rows in parts:
            for start in range(0, len(rows), _PART):
                writer.append(_table(twas, rows.take(np.arange(start, min(start + _PART, len(rows)))), config.scope))
                empty = False
        if empty:
            writer.append(_table(twas, GeneRows.empty(), config.scope))


def _table(twas: GeneResults, rows: GeneRows, scope: str) -> ResultTable:
    columns = twas.columns(rows, scope)
    columns["phenotype"] = columns["phenotype_id"]
    columns["pvalue"] = (10.0**-rows.strength).tolist()
    found = {name: np.array(columns[name], dtype=np.str_) for name in _TEXT}
    return ResultTable(found | {name: np.array(columns[name], dtype=np.float64) for name in _NUMBERS})


def _summary_table(rows: list[dict[str, Any]], config: StoreQueryConfig) -> ResultTable:
    renamed = {"phenotype_id": "phenotype", "label": "phenotype_label", "top_phenotype_id": "top_phenotype"}
    names = _SUMMARY_OF[config.summary]
    table = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
    columns = {}
    for name in names:
        values = [row[name] for row in table]
        kind = np.str_ if name in _SUMMARY_TEXT else np.int64 if name.startswith("n_") else np.float64
        columns[name] = np.array(values, dtype=kind)
    return ResultTable(columns)


_COUNTS = ("n_associations", "n_genes", "n_phenotypes", "n_tissues", "n_positive", "n_negative")
_REST = ("mean_z", "mean_abs_z", "top_z", "top_neg_log10_p", "top_gene", "top_phenotype", "top_tissue")
_KEYS = {
    "phenotype": ("phenotype", "phenotype_label", "modality", "atlas", "side", "region", "measurement"),
    "gene": ("gene", "gene_name"),
    "region": ("atlas", "region", "side"),
    "tissue": ("tissue",),
    "modality": ("modality",),
}
_SUMMARY_OF = {
    by: (*keys, *(c for c in (*_COUNTS, *_REST) if c not in (f"n_{by}s", f"top_{by}"))) for by, keys in _KEYS.items()
}
_SUMMARY_TEXT = {*(name for keys in _KEYS.values() for name in keys), "top_gene", "top_phenotype", "top_tissue"}

STORE_QUERY = Step("store query", "Look genes or phenotypes up in a store.", StoreQueryConfig, store_query)
