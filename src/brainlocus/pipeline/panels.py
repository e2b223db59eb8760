"""Which people and which autosomal variants of a genotype file a command works with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from brainlocus.core import GenotypeSource, SampleIndex, SchemaError, select_genotypes
from brainlocus.core.variants import AUTOSOMES
from brainlocus.genetics.genotypes import GenotypeCounts, count_genotypes
from brainlocus.io import OpenedGenotypes
from brainlocus.pipeline.filters import ChosenGenotypes
from brainlocus.pipeline.genomes import keep_people

__all__ = ["Panel", "PanelRules", "choose_panel"]


@dataclass(frozen=True, slots=True)
class PanelRules:
    """What people and variants must fulfil."""

    fit: tuple[Path, ...] = ()
    """Further lists: of the people asked for, only those in all of them."""
    min_maf: float = 0.0
    max_missing: float = 1.0
    reference: Path | None = None
    """People among whom frequencies and missing calls are judged; None: those kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """What was chosen."""

    source: GenotypeSource
    people: SampleIndex
    """Everyone asked for, whether in the further lists or not."""
    file: OpenedGenotypes
    """The whole file."""
    rows: Bool[np.ndarray, " variants"]
    """Which variants of the file."""
    counted: GenotypeCounts | None
    """Counts of all variants of the file; None when no rule needed them."""
    counts: dict[str, Any] = field(default_factory=dict)
    """What was dropped, for the manifest."""


def choose_panel(asked: ChosenGenotypes, rules: PanelRules, *, founders_only: bool = False, memory_bytes: int) -> Panel:
    """Return the autosomal variants that pass, among the people kept, and what was dropped.

    Parameters
    ----------
    founders_only
        Take only people without parents in the file, unless there are none.

    Raises
    ------
    SchemaError
        No variant is left; the message has what was dropped.
    """
    source = asked.source
    people = keep_people(asked.samples, rules.fit)
    if founders_only:
        chosen_founders = source.pedigree.founders[source.samples.indices_of(people)]
        people = people.take(chosen_founders) if chosen_founders.any() else people
    listed = asked.variants
    autosomal = np.isin(source.variants.chromosome, AUTOSOMES)
    passes, counted = np.ones(len(source.variants), dtype=bool), None
    if rules.min_maf > 0.0 or rules.max_missing < 1.0:
        judged = people if rules.reference is None else keep_people(source.samples, (rules.reference,))
        counted = count_genotypes(select_genotypes(source, samples=judged), memory_bytes=min(memory_bytes, 1 << 28))
        frequency = np.nan_to_num(counted.effect_allele_frequency, nan=0.0)
        passes = (np.minimum(frequency, 1.0 - frequency) >= rules.min_maf) & (counted.missing_rate <= rules.max_missing)
    chosen = listed & autosomal & passes
    counts = {
        **asked.counts,
        "people": len(people),
        "variants": int(chosen.sum()),
        "variants_not_listed": int((~listed).sum()),
        "variants_not_autosomal": int((listed & ~autosomal).sum()),
        "variants_rare_or_missing": int((listed & autosomal & ~passes).sum()),
    }
    if not chosen.any():
        raise SchemaError(f"{_nothing_left(len(source.variants), counts)} Lower --min-maf or check --variants.")
    return Panel(
        select_genotypes(source, samples=people, variants=chosen), asked.samples, source, chosen, counted, counts
    )


def _nothing_left(n_variants: int, counts: dict[str, Any]) -> str:
    causes = {
        "variants_not_listed": "not chosen",
        "variants_not_autosomal": "not on chromosomes 1 to 22",
        "variants_rare_or_missing": "rarer than --min-maf or with more missing calls than --max-missing",
    }
    found = [f"{counts[name]:,} {text}" for name, text in causes.items() if counts[name]]
    return f"No variant is left of {n_variants:,}: {', '.join(found) or 'the file has none'}."
