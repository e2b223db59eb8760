"""``loci clump``."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from brainlocus.core import ResultTable, SchemaError
from brainlocus.genetics.loci import ClumpResult, ClumpSettings, clump
from brainlocus.io import read_results, write_results
from brainlocus.pipeline.config import InputPath, Positional
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["LOCI_CLUMP", "LociClumpConfig"]


class LociClumpConfig(GenotypeInput):
    """Settings of ``loci clump``."""

    hits: Annotated[InputPath, Positional()] = Field(
        description="Associations: hits.parquet of gwas run (with --hits at least P2), or a table of the same columns"
    )
    genotypes: InputPath = Field(
        description="Genotypes for r2 (.bed, .pgen, .bgen, .vcf.gz): the study's, or a reference panel"
    )
    p1: float = Field(5e-8, gt=0, le=1, description="Largest p of an index variant")
    p2: float = Field(0.05, gt=0, le=1, description="Largest p of a candidate")
    r2: float = Field(0.6, gt=0, le=1, description="Smallest r2 at which an index variant claims another")
    lead_r2: float = Field(
        0.1, gt=0, le=1, description="Smallest r2 at which a lead claims another independent variant"
    )
    kb: float = Field(
        250.0, ge=0, description="Reach of a claim, and distance within which loci are merged, in 1,000 bases"
    )
    ld: Literal["counts", "haplotypes"] = Field(
        "counts", description="r2 of allele counts, or of most likely haplotypes (as plink1.9 --clump)"
    )


def _leads(hits: ResultTable, result: ClumpResult) -> ResultTable:
    """Return the rows of the associations that are leads, with their locus."""
    roles = result.variants
    is_lead = roles["role"] == "lead"
    keys = zip(roles["trait"][is_lead].tolist(), roles["variant_id"][is_lead].tolist(), strict=True)
    locus = dict(zip(keys, roles["locus"][is_lead].tolist(), strict=True))
    pairs = list(zip(hits["trait"].tolist(), hits["variant_id"].tolist(), strict=True))
    rows = np.array([k for k, pair in enumerate(pairs) if pair in locus], dtype=np.int64)
    leads = hits.take(rows)
    return ResultTable(dict(leads.columns) | {"locus": np.array([locus[pairs[k]] for k in rows], dtype=np.int64)})


def loci_clump(config: LociClumpConfig, out: Path, context: Context) -> StepResult:
    """Write roles of variants, loci, and the leads' associations."""
    hits = read_results(config.hits)
    for name in ("trait", "variant_id", "neg_log10_p"):
        if name not in hits.names:
            raise SchemaError(f"{config.hits}: expected a column {name}, found {', '.join(hits.names)}.")
    asked = choose_genotypes(config)
    panel = asked.selected()
    try:
        settings = ClumpSettings(config.p1, config.p2, config.r2, config.lead_r2, config.kb, config.ld)
    except ValueError as error:
        raise SchemaError(str(error)) from error
    result = clump(hits, panel, settings, memory_bytes=min(context.memory_bytes // 2, 1 << 29))
    write_results(result.variants, out / "variants.parquet")
    write_results(result.loci, out / "loci.parquet")
    write_results(_leads(hits, result), out / "leads.parquet")
    weakest = float(hits["neg_log10_p"].min()) if len(hits) else 0.0
    notes = []
    if len(hits) and weakest > -np.log10(config.p2) + 0.5:
        notes.append(
            f"The associations stop at p = {10**-weakest:.2g}, so loci may be too narrow: candidates up to p2 = "
            f"{config.p2:g} need a scan with hits = {config.p2:g} (gwas run --hits, or [gwas] in study.toml)."
        )
    roles = result.variants["role"]
    counts = {
        **asked.counts,
        "associations": len(hits),
        "absent_from_panel": result.n_absent,
        "traits": int(np.unique(hits["trait"]).size),
        "loci": len(result.loci),
        "leads": int((roles == "lead").sum()),
        "independent": int(((roles == "lead") | (roles == "independent")).sum()),
        "candidates": len(roles),
        "notes": notes,
    }
    line = (
        f"{counts['loci']} loci, {counts['leads']} lead and {counts['independent']} independent variants; "
        f"{result.n_absent} associations are not in the panel or have no position there"
    )
    return StepResult(counts, summary=(line, *notes))


LOCI_CLUMP = Step(
    "loci clump", "Clump associations into independent signals and loci.", LociClumpConfig, loci_clump, out="folder"
)
