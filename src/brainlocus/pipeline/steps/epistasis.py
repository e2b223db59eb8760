"""``gwas epistasis``: the interaction of pairs of variants."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field

from brainlocus.core import GenotypeSource, ResultTable, SampleIndex, SchemaError, VariantTable, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.genetics.interactions import (
    AlignedTraits,
    CaseBlock,
    EpistasisDesign,
    PairFit,
    PairGroup,
    PairRules,
    PairSet,
    TileResult,
    VariantBlock,
    VariantSurvey,
    align_traits,
    check_cases,
    confirm_pairs,
    count_pairs,
    histogram_lambda,
    histogram_strength,
    pair_fits_columns,
    prepare_cases,
    prepare_epistasis,
    prepare_variants,
    refit_pairs,
    scan_cases,
    scan_tile,
    survey_variants,
    tile_peak_bytes,
    variant_places,
)
from brainlocus.io import read_arrow, write_results
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional
from brainlocus.pipeline.figures.interactions import draw_qq
from brainlocus.pipeline.filters import (
    GenotypeFile,
    GenotypeInput,
    choose_genotypes,
    chromosome_notes,
    rows_with_chromosome,
)
from brainlocus.pipeline.genomes import (
    naming_inputs,
    read_list,
    read_traits,
    require_memory,
    table_bytes,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GWAS_EPISTASIS", "GwasEpistasisConfig"]

_TILE = 256
"""Variants of a block on either side: what is computed of its pairs stays in the processor's cache."""
_ROWS = (512, 2048)
"""Fewest and most variants whose pairs are one resumable part."""
_NORMAL = 1e9
"""Degrees of freedom at which t is normal."""
_FLOPS_PER_SECOND = 4e10
"""Of a core, for the estimate alone."""


class GwasEpistasisConfig(GenotypeInput):
    """Settings of ``gwas epistasis``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of quantitative traits")
    columns: CommaList = Field((), description="Traits: names or patterns; all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    na_values: CommaList = Field(
        (), description="Values of traits and covariates that mean missing, besides NA and empty cells, such as -9"
    )
    method: Literal["ols", "correlation", "boost"] = Field(
        "ols", description="Least squares; for 0/1 traits also the difference of correlations, or BOOST"
    )
    report_p: float = Field(1e-6, gt=0, le=1, description="Largest p of a reported pair")
    first: InputPath | None = Field(
        None, description="List of variants to pair with all others; without it, every pair"
    )
    pairs: InputPath | None = Field(
        None, description="Table of pairs (variant_id, variant_id_2) to test instead of a scan, as in replication"
    )
    marginal_p: float = Field(
        1.0, gt=0, le=1, description="Pair only variants with a p of their own at most this, trait by trait"
    )
    min_maf: float = Field(0.05, ge=0, lt=0.5, description="Smallest minor allele frequency")
    min_distance: int = Field(
        1_000_000, ge=0, description="Pairs of one chromosome nearer than this (bases) are not tested"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    design: EpistasisDesign
    data: AlignedTraits
    pairs: PairSet
    rules: PairRules
    rows: Int[np.ndarray, " variants"]
    """Variants of the file among which `pairs` counts."""
    open: Bool[np.ndarray, "traits variants"] | None
    places: Int[np.ndarray, "variants 2"]
    method: Literal["ols", "correlation", "boost"]


@dataclass(frozen=True, slots=True)
class _Task:
    genotypes: GenotypeFile
    plan: Path
    start: int
    stop: int


@lru_cache(maxsize=2)
def _open(genotypes: GenotypeFile, plan: Path, stamp: int) -> tuple[_Plan, GenotypeSource]:  # noqa: ARG001
    with plan.open("rb") as stream:
        prepared: _Plan = pickle.load(stream)  # our own file, written by this run
    source = genotypes.open()
    return prepared, select_genotypes(source, samples=prepared.data.samples, variants=prepared.rows)


def _read(source: GenotypeSource, rows: Int[np.ndarray, " rows"]) -> Any:
    """Return the dosages of ascending rows."""
    return select_genotypes(source, variants=rows).read(0, rows.size).dosage


def _scan(task: _Task, path: Path) -> None:
    """Test the pairs of some rows with every column after them, and write what is kept."""
    plan, source = _open(task.genotypes, task.plan, task.plan.stat().st_mtime_ns)
    rows = plan.pairs.rows[task.start : task.stop]
    own = _read(source, rows)
    arrays: dict[str, Any] = {}
    for number, group in enumerate(plan.design.groups):
        blocks = [_block(plan, group, own[k : k + _TILE], rows[k : k + _TILE]) for k in range(0, rows.size, _TILE)]
        results = []
        for index, inside in _columns(plan.pairs, rows):
            columns = _block(plan, group, _read(source, index), index)
            for block in blocks:
                if inside.all() and index[-1] < block.index[0]:
                    continue
                mask = plan.open
                if mask is not None:
                    mask = mask[_traits_of(plan.design, number)]
                results.append(
                    _tile(
                        plan,
                        group,
                        block,
                        columns,
                        in_rows=inside,
                        open_rows=None if mask is None else mask[:, block.index],
                        open_columns=None if mask is None else mask[:, index],
                    )
                )
        for name in ("n_tests", "n_perfect_ld", "histogram"):
            arrays[f"{name}.{number}"] = sum(getattr(r, name) for r in results)
        for name in ("trait", "row", "column", "neg_log10_p"):
            arrays[f"{name}.{number}"] = np.concatenate([getattr(r, name) for r in results])
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _block(plan: _Plan, group: PairGroup, dosage: Any, index: Int[np.ndarray, " rows"]) -> VariantBlock | CaseBlock:
    if plan.method == "ols":
        return prepare_variants(group, dosage, index)
    return prepare_cases(group, dosage, index, plan.method)


def _tile(
    plan: _Plan, group: PairGroup, rows: VariantBlock | CaseBlock, columns: VariantBlock | CaseBlock, **chosen: Any
) -> TileResult:
    if isinstance(rows, VariantBlock) and isinstance(columns, VariantBlock):
        return scan_tile(group, rows, columns, plan.places, plan.rules, **chosen)
    if plan.method == "ols" or isinstance(rows, VariantBlock) or isinstance(columns, VariantBlock):
        raise TypeError("Blocks of one method are paired.")
    return scan_cases(group, rows, columns, plan.places, plan.rules, plan.method, **chosen)


def _columns(
    pairs: PairSet, rows: Int[np.ndarray, " rows"]
) -> Iterator[tuple[Int[np.ndarray, " columns"], Bool[np.ndarray, " columns"]]]:
    """Yield blocks of columns, those that are also rows first, from these rows on; blocks align with the rows'."""
    member = pairs.columns[pairs.in_rows]
    after = member[np.searchsorted(member, rows[0]) :]
    for chosen, inside in ((after, True), (pairs.columns[~pairs.in_rows], False)):
        for k in range(0, chosen.size, _TILE):
            part = chosen[k : k + _TILE]
            yield part, np.full(part.size, inside)


def _traits_of(design: EpistasisDesign, group: int) -> slice:
    first = sum(len(g.names) for g in design.groups[:group])
    return slice(first, first + len(design.groups[group].names))


def _prepare(config: GwasEpistasisConfig, people: SampleIndex) -> tuple[EpistasisDesign, AlignedTraits]:
    traits = read_traits(config.traits, config.columns, config.covariates, config.formula, config.na_values)
    with naming_inputs(config.genotypes, config.traits, config.covariates):
        data = align_traits(
            traits.table,
            people,
            covariates=traits.covariates,
            formula=traits.formula,
            names=traits.names,
        )
        design = prepare_epistasis(data)
    if config.method != "ols":
        for group in design.groups:
            check_cases(group)
    return design, data


def _pair_set(config: GwasEpistasisConfig, variants: VariantTable, wanted: Bool[np.ndarray, " variants"]) -> PairSet:
    """Return the pairs among the wanted variants."""
    chosen = np.flatnonzero(wanted)
    if config.first is None:
        return PairSet.of(chosen, chosen)
    listed = set(read_list(config.first, "variant_id"))
    rows = np.array([k for k in chosen if str(variants.variant_id[k]) in listed], dtype=np.int64)
    if not rows.size:
        raise SchemaError(
            f"{config.first}: none of its {len(listed)} variants is among the {chosen.size} that can be paired "
            f"(minor allele frequency at least {config.min_maf:g})."
        )
    return PairSet.of(rows, chosen)


def _open_variants(
    config: GwasEpistasisConfig, survey: VariantSurvey, common: Bool[np.ndarray, " variants"]
) -> tuple[Bool[np.ndarray, " variants"], Bool[np.ndarray, "traits variants"] | None]:
    """Return the variants that any trait pairs, and which trait pairs which (None: all)."""
    if config.marginal_p >= 1:
        return common, None
    passed = (survey.marginal_neg_log10_p >= -np.log10(config.marginal_p)) & common
    return passed.any(axis=0), passed


def gwas_epistasis(config: GwasEpistasisConfig, out: Path, context: Context) -> StepResult:
    """Test the interaction of pairs of variants."""
    asked = choose_genotypes(config)
    source = asked.source
    kept = rows_with_chromosome(asked)
    design, data = _prepare(config, asked.samples)
    selected = select_genotypes(source, samples=data.samples, variants=kept)
    if config.pairs is not None:
        return _replicate(config, design, data, selected, out)
    require_memory(table_bytes(len(source.variants)), context.memory_bytes, f"Reading {kept.size} variants")
    survey = survey_variants(design, selected)
    frequency = survey.effect_allele_frequency
    common = np.minimum(frequency, 1 - frequency) >= config.min_maf
    wanted, passed = _open_variants(config, survey, np.asarray(common & np.isfinite(frequency)))
    pairs = _pair_set(config, selected.variants, wanted)
    plan = _Plan(
        design, data, pairs, PairRules(config.report_p, config.min_distance), kept, passed,
        variant_places(selected.variants), config.method,
    )  # fmt: skip
    n_pairs = count_pairs(pairs, selected.variants, config.min_distance)
    announced = _announcement(plan, n_pairs, context)
    context.progress.say(announced)
    shards = list(context.map_shards(_scan, _tasks(config, plan, context), "Testing pairs"))
    _open.cache_clear()
    return _finish(plan, selected, survey, shards, out, {**asked.counts, "pairs": n_pairs}, announced)


def _announcement(plan: _Plan, n_pairs: int, context: Context) -> str:
    n, q = len(plan.data.samples), len(plan.design.names)
    columns = sum(g.q.shape[1] - 1 for g in plan.design.groups) + 3 * len(plan.design.groups) + q
    seconds = 2.0 * n * columns * n_pairs / _FLOPS_PER_SECOND / context.executor.workers
    threshold = 0.05 / max(n_pairs, 1)
    return (
        f"{plan.pairs.rows.size:,} x {plan.pairs.columns.size:,} variants: {n_pairs:,} pairs x {q} traits, "
        f"{n:,} people; 0.05 / pairs = {threshold:.1e}; about {_duration(seconds)}"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1.0, seconds):.0f} s"


def _tasks(config: GwasEpistasisConfig, plan: _Plan, context: Context) -> dict[str, _Task]:
    """Return the parts of the scan, sized to the memory."""
    workers = context.executor.workers
    n_rows = plan.pairs.rows.size
    size = int(np.clip(-(-n_rows // 4 // _TILE) * _TILE, *_ROWS))
    fixed = table_bytes(len(plan.rows)) + 2 * plan.data.traits.nbytes * (1 + plan.design.groups[0].q.shape[1])
    while size > _TILE and fixed + workers * tile_peak_bytes(plan.design, size, _TILE) > context.memory_bytes:
        size -= _TILE
    needed = fixed + workers * tile_peak_bytes(plan.design, size, _TILE)
    require_memory(
        needed, context.memory_bytes, f"A scan of pairs of {plan.design.n_samples} people, {workers} workers"
    )
    path = context.shards / "plan.pickle"
    with path.open("wb") as stream:
        pickle.dump(plan, stream)
    return {
        f"pairs-{start:09d}.npz": _Task(config.file, path, start, min(start + size, n_rows))
        for start in range(0, n_rows, size)
    }


def _finish(
    plan: _Plan,
    source: GenotypeSource,
    survey: VariantSurvey,
    shards: Sequence[Path],
    out: Path,
    counts: dict[str, Any],
    announced: str,
) -> StepResult:
    """Put the parts together, refit what is reported, and write."""
    hits: list[ResultTable] = []
    rows: list[dict[str, Any]] = []
    qq: list[dict[str, Any]] = []
    for number, group in enumerate(plan.design.groups):
        total, found = _joined([_part(path, number) for path in shards], len(group.names))
        df = float(group.degrees_of_freedom) if plan.method == "ols" else _NORMAL
        for k, name in enumerate(group.names):
            own = found["trait"] == k
            order = np.argsort(-found["neg_log10_p"][own], kind="stable")
            first, second = found["row"][own][order], found["column"][own][order]
            fits = _refits(plan, source, number, k, first, second)
            strength = found["neg_log10_p"][own][order]
            hits.append(_hit_table(name, source.variants, survey, first, second, strength, fits))
            counts_of, n_tests = total["histogram"][k], int(total["n_tests"][k])
            qq.append({"trait": name, "counts": histogram_strength(counts_of, df)})
            rows.append(
                {
                    "trait": name, "n": group.rows.size, "n_tests": n_tests,
                    "n_perfect_ld": int(total["n_perfect_ld"][k]),
                    "lambda_gc": histogram_lambda(counts_of, df), "n_hits": first.size,
                    "threshold_neg_log10_p": -np.log10(0.05 / max(n_tests, 1)), "reason": "",
                }
            )  # fmt: skip
    _write_tables(plan, hits, rows, qq, out)
    return _report(plan, rows, counts, announced)


def _joined(parts: list[dict[str, Any]], n_traits: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return sums over the parts, and their hits one after the other; zeros and nothing without parts."""
    none = np.zeros(n_traits, dtype=np.int64)
    start = {"n_tests": none, "n_perfect_ld": none, "histogram": np.zeros((n_traits, 1), dtype=np.int64)}
    total = {n: sum((p[n] for p in parts), start[n]) for n in start}
    empty = {n: np.empty(0, dtype=np.int64) for n in ("trait", "row", "column")} | {"neg_log10_p": np.empty(0)}
    return total, {n: np.concatenate([*(p[n] for p in parts), empty[n]]) for n in empty}


def _part(path: Path, group: int) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return {key.split(".")[0]: stored[key] for key in stored.files if key.endswith(f".{group}")}


def _refits(
    plan: _Plan,
    source: GenotypeSource,
    group: int,
    trait: int,
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
) -> list[PairFit]:
    fits: list[PairFit] = []
    for k in range(0, first.size, _TILE):
        some = np.union1d(first[k : k + _TILE], second[k : k + _TILE])
        calls = _read(source, some)
        a, b = (calls[np.searchsorted(some, rows[k : k + _TILE])] for rows in (first, second))
        own = plan.design.groups[group]
        fits += refit_pairs(own, trait, a, b) if plan.method == "ols" else confirm_pairs(own, trait, a, b, plan.method)
    return fits


def _hit_table(
    trait: str,
    variants: VariantTable,
    survey: VariantSurvey,
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    strength: Any,
    fits: list[PairFit],
) -> ResultTable:
    columns: dict[str, Any] = {"trait": text_array([trait] * first.size)}
    for rows, suffix in ((first, ""), (second, "_2")):
        for name in ("chromosome", "position", "variant_id", "effect_allele", "other_allele"):
            columns[name + suffix] = getattr(variants, name)[rows]
        columns["effect_allele_frequency" + suffix] = survey.effect_allele_frequency[rows]
    return ResultTable(columns | {"scan_neg_log10_p": strength} | pair_fits_columns(fits))


def _write_tables(
    plan: _Plan, hits: list[ResultTable], rows: list[dict[str, Any]], qq: list[dict[str, Any]], out: Path
) -> None:
    place = {name: k for k, name in enumerate(plan.data.names)}
    order = sorted(range(len(rows)), key=lambda k: place[rows[k]["trait"]])
    names = hits[0].names
    table = {n: np.concatenate([hits[k][n] for k in order]) for n in names}
    write_results(ResultTable(table), out / "pairs.parquet")
    missing = {"n": 0, "n_tests": 0, "n_perfect_ld": 0, "lambda_gc": np.nan, "n_hits": 0,
               "threshold_neg_log10_p": np.nan}  # fmt: skip
    skipped = [{"trait": name, **missing, "reason": reason} for name, reason in plan.design.skipped]
    everyone = [rows[k] for k in order] + skipped
    columns = {n: np.array([row[n] for row in everyone]) for n in everyone[0]}
    write_results(ResultTable(columns), out / "traits.parquet")
    ordered = [qq[k] for k in order]
    sizes = [len(q["counts"]) for q in ordered]
    counts = np.vstack([q["counts"] for q in ordered])
    binned = {
        "trait": np.repeat(np.array([q["trait"] for q in ordered]), sizes),
        "neg_log10_p": counts[:, 0],
        "n_tests": counts[:, 1].astype(np.int64),
    }
    write_results(ResultTable(binned), out / "qq.parquet")
    drawn = [(q["trait"], q["counts"], rows[k]["lambda_gc"]) for q, k in zip(ordered, order, strict=True)]
    if any(len(q) for _, q, _ in drawn):
        draw_qq(drawn, out / "qq.png")


def _report(plan: _Plan, rows: list[dict[str, Any]], counts: dict[str, Any], announced: str) -> StepResult:
    tests, n_hits = sum(r["n_tests"] for r in rows), sum(r["n_hits"] for r in rows)
    lambdas = [r["lambda_gc"] for r in rows if np.isfinite(r["lambda_gc"])]
    counts |= {
        **plan.data.counts,
        "variants": int(plan.pairs.columns.size),
        "traits": len(rows),
        "traits_skipped": dict(plan.design.skipped),
        "covariates_dropped": list(plan.design.dropped),
        "tests": tests,
        "perfect_ld": sum(r["n_perfect_ld"] for r in rows),
        "hits": n_hits,
        "plan": announced,
    }
    middle = float(np.median(lambdas)) if lambdas else float("nan")
    line = f"{tests:,} tests, {n_hits:,} pairs at p <= {plan.rules.report_p:g}; median lambda {middle:.3f}"
    return StepResult(counts, n_failed=len(plan.design.skipped), summary=(line, *chromosome_notes(counts)))


def _replicate(
    config: GwasEpistasisConfig, design: EpistasisDesign, data: AlignedTraits, source: GenotypeSource, out: Path
) -> StepResult:
    """Test the pairs of a table, one by one."""
    table = read_arrow(config.pairs) if config.pairs is not None else None
    if table is None or not {"variant_id", "variant_id_2"} <= set(table.column_names):
        found = [] if table is None else table.column_names
        raise SchemaError(f"{config.pairs}: expected columns variant_id and variant_id_2, found {', '.join(found)}.")
    asked = list(dict.fromkeys(zip(*(map(str, table.column(c).to_pylist()) for c in ("variant_id", "variant_id_2")))))  # noqa: B905
    place = {str(name): k for k, name in enumerate(source.variants.variant_id.tolist())}
    known = [pair for pair in asked if pair[0] in place and pair[1] in place]
    if asked and not known:
        raise SchemaError(f"{config.pairs}: no pair has both variants among the {len(place)} of the genotypes.")
    first, second = (np.array([place[pair[k]] for pair in known], dtype=np.int64) for k in (0, 1))
    survey = _survey_of(design, source, np.union1d(first, second))
    pairs = PairSet.of(first, second)
    plan = _Plan(
        design,
        data,
        pairs,
        PairRules(1.0, 0),
        np.arange(len(place)),
        None,
        variant_places(source.variants),
        config.method,
    )
    hits = [
        _hit_table(name, source.variants, survey, first, second, np.full(first.size, np.nan), fits)
        for number, group in enumerate(design.groups)
        for k, name in enumerate(group.names)
        for fits in [_refits(plan, source, number, k, first, second)]
    ]
    joined = {n: np.concatenate([h[n] for h in hits]) for n in hits[0].names}
    write_results(ResultTable(joined), out / "pairs.parquet")
    n_tests = int(np.isfinite(joined["neg_log10_p"]).sum())
    bound = -np.log10(0.05 / max(len(known), 1))
    passed = int((joined["robust_neg_log10_p"] >= bound).sum())
    counts = {**data.counts, "pairs_asked": len(asked), "pairs": len(known), "tests": n_tests, "passed": passed}
    line = f"{len(known)} of {len(asked)} pairs found, {n_tests} tests; {passed} at HC3 p below 0.05 / {len(known)}"
    return StepResult(counts, n_failed=len(asked) - len(known) + len(joined["n"]) - n_tests, summary=(line,))


def _survey_of(design: EpistasisDesign, source: GenotypeSource, rows: Int[np.ndarray, " rows"]) -> VariantSurvey:
    """Return the survey of some variants, at their places among all."""
    own = survey_variants(design, select_genotypes(source, variants=rows))
    frequency = np.full(len(source.variants), np.nan)
    frequency[rows] = own.effect_allele_frequency
    strength = np.full((len(design.names), frequency.size), np.nan)
    strength[:, rows] = own.marginal_neg_log10_p
    return VariantSurvey(frequency, strength)


GWAS_EPISTASIS = Step(
    "gwas epistasis",
    "Test the interaction of pairs of variants.",
    GwasEpistasisConfig,
    gwas_epistasis,
    out="folder",
)
