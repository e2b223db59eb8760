"""``genotypes qc``, ``genotypes pca`` and ``genotypes grm``."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field
from threadpoolctl import threadpool_limits

from brainlocus.core import (
    AlignmentError,
    Column,
    GenotypeSource,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    select_genotypes,
)
from brainlocus.core.errors import nearest
from brainlocus.genetics.genotypes import (
    LOCAL_SHARE,
    PRESETS,
    PrincipalComponents,
    QcResult,
    QcSettings,
    counts_peak_bytes,
    genetic_relationships,
    grm_peak_bytes,
    local_shares,
    pca_peak_bytes,
    principal_components,
    project_people,
    quality_control,
)
from brainlocus.io import read_table, write_grm, write_results, write_table
from brainlocus.pipeline.config import CommaPaths, InputPath
from brainlocus.pipeline.filters import GenotypeFile, GenotypeInput, choose_genotypes
from brainlocus.pipeline.genomes import ambiguity_notes, ambiguous_ids, keep_people, require_memory, table_bytes
from brainlocus.pipeline.panels import Panel, PanelRules, choose_panel
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
    unrelated: InputPath | None = Field(
        None, description="People without relatives among them (unrelated.txt of genotypes kinship); others leave first"
    )
    status: InputPath | None = Field(None, description="Table with cases and controls: missing calls are tested")
    status_column: str = Field("status", description="Its column: 1 case, 0 control")
    min_status_p: float | None = Field(
        None, ge=0, le=1, description="Smallest p of missing calls against status (1e-5; 0: any)"
    )
    max_sample_missing: float | None = Field(
        None, ge=0, le=1, description="Largest share of missing calls of a person (1: any)"
    )
    min_maf: float | None = Field(None, ge=0, le=0.5, description="Smallest minor allele frequency (0: any)")
    min_mac: float | None = Field(None, ge=0, description="Smallest count of the rarer allele (none)")
    max_variant_missing: float | None = Field(
        None, ge=0, le=1, description="Largest share of missing calls of a variant (1: any)"
    )
    min_hwe_p: float | None = Field(None, ge=0, le=1, description="Smallest Hardy-Weinberg p (0: any)")
    hwe_mid_p: bool = Field(False, description="Mid-p version of the Hardy-Weinberg test")
    x_hwe: Literal["joint", "females"] = Field(
        "joint", description="Hardy-Weinberg on X: men's alleles with women's genotypes, or women alone"
    )
    duplicates_strand: bool = Field(
        False, description="Duplicates are also sought on the other strand: A/C and T/G at one position are one variant"
    )
    max_heterozygosity_sd: float | None = Field(
        None, gt=0, description="Largest distance of heterozygosity F from its mean, in standard deviations"
    )
    check_sex: bool = Field(True, description="Leave out people whose X chromosome is not of the reported sex")
    figures: bool = Field(False, description="Draw flow.png (needs the extra plot)")


class GenotypesPcaConfig(GenotypeInput):
    """Settings of ``genotypes pca``."""

    components: int = Field(10, ge=1, description="Number of components")
    fit: CommaPaths = Field(
        (), description="People the components are fitted on (unrelated.txt of genotypes kinship); others are projected"
    )
    projection: Literal["corrected", "plain"] = Field(
        "corrected", description="Projected people: shrinkage corrected, or the plain product with the loadings"
    )
    min_maf: float = Field(0.01, ge=0, le=0.5, description="Smallest minor allele frequency among those fitted on")
    method: Literal["auto", "exact", "krylov"] = Field("auto", description="auto is exact up to 5,000 people")
    figures: bool = Field(False, description="Draw components.png (needs the extra plot)")


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
    given = (
        "max_sample_missing", "min_maf", "min_mac", "max_variant_missing", "min_status_p", "min_hwe_p",
        "max_heterozygosity_sd",
    )  # fmt: skip
    changed = {name: getattr(config, name) for name in given if getattr(config, name) is not None}
    fixed = ("hwe_mid_p", "x_hwe", "duplicates_strand", "check_sex")
    return replace(PRESETS[config.preset], **{name: getattr(config, name) for name in fixed}, **changed)


def _write_qc(result: QcResult, variants: ResultTable, out: Path) -> None:
    write_results(variants, out / "variants.parquet")
    write_results(result.samples, out / "samples.parquet")
    rows = [f"{row.step}\t{row.n_samples}\t{row.n_variants}" for row in result.flow]
    (out / "flow.tsv").write_text("\n".join(["step\tpeople\tvariants", *rows]) + "\n")
    (out / "keep.samples").write_text("\n".join(result.keep_samples.ids.tolist()) + "\n", encoding="utf-8")
    kept = variants["variant_id"][result.keep_variants]
    (out / "keep.variants").write_text("\n".join(kept.tolist()) + "\n", encoding="utf-8")


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


def _status(samples: SampleIndex, path: Path, column: str) -> Float64[np.ndarray, " samples"]:
    """Return 1 for cases, 0 for controls, NaN for people without a status.

    Raises
    ------
    SchemaError
        The column has other values.
    AlignmentError
        Nobody genotyped has a status.
    """
    table = read_table(path, columns=[column])
    values = table.columns[0].values
    if values.dtype.kind != "f" or not np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
        raise SchemaError(f"{path}: expected 1 (case), 0 (control) or nothing in {column!r}, found other values.")
    rows = table.samples.indices_of(samples)
    found = np.where(rows >= 0, values[np.maximum(rows, 0)], np.nan)
    if np.isnan(found).all():
        raise AlignmentError(f"{path}: none of the {len(samples)} genotyped people has a {column}.")
    return np.asarray(found, dtype=np.float64)


def genotypes_qc(config: GenotypesQcConfig, out: Path, context: Context) -> StepResult:
    """Write who and what passed quality control, and why the others did not."""
    settings = qc_settings(config)
    asked = choose_genotypes(config)
    source = asked.source
    n_people, n_variants = len(source.samples), len(source.variants)
    # Counts of two passes, tests and reasons come to another half kilobyte a variant.
    needed = table_bytes(n_variants) + 500 * n_variants + counts_peak_bytes(n_people, n_variants, 64)
    require_memory(needed, context.memory_bytes, f"Quality control of {n_variants} variants of {n_people} people")
    result = quality_control(
        source if asked.variants.all() else select_genotypes(source, variants=asked.variants),
        settings,
        keep=asked.samples if config.keep or config.remove else None,
        unrelated=keep_people(source.samples, (config.unrelated,)) if config.unrelated is not None else None,
        status=_status(source.samples, config.status, config.status_column) if config.status is not None else None,
        sex=source.pedigree.sex,
        founders=source.pedigree.founders,
        memory_bytes=min(context.memory_bytes - needed + 64 * 12 * n_people, 1 << 28),
    )
    _write_qc(result, result.variants, out)
    if config.figures:
        from brainlocus.pipeline.figures.genotypes import draw_flow

        draw_flow(result.flow, out / "flow.png")
    counts: dict[str, Any] = {
        **asked.counts,
        "settings": {k: v for k, v in asdict(settings).items() if k != "autosomes"},
        "people": len(result.keep_samples),
        "variants": int(result.keep_variants.size),
        "people_left_out": _reasons(result.samples),
        "variants_left_out": _reasons(result.variants),
        "notes": list(result.notes),
    }
    kept = result.variants["reason"] == ""
    counts["ambiguous_ids"] = ambiguous_ids(result.variants["variant_id"], kept)
    notes = ambiguity_notes(counts["ambiguous_ids"], "keep.variants cannot tell them apart; variants.parquet can")
    return StepResult(counts, summary=(*_flow_lines(result), *result.notes, *notes))


def _exact(config: GenotypesPcaConfig) -> bool | None:
    return None if config.method == "auto" else config.method == "exact"


def _pca_panel(config: GenotypesPcaConfig, memory_bytes: int) -> tuple[Panel, SampleIndex]:
    """Return the people fitted on with the variants chosen among them, and everyone who gets scores."""
    asked = choose_genotypes(config)
    rules = PanelRules(config.fit, min_maf=config.min_maf)
    panel = choose_panel(asked, rules, memory_bytes=memory_bytes // 4)
    if config.components >= len(panel.source.samples):
        raise SchemaError(
            f"--components: {config.components} were asked of {len(panel.source.samples)} people; ask for fewer."
        )
    return panel, panel.people


def genotypes_pca(config: GenotypesPcaConfig, out: Path, context: Context) -> StepResult:
    """Write scores, eigenvalues and loadings of the leading components."""
    panel, people = _pca_panel(config, context.memory_bytes)
    chosen, counts = panel.source, panel.counts
    needed = pca_peak_bytes(len(chosen.samples), len(chosen.variants), config.components, exact=_exact(config))
    needed += table_bytes(counts["genotyped_variants"]) + 64 * 12 * len(people)
    hint = "" if config.method == "krylov" else " (--method krylov needs less)"
    what = f"{config.components} components of {len(chosen.samples)} people{hint}"
    require_memory(needed, context.memory_bytes, what)
    memory = max((context.memory_bytes - needed) // 2, 64 * 12 * len(people))
    with threadpool_limits(limits=context.threads):
        found = principal_components(
            chosen, config.components, rng=context.rng(0), exact=_exact(config), memory_bytes=memory
        )
        scores, fitted = _everyone(found, panel, people, config, memory)
    names = [f"PC{k + 1}" for k in range(config.components)]
    write_table(_table(people, names, scores), out / "scores.parquet")
    shares, regions = local_shares(chosen.variants, found.loadings)
    rows = [
        f"{name}\t{value:.10g}\t{share:.4f}\t{region}"
        for name, value, share, region in zip(names, found.eigenvalues, shares, regions, strict=True)
    ]
    (out / "eigenvalues.tsv").write_text("\n".join(["component\teigenvalue\tlocal_share\tlocal_region", *rows]) + "\n")
    _write_loadings(chosen, names, found.loadings, out / "loadings.parquet")
    local = shares > LOCAL_SHARE
    if config.figures:
        from brainlocus.pipeline.figures.genotypes import draw_components

        draw_components(scores, fitted, found.eigenvalues, local, out / "components.png")
    counts |= {
        "people": len(people),
        "people_fitted": len(chosen.samples),
        "people_projected": int((~fitted).sum()),
        "residual": found.residual,
        "components_of_one_region": {names[k]: regions[k] for k in np.flatnonzero(local).tolist()},
    }
    return StepResult(counts, summary=_pca_summary(counts, found.eigenvalues))


def _everyone(
    found: PrincipalComponents, panel: Panel, people: SampleIndex, config: GenotypesPcaConfig, memory_bytes: int
) -> tuple[Any, Any]:
    """Return the scores of all people, and who of them was fitted on."""
    rows = people.indices_of(found.samples)
    fitted = np.zeros(len(people), dtype=bool)
    fitted[rows] = True
    scores = np.empty((len(people), found.eigenvalues.size))
    scores[rows] = found.scores
    if not fitted.all():
        others = select_genotypes(panel.file, samples=people.take(~fitted), variants=panel.rows)
        scores[~fitted] = project_people(
            found, others, correct=config.projection == "corrected", memory_bytes=memory_bytes
        )
    return scores, fitted


def _pca_summary(counts: dict[str, Any], eigenvalues: Any) -> tuple[str, ...]:
    text = ", ".join(f"{v:.3f}" for v in eigenvalues[:5])
    lines = [f"{counts['people']:,} people, {counts['variants']:,} variants; eigenvalues {text}"]
    if counts["people_projected"]:
        lines.append(f"Fitted on {counts['people_fitted']:,}, projected {counts['people_projected']:,} others")
    for name, region in counts["components_of_one_region"].items():
        lines.append(f"{name} is the linkage disequilibrium of one region, {region}; leave it out (--exclude-regions)")
    return tuple(lines)


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
    rules = PanelRules((), config.min_maf, config.max_missing, config.reference)
    panel = choose_panel(choose_genotypes(config), rules, memory_bytes=context.memory_bytes // 4)
    chosen, counts = panel.source, panel.counts
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


def _sizes(path: GenotypeFile) -> tuple[int, int]:
    source = path.open()
    return len(source.samples), len(source.variants)


def _estimate_pca(config: GenotypesPcaConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    n, m = _sizes(config.file)
    return Estimate(
        pca_peak_bytes(n, m, config.components, exact=_exact(config)) + table_bytes(m), 1e-11 * n * n * m + 1e-10 * n**3
    )


def _estimate_grm(config: GenotypesGrmConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    n, m = _sizes(config.file)
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
