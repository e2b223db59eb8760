"""``heritability greml``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from brainlocus.core import Grm, PhenotypeTable, SchemaError, concat_results, intersect, select_genotypes
from brainlocus.genetics.genotypes import count_genotypes, genetic_relationships
from brainlocus.genetics.heritability import greml, greml_peak_bytes
from brainlocus.io import grm_files, open_genotypes, read_grm, write_results
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.genomes import keep_people, read_traits
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["HERITABILITY_GREML", "HeritabilityGremlConfig"]


class HeritabilityGremlConfig(StepConfig):
    """Settings of ``heritability greml``."""

    grm: Annotated[InputPath, Positional()] = Field(description="Relationship matrix (PREFIX.grm.bin)")
    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits (.tsv, .csv, .parquet, .fam)")
    columns: CommaList = Field((), description="Traits: names or patterns (C32_*); all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    na_values: CommaList = Field(
        (), description="Values of traits and covariates that mean missing, besides NA and empty cells, such as -9"
    )
    keep: CommaPaths = Field((), description="People: lists, or tables with participant_id; in all of them")
    unconstrained: bool = Field(False, description="Let h2 be negative, so that averages over traits are unbiased")
    genotypes: InputPath | None = Field(None, description="Genotypes, for --per-trait-variants")
    per_trait_variants: bool = Field(
        False,
        description="Judge variants among the people with a trait and make that trait's own matrix, as GEMMA does; "
        "GRM then only says which people are in it",
    )
    min_maf: float = Field(0.01, ge=0, le=0.5, description="With --per-trait-variants: smallest minor allele frequency")
    max_missing: float = Field(
        0.05, ge=0, le=1, description="With --per-trait-variants: largest share of missing calls of a variant"
    )


def heritability_greml(config: HeritabilityGremlConfig, out: Path, context: Context) -> StepResult:
    """Write the heritability of every trait."""
    grm = read_grm(config.grm)
    if config.keep:
        grm = grm.take(keep_people(grm.samples, config.keep))
    traits = read_traits(config.traits, config.columns, config.covariates, config.formula, config.na_values)
    table, names = traits.table, traits.names
    arguments: dict[str, Any] = {
        "covariates": traits.covariates,
        "formula": traits.formula,
        "unconstrained": config.unconstrained,
        "memory_bytes": context.memory_bytes,
    }
    try:
        with threadpool_limits(limits=context.threads):
            if config.per_trait_variants:
                matrices = _trait_matrices(config, grm, table, names, context)
                result = concat_results([greml(own, table, names=[name], **arguments) for name, own in matrices])
            else:
                result = greml(grm, table, names=names, **arguments)
    except ValueError as error:
        raise SchemaError(str(error)) from error
    write_results(result, out)
    failed = int((result["status"] != "ok").sum())
    counts = {"people_in_grm": len(grm.samples), "people_with_traits": len(table.samples), "traits": len(result)}
    counts["without_result"] = failed
    counts["people_analysed"] = int(result["n"].max(initial=0))
    lines = [
        f"{trait}: h2 {h2:.4f} ± {error:.4f}, pve {pve:.4f}, log-likelihood {value:.2f}, n {n}"
        for trait, h2, error, pve, value, n in zip(
            *(result[name].tolist() for name in ("trait", "h2", "h2_standard_error", "pve", "log_likelihood", "n")),
            strict=True,
        )
    ]
    shown = (
        lines if len(lines) <= 10 else [*lines[:5], f"... {len(lines)} traits, mean h2 {np.nanmean(result['h2']):.4f}"]
    )
    return StepResult(counts, n_failed=failed, summary=tuple(shown))


def _trait_matrices(
    config: HeritabilityGremlConfig, grm: Grm, table: PhenotypeTable, names: Sequence[str], context: Context
) -> Iterator[tuple[str, Grm]]:
    """Yield each trait with the matrix of all people from the variants that pass among those who have the trait."""
    if config.genotypes is None:
        raise SchemaError("--per-trait-variants needs --genotypes.")
    source = select_genotypes(open_genotypes(config.genotypes), samples=grm.samples)
    block_bytes = min(context.memory_bytes // 4, 1 << 28)
    for name in context.progress.track(names, "Relationship matrices", len(names)):
        observed = table.samples.take(~np.isnan(table.column(name).values))
        people = intersect(grm.samples, observed)
        if not len(people):  # nothing to judge variants by: greml says that there are too few people
            yield name, grm
            continue
        counted = count_genotypes(select_genotypes(source, samples=people), memory_bytes=block_bytes)
        frequency = np.nan_to_num(counted.effect_allele_frequency, nan=0.0)
        passes = (np.minimum(frequency, 1.0 - frequency) >= config.min_maf) & (
            counted.missing_rate <= config.max_missing
        )
        if not passes.any():
            raise SchemaError(
                f"No variant passes --min-maf {config.min_maf:g} and --max-missing {config.max_missing:g} among the "
                f"{len(people)} people with {name!r}. Relax them, or leave the trait out."
            )
        chosen = select_genotypes(source, variants=passes)
        yield (
            name,
            genetic_relationships(chosen, scale="observed", missing="mean", memory_bytes=context.memory_bytes),
        )


def _estimate(config: HeritabilityGremlConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    ids = grm_files(config.grm)[2]
    n = sum(1 for _ in ids.open(encoding="utf-8")) if ids.is_file() else 0
    return Estimate(greml_peak_bytes(n) + 8 * n * n, 1.5e-10 * n**3 + 0.5)


HERITABILITY_GREML = Step(
    "heritability greml", "Heritability of traits by REML.", HeritabilityGremlConfig, heritability_greml,
    estimate=_estimate,
)  # fmt: skip
