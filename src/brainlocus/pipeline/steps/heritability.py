"""``heritability greml``."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from brainlocus.core import SchemaError
from brainlocus.genetics.heritability import greml, greml_peak_bytes
from brainlocus.io import grm_files, read_grm, write_results
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.genomes import keep_people, read_covariates
from brainlocus.pipeline.people import choose_traits, formula_columns
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult
from brainlocus.pipeline.steps.people import read_people

__all__ = ["HERITABILITY_GREML", "HeritabilityGremlConfig"]


class HeritabilityGremlConfig(StepConfig):
    """Settings of ``heritability greml``."""

    grm: Annotated[InputPath, Positional()] = Field(description="Relationship matrix (PREFIX.grm.bin)")
    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits (.tsv, .csv, .parquet, .fam)")
    columns: CommaList = Field((), description="Traits: names or patterns (C32_*); all numeric columns by default")
    covariates: CommaPaths = Field((), description="Tables of covariates: all columns, or those of --formula")
    formula: str = Field("", description="Covariates as a formula: 'age + I(age**2) + sex'")
    keep: CommaPaths = Field((), description="People: lists, or tables with participant_id; in all of them")
    unconstrained: bool = Field(False, description="Let h2 be negative: unbiased for averages over traits")


def heritability_greml(config: HeritabilityGremlConfig, out: Path, context: Context) -> StepResult:
    """Write the heritability of every trait."""
    grm = read_grm(config.grm)
    if config.keep:
        grm = grm.take(keep_people(grm.samples, config.keep))
    table = read_people(config.traits)
    covariates = read_covariates(config.covariates)
    formula = config.formula or None
    if covariates is None and formula is not None:
        covariates = table
    besides = formula_columns(config.formula)
    if covariates is not None and covariates is not table:
        besides |= set(covariates.names)
    try:
        with threadpool_limits(limits=context.threads):
            result = greml(
                grm,
                table,
                covariates=covariates,
                formula=formula,
                names=choose_traits(table, config.columns, besides=besides),
                unconstrained=config.unconstrained,
                memory_bytes=context.memory_bytes,
            )
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


def _estimate(config: HeritabilityGremlConfig, memory_bytes: int) -> Estimate:  # noqa: ARG001
    ids = grm_files(config.grm)[2]
    n = sum(1 for _ in ids.open(encoding="utf-8")) if ids.is_file() else 0
    return Estimate(greml_peak_bytes(n) + 8 * n * n, 1.5e-10 * n**3 + 0.5)


HERITABILITY_GREML = Step(
    "heritability greml", "Heritability of traits by REML.", HeritabilityGremlConfig, heritability_greml,
    estimate=_estimate,
)  # fmt: skip
