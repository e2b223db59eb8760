"""``gwas gxe``: every variant with an exposure."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy.special import ndtri

from brainlocus.core import (
    COLUMNS,
    GenotypeSource,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    quantitative_table,
    select_genotypes,
)
from brainlocus.core.text import text_array
from brainlocus.genetics.interactions import (
    ERROR_MODELS,
    GXE_STATUS,
    AlignedTraits,
    GxeDesign,
    GxeFit,
    GxeGroup,
    GxeScan,
    GxeSettings,
    align_traits,
    gxe_peak_bytes,
    joint_neg_log10_p,
    prepare_gxe,
    refit_gxe,
    scan_gxe,
)
from brainlocus.io import write_results
from brainlocus.numerics import neg_log10_p_from_t
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional
from brainlocus.pipeline.figures.interactions import draw_qq, draw_slopes
from brainlocus.pipeline.filters import (
    GenotypeFile,
    GenotypeInput,
    choose_genotypes,
    chromosome_notes,
    rows_with_chromosome,
)
from brainlocus.pipeline.genomes import (
    TraitInputs,
    naming_inputs,
    read_traits,
    require_memory,
    table_bytes,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GWAS_GXE", "GwasGxeConfig"]

_MEDIAN_CHI2 = 0.454936423119572
_BIN = 0.01
_BINS = 4001
"""-log10 p up to 40; the last bin is open."""
_PEOPLE_PER_PARAMETER = 10
"""Below, the model with all products is too large for the people (methods)."""
_CORRELATED = 2.0
"""-log10 p of the correlation of a variant and the exposure from which a hit is counted in the warning."""
_HIT_FIELDS = ("trait", "variant", "frequency", "n", "df", "beta", "error", "interaction", "interaction_error", "joint",
               "model")  # fmt: skip


class GwasGxeConfig(GenotypeInput):
    """Settings of ``gwas gxe``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of quantitative traits")
    exposure: CommaList = Field(description="Exposures: numeric columns of the traits or covariates, one scan each")
    columns: CommaList = Field((), description="Traits: names or patterns; all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    na_values: CommaList = Field(
        (), description="Values of traits and covariates that mean missing, besides NA and empty cells, such as -9"
    )
    terms: Literal["all", "main"] = Field(
        "all", description="Products of every covariate with variant and exposure, or none of them (not advised)"
    )
    errors: Literal["auto", "hc3", "hlm", "ols"] = Field(
        "auto", description="Standard errors: robust, heteroscedastic model, equal; auto: robust, the model when rare"
    )
    rare_mac: float = Field(1000.0, ge=0, description="Minor allele count below which auto takes the model")
    min_carriers: float = Field(
        20.0, ge=0, description="Smallest minor allele frequency x people of the smaller exposure group"
    )
    binary: Literal["refuse", "linear"] = Field(
        "refuse", description="Traits of 0 and 1: refuse, or linear probability (additive scale) with robust errors"
    )
    hits: float = Field(1e-5, gt=0, le=1, description="Largest p, of the interaction or the joint test, of a hit")
    shard_size: int = Field(4096, ge=64, description="Variants per resumable part")


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    designs: tuple[GxeDesign, ...]
    settings: GxeSettings
    hits: float
    samples: SampleIndex
    rows: Int[np.ndarray, " variants"]


@dataclass(frozen=True, slots=True)
class _Task:
    genotypes: GenotypeFile
    plan: Path
    start: int
    stop: int
    block: int


@lru_cache(maxsize=2)
def _open(genotypes: GenotypeFile, plan: Path, stamp: int) -> tuple[_Plan, GenotypeSource]:  # noqa: ARG001
    with plan.open("rb") as stream:
        prepared: _Plan = pickle.load(stream)  # our own file, written by this run
    source = genotypes.open()
    return prepared, select_genotypes(source, samples=prepared.samples, variants=prepared.rows)


def _scan(task: _Task, path: Path) -> None:
    """Scan one shard into a file: hits, bins of p and statuses of each exposure and group of traits."""
    plan, source = _open(task.genotypes, task.plan, task.plan.stat().st_mtime_ns)
    arrays: dict[str, list[Any]] = {}
    for start in range(task.start, task.stop, task.block):
        dosage = source.read(start, min(start + task.block, task.stop)).dosage
        for d, design in enumerate(plan.designs):
            for g, group in enumerate(design.groups):
                scan = scan_gxe(design, group, dosage, plan.settings)
                for name, value in _summary(scan, start, plan.hits).items():
                    arrays.setdefault(f"{name}.{d}.{g}", []).append(value)
    joined: dict[str, Any] = {
        key: sum(values) if key.startswith(("qq", "joint_qq")) else np.concatenate(values)
        for key, values in arrays.items()
    }
    with path.open("wb") as stream:
        np.savez(stream, **joined)


def _summary(scan: GxeScan, start: int, hits: float) -> dict[str, Any]:
    """Return what is kept of a block."""
    df = scan.degrees_of_freedom[:, None]
    strength, joint = neg_log10_p_from_t(scan.t, df), joint_neg_log10_p(scan.joint, df)
    limit = -np.log10(hits)
    row, trait = np.nonzero((strength >= limit) | (joint >= limit))
    table = np.column_stack(
        [
            trait, row + start, scan.effect_allele_frequency[row], scan.n[row], scan.degrees_of_freedom[row],
            scan.beta[row, trait], scan.standard_error[row, trait], scan.interaction_beta[row, trait],
            scan.interaction_standard_error[row, trait], scan.joint[row, trait], scan.error_model[row],
        ]
    ).astype(np.float64)  # fmt: skip
    about = {"status": scan.status, "frequency": scan.effect_allele_frequency, "n": scan.n}
    return {"hits": table, "qq": _binned(strength), "joint_qq": _binned(joint), **about}


def _binned(strength: Float[np.ndarray, "variants traits"]) -> Int[np.ndarray, "traits bins"]:
    counts = np.zeros((strength.shape[1], _BINS), dtype=np.int64)
    for k, column in enumerate(strength.T):
        known = column[np.isfinite(column)]
        counts[k] = np.bincount(np.minimum(known / _BIN, _BINS - 1).astype(np.int64), minlength=_BINS)
    return counts


def _inputs(config: GwasGxeConfig) -> tuple[TraitInputs, PhenotypeTable]:
    """Return traits and covariates, and the exposures."""
    traits = read_traits(config.traits, config.columns, config.covariates, config.formula, config.na_values)
    names = [name for name in traits.names if name not in config.exposure]
    if not names:
        raise SchemaError(f"{config.traits}: there is no trait besides the exposure {', '.join(config.exposure)}.")
    homes = [t for t in (traits.covariates, traits.table) if t is not None]
    if not config.exposure:
        raise SchemaError("--exposure: expected the name of a column, found none.")
    columns = []
    for name in config.exposure:
        home = next((t for t in homes if name in t.names), homes[-1])
        column = home.column(name)
        if column.kind == "categorical":
            raise SchemaError(f"--exposure: {name!r} holds text; code it as numbers, one 0/1 column for each level.")
        columns.append((home.samples, column))
    people = traits.table.samples
    values = []
    for samples, column in columns:
        place = samples.indices_of(people)
        values.append(np.where(place >= 0, column.values[np.maximum(place, 0)], np.nan))
    table = quantitative_table(people, list(config.exposure), np.column_stack(values))
    binary = [name for name in names if traits.table.column(name).kind == "binary"]
    if binary and config.binary == "refuse":
        raise SchemaError(
            f"{config.traits}: {', '.join(binary[:5])} hold 0 and 1, and the model is for quantitative traits. Choose "
            "others with --columns, or take --binary linear: differences of risk (the additive scale), robust errors."
        )
    return TraitInputs(traits.table, names, traits.covariates, traits.formula), table


def _plan(
    config: GwasGxeConfig, people: SampleIndex, rows: Int[np.ndarray, " variants"]
) -> tuple[_Plan, AlignedTraits]:
    traits, exposures = _inputs(config)
    with naming_inputs(config.genotypes, config.traits, config.covariates):
        data = align_traits(
            traits.table,
            people,
            covariates=traits.covariates,
            formula=traits.formula,
            names=traits.names,
        )
    values = exposures.take(data.samples).matrix()
    variances = config.errors in ("auto", "hlm")
    with naming_inputs(config.genotypes, config.traits, config.covariates):
        designs = tuple(
            prepare_gxe(data, np.ascontiguousarray(values[:, k]), name, terms=config.terms, variance_model=variances)
            for k, name in enumerate(config.exposure)
        )
    settings = GxeSettings(config.errors, config.rare_mac, config.min_carriers)
    return _Plan(designs, settings, config.hits, data.samples, rows), data


_BYTES_PER_TEST = 300
"""A test's numbers in its shard, among those of all shards and in the table that is written."""


def gwas_gxe(config: GwasGxeConfig, out: Path, context: Context) -> StepResult:
    """Test the interaction of every variant with each exposure, for every trait."""
    asked = choose_genotypes(config)
    source = asked.source
    rows = rows_with_chromosome(asked)
    plan, data = _plan(config, asked.samples, rows)
    path = context.shards / "plan.pickle"
    with path.open("wb") as stream:
        pickle.dump(plan, stream)
    workers = context.executor.workers
    fixed = table_bytes(len(source.variants)) + 3 * sum(g.q.nbytes for d in plan.designs for g in d.groups)
    fixed += _BYTES_PER_TEST * rows.size * sum(len(g.names) for d in plan.designs for g in d.groups)
    block = 512
    while block > 16 and fixed + workers * max(gxe_peak_bytes(d, block) for d in plan.designs) > context.memory_bytes:
        block //= 2
    needed = fixed + workers * max(gxe_peak_bytes(d, block) for d in plan.designs)
    require_memory(needed, context.memory_bytes, f"A scan of {len(plan.samples)} people by {workers} workers")
    tasks = {
        f"shard-{start:09d}.npz": _Task(config.file, path, start, min(start + config.shard_size, rows.size), block)
        for start in range(0, rows.size, config.shard_size)
    }
    shards = list(context.map_shards(_scan, tasks, "Scanning variants"))
    _open.cache_clear()
    selected = select_genotypes(source, samples=plan.samples, variants=rows)
    return _finish(plan, data, selected, shards, out, asked.counts)


def _part(path: Path, design: int, group: int) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return {key.split(".")[0]: stored[key] for key in stored.files if key.endswith(f".{design}.{group}")}


def _lambda(counts: Int[np.ndarray, " bins"]) -> float:
    """Return the chi-square (1 df) of the median p over its expectation."""
    total = int(counts.sum())
    if not total:
        return float("nan")
    below = np.cumsum(counts)
    place = int(np.searchsorted(below, total / 2))
    inside = (total / 2 - (below[place] - counts[place])) / counts[place]
    return float(ndtri(0.5 * 10.0 ** -(_BIN * (place + inside))) ** 2 / _MEDIAN_CHI2)


def _finish(
    plan: _Plan, data: AlignedTraits, source: GenotypeSource, shards: Sequence[Path], out: Path, counts: dict[str, Any]
) -> StepResult:
    """Put the shards together, refit the hits, and write."""
    place = {name: k for k, name in enumerate(data.names)}
    hits: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    traits: list[tuple[tuple[int, int], dict[str, Any]]] = []
    drawn, statuses = [], dict.fromkeys(GXE_STATUS, 0)
    top: tuple[float, tuple[GxeDesign, GxeGroup, dict[str, Any], GxeFit] | None] = (-1.0, None)
    for d, design in enumerate(plan.designs):
        for g, group in enumerate(design.groups):
            parts = [_part(path, d, g) for path in shards]
            found = np.concatenate([p["hits"] for p in parts]) if parts else np.empty((0, len(_HIT_FIELDS)))
            empty = np.zeros((len(group.names), _BINS), dtype=np.int64)
            qq, joint = (sum((p[n] for p in parts), empty) for n in ("qq", "joint_qq"))
            for code, name in enumerate(GXE_STATUS):
                statuses[name] += sum(int((p["status"] == code).sum()) for p in parts)
            for values in found:
                row, fit = _hit(design, g, source, dict(zip(_HIT_FIELDS, values.tolist(), strict=True)))
                hits.append(((d, place[row["trait"]], -row["interaction_neg_log10_p"]), row))
                if fit is not None and row["interaction_neg_log10_p"] > top[0]:
                    top = (row["interaction_neg_log10_p"], (design, group, row, fit))
            for k, name in enumerate(group.names):
                inflation = _lambda(qq[k])
                n_hits = int(sum(r["trait"] == name and key[0] == d for key, r in hits))
                traits.append(((d, place[name]), _trait_row(name, design, group.rows.size, qq[k], joint[k], n_hits)))
                bins = np.flatnonzero(qq[k])
                drawn.append((name, np.column_stack([bins * _BIN, qq[k][bins]]).astype(np.float64), inflation))
        skipped = [((d, place[name]), _trait_row(name, design, 0, None, None, 0, why)) for name, why in design.skipped]
        traits += skipped
    rows = [row for _, row in sorted(hits, key=lambda item: item[0])]
    table = _table(rows)
    write_results(table, out / "hits.parquet")
    lines = [row for _, row in sorted(traits, key=lambda item: item[0])]
    write_results(ResultTable({n: np.array([r[n] for r in lines]) for n in lines[0]}), out / "traits.parquet")
    write_results(_variants(plan, source, shards), out / "variants.parquet")
    if any(len(bins) for _, bins, _ in drawn):
        draw_qq(drawn, out / "qq.png", what="interaction")
    if top[1] is not None:
        _draw_top(top[1], out / "top.png")
    return _report(plan, data, table, lines, counts | {"tests_by_status": statuses})


def _variants(plan: _Plan, source: GenotypeSource, shards: Sequence[Path]) -> ResultTable:
    """Return every variant with each exposure: frequency and calls of the first group of traits, and its status.

    The status is ok when it has a test for any trait.
    """
    tables, v = [], source.variants
    for d, design in enumerate(plan.designs):
        parts = [[_part(path, d, g) for path in shards] for g in range(len(design.groups))]
        if not shards:
            continue
        status = np.array([np.concatenate([p["status"] for p in group]) for group in parts])
        best = np.where((status == 0).any(axis=0), 0, status[0])
        tables.append(
            {
                "exposure": text_array([design.exposure_name] * len(v)),
                **{n: getattr(v, n) for n in ("chromosome", "position", "variant_id", "effect_allele", "other_allele")},
                "effect_allele_frequency": np.concatenate([p["frequency"] for p in parts[0]]),
                "n": np.concatenate([p["n"] for p in parts[0]]),
                "status": text_array([GXE_STATUS[k] for k in best]),
            }
        )
    return ResultTable({n: np.concatenate([t[n] for t in tables]) for n in tables[0]} if tables else {})


def _trait_row(
    name: str, design: GxeDesign, n: int, qq: Any, joint: Any, n_hits: int, reason: str = ""
) -> dict[str, Any]:
    nan = float("nan")
    return {
        "trait": name, "exposure": design.exposure_name, "n": n, "n_tests": 0 if qq is None else int(qq.sum()),
        "lambda_gc": nan if qq is None else _lambda(qq), "joint_lambda_gc": nan if joint is None else _lambda(joint),
        "n_hits": n_hits, "reason": reason,
    }  # fmt: skip


def _hit(
    design: GxeDesign, group: int, source: GenotypeSource, found: dict[str, float]
) -> tuple[dict[str, Any], GxeFit | None]:
    """Return a row of the hits, with the refit on people with a call."""
    own, k, v = design.groups[group], int(found["trait"]), int(found["variant"])
    fit = refit_gxe(design, own, k, source.read(v, v + 1).dosage[0])
    variants, df = source.variants, np.array([found["df"]])
    row: dict[str, Any] = {
        "trait": own.names[k],
        "exposure": design.exposure_name,
        **{
            name: getattr(variants, name)[v].item() if name == "position" else str(getattr(variants, name)[v])
            for name in ("chromosome", "position", "variant_id", "effect_allele", "other_allele")
        },
        "effect_allele_frequency": found["frequency"],
        "n": int(found["n"]),
        "degrees_of_freedom": found["df"],
        "beta": found["beta"],
        "standard_error": found["error"],
        "neg_log10_p": float(neg_log10_p_from_t(np.array([found["beta"] / found["error"]]), df)[0]),
        "interaction_beta": found["interaction"],
        "interaction_standard_error": found["interaction_error"],
        "interaction_neg_log10_p": float(
            neg_log10_p_from_t(np.array([found["interaction"] / found["interaction_error"]]), df)[0]
        ),
        "joint_neg_log10_p": float(joint_neg_log10_p(np.array([found["joint"]]), df)[0]),
        "error_model": ERROR_MODELS[int(found["model"])],
    }
    return row | _fit_columns(fit), fit


def _fit_columns(fit: GxeFit | None) -> dict[str, Any]:
    """Return the columns of a refit; NaN when there is none."""
    nan = float("nan")
    ends = (nan, nan) if fit is None else (float(fit.slope_at[0]), float(fit.slope_at[-1]))
    three = fit is not None and fit.slopes.size == 3
    slope = [nan] * 6 if fit is None else [
        fit.slopes[0], fit.slope_errors[0], fit.slopes[1] if three else nan, fit.slope_errors[1] if three else nan,
        fit.slopes[-1], fit.slope_errors[-1],
    ]  # fmt: skip
    names = [f"slope_{p}{s}" for p in ("low", "middle", "high") for s in ("", "_standard_error")]
    low, high, side = (nan, nan, "") if fit is None else fit.johnson_neyman
    return {
        "hc3_neg_log10_p": nan if fit is None else fit.interaction_neg_log10_p,
        "exposure_low": ends[0],
        "exposure_high": ends[1],
        **dict(zip(names, map(float, slope), strict=True)),
        "johnson_neyman_low": low,
        "johnson_neyman_high": high,
        "johnson_neyman_side": side,
        "rank_normal_neg_log10_p": nan if fit is None else fit.rank_normal_neg_log10_p,
        "log_neg_log10_p": nan if fit is None else fit.log_neg_log10_p,
        "exposure_r": nan if fit is None else fit.exposure_r,
        "exposure_r_neg_log10_p": nan if fit is None else fit.exposure_r_neg_log10_p,
        "status": "ok" if fit is not None else "collinear",
    }


def _table(rows: list[dict[str, Any]]) -> ResultTable:
    empty = dict.fromkeys(("trait", "exposure", "chromosome", "position", "variant_id", "effect_allele",
        "other_allele", "effect_allele_frequency", "n", "degrees_of_freedom", "beta", "standard_error", "neg_log10_p",
        "interaction_beta", "interaction_standard_error", "interaction_neg_log10_p", "joint_neg_log10_p",
        "error_model"), None) | _fit_columns(None)  # fmt: skip
    types = {"str": None, "float": np.float64, "int": np.int64, "bool": np.bool_}
    columns: dict[str, Any] = {}
    for name in empty:
        values = [row[name] for row in rows]
        kind = types[COLUMNS[name].dtype]
        columns[name] = text_array(values) if kind is None else np.array(values, dtype=kind)
    return ResultTable(columns)


def _draw_top(top: tuple[GxeDesign, GxeGroup, dict[str, Any], GxeFit], path: Path) -> None:
    design, group, row, fit = top
    values = group.exposure + group.exposure_mean
    low, high, _ = fit.johnson_neyman
    draw_slopes(
        fit.slope_at,
        fit.slopes,
        fit.slope_errors,
        title=f"{row['variant_id']} x {design.exposure_name}, −log₁₀ p {row['interaction_neg_log10_p']:.1f}",
        labels=(design.exposure_name, row["trait"]),
        range_of_exposure=(float(values.min()), float(values.max())),
        bounds=(low, high),
        path=path,
    )


def _report(
    plan: _Plan, data: AlignedTraits, table: ResultTable, lines: list[dict[str, Any]], counts: dict[str, Any]
) -> StepResult:
    tests = sum(line["n_tests"] for line in lines)
    skipped = {f"{line['trait']} x {line['exposure']}": line["reason"] for line in lines if line["reason"]}
    correlated = int((table["exposure_r_neg_log10_p"] > _CORRELATED).sum())
    middle = [line["lambda_gc"] for line in lines if np.isfinite(line["lambda_gc"])]
    counts = {
        **counts,
        **data.counts,
        "variants": int(plan.rows.size),
        "exposures": len(plan.designs),
        "traits_skipped": skipped,
        "tests": tests,
        "hits": len(table),
        "hits_correlated_with_exposure": correlated,
    }
    summary = [
        f"{data.counts['analysed']:,} people, {plan.rows.size:,} variants, {len(data.names)} traits x "
        f"{len(plan.designs)} exposures",
        f"{tests:,} tests, {len(table):,} hits at p <= {plan.hits:g}; median lambda of the interaction "
        f"{float(np.median(middle)) if middle else float('nan'):.3f}",
    ]
    if correlated:
        summary.append(
            f"{correlated} hits are correlated with their exposure (p < 0.01): the exposure may itself be heritable, "
            "or follow ancestry"
        )
    fewest = min(
        (g.rows.size / (g.q.shape[1] + 2 + g.modifiers.shape[1]), g.rows.size) for d in plan.designs for g in d.groups
    )
    if fewest[0] < _PEOPLE_PER_PARAMETER:
        summary.append(
            f"Only {fewest[0]:.1f} people a parameter (n = {fewest[1]}): use fewer covariates, or --terms main where "
            "none of them can modify the effect of a variant"
        )
    if plan.designs[0].terms == "main":
        summary.append(
            "Without products of covariates (--terms main) a covariate's own interaction passes for the exposure's"
        )
    return StepResult(counts, n_failed=len(skipped), summary=(*summary, *chromosome_notes(counts)))


GWAS_GXE = Step(
    "gwas gxe", "Test the interaction of every variant with exposures.", GwasGxeConfig, gwas_gxe, out="folder"
)
