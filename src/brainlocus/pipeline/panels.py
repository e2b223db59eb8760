"""Which people and which autosomal variants of a genotype file a command works with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from brainlocus.core import GenotypeSource, SampleIndex, SchemaError, VariantTable, select_genotypes
from brainlocus.core.errors import FormatError
from brainlocus.core.variants import AUTOSOMES, canonical_chromosome
from brainlocus.genetics.genotypes import GenotypeCounts, Region, count_genotypes, in_regions, long_range_ld
from brainlocus.io import OpenedGenotypes, read_lines
from brainlocus.pipeline.filters import ChosenGenotypes
from brainlocus.pipeline.genomes import keep_people

__all__ = ["Panel", "PanelRules", "choose_panel", "read_regions"]


@dataclass(frozen=True, slots=True)
class PanelRules:
    """What people and variants must fulfil."""

    fit: tuple[Path, ...] = ()
    """Further lists: of the people asked for, only those in all of them."""
    min_maf: float = 0.0
    max_missing: float = 1.0
    reference: Path | None = None
    """People among whom frequencies and missing calls are judged; None: those kept."""
    regions: tuple[Region, ...] = ()
    """Regions left out."""


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
    outside = ~in_regions(source.variants, rules.regions)
    passes, counted = np.ones(len(source.variants), dtype=bool), None
    if rules.min_maf > 0.0 or rules.max_missing < 1.0:
        judged = people if rules.reference is None else keep_people(source.samples, (rules.reference,))
        counted = count_genotypes(select_genotypes(source, samples=judged), memory_bytes=min(memory_bytes, 1 << 28))
        frequency = np.nan_to_num(counted.effect_allele_frequency, nan=0.0)
        passes = (np.minimum(frequency, 1.0 - frequency) >= rules.min_maf) & (counted.missing_rate <= rules.max_missing)
    chosen = listed & autosomal & outside & passes
    counts = {
        **asked.counts,
        "people": len(people),
        "variants": int(chosen.sum()),
        "variants_not_listed": int((~listed).sum()),
        "variants_not_autosomal": int((listed & ~autosomal).sum()),
        "variants_in_excluded_regions": int((listed & autosomal & ~outside).sum()),
        "variants_rare_or_missing": int((listed & autosomal & outside & ~passes).sum()),
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
        "variants_in_excluded_regions": "in excluded regions",
        "variants_rare_or_missing": "rarer than --min-maf or with more missing calls than --max-missing",
    }
    found = [f"{counts[name]:,} {text}" for name, text in causes.items() if counts[name]]
    return f"No variant is left of {n_variants:,}: {', '.join(found) or 'the file has none'}."


def read_regions(path: Path | None, *, long_range: bool, variants: VariantTable, build: str) -> tuple[Region, ...]:
    """Return the regions to leave out: those of a file, and those of long-range LD.

    Parameters
    ----------
    path
        Lines of chromosome, start and stop (1-based, both included), separated by blanks; # begins a comment.

    Raises
    ------
    FormatError
        A line is not a region.
    AlignmentError
        There is no list of long-range LD for the build.
    """
    stated = variants.genome_build if variants.genome_build != "unknown" else build
    regions: list[Region] = list(long_range_ld(stated)) if long_range else []
    lines: Sequence[str] = read_lines(path, what="regions") if path is not None else ()
    for number, line in enumerate(lines, start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise FormatError(f"{path}, line {number}: expected chromosome, start and stop, found {line.strip()!r}.")
        regions.append(Region(canonical_chromosome(fields[0]), int(fields[1]), int(fields[2])))
    return tuple(regions)
