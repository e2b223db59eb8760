"""``gwas cnv``: carriers and gene burden of copy-number calls against many traits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import Field

from brainlocus.core import (
    COLUMNS,
    AlignmentError,
    PhenotypeTable,
    RegionTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    SegmentTable,
)
from brainlocus.core.text import text_array
from brainlocus.genetics.interactions import (
    FEW_CARRIERS,
    MIN_CARRIERS,
    AlignedTraits,
    ArrayLimits,
    CallLimits,
    TermResult,
    align_traits,
    array_reasons,
    associate_terms,
    check_builds,
    filter_segments,
    gene_burden,
    locus_copies,
    merge_segments,
)
from brainlocus.io import read_array_quality, read_named_regions, read_segments, write_results
from brainlocus.numerics import covariate_basis, project_out, rank_normal, same_people
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.interactions import draw_dose
from brainlocus.pipeline.genomes import keep_people, read_list, read_traits
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GWAS_CNV", "GwasCnvConfig"]


class GwasCnvConfig(StepConfig):
    """Settings of ``gwas cnv``."""

    calls: Annotated[InputPath, Positional()] = Field(
        description="Copy-number calls: PennCNV output, PLINK .cnv or .cfile, or a table (.tsv, .csv, .parquet)"
    )
    traits: Annotated[InputPath, Positional()] = Field(description="Table of quantitative traits")
    build: str = Field(description="Genome build of the calls, such as GRCh37")
    loci_build: str = Field(description="Genome build of loci, genes and excluded regions; must be that of the calls")
    loci: InputPath | None = Field(None, description="Table of recurrent loci: chromosome, start, end, name, direction")
    genes: InputPath | None = Field(
        None, description="Table of genes for the burden: chromosome, start, end, name, LOEUF"
    )
    exclude: InputPath | None = Field(None, description="Table of regions whose calls are dropped (centromeres, ...)")
    quality: InputPath | None = Field(
        None, description="Table of arrays: participant_id, LRR_SD, BAF_median, BAF_drift, WF (PennCNV's summary)"
    )
    assayed: InputPath | None = Field(
        None, description="Participants with an array, carriers or not; else those of --quality, else all with traits"
    )
    columns: CommaList = Field((), description="Traits: names or patterns; all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    na_values: CommaList = Field(
        (), description="Values of traits and covariates that mean missing, besides NA and empty cells, such as -9"
    )
    head_size: str = Field("", description="Covariate of head size: every test with and without it")
    normalise: Literal["rank", "z", "none"] = Field("rank", description="Of traits, so that effects are in SD")
    min_overlap: float = Field(0.4, gt=0, le=1, description="Share of a locus that a carrier's call covers")
    max_lrr_sd: float = Field(0.28, gt=0, description="Largest standard deviation of the log R ratio")
    max_baf_drift: float = Field(0.002, ge=0, description="Largest B allele frequency drift")
    max_gc_wave: float = Field(0.05, ge=0, description="Largest absolute wave factor")
    max_calls: int = Field(50, ge=1, description="Most calls of a person")
    min_snps: int = Field(10, ge=0, description="Fewest markers of a call")
    min_length: int = Field(20_000, ge=0, description="Fewest bases of a call")
    max_gap: float = Field(0.2, ge=0, lt=1, description="Calls are joined across gaps below this share of their union")
    max_excluded: float = Field(0.5, ge=0, le=1, description="Largest share of a call within the excluded regions")
    permutations: int = Field(1000, ge=0, description="Freedman-Lane permutations of terms with fewer than 30 carriers")
    keep: CommaPaths = Field((), description="People: lists, or tables with participant_id; in all of them")


@dataclass(frozen=True, slots=True, eq=False)
class _Cohort:
    data: AlignedTraits
    head_size: Float[np.ndarray, " samples"] | None
    segments: SegmentTable
    counts: dict[str, Any]
    samples: ResultTable


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """One model to be fitted for all traits of the same people."""

    locus: str
    name: str
    terms: tuple[str, ...]
    values: Float[np.ndarray, "samples terms"]
    included: Bool[np.ndarray, " samples"]
    carriers: Bool[np.ndarray, "samples 2"]
    """Whether somebody carries a deletion, a duplication."""


def _regions(path: Path | None, config: GwasCnvConfig) -> RegionTable | None:
    if path is None:
        return None
    check_builds(config.build, config.loci_build)
    return read_named_regions(path, genome_build=config.loci_build)


def _cohort(config: GwasCnvConfig) -> _Cohort:
    """Return traits and calls of the people with good arrays."""
    raw = read_segments(config.calls, genome_build=config.build)
    traits = read_traits(config.traits, config.columns, config.covariates, config.formula, config.na_values)
    names = [n for n in traits.names if n != config.head_size]
    ids, quality = (None, {}) if config.quality is None else read_array_quality(config.quality)
    if config.assayed is not None:
        assayed = SampleIndex.of(read_list(config.assayed, "participant_id"))
    elif ids is not None:
        assayed = SampleIndex.of(ids.tolist())
    else:
        assayed = traits.table.samples
    called, n_raw = np.unique(raw.participant_id, return_counts=True)
    many = dict(zip(called.tolist(), n_raw.tolist(), strict=True))
    n_calls = np.array([many.get(i, 0) for i in assayed.ids.tolist()], dtype=np.int64)
    metrics = {n: np.full(len(assayed), np.nan) for n in ("lrr_sd", "baf_median", "baf_drift", "gc_wave")}
    if ids is not None:
        place = SampleIndex.of(ids.tolist()).indices_of(assayed)
        metrics = {n: np.where(place >= 0, v[np.maximum(place, 0)], np.nan) for n, v in quality.items()}
    limits = ArrayLimits(config.max_lrr_sd, (0.45, 0.55), config.max_baf_drift, config.max_gc_wave, config.max_calls)
    reason = array_reasons(metrics, n_calls, limits)
    good = assayed.take(reason == "")
    if not set(assayed.ids.tolist()) & set(called.tolist()) and len(raw):
        shown = ", ".join(called[:3].tolist()), ", ".join(assayed.ids[:3].tolist())
        raise AlignmentError(
            f"{config.calls}: none of its {called.size} people ({shown[0]}, ...) is among the {len(assayed)} "
            f"assayed ({shown[1]}, ...). Ids are compared as exact strings."
        )
    data = align_traits(
        traits.table,
        keep_people(good, config.keep),
        covariates=traits.covariates,
        formula=traits.formula,
        names=names,
    )
    head = _head_size(config, data, traits.table, traits.covariates)
    if head is not None:
        data, head = _with_head_size(data, head, config.head_size)
    calls = CallLimits(config.min_snps, config.min_length, config.max_gap, config.max_excluded)
    merged = merge_segments(raw, config.max_gap)
    kept, dropped = filter_segments(merged, calls, _regions(config.exclude, config))
    samples = ResultTable(
        {"participant_id": assayed.ids, "n_segments": n_calls, **metrics, "reason": text_array(reason.tolist())}
    )
    counts = {
        "calls": len(raw),
        "calls_joined": len(raw) - len(merged),
        "calls_dropped": dropped,
        "calls_kept": len(kept),
        "assayed": len(assayed),
        "assayed_dropped": {str(r): int((reason == r).sum()) for r in np.unique(reason) if r},
        "people_with_calls_not_assayed": len(set(called.tolist()) - set(assayed.ids.tolist())),
        **{n.replace("genotypes", "good_arrays"): v for n, v in data.counts.items()},
        "analysed": len(data.samples),
    }
    return _Cohort(data, head, kept, counts, samples)


def _head_size(
    config: GwasCnvConfig, data: AlignedTraits, traits: PhenotypeTable, covariates: PhenotypeTable | None
) -> Float[np.ndarray, " samples"] | None:
    if not config.head_size:
        return None
    home = next((t for t in (covariates, traits) if t is not None and config.head_size in t.names), traits)
    column = home.column(config.head_size)
    if column.kind == "categorical":
        raise SchemaError(f"--head-size: {config.head_size!r} holds text, expected numbers.")
    return np.asarray(column.values[home.samples.indices_of(data.samples)], dtype=np.float64)


def _with_head_size(
    data: AlignedTraits, head: Float[np.ndarray, " samples"], name: str
) -> tuple[AlignedTraits, Float[np.ndarray, " kept"]]:
    """Return the people with a head size, the same for adjusted and unadjusted rows, and covariates without it."""
    known = ~np.isnan(head)
    if not known.any():
        raise SchemaError(f"--head-size: nobody who is analysed has a value of {name!r}.")
    others = [k for k, n in enumerate(data.covariate_names) if n != name]
    rows = AlignedTraits(
        data.samples.take(known),
        data.names,
        data.traits[known],
        data.covariates[known][:, others],
        tuple(data.covariate_names[k] for k in others),
        data.counts,
    )
    return rows, head[known]


def _models(config: GwasCnvConfig, cohort: _Cohort) -> Iterator[_Model]:
    """Yield what is to be fitted: two models a locus, and the burden."""
    people = cohort.data.samples.ids
    loci, genes = _regions(config.loci, config), _regions(config.genes, config)
    if loci is not None:
        copies = np.column_stack(
            [locus_copies(cohort.segments, loci, k, people, min_overlap=config.min_overlap) for k in range(len(loci))]
            or [np.zeros((people.size, 0), dtype=np.int64)]
        )
        anyone = (copies != 0).any(axis=1)
        for k in range(len(loci)):
            d = copies[:, k]
            own = np.column_stack([d < 0, d > 0])
            included = ~anyone | (d != 0)
            yield _Model(str(loci.name[k]), "dosage", ("dosage",), d[:, None].astype(float), included, own)
            terms = [(name, own[:, j]) for j, name in enumerate(("deletion", "duplication")) if own[:, j].any()]
            if terms:
                values = np.column_stack([v for _, v in terms]).astype(float)
                yield _Model(str(loci.name[k]), "indicators", tuple(n for n, _ in terms), values, included, own)
    if genes is not None:
        burden = gene_burden(cohort.segments, genes, people)
        everyone = np.ones(people.size, dtype=bool)
        for label, first in (("genes", 0), ("1/LOEUF", 2)):
            values = burden[:, first : first + 2]
            used = np.flatnonzero(values.any(axis=0))
            names = tuple(("deletion", "duplication")[k] for k in used)
            if names:
                yield _Model(label, "burden", names, values[:, used], everyone, values > 0)


def _normalised(traits: Float[np.ndarray, "people traits"], how: str) -> Float[np.ndarray, "people traits"]:
    if how == "rank":
        traits = np.column_stack([rank_normal(column) for column in traits.T])
    if how == "none":
        return traits
    spread = traits.std(axis=0)
    return np.asarray((traits - traits.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _fit(
    model: _Model, cohort: _Cohort, config: GwasCnvConfig, rng: np.random.Generator
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (trait, row) of one model, unadjusted and adjusted."""
    data = cohort.data
    heads: list[tuple[str, Float[np.ndarray, "samples extra"]]] = [("", np.empty((len(data.samples), 0)))]
    if cohort.head_size is not None:
        heads.append((config.head_size, cohort.head_size[:, None]))
    for mask, members in same_people(~np.isnan(data.traits) & model.included[:, None]):
        if not mask.any():
            continue
        y = _normalised(data.traits[np.ix_(np.flatnonzero(mask), members)], config.normalise)
        for adjusted, extra in heads:
            covariates = np.hstack([data.covariates, extra])[mask]
            fitted = _fitted(model, mask, y, covariates, config, rng)
            for row in fitted:
                for k, trait in enumerate(members.tolist()):
                    yield trait, {n: v[k] if isinstance(v, np.ndarray) else v for n, v in row.items()} | {
                        "cnv_locus": model.locus, "model": model.name, "adjusted": adjusted, "trait": data.names[trait],
                    }  # fmt: skip


def _fitted(
    model: _Model,
    mask: Bool[np.ndarray, " samples"],
    y: Float[np.ndarray, "people traits"],
    covariates: Float[np.ndarray, "people covariates"],
    config: GwasCnvConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return a row a term, each value one number or one a trait."""
    own = model.carriers[mask]
    values = model.values[mask]
    terms = [*model.terms, *(["deletion and duplication"] if len(model.terms) == 2 else [])]
    carried = [own.any(axis=1) if t in ("dosage", "deletion and duplication") else values[:, k] != 0
               for k, t in enumerate(terms)]  # fmt: skip
    n_carriers = [int(c.sum()) for c in carried]
    few = np.array([MIN_CARRIERS <= n < FEW_CARRIERS and config.permutations > 0 for n in n_carriers])
    tested = max(n_carriers) >= MIN_CARRIERS and bool(values.any(axis=0).all())
    result = (
        associate_terms(y, covariates, values, permute=few, n_permutations=config.permutations, rng=rng)
        if tested
        else None
    )
    residual = project_out(covariate_basis(covariates).q, y)
    rows = []
    for k, term in enumerate(terms):
        reference = ~own.any(axis=1)
        difference = np.full(y.shape[1], np.nan)
        if n_carriers[k] and reference.any():
            difference = residual[carried[k]].mean(axis=0) - residual[reference].mean(axis=0)
        enough = n_carriers[k] >= MIN_CARRIERS
        status = "ok" if result is not None and enough else "descriptive" if not enough else "collinear"
        row = _estimates(result if status == "ok" else None, k, y.shape[1])
        permuted = config.permutations if status == "ok" and few[k] else 0
        rows.append(
            row | {"term": term, "n": int(mask.sum()), "n_deletion": int(own[:, 0].sum()),
                   "n_duplication": int(own[:, 1].sum()), "mean_difference": difference, "n_permutations": permuted,
                   "status": status}
        )  # fmt: skip
    return rows


def _estimates(result: TermResult | None, term: int, n_traits: int) -> dict[str, Any]:
    names = ("beta", "standard_error", "neg_log10_p", "robust_standard_error", "robust_neg_log10_p", "permutation_p")
    if result is None:
        return {n: np.full(n_traits, np.nan) for n in names} | {"degrees_of_freedom": float("nan")}
    return {n: getattr(result, n)[term] for n in names} | {"degrees_of_freedom": float(result.degrees_of_freedom)}


_ORDER = ("cnv_locus", "trait", "model", "term", "adjusted", "n", "n_deletion", "n_duplication", "beta",
          "standard_error", "degrees_of_freedom", "neg_log10_p", "robust_standard_error", "robust_neg_log10_p",
          "permutation_p", "n_permutations", "mean_difference", "status")  # fmt: skip


def gwas_cnv(config: GwasCnvConfig, out: Path, context: Context) -> StepResult:
    """Associate copy-number loci and gene burden with traits."""
    if config.loci is None and config.genes is None:
        raise SchemaError("Expected --loci (recurrent loci), --genes (burden) or both, found neither.")
    check_builds(config.build, config.loci_build)
    cohort = _cohort(config)
    models = list(_models(config, cohort))
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for number, model in enumerate(context.progress.track(models, "Testing loci", len(models))):
        rows += [(number, trait, row) for trait, row in _fit(model, cohort, config, context.rng(number))]
    ordered = [row for _, _, row in sorted(rows, key=lambda item: item[:2])]
    table = _table(ordered)
    write_results(table, out / "associations.parquet")
    write_results(cohort.samples, out / "samples.parquet")
    write_results(_carriers(models, cohort.data.samples.ids), out / "carriers.parquet")
    _draw(table, models, cohort, config, out / "dose.png")
    statuses = {str(s): int(n) for s, n in zip(*np.unique(table["status"], return_counts=True), strict=True)}
    loci = {m.locus for m in models}
    counts = cohort.counts | {"traits": len(cohort.data.names), "loci": len(loci), "status": statuses}
    dropped = sum(cohort.counts["assayed_dropped"].values())
    summary = (
        f"{len(cohort.data.samples):,} people ({dropped} of {cohort.counts['assayed']:,} arrays fail), "
        f"{cohort.counts['calls_kept']:,} of {cohort.counts['calls']:,} calls kept",
        f"{len(loci)} loci and burdens x {len(cohort.data.names)} traits: {statuses.get('ok', 0):,} tests, "
        f"{statuses.get('descriptive', 0):,} descriptive (fewer than {MIN_CARRIERS} carriers)",
    )
    return StepResult(counts, n_failed=statuses.get("collinear", 0), summary=summary)


def _table(rows: list[dict[str, Any]]) -> ResultTable:
    types = {"float": np.float64, "int": np.int64, "bool": np.bool_}
    columns: dict[str, Any] = {}
    for name in _ORDER:
        values = [row[name] for row in rows]
        kind = COLUMNS[name].dtype
        columns[name] = text_array(values) if kind == "str" else np.array(values, dtype=types[kind])
    return ResultTable(columns)


def _carriers(models: list[_Model], people: Shaped[np.ndarray, " samples"]) -> ResultTable:
    parts = [(m.locus, np.flatnonzero(m.values[:, 0]), m.values[:, 0]) for m in models if m.name == "dosage"]
    return ResultTable(
        {
            "cnv_locus": text_array([name for name, rows, _ in parts for _ in rows]),
            "participant_id": text_array([people[k] for _, rows, _ in parts for k in rows]),
            "copies": np.array([2 + int(d[k]) for _, rows, d in parts for k in rows], dtype=np.int64),
        }
    )


def _draw(table: ResultTable, models: list[_Model], cohort: _Cohort, config: GwasCnvConfig, path: Path) -> None:
    """Draw the dose response of the strongest dosage association."""
    rows = np.flatnonzero((table["model"] == "dosage") & np.isfinite(table["neg_log10_p"]))
    if not rows.size:
        return
    row = int(rows[np.argmax(table["neg_log10_p"][rows])])
    model = next(m for m in models if m.name == "dosage" and m.locus == str(table["cnv_locus"][row]))
    trait = str(table["trait"][row])
    y = cohort.data.traits[:, cohort.data.names.index(trait)]
    mask = ~np.isnan(y) & model.included
    extra = cohort.head_size[:, None] if cohort.head_size is not None and table["adjusted"][row] else None
    covariates = cohort.data.covariates if extra is None else np.hstack([cohort.data.covariates, extra])
    residual = project_out(
        covariate_basis(covariates[mask]).q, _normalised(y[mask][:, None], config.normalise)
    )[:, 0]  # fmt: skip
    copies = 2 + model.values[mask, 0].astype(int)
    levels = np.unique(copies)
    groups = [residual[copies == c] for c in levels]
    draw_dose(
        levels.tolist(),
        [float(g.mean()) for g in groups],
        [float(g.std(ddof=1) / np.sqrt(g.size)) if g.size > 1 else float("nan") for g in groups],
        [int(g.size) for g in groups],
        title=f"{model.locus}, {trait}: −log₁₀ p {float(table['neg_log10_p'][row]):.1f}",
        path=path,
    )


GWAS_CNV = Step(
    "gwas cnv", "Associate copy-number loci and gene burden with traits.", GwasCnvConfig, gwas_cnv, out="folder"
)
