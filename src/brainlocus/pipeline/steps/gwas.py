"""``gwas run`` and ``gwas replicate``.

A scan runs in shards of consecutive variants on any executor; each finished shard is a file, so that an
interrupted run is taken up where it stopped.
"""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int
from pydantic import Field

from brainlocus.core import GenotypeSource, ResultTable, SampleIndex, SchemaError, VariantTable, select_genotypes
from brainlocus.core.errors import FormatError, nearest
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import (
    QQ_BIN_WIDTH,
    FullScan,
    ScanPlan,
    ScanResult,
    ScanSettings,
    ShardResult,
    expand_full,
    join_replication,
    merge_shards,
    prepare_scan,
    scan_peak_bytes,
    scan_shard,
    shard_bounds,
)
from brainlocus.io import read_results, write_results
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes, choose_people, open_input
from brainlocus.pipeline.genomes import read_traits, require_memory, table_bytes
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["GWAS_REPLICATE", "GWAS_RUN", "GwasReplicateConfig", "GwasRunConfig", "full_traits", "read_full"]


class GwasRunConfig(GenotypeInput):
    """Settings of ``gwas run``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits (.tsv, .csv, .parquet, .fam)")
    columns: CommaList = Field((), description="Traits: names or patterns (C32_*); all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    method: Literal["linear"] = Field("linear", description="Regression")
    missing: Literal["auto", "exact", "mean"] = Field(
        "auto", description="Missing calls: left out (exact), or imputed (mean); auto is mean from a call rate of 97 %"
    )
    hits: float = Field(1e-5, gt=0, le=1, description="Largest p of a hit; 1 keeps every test")
    min_mac: float = Field(20.0, ge=0, description="Fewest copies of the rarer allele among a trait's people")
    full: bool = Field(False, description="Keep every test, in full/")
    shard_size: int = Field(16_384, ge=64, description="Variants per resumable part")


class GwasReplicateConfig(StepConfig):
    """Settings of ``gwas replicate``."""

    leads: Annotated[InputPath, Positional()] = Field(description="Lead variants of the discovery (leads.parquet)")
    replication: Annotated[InputPath, Positional()] = Field(
        description="Their tests in the replication people: hits.parquet of gwas run --hits 1"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Replicated below alpha / number of leads, same sign")


_BYTES_PER_HIT = 500
"""A hit with its names, while hits are sorted and written."""


@dataclass(frozen=True, slots=True)
class _Task:
    plan: Path
    start: int
    stop: int
    memory_bytes: int


@lru_cache(maxsize=2)
def _open(plan: Path, stamp: int) -> tuple[ScanPlan, GenotypeSource]:  # noqa: ARG001
    """Return the plan and the genotypes, which reopen by path: what their file says of variants is not read again."""
    with plan.open("rb") as stream:
        prepared, source, rows = pickle.load(stream)  # our own file, written by this run
    return prepared, select_genotypes(source, samples=prepared.samples, variants=rows)


def _scan(task: _Task, path: Path) -> None:
    """Scan one shard into a file."""
    plan, source = _open(task.plan, task.plan.stat().st_mtime_ns)
    shard = scan_shard(plan, source, task.start, task.stop, memory_bytes=task.memory_bytes)
    arrays: dict[str, Any] = {f.name: getattr(shard, f.name) for f in fields(ShardResult) if f.name != "full"}
    if shard.full is not None:
        arrays |= {f"full.{f.name}": getattr(shard.full, f.name) for f in fields(FullScan)}
        arrays = {name: value for name, value in arrays.items() if value is not None}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _read_shard(path: Path) -> ShardResult:
    with np.load(path, allow_pickle=False) as stored:
        full = None
        if "full.t" in stored:
            kept: dict[str, Any] = {f.name: stored.get(f"full.{f.name}") for f in fields(FullScan)}
            full = FullScan(**kept)
        plain: dict[str, Any] = {f.name: stored[f.name] for f in fields(ShardResult) if f.name != "full"}
        plain |= {"start": int(plain["start"]), "stop": int(plain["stop"])}
        return ShardResult(**plain, full=full)


def _plan(config: GwasRunConfig, people: SampleIndex) -> ScanPlan:
    traits = read_traits(config.traits, config.columns, config.covariates, config.formula)
    try:
        return prepare_scan(
            traits.table,
            people,
            covariates=traits.covariates,
            formula=traits.formula,
            names=traits.names,
            settings=ScanSettings(config.hits, config.min_mac, config.missing, config.full),
        )
    except ValueError as error:
        raise SchemaError(str(error)) from error


def _shards(paths: Iterator[Path], plan: ScanPlan, folder: Path | None) -> Iterator[ShardResult]:
    """Yield shards, each without its full results, which go to `folder`."""
    for number, path in enumerate(paths):
        shard = _read_shard(path)
        if folder is not None and shard.full is not None:
            _write_full_part(shard.full, plan, folder / f"part-{number:05d}.parquet")
        yield replace(shard, full=None)


def _write_full_part(full: FullScan, plan: ScanPlan, path: Path) -> None:
    columns: dict[str, Any] = {f"t:{name}": full.t[:, k] for k, name in enumerate(plan.design.names)}
    if full.beta is not None:
        columns |= {f"beta:{name}": full.beta[:, k] for k, name in enumerate(plan.design.names)}
    for g in range(len(plan.design.groups)):
        columns |= {f"{name}:{g}": getattr(full, name)[:, g] for name in _GROUP_COLUMNS}
    table = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


_FULL_TYPES = {"t": np.float32, "n": np.int64}
_GROUP_COLUMNS = ("residual_variance", "degrees_of_freedom", "n", "effect_allele_frequency")


def _write_full_index(plan: ScanPlan, variants: VariantTable, folder: Path) -> None:
    place = {n: getattr(variants, n) for n in ("chromosome", "position", "variant_id", "effect_allele", "other_allele")}
    write_results(ResultTable(place), folder / "variants.parquet")
    traits = {}
    for g, group in enumerate(plan.design.groups):
        for k in range(group.columns.start, group.columns.stop):
            traits[plan.design.names[k]] = {"group": g, "norm": float(plan.design.norm[k]), "n": group.n}
    content = {"genome_build": variants.genome_build, "traits": traits}
    (folder / "traits.json").write_text(json.dumps(content, indent=1) + "\n")


def full_traits(folder: Path) -> list[str]:
    """Return the traits that a ``full/`` folder of ``gwas run`` holds.

    Raises
    ------
    FormatError
        It is not such a folder.
    """
    return list(_full_index(folder)["traits"])


def _full_index(folder: Path) -> dict[str, Any]:
    index = folder / "traits.json"
    if not index.is_file():
        raise FormatError(f"{folder}: expected the folder full/ of gwas run --full (with traits.json), found none.")
    content: dict[str, Any] = json.loads(index.read_text())
    return content


def read_full(folder: Path, trait: str) -> ResultTable:
    """Return every test of one trait from the ``full/`` folder of ``gwas run --full``.

    Returns
    -------
    ResultTable
        chromosome, position, variant_id, effect_allele, other_allele, effect_allele_frequency, n, beta,
        standard_error, neg_log10_p, one row per variant in genotype order; NaN where there is no estimate.

    Raises
    ------
    FormatError
        Not such a folder.
    SchemaError
        The trait is not in it; the message has the nearest name.
    """
    index = _full_index(folder)
    if trait not in index["traits"]:
        raise SchemaError(f"{folder}: there is no trait {trait!r}.{nearest(trait, list(index['traits']))}")
    about = index["traits"][trait]
    group = about["group"]
    parts = sorted(folder.glob("part-*.parquet"))
    has_beta = bool(parts) and f"beta:{trait}" in pq.read_schema(parts[0]).names
    wanted = [f"t:{trait}", *([f"beta:{trait}"] if has_beta else []), *(f"{n}:{group}" for n in _GROUP_COLUMNS)]
    tables = [pq.read_table(part, columns=wanted) for part in parts]
    values = {name: np.concatenate([t.column(name).to_numpy() for t in tables]) for name in wanted if tables}
    if not tables:  # a scan of no variant
        values = {name: np.empty(0, _FULL_TYPES.get(name.split(":")[0], np.float64)) for name in wanted}
    place = read_results(folder / "variants.parquet")
    variants = VariantTable(
        place["chromosome"],
        place["position"].astype(np.int64),
        text_array(place["effect_allele"]),
        text_array(place["other_allele"]),
        text_array(place["variant_id"]),
        index["genome_build"],
    )
    return expand_full(
        variants,
        t=values[f"t:{trait}"],
        beta=values[f"beta:{trait}"] if has_beta else None,
        norm=float(about["norm"]),
        **{name: values[f"{name}:{group}"] for name in _GROUP_COLUMNS},
    )


def _qq_table(result: ScanResult, traits: tuple[str, ...]) -> ResultTable:
    """Return the bins of -log10 p that hold tests: lower edge and count."""
    rows, bins = np.nonzero(result.qq)
    counts: Int[np.ndarray, " bins"] = result.qq[rows, bins]
    return ResultTable({"trait": text_array(traits)[rows], "neg_log10_p": bins * QQ_BIN_WIDTH, "n_tests": counts})


def _write(result: ScanResult, plan: ScanPlan, out: Path) -> None:
    write_results(result.hits, out / "hits.parquet")
    write_results(result.traits, out / "traits.parquet")
    variants = dict(result.variants.columns)
    variants["info"] = np.full(len(result.variants), np.nan)
    write_results(ResultTable(variants), out / "variants.parquet")
    analysed = tuple(name for name in plan.trait_names if name in set(plan.design.names))
    write_results(_qq_table(result, analysed), out / "qq.parquet")


def gwas_run(config: GwasRunConfig, out: Path, context: Context) -> StepResult:
    """Test every variant for every trait."""
    asked = choose_genotypes(config)
    source = asked.source
    rows = np.flatnonzero(asked.variants & (source.variants.chromosome != "0"))
    plan = _plan(config, asked.samples)
    chosen = source.variants.take(rows)
    plan_file = context.shards / "plan.pickle"
    with plan_file.open("wb") as stream:
        pickle.dump((plan, source, rows), stream)
    # Half of a worker's share is for its blocks, the rest for what it keeps of them.
    fixed = _fixed_bytes(plan, len(source.variants))
    per_worker = 2 * scan_peak_bytes(plan, 64)
    what = f"A scan of {rows.size} variants, {len(plan.samples)} people and {len(plan.design.names)} traits by "
    workers = context.executor.workers
    require_memory(fixed + workers * per_worker, context.memory_bytes, f"{what}{workers} workers")
    memory = (context.memory_bytes - fixed) // (2 * workers)
    tasks = {
        f"shard-{start:09d}.npz": _Task(plan_file, start, stop, memory)
        for start, stop in shard_bounds(rows.size, config.shard_size)
    }
    folder = out / "full" if config.full else None
    if folder is not None:
        folder.mkdir()
        _write_full_index(plan, chosen, folder)
    done = context.map_shards(_scan, tasks, "Scanning variants")
    result = merge_shards(plan, chosen, _shards(done, plan, folder))
    _open.cache_clear()
    _write(result, plan, out)
    return _report(result, plan, asked.counts, rows.size)


def _fixed_bytes(plan: ScanPlan, n_variants: int) -> int:
    """Return what a scan holds whatever its blocks: variants, design, bins of p, and the hits expected by chance."""
    n_traits = len(plan.design.names)
    hits = min(1.0, plan.settings.hits) * n_variants * n_traits
    return table_bytes(n_variants) + 3 * plan.design.right.nbytes + (n_traits << 17) + int(_BYTES_PER_HIT * hits)


def _report(result: ScanResult, plan: ScanPlan, asked: dict[str, Any], n_variants: int) -> StepResult:
    skipped = dict(plan.design.skipped)
    names, sizes = np.unique(result.variants["reason"], return_counts=True)
    dropped = sorted({name for group in plan.design.groups for name in group.dropped})
    counts = {
        **asked,
        **plan.counts,
        "variants": n_variants,
        "variants_without_result": {str(n): int(c) for n, c in zip(names, sizes, strict=True) if n},
        "traits": len(plan.design.names),
        "traits_skipped": skipped,
        "missing_patterns": len(plan.design.groups),
        "covariates_dropped": dropped,
        "tests": int(result.traits["n_tests"].sum()),
        "hits": len(result.hits),
    }
    lambdas = result.traits["lambda_gc"]
    middle = float(np.nanmedian(lambdas)) if np.isfinite(lambdas).any() else float("nan")
    summary = [
        f"{plan.counts['analysed']:,} people (of {plan.counts['with_genotypes']:,} with genotypes and "
        f"{plan.counts['with_traits']:,} with traits), {len(plan.design.names):,} traits, {n_variants:,} variants",
        f"{counts['tests']:,} tests, {len(result.hits):,} hits at p <= {plan.settings.hits:g}; "
        f"median lambda {middle:.3f}",
    ]
    if dropped:
        summary.append(f"Covariates dropped as constant or combinations of others: {', '.join(dropped)}")
    return StepResult(counts, n_failed=len(skipped), summary=tuple(summary))


def gwas_replicate(config: GwasReplicateConfig, out: Path, context: Context) -> StepResult:  # noqa: ARG001
    """Write the leads with their replication."""
    joined = join_replication(read_results(config.leads), read_results(config.replication), alpha=config.alpha)
    write_results(joined, out)
    n_replicated = int(joined["replicated"].sum())
    tested = int((joined["status"] == "ok").sum())
    agree = int((np.sign(joined["beta"]) == np.sign(joined["replication_beta"])).sum())
    counts = {"leads": len(joined), "tested": tested, "same_sign": agree, "replicated": n_replicated}
    line = f"{len(joined)} leads, {tested} tested, {agree} of the same sign, {n_replicated} replicated at p below "
    line += f"{config.alpha / max(len(joined), 1):.2g}"
    return StepResult(counts, summary=(line,))


def _estimate(config: GwasRunConfig, memory_bytes: int) -> Estimate:
    source = open_input(config)
    plan = _plan(config, choose_people(config, source.samples))
    n, m, k = len(plan.samples), len(source.variants), plan.design.right.shape[1]
    needed = _fixed_bytes(plan, m) + 2 * scan_peak_bytes(plan, 4096)
    return Estimate(min(needed, memory_bytes), 2e-11 * n * m * k + 1e-9 * n * m + 2.0)


GWAS_RUN = Step(
    "gwas run", "Test every variant for every trait.", GwasRunConfig, gwas_run, out="folder", estimate=_estimate
)
GWAS_REPLICATE = Step(
    "gwas replicate", "Compare lead variants with their tests in other people.", GwasReplicateConfig, gwas_replicate
)
