"""``genotypes prune``: variants in little linkage disequilibrium with one another."""

from pathlib import Path

from pydantic import Field

from brainlocus.genetics.genotypes import PruneSettings, counts_peak_bytes, prune_variants
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes
from brainlocus.pipeline.genomes import ambiguity_notes, ambiguous_ids, require_memory, table_bytes
from brainlocus.pipeline.panels import PanelRules, choose_panel
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GENOTYPES_PRUNE", "GenotypesPruneConfig"]


class GenotypesPruneConfig(GenotypeInput):
    """Settings of ``genotypes prune``."""

    window: int = Field(200, ge=1, description="Variants of a window, or kilobases with --kb")
    step: int | None = Field(None, ge=1, description="Variants by which it moves on (50; 1 with --kb)")
    r2: float = Field(0.2, ge=0, lt=1, description="Of a pair with r2 above this, the rarer variant leaves")
    kb: bool = Field(False, description="The window is in kilobases")
    min_maf: float = Field(0.0, ge=0, le=0.5, description="Smallest minor allele frequency among these people")


def genotypes_prune(config: GenotypesPruneConfig, out: Path, context: Context) -> StepResult:
    """Write the ids of the variants that stay."""
    asked = choose_genotypes(config)
    source = asked.source
    n_people, n_variants = len(source.samples), len(source.variants)
    needed = table_bytes(n_variants) + counts_peak_bytes(n_people, n_variants, 64)
    require_memory(needed, context.memory_bytes, f"Pruning {n_variants} variants of {n_people} people")
    rules = PanelRules(min_maf=config.min_maf)
    panel = choose_panel(asked, rules, founders_only=True, memory_bytes=context.memory_bytes - needed)
    step = config.step if config.step is not None else (1 if config.kb else 50)
    settings = PruneSettings(config.window, step, config.r2, kb=config.kb)
    stays = prune_variants(panel.source, settings, memory_bytes=context.memory_bytes - table_bytes(n_variants))
    ids = panel.source.variants.variant_id[stays]
    out.write_text("\n".join(ids.tolist()) + "\n", encoding="utf-8")
    counts = {**panel.counts, "variants_pruned": int((~stays).sum()), "variants_kept": int(stays.sum())}
    counts["ambiguous_ids"] = ambiguous_ids(panel.source.variants.variant_id, stays)
    notes = ambiguity_notes(counts["ambiguous_ids"], "the list cannot tell them apart; make ids unique first")
    return StepResult(counts, summary=(f"{int(stays.sum()):,} of {stays.size:,} variants stay", *notes))


GENOTYPES_PRUNE = Step(
    "genotypes prune", "Variants in little linkage disequilibrium.", GenotypesPruneConfig, genotypes_prune, out="file"
)
