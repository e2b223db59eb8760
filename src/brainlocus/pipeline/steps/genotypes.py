"""``genotypes qc``, ``genotypes pca`` and ``genotypes grm``."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from brainlocus.core import (
    Column,
    GenotypeSource,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    select_genotypes,
)
from brainlocus.core.errors import nearest
from brainlocus.core.variants import AUTOSOMES
from brainlocus.genetics.genotypes import (
    PRESETS,
    QcResult,
    QcSettings,
    count_genotypes,
    counts_peak_bytes,
    genetic_relationships,
    grm_peak_bytes,
    pca_peak_bytes,
    principal_components,
    quality_control,
)
from brainlocus.io import write_grm, write_results, write_table
from brainlocus.pipeline.config import InputPath
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes
from brainlocus.pipeline.genomes import keep_people, require_memory, table_bytes
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = [
    "GENOTYPES_GRM",
    "GENOTYPES_PCA",
    "GENOTYPES_QC",
    "GenotypesGrmConfig",
    "GenotypesPcaConfig",
    "GenotypesQcConfig",
]


class GenotypesQcConfig(GenotypeInput):
    """Settings of ``genotypes qc``."""

    preset: str = Field(
        "covariance",
        description="Thresholds of a published study, each replaced by its own option: covariance (people missing "
        "3 %, MAF 1 %, variants missing 3 %, HWE p 1e-10, heterozygosity 3 SD), susceptibility (MAF 1 %, HWE p 1e-7)",
    )
    max_sample_missing: float | None = Field(
        None, ge=0, le=1, description="Largest share of missing calls of a person (1: any)"
    )
    min_maf: float | None = Field(None, ge=0, le=0.5, description="Smallest minor allele frequency (0: any)")
    max_variant_missing: float | None = Field(
        None, ge=0, le=1, description="Largest share of missing calls of a variant (1: any)"
    )
    min_hwe_p: float | None = Field(None, ge=0, le=1, description="Smallest Hardy-Weinberg p (0: any)")
    hwe_mid_p: bool = Field(False, description="Mid-p version of the Hardy-Weinberg test")
    max_heterozygosity_sd: float | None = Field(
        None, gt=0, description="Largest distance of heterozygosity F from its mean, in standard deviations"
    )
    check_sex: bool = Field(True, description="Leave out people whose X chromosome is not of the reported sex")


class GenotypesPcaConfig(GenotypeInput):
    """Settings of ``genotypes pca``."""

    components: int = Field(10, ge=1, description="Number of components")
    min_maf: float = Field(0.01, ge=0, le=0.5, description="Smallest minor allele frequency among these people")
    method: Literal["auto", "exact", "krylov"] = Field("auto", description="auto is exact up to 5,000 people")


class GenotypesGrmConfig(GenotypeInput):
    """Settings of ``genotypes grm``."""

    min_maf: float = Field(0.01, ge=0, le=0.5, description="Smallest minor allele frequency among these people")
    max_missing: float = Field(
        1.0, ge=0, le=1, description="Largest share of missing calls of a variant among these people"
    )
    scale: Literal["expected", "observed"] = Field("expected", description="Divide by sqrt(2p(1-p)), or by the SD")
    missing: Literal["pairwise", "mean"] = Field("pairwise", description="Leave a pair's missing calls out, or impute")
    reference: InputPath | None = Field(
        None, description="Filter variants by frequency and missing calls among these people instead (list)"
    )


def qc_settings(config: GenotypesQcConfig) -> QcSettings:
    """Return the preset's thresholds with those given in their place.

    Raises
    ------
    SchemaError
        An unknown preset.
    """
    if config.preset not in PRESETS:
        raise SchemaError(
            f"--preset: expected one of {', '.join(sorted(PRESETS))}, found {config.preset!r}."
            f"{nearest(config.preset, list(PRESETS))}"
        )
    given = ("max_sample_missing", "min_maf", "max_variant_missing", "min_hwe_p", "max_heterozygosity_sd")
    changed = {name: getattr(config, name) for name in given if getattr(config, name) is not None}
    return replace(PRESETS[config.preset], hwe_mid_p=config.hwe_mid_p, check_sex=config.check_sex, **changed)


def _write_qc(result: QcResult, variants: ResultTable, out: Path) -> None:
    write_results(variants, out / "variants.parquet")
    write_results(result.samples, out / "samples.parquet")
    rows = [f"{row.step}\t{row.n_samples}\t{row.n_variants}" for row in result.flow]
    (out / "flow.tsv").write_text("\n".join(["step\tpeople\tvariants", *rows]) + "\n")
    (out / "keep.samples").write_text("\n".join(result.keep_samples.ids.tolist()) + "\n")
    kept = variants["variant_id"][result.keep_variants]
    (out / "keep.variants").write_text("\n".join(kept.tolist()) + "\n")


def _reasons(table: ResultTable) -> dict[str, int]:
    names, counts = np.unique(table["reason"], return_counts=True)
    return {str(n): int(c) for n, c in zip(names, counts, strict=True) if n}


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _flow_lines(result: QcResult) -> list[str]:
    """Return what is left of what there was, then one line per step that took something away."""
    first, last = result.flow[0], result.flow[-1]
    lines = [
        f"{last.n_samples:,} of {first.n_samples:,} people and {last.n_variants:,} of {first.n_variants:,} variants "
        "pass"
    ]
    for before, after in pairwise(result.flow):
        people, variants = before.n_samples - after.n_samples, before.n_variants - after.n_variants
        if people or variants:
            what = [_counted(people, "person", "people")] * (people > 0)
            what += [_counted(variants, "variant", "variants")] * (variants > 0)
            lines.append(f"  {after.step}: {' and '.join(what)} left out")
    return lines


def genotypes_qc(config: GenotypesQcConfig, out: Path, context: Context) -> StepResult:
    """Write who and what passed quality control, and why the others did not."""
    settings = qc_settings(config)
    chosen = choose_genotypes(config)
    source = chosen.source
    n_people, n_variants = len(source.samples), len(source.variants)
    # Counts of two passes, tests and reasons come to another half kilobyte a variant.
    needed = table_bytes(n_variants) + 500 * n_variants + counts_peak_bytes(n_people, n_variants, 64)
    require_memory(needed, context.memory_bytes, f"Quality control of {n_variants} variants of {n_people} people")
    result = quality_control(
        source if chosen.variants.all() else select_genotypes(source, variants=chosen.variants),
        settings,
        keep=chosen.samples if config.keep or config.remove else None,
        sex=source.pedigree.sex,
        founders=source.pedigree.founders,
        memory_bytes=min(context.memory_bytes - needed + 64 * 12 * n_people, 1 << 28),
    )
    _write_qc(result, result.variants, out)
    counts: dict[str, Any] = {
        **chosen.counts,
        "settings": {k: v for k, v in asdict(settings).items() if k != "autosomes"},
        "people": len(result.keep_samples),
        "variants": int(result.keep_variants.size),
        "people_left_out": _reasons(result.samples),
        "variants_left_out": _reasons(result.variants),
        "notes": list(result.notes),
    }
    return StepResult(counts, summary=(*_flow_lines(result), *result.notes))


def _chosen(
    config: GenotypeInput, *, min_maf: float, max_missing: float, reference: Path | None, memory_bytes: int
) -> tuple[GenotypeSource, dict[str, Any]]:
    """Return the autosomal variants that pass, among the people kept, and what was dropped."""
    asked = choose_genotypes(config)
    source, people = asked.source, asked.samples
    rows = asked.variants & np.isin(source.variants.chromosome, AUTOSOMES)
    judged: SampleIndex = keep_people(source.samples, (reference,)) if reference is not None else people
    counted = count_genotypes(
        select_genotypes(source, samples=judged, variants=rows), memory_bytes=min(memory_bytes // 4, 1 << 28)
    )
    frequency = np.nan_to_num(counted.effect_allele_frequency, nan=0.0)
    passes = (np.minimum(frequency, 1.0 - frequency) >= min_maf) & (counted.missing_rate <= max_missing)
    chosen = np.flatnonzero(rows)[passes]
    counts = {
        **asked.counts,
        "people": len(people),
        "variants": int(chosen.size),
        "variants_not_listed": int((~asked.variants).sum()),
        "variants_not_autosomal": int((asked.variants & ~rows).sum()),
        "variants_rare_or_missing": int((~passes).sum()),
    }
    if not chosen.size:
        raise SchemaError(f"No variant is left: {counts}. Lower --min-maf or check --variants.")
    return select_genotypes(source, samples=people, variants=chosen), counts


def _exact(config: GenotypesPcaConfig) -> bool | None:
    return None if config.method == "auto" else config.method == "exact"


def genotypes_pca(config: GenotypesPcaConfig, out: Path, context: Context) -> StepResult:
    """Write scores, eigenvalues and loadings of the leading components."""
    chosen, counts = _chosen(
        config, min_maf=config.min_maf, max_missing=1.0, reference=None, memory_bytes=context.memory_bytes
    )
    if config.components >= len(chosen.samples):
        raise SchemaError(
            f"--components: {config.components} were asked of {len(chosen.samples)} people; ask for fewer."
        )
    needed = pca_peak_bytes(len(chosen.samples), len(chosen.variants), config.components, exact=_exact(config))
    needed += table_bytes(counts["genotyped_variants"]) + 64 * 12 * len(chosen.samples)
    hint = "" if config.method == "krylov" else " (--method krylov needs less)"
    what = f"{config.components} components of {len(chosen.samples)} people{hint}"
    require_memory(needed, context.memory_bytes, what)
    with threadpool_limits(limits=context.threads):
        found = principal_components(
            chosen,
            config.components,
            rng=context.rng(0),
            exact=_exact(config),
            memory_bytes=max((context.memory_bytes - needed) // 2, 64 * 12 * len(chosen.samples)),
        )
    names = [f"PC{k + 1}" for k in range(config.components)]
    write_table(_table(found.samples, names, found.scores), out / "scores.parquet")
    rows = [f"{name}\t{value:.10g}" for name, value in zip(names, found.eigenvalues, strict=True)]
    (out / "eigenvalues.tsv").write_text("\n".join(["component\teigenvalue", *rows]) + "\n")
    _write_loadings(chosen, names, found.loadings, out / "loadings.parquet")
    counts["residual"] = found.residual
    text = ", ".join(f"{v:.3f}" for v in found.eigenvalues[:5])
    return StepResult(
        counts, summary=(f"{counts['people']:,} people, {counts['variants']:,} variants; eigenvalues {text}",)
    )


def _table(samples: SampleIndex, names: list[str], values: Any) -> PhenotypeTable:
    return PhenotypeTable(
        samples, tuple(Column(name, np.ascontiguousarray(values[:, k])) for k, name in enumerate(names))
    )


def _write_loadings(source: GenotypeSource, names: list[str], loadings: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = source.variants
    columns: dict[str, Any] = {
        "chromosome": table.chromosome.tolist(),
        "position": table.position,
        "variant_id": table.variant_id.tolist(),
        "effect_allele": table.effect_allele.tolist(),
    }
    columns |= {name: loadings[:, k] for k, name in enumerate(names)}
    pq.write_table(pa.table(columns), path, compression="zstd")


def genotypes_grm(config: GenotypesGrmConfig, out: Path, context: Context) -> StepResult:
    """Write the genetic relationship matrix in GCTA's format."""
    chosen, counts = _chosen(
        config,
        min_maf=config.min_maf,
        max_missing=config.max_missing,
        reference=config.reference,
        memory_bytes=context.memory_bytes,
    )
    with threadpool_limits(limits=context.threads):
        memory = context.memory_bytes - table_bytes(counts["genotyped_variants"])
        grm = genetic_relationships(chosen, scale=config.scale, missing=config.missing, memory_bytes=memory)
    write_grm(grm, out)
    diagonal = np.diag(grm.matrix)
    counts["mean_diagonal"] = float(diagonal.mean())
    return StepResult(
        counts,
        summary=(f"{counts['people']:,} people, {counts['variants']:,} variants; mean diagonal {diagonal.mean():.4f}",),
    )


def _sizes(config: GenotypeInput) -> tuple[int, int]:
    source = config.file.open()
    return len(source.samples), len(source.variants)


def _estimate_pca(config: GenotypesPcaConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    n, m = _sizes(config)
    return Estimate(
        pca_peak_bytes(n, m, config.components, exact=_exact(config)) + table_bytes(m), 1e-11 * n * n * m + 1e-10 * n**3
    )


def _estimate_grm(config: GenotypesGrmConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    n, m = _sizes(config)
    return Estimate(grm_peak_bytes(n) + table_bytes(m), 1e-11 * n * n * m)


GENOTYPES_QC = Step(
    "genotypes qc", "Quality control of variants and people.", GenotypesQcConfig, genotypes_qc, out="folder"
)
GENOTYPES_PCA = Step(
    "genotypes pca", "Ancestry components of the genotypes.", GenotypesPcaConfig, genotypes_pca, out="folder",
    estimate=_estimate_pca,
)  # fmt: skip
GENOTYPES_GRM = Step(
    "genotypes grm", "Genetic relationship matrix.", GenotypesGrmConfig, genotypes_grm, out="prefix",
    estimate=_estimate_grm,
)  # fmt: skip
