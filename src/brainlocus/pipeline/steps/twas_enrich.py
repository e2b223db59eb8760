"""``twas enrich``: associations of a set of genes with a set of phenotypes, beside those of other genes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field, model_validator

from brainlocus.core import ResultTable, SchemaError
from brainlocus.genetics.twas import (
    Draws,
    GeneHits,
    SetEnrichment,
    Strata,
    blocks_of_genes,
    count_hits,
    gene_density,
    gene_strata,
    permute_set,
)
from brainlocus.io import write_results
from brainlocus.io.expression import read_gene_places
from brainlocus.io.gene_places import GenePlaces, place_genes, read_intervals
from brainlocus.pipeline.config import CommaFloats, InputPath, InputPaths, Positional
from brainlocus.pipeline.figures.enrichment import draw_draws, draw_margins
from brainlocus.pipeline.gene_results import ResultFiles, StudyTests, match_genes, match_names, read_names, read_study
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_ENRICH", "TwasEnrichConfig"]

_THRESHOLDS = (0.05, 0.01, 0.005, 0.001, 5e-4, 1e-4)
COUNTED = ("associations", "phenotypes")


class TwasEnrichConfig(ResultFiles):
    """Settings of ``twas enrich``."""

    results: Annotated[InputPaths, Positional()] = Field(
        description="Gene associations: a folder of twas associate --full, or tables, at least those up to the largest "
        "threshold"
    )
    genes: InputPath = Field(description="The set: a list of ids or symbols, or a table with a column gene")
    phenotypes: InputPath = Field(description="Phenotypes: a list, or a table with a column phenotype")
    thresholds: CommaFloats = Field(_THRESHOLDS, description="Candidate thresholds of p")
    permutations: int = Field(1000, ge=1, description="Sets of genes drawn")
    match: Literal["models", "none", "r2", "density", "blocks"] = Field(
        "models",
        description="Genes drawn are like those of the set in: the number of tissues that model them, nothing, the "
        "performance of the models, gene density, or their pattern of LD blocks",
    )
    exclude_set: bool = Field(False, description="Do not draw genes of the set")
    models: InputPath | None = Field(
        None, description="Table of gene and tissue: which tissues model which genes, when the tables lack tests"
    )
    positions: InputPath | None = Field(
        None, description="Table of genes: chr, left, right, geneid (for --match density and blocks)"
    )
    blocks: InputPath | None = Field(None, description="BED file of LD blocks, of the positions' build")

    @model_validator(mode="after")
    def _goes_together(self) -> "TwasEnrichConfig":
        wrong = [t for t in self.thresholds if not 0 < t <= 1]
        if wrong or not self.thresholds:
            raise ValueError(f"thresholds: expected p-values above 0 and up to 1, found {wrong or 'none'}")
        if self.match in ("density", "blocks") and self.positions is None:
            raise ValueError(f"positions: --match {self.match} needs --positions")
        if self.match == "blocks" and self.blocks is None:
            raise ValueError("blocks: --match blocks needs --blocks")
        return self


def _places(path: Path, genes: Shaped[np.ndarray, " genes"]) -> GenePlaces:
    places = place_genes(read_gene_places(path), genes)
    if not (places.chromosome != "").any():
        raise SchemaError(f"{path}: none of the {genes.size} genes of the results is there, such as {genes[0]}.")
    return places


def _draws(
    config: TwasEnrichConfig,
    study: StudyTests,
    members: Int[np.ndarray, " set_size"],
    candidates: Bool[np.ndarray, " genes"],
) -> tuple[Draws, dict[str, Any]]:
    """Return how genes are drawn, and what to say of it."""
    if config.match == "blocks":
        places = _places(config.positions or Path(), study.tests.genes)
        block = read_intervals(config.blocks or Path()).find(places.chromosome, places.middle)
        draws = blocks_of_genes(members, candidates, block)
        return draws, {
            "genes_of_set_without_block": int((block[members] < 0).sum()),
            "genes_of_set_by_block": list(draws.pattern),
        }
    values: Float[np.ndarray, " genes"] | None = None
    if config.match == "models":
        values = study.modelled.sum(axis=1).astype(np.float64)
    elif config.match == "r2":
        known = np.isfinite(study.r2)
        values = np.where(known, study.r2, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        if not np.isfinite(values).any():
            raise SchemaError("--match r2: no model of the results has a pred_perf_r2; match on models.")
    elif config.match == "density":
        places = _places(config.positions or Path(), study.tests.genes)
        values = gene_density(np.where(candidates, places.chromosome, ""), places.middle)
    strata = gene_strata(members, candidates, values, exact=config.match == "models")
    return strata, {"strata": _strata_counts(strata)}


def _strata_counts(strata: Strata) -> dict[str, dict[str, int]]:
    return {
        label: {"set": size, "candidates": int(genes.size)}
        for label, size, genes in zip(strata.labels, strata.sizes, strata.candidates, strict=True)
    }


def _threshold_table(found: SetEnrichment, n_draws: int) -> ResultTable:
    n = found.thresholds.size
    return ResultTable(
        {
            "counted": np.repeat(np.array(COUNTED), n),
            "threshold": np.tile(found.thresholds, 2),
            "observed": found.observed.ravel(),
            "null_mean": found.mean.ravel(),
            "null_sd": found.standard_deviation.ravel(),
            "null_q95": found.q95.ravel(),
            "margin": found.margin.ravel(),
            "standardised": found.standardised.ravel(),
            "empirical_p": found.p.ravel(),
            "family_wise_p": np.repeat(found.family_wise_p, n),
            "best": found.best.ravel(),
            "tied": found.tied.ravel(),
            "n_permutations": np.full(2 * n, n_draws),
        }
    )


def _gene_table(study: StudyTests, hits: GeneHits, members: Int[np.ndarray, " set_size"], best: int) -> ResultTable:
    bits = hits.phenotypes[members, best]
    return ResultTable(
        {
            "gene": study.tests.genes[members],
            "gene_name": study.tests.gene_names[members],
            "n_models": study.modelled[members].sum(axis=1),
            "n_associations": hits.counts[members, best],
            "n_phenotypes": np.bitwise_count(bits).sum(axis=1).astype(np.int64),
            "threshold": np.full(members.size, hits.thresholds[best]),
        }
    )


def twas_enrich(config: TwasEnrichConfig, out: Path, context: Context) -> StepResult:
    """Write how a set of genes compares with sets drawn."""
    study = read_study(config.results, config, max_p=max(config.thresholds), models=config.models)
    tested = np.asarray(study.modelled.any(axis=1))
    wanted = read_names(config.genes, ("gene", "gene_id", "gene_name", "symbol", "ensembl"))
    genes = match_genes(wanted, study.tests.genes, study.tests.gene_names, str(config.genes))
    phenotypes = match_names(
        read_names(config.phenotypes, ("phenotype", "gwas_phenotype", "trait")),
        study.tests.phenotypes,
        str(config.phenotypes),
    )
    members = genes.found[tested[genes.found]]
    if not members.size:
        raise SchemaError(f"{config.genes}: no gene of the set has a model in these results.")
    candidates = tested.copy()
    if config.exclude_set:
        candidates[members] = False
    try:
        draws, drawn_from = _draws(config, study, members, candidates)
    except ValueError as error:
        raise SchemaError(str(error)) from error
    hits = count_hits(study.tests, phenotypes.found, config.thresholds)
    found = permute_set(hits, members, draws, n_draws=config.permutations, rng=context.rng(0))
    best = int(found.best[0].argmax())
    write_results(_threshold_table(found, config.permutations), out / "thresholds.parquet")
    write_results(_gene_table(study, hits, members, best), out / "genes.parquet")
    draw_draws(found, out / "draws.png")
    draw_margins(found, out / "margins.png")
    counts = {
        "genes_tested": int(tested.sum()),
        "genes_of_set": len(wanted),
        "genes_of_set_tested": int(members.size),
        "genes_unmatched": list(genes.unmatched),
        "phenotypes": int(phenotypes.found.size),
        "phenotypes_unmatched": list(phenotypes.unmatched),
        "match": config.match,
        "set_excluded_from_draws": config.exclude_set,
        "tests": study.n_read,
        "tests_up_to_largest_threshold": len(study.tests),
        **drawn_from,
    }
    lines = []
    for k, what in enumerate(COUNTED):
        at = int(found.best[k].argmax())
        lines.append(
            f"{what}: best at p <= {found.thresholds[at]:g}, {found.observed[k, at]:,} against a 95th percentile of "
            f"{found.q95[k, at]:,.1f} (p {found.p[k, at]:.3g}); corrected for the search over thresholds, p "
            f"{found.family_wise_p[k]:.3g}"
        )
    if genes.unmatched:
        lines.append(
            f"{len(genes.unmatched)} genes of the set are not in the results: {', '.join(genes.unmatched[:8])}"
        )
    if phenotypes.unmatched:
        some = ", ".join(phenotypes.unmatched[:8])
        lines.append(f"{len(phenotypes.unmatched)} phenotypes of the list are not in the results: {some}")
    return StepResult(counts, summary=tuple(lines))


TWAS_ENRICH = Step(
    "twas enrich",
    "Associations of a set of genes with a set of phenotypes, against sets drawn.",
    TwasEnrichConfig,
    twas_enrich,
    out="folder",
)
