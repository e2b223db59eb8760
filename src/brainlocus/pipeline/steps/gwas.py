"""``gwas run`` and ``gwas replicate``.

A scan runs in shards of consecutive variants on any executor; each finished shard is a file, so that an
interrupted run is taken up where it stopped.
"""

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field, model_validator
from threadpoolctl import threadpool_limits

from brainlocus.core import GenotypeSource, PhenotypeTable, ResultTable, SampleIndex, SchemaError
from brainlocus.core.errors import import_extra
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import (
    QQ_BIN_WIDTH,
    LogisticDesign,
    LogisticMethod,
    LogisticSettings,
    RidgeSettings,
    ScanPlan,
    ScanResult,
    ScanSettings,
    ShardResult,
    join_replication,
    merge_shards,
    prepare_scan,
    scan_peak_bytes,
    scan_shard,
    shard_bounds,
)
from brainlocus.io import OpenedGenotypes, read_results, write_results
from brainlocus.numerics.design import covariate_design
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.filters import (
    ChosenGenotypes,
    GenotypeFile,
    GenotypeInput,
    choose_genotypes,
    choose_people,
    chromosome_notes,
    rows_with_chromosome,
)
from brainlocus.pipeline.full_store import add_full_part, write_full_index, write_full_part
from brainlocus.pipeline.genomes import (
    TraitInputs,
    count_minus_nine,
    keep_variants,
    naming_inputs,
    read_list,
    read_traits,
    require_memory,
    table_bytes,
)
from brainlocus.pipeline.ridge import Loco, RidgeInputs, fit_loco, read_loco, ridge_estimate, ridge_variants
from brainlocus.pipeline.scan_folder import known_build
from brainlocus.pipeline.scan_units import (
    SEX_COVARIATE,
    MaleX,
    ScanUnit,
    UnitPlans,
    condition_columns,
    plan_units,
    with_columns,
    with_reasons,
)
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["GWAS_REPLICATE", "GWAS_RUN", "GwasReplicateConfig", "GwasRunConfig"]


class GwasRunConfig(GenotypeInput):
    """Settings of ``gwas run``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits (.tsv, .csv, .parquet, .fam)")
    columns: CommaList = Field((), description="Traits: names or patterns (C32_*); all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    na_values: CommaList = Field(
        (), description="Values of traits and covariates that mean missing, besides NA and empty cells, such as -9"
    )
    method: Literal["linear", "logistic", "ridge"] = Field(
        "linear",
        description="Regression: linear; logistic for cases and controls (0/1 or 1/2); ridge: linear, after what the "
        "other chromosomes predict of a trait was taken from it, for people who are related and for power",
    )
    correction: Literal["firth-fallback", "firth", "firth-approx", "spa", "none"] = Field(
        "firth-fallback", description="Logistic: what is done where cases or alleles are few"
    )
    test: Literal["lrt", "wald"] = Field("lrt", description="Logistic: likelihood ratio, or Wald as PLINK prints it")
    screen: float = Field(
        0.05, gt=0, le=1, description="Logistic: largest p of the score test from which a variant is fitted"
    )
    missing: Literal["auto", "exact", "mean"] = Field(
        "auto", description="Missing calls: left out (exact), or imputed (mean); auto is mean from a call rate of 97 %"
    )
    hits: float = Field(1e-5, gt=0, le=1, description="Largest p of a hit; 1 keeps every test")
    min_mac: float = Field(20.0, ge=0, description="Fewest copies of the rarer allele among a trait's people")
    full: bool = Field(False, description="Keep every test, in full/")
    condition: CommaPaths = Field(
        (), description="Lists of variants whose dosages become covariates: what else there is beside them"
    )
    male_x: MaleX = Field("0/2", description="Copies of a hemizygous man on X: 0/2 (dosage compensation) or 0/1")
    loco: InputPath | None = Field(None, description="With --method ridge: predictions of an earlier run (its loco/)")
    ridge_genotypes: InputPath | None = Field(
        None, description="With --method ridge: genotypes to predict from, where they are others (array calls)"
    )
    ridge_variants: CommaPaths = Field(
        (), description="With --method ridge: lists of the variants to predict from; all autosomal ones by default"
    )
    ridge_min_maf: float = Field(0.01, ge=0, le=0.5, description="Smallest minor allele frequency of these")
    ridge_block: int = Field(1_000, ge=1, description="Variants of a block of the ridge regression")
    ridge_folds: int = Field(5, ge=2, description="Folds of its cross-validation")
    ridge_loo: bool = Field(False, description="Leave out one person at a time instead of a fold")
    ridge_binary: bool = Field(
        False, description="With --method ridge: traits are cases and controls, and logistic regression tests them"
    )
    ridge_max_missing: float = Field(
        0.15, ge=0, lt=1, description="Traits missing in a larger share of the people are predicted by themselves"
    )
    format: Literal["parquet", "ssf"] = Field(
        "parquet",
        description="ssf: also GWAS-SSF, one file per trait in ssf/ (with --full, and a known --genome-build)",
    )
    figures: bool = Field(False, description="Draw Manhattan and Q-Q plots in figures/ (needs the extra plot)")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where matrix products run: cuda needs CuPy or PyTorch")
    shard_size: int = Field(16_384, ge=64, description="Variants per resumable part")

    @model_validator(mode="after")
    def _of_ridge(self) -> "GwasRunConfig":
        """Refuse options of another method."""
        given = [name for name in ("loco", "ridge_binary", "ridge_genotypes", "ridge_variants") if getattr(self, name)]
        if given and self.method != "ridge":
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{names}: only with --method ridge, found --method {self.method}")
        fields = type(self).model_fields
        given = [n for n in ("correction", "test", "screen") if getattr(self, n) != fields[n].default]
        if given and self.method != "logistic" and not self.ridge_binary:
            names = ", ".join(f"--{name}" for name in given)
            raise ValueError(f"{names}: only with --method logistic or --ridge-binary, found --method {self.method}")
        return self


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
    genotypes: GenotypeFile
    unit: Path
    number: int
    """Of the plan."""
    start: int
    stop: int
    memory_bytes: int
    full: Path | None
    """Where every test goes."""


@lru_cache(maxsize=2)
def _open(genotypes: GenotypeFile, unit: Path, stamp: int) -> tuple[ScanUnit, GenotypeSource]:  # noqa: ARG001
    with unit.open("rb") as stream:
        prepared: ScanUnit = pickle.load(stream)  # our own file, written by this run
    return prepared, _source(genotypes, genotypes.stamp)


@lru_cache(maxsize=1)
def _source(genotypes: GenotypeFile, stamp: int) -> OpenedGenotypes:  # noqa: ARG001
    """Return the genotypes, opened once in a process."""
    return genotypes.open()


def _scan(task: _Task, path: Path) -> None:
    """Scan one shard into a file, and every test into another."""
    unit, source = _open(task.genotypes, task.unit, task.unit.stat().st_mtime_ns)
    calls = unit.genotypes(source)
    shard = scan_shard(unit.plan, calls, task.start, task.stop, rows=unit.scan_rows, memory_bytes=task.memory_bytes)
    shard = unit.with_frequencies(shard, source)
    if task.full is not None and shard.full is not None:
        write_full_part(shard.full, unit.plan.method.names, shard.rows, task.number, task.full)
    arrays: dict[str, Any] = {name: getattr(shard, name) for name in _PLAIN}
    arrays |= {f"hit:{name}": values for name, values in shard.hit_values.items()}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


_PLAIN = tuple(f.name for f in fields(ShardResult) if f.name not in {"full", "hit_values"})


def _read_shard(path: Path) -> ShardResult:
    with np.load(path, allow_pickle=False) as stored:
        plain: dict[str, Any] = {name: stored[name] for name in _PLAIN}
        hits = {name[4:]: stored[name] for name in stored.files if name.startswith("hit:")}
        return ShardResult(**plain, hit_values=hits, full=None)


def _inputs(config: GwasRunConfig) -> TraitInputs:
    return read_traits(config.traits, config.columns, config.covariates, config.formula, config.na_values)


def _prepare(
    config: GwasRunConfig, people: SampleIndex, traits: TraitInputs, offset: PhenotypeTable | None = None
) -> ScanPlan:
    with naming_inputs(config.genotypes, config.traits, config.covariates):
        return prepare_scan(
            traits.table,
            people,
            covariates=traits.covariates,
            formula=traits.formula,
            names=traits.names,
            offset=offset,
            settings=ScanSettings(config.hits, config.min_mac, config.missing, config.full, config.device),
            method="logistic" if config.method == "logistic" or config.ridge_binary else "linear",
            logistic=LogisticSettings(config.correction, config.test, config.screen),
        )


def _plans(
    config: GwasRunConfig, asked: ChosenGenotypes, rows: Int[np.ndarray, " variants"], out: Path, context: Context
) -> tuple[UnitPlans, dict[str, Any]]:
    """Return the plans of the scan with their variants, and counts of what led to them."""
    source, people, traits = asked.source, asked.samples, _inputs(config)
    counts: dict[str, Any] = {"minus_nine": count_minus_nine(traits)}
    loco, conditioned = None, None
    if config.method == "ridge" or config.condition:
        analysed = _prepare(config, people, traits)
    if config.method == "ridge":
        loco, counts["whole_genome"] = _whole_genome(config, source, analysed, traits, out / "loco", context)
    if config.condition:
        ids = [name for path in config.condition for name in read_list(path, "variant_id")]
        columns, conditioned = condition_columns(source, ids, analysed.samples)
        people, traits = analysed.samples, with_columns(traits, analysed.samples, columns)
        counts["conditioned"] = conditioned.size
    prepare = partial(_prepare, config)
    plans = plan_units(source, rows, people, traits, prepare, male_x=config.male_x, loco=loco, conditioned=conditioned)
    return plans, counts


def _whole_genome(
    config: GwasRunConfig, source: GenotypeSource, plan: ScanPlan, traits: TraitInputs, folder: Path, context: Context
) -> tuple[Loco, dict[str, Any]]:
    """Return predictions of the traits without each chromosome: those given, or of a regression now."""
    if config.loco is not None:
        return read_loco(config.loco, traits.names), {"predictions_of": str(config.loco)}
    if config.ridge_genotypes is not None:
        source = GenotypeFile(config.ridge_genotypes, config.genome_build, config.bgen_reference, None).open()
    people = plan.samples.take(source.samples.indices_of(plan.samples) >= 0)
    if not len(people):
        raise SchemaError(f"{config.ridge_genotypes}: none of the {len(plan.samples)} people analysed is in it.")
    listed = keep_variants(source.variants, config.ridge_variants)
    rows = ridge_variants(source, people, listed, min_maf=config.ridge_min_maf, memory_bytes=context.memory_bytes)
    matrix = np.empty((len(people), 0))
    if traits.covariates is not None:
        matrix = covariate_design(traits.covariates.take(people), traits.formula).matrix
    values = traits.table.take(people).matrix(traits.names)
    inputs = RidgeInputs(source, rows, people, traits.names, values, matrix, _ridge_settings(config))
    return fit_loco(inputs, folder, context)


def _ridge_settings(config: GwasRunConfig) -> RidgeSettings:
    return RidgeSettings(
        block_size=config.ridge_block,
        folds=config.ridge_folds,
        cross_validation="loo" if config.ridge_loo else "folds",
        binary=config.ridge_binary,
        max_missing=config.ridge_max_missing,
    )


def _qq_table(result: ScanResult, traits: tuple[str, ...]) -> ResultTable:
    """Return the bins of -log10 p that hold tests: lower edge and count."""
    rows, bins = np.nonzero(result.qq)
    counts: Int[np.ndarray, " bins"] = result.qq[rows, bins]
    return ResultTable({"trait": text_array(traits)[rows], "neg_log10_p": bins * QQ_BIN_WIDTH, "n_tests": counts})


def _write(result: ScanResult, plan: ScanPlan, out: Path) -> None:
    write_results(result.hits, out / "hits.parquet")
    write_results(result.traits, out / "traits.parquet")
    write_results(result.variants, out / "variants.parquet")
    write_results(_qq_table(result, plan.trait_names), out / "qq.parquet")


def gwas_run(config: GwasRunConfig, out: Path, context: Context) -> StepResult:
    """Test every variant for every trait."""
    with threadpool_limits(limits=1):  # the executor's tasks are the threads; idle BLAS threads would only spin
        return _gwas_run(config, out, context)


def _gwas_run(config: GwasRunConfig, out: Path, context: Context) -> StepResult:
    file = config.file
    asked = choose_genotypes(config, _source(file, file.stamp))
    source = asked.source
    _check_outputs(config, source.variants.genome_build)
    rows = rows_with_chromosome(asked)
    planned, about = _plans(config, asked, rows, out, context)
    plans = [unit.plan for unit in planned.units]
    chosen = source.variants.take(rows)
    # Half of a worker's share is for its blocks, the rest for what it keeps of them.
    fixed = sum(_fixed_bytes(plan, len(source.variants)) for plan in plans)
    per_worker = 2 * max(scan_peak_bytes(plan, 64) for plan in plans)
    what = f"A scan of {rows.size} variants, {len(plans[0].samples)} people and {len(plans[0].trait_names)} traits by "
    workers = context.executor.workers
    require_memory(fixed + workers * per_worker, context.memory_bytes, f"{what}{workers} workers")
    memory = (context.memory_bytes - fixed) // (2 * workers)
    tasks = _tasks(config, planned.units, context.shards, memory)
    if config.full:
        (out / "full").mkdir()
        write_full_index(plans, chosen, out / "full")
    done = context.map_shards(_scan, tasks, "Scanning variants")
    result = merge_shards(plans, chosen, map(_read_shard, done))
    result = replace(result, variants=with_reasons(result.variants, planned.left_out))
    for number, task in enumerate(tasks.values()):
        if task.full is not None:
            add_full_part(task.full, out / "full", number)
    _open.cache_clear()
    _source.cache_clear()
    _write(result, plans[0], out)
    report = _report(result, plans, {**asked.counts, **about}, rows.size, planned.notes)
    return replace(report, summary=(*report.summary, *_further(config, result, out, context)))


def _check_outputs(config: GwasRunConfig, genome_build: str) -> None:
    """Refuse before the scan what could not be written after it."""
    if config.format == "ssf":
        if not config.full:
            raise SchemaError("--format ssf writes every test of every trait: add --full.")
        known_build(genome_build, config.genome_build, config.genotypes)
    if config.figures:
        import_extra("matplotlib", extra="plot")


def _further(config: GwasRunConfig, result: ScanResult, out: Path, context: Context) -> list[str]:
    """Write figures and exports and return what to say of them."""
    lines: list[str] = []
    if config.format == "ssf":
        from brainlocus.pipeline.steps.sumstats import export_summary, run_export

        traits = result.traits["trait"][result.traits["reason"] == ""].tolist()
        lines += export_summary(run_export(out / "full", out / "ssf", traits, config.genome_build, context))
    if config.figures:
        from brainlocus.pipeline.scan_figures import draw_scan

        lines.append(f"{len(draw_scan(out, out / 'figures', hits=config.hits))} figures")
    return lines


def _tasks(config: GwasRunConfig, units: Sequence[ScanUnit], shards: Path, memory_bytes: int) -> dict[str, _Task]:
    """Write the plans where workers find them and return the tasks by the names of their shards."""
    tasks: dict[str, _Task] = {}
    for number, unit in enumerate(units):
        path = shards / f"plan-{number:03d}.pickle"
        with path.open("wb") as stream:
            pickle.dump(unit, stream, protocol=pickle.HIGHEST_PROTOCOL)
        for start, stop in shard_bounds(unit.source_rows.size, config.shard_size):
            name = f"shard-{number:03d}-{start:09d}"
            full = shards / f"{name}.parquet" if config.full else None
            tasks[f"{name}.npz"] = _Task(config.file, path, number, start, stop, memory_bytes, full)
    return tasks


def _fixed_bytes(plan: ScanPlan, n_variants: int) -> int:
    """Return what a scan holds whatever its blocks: variants, design, bins of p, and the hits expected by chance."""
    n_traits = len(plan.method.names)
    hits = min(1.0, plan.settings.hits) * n_variants * n_traits
    # Null models keep a probability per person and trait, here and where the plan is read again.
    per_number = 40 if isinstance(plan.method, LogisticMethod) else 20
    design = per_number * len(plan.samples) * (n_traits + 64)
    return table_bytes(n_variants) + design + (n_traits << 17) + int(_BYTES_PER_HIT * hits)


def _report(
    result: ScanResult, plans: list[ScanPlan], about: dict[str, Any], n_variants: int, notes: Sequence[str]
) -> StepResult:
    plan, table = plans[0], result.traits
    left_out = table["reason"] != ""
    skipped = dict(zip(table["trait"][left_out].tolist(), table["reason"][left_out].tolist(), strict=True))
    n_traits = len(table) - len(skipped)
    names, sizes = np.unique(result.variants["reason"], return_counts=True)
    dropped = sorted({name for each in plans for name in each.method.dropped if name != SEX_COVARIATE})
    counts = {
        **about,
        **plan.counts,
        "variants": n_variants,
        "variants_without_result": {str(n): int(c) for n, c in zip(names, sizes, strict=True) if n},
        "traits": n_traits,
        "traits_skipped": skipped,
        "missing_patterns": max(each.method.patterns for each in plans),
        "covariates_dropped": dropped,
        "tests": int(result.traits["n_tests"].sum()),
        "hits": len(result.hits),
    }
    lambdas = result.traits["lambda_gc"]
    middle = float(np.nanmedian(lambdas)) if np.isfinite(lambdas).any() else float("nan")
    summary = [
        f"{plan.counts['analysed']:,} people (of {plan.counts['with_genotypes']:,} with genotypes and "
        f"{plan.counts['with_traits']:,} with traits), {n_traits:,} traits, {n_variants:,} variants",
        f"{counts['tests']:,} tests, {len(result.hits):,} hits at p <= {plan.settings.hits:g}; "
        f"median lambda {middle:.3f}",
    ]
    if isinstance(plan.method, LogisticMethod):
        more, lines = _about_cases(result, plan.method.design)
        counts |= more
        summary += lines
    if dropped:
        summary.append(f"Covariates dropped as constant or combinations of others: {', '.join(dropped)}")
    summary += chromosome_notes(about)
    if minus_nine := about.get("minus_nine"):
        shown = ", ".join(f"{name} ({count:,})" for name, count in list(minus_nine.items())[:5])
        summary.append(f"-9 is the only negative value of {shown}, and was taken as a number: is it --na-values -9?")
    if "mean_cv_r2" in about.get("whole_genome", {}):
        found = about["whole_genome"]
        summary.append(
            f"Whole-genome regression on {found['variants']:,} variants in {found['blocks']:,} blocks: mean "
            f"cross-validated r2 {found['mean_cv_r2']:.3f}"
        )
    return StepResult(counts, n_failed=len(skipped), summary=(*summary, *notes))


def _about_cases(result: ScanResult, design: LogisticDesign) -> tuple[dict[str, Any], list[str]]:
    """Return coding of the traits and methods of the hits, for the manifest and in words."""
    lines = []
    for coding in ("0/1", "1/2"):
        names = [name for name, code in design.coding.items() if code == coding]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        if names:
            lines.append(f"Controls {coding[0]}, cases {coding[2]}: {shown}")
    hits = result.hits if len(result.hits) else None
    methods = {} if hits is None else dict(sorted(Counter(hits["method"].tolist()).items()))
    failed = 0 if hits is None else int((hits["status"] != "ok").sum())
    if methods:
        lines.append("Hits by test: " + ", ".join(f"{name} {count:,}" for name, count in methods.items()))
    if failed:
        lines.append(f"Tests whose score p is a hit's, but without an estimate (see status in hits): {failed:,}")
    return {"coding": dict(design.coding), "hits_by_method": methods, "hits_without_estimate": failed}, lines


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
    source = config.file.open()
    plan = _prepare(config, choose_people(config, source.samples), _inputs(config))
    n, m, k = len(plan.samples), len(source.variants), len(plan.method.names) + 16
    needed = _fixed_bytes(plan, m) + 2 * scan_peak_bytes(plan, 4096)
    seconds = 2e-11 * n * m * k + 1e-9 * n * m + 2.0
    if config.method == "ridge" and config.loco is None:
        regression = ridge_estimate(n, m, len(plan.method.names), _ridge_settings(config))
        needed, seconds = max(needed, regression.peak_bytes), seconds + regression.seconds
    return Estimate(min(needed, memory_bytes), seconds)


GWAS_RUN = Step(
    "gwas run", "Test every variant for every trait.", GwasRunConfig, gwas_run, out="folder", estimate=_estimate
)
GWAS_REPLICATE = Step(
    "gwas replicate", "Compare lead variants with their tests in other people.", GwasReplicateConfig, gwas_replicate
)
