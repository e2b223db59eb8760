"""Genotypes with human-like frequencies and linkage disequilibrium, one chromosome at a time.

Method: the coalescent with recombination (msprime) under the European part of an out-of-Africa demography: an
ancestral expansion, the bottleneck out of Africa, and exponential growth since. Recombination rates vary along the
chromosome as in humans: 2 kb hotspots carry most of the crossovers.

References
----------
Baumdicker et al. (2022), Genetics 220:iyab229 (msprime 1.0); Gravel et al. (2011), PNAS 108:11983, table 2 (sizes and
times); Myers et al. (2005), Science 310:321 (about 80 % of recombination in 10-20 % of the sequence).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from brainlocus.core import GenotypeBlock, SampleIndex, VariantTable
from brainlocus.core.errors import import_extra
from brainlocus.core.text import text_array

__all__ = ["SimulatedChromosome", "simulate_chromosome"]

MUTATION_RATE = 1.29e-8
"""Per base and generation (Jonsson et al. 2017, Nature 549:519)."""
MEAN_RECOMBINATION_RATE = 1.25e-8
"""Per base and generation, the genome-wide human mean."""
HOTSPOT_BP = 2_000
HOTSPOT_EVERY_BP = 60_000
HOTSPOT_SHARE = 0.8
"""Share of all crossovers that fall in hotspots."""

# Gravel et al. 2011, table 2, low-coverage + exons, the branch to Europeans; times in generations of 25 years.
_ANCESTRAL_SIZE = 7_310
_AFRICAN_SIZE = 14_474
_AFRICAN_EXPANSION = 5_920
_BOTTLENECK_SIZE = 1_861
_OUT_OF_AFRICA = 2_040
_FOUNDER_SIZE = 1_032
_FOUNDING = 920
_GROWTH = 0.0038


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedChromosome:
    """One simulated chromosome, decoded block by block."""

    samples: SampleIndex
    variants: VariantTable
    frequency: Float[np.ndarray, " variants"]
    """Of the effect allele among the simulated people."""
    _sequence: Any
    """tskit.TreeSequence with only the chosen sites."""

    def blocks(self, block_size: int, *, start: int = 0) -> Iterator[GenotypeBlock]:
        """Yield dosages, `block_size` variants at a time; rows are numbered from `start`.

        Memory: one block (4 bytes x variants x people) besides the tree sequence.
        """
        n_samples = len(self.samples)
        rows = np.empty((min(block_size, len(self.variants)), n_samples), dtype=np.float32)
        filled = 0
        for variant in self._sequence.variants():
            rows[filled] = variant.genotypes.reshape(n_samples, 2).sum(axis=1)
            filled += 1
            if filled == rows.shape[0]:
                yield GenotypeBlock(start, rows.copy())
                start += filled
                filled = 0
        if filled:
            yield GenotypeBlock(start, rows[:filled].copy())


def _demography(msprime: Any) -> Any:
    demography = msprime.Demography()
    size_now = _FOUNDER_SIZE * np.exp(_GROWTH * _FOUNDING)
    demography.add_population(name="EUR", initial_size=size_now, growth_rate=_GROWTH)
    for time, size in (
        (_FOUNDING, _BOTTLENECK_SIZE),
        (_OUT_OF_AFRICA, _AFRICAN_SIZE),
        (_AFRICAN_EXPANSION, _ANCESTRAL_SIZE),
    ):
        demography.add_population_parameters_change(time=time, initial_size=size, growth_rate=0, population="EUR")
    return demography


def _recombination_map(msprime: Any, length_bp: int, rng: np.random.Generator) -> Any:
    """Return a map with hotspots about every 60 kb whose strengths are exponential."""
    n_spots = max(1, length_bp // HOTSPOT_EVERY_BP)
    centres = np.sort(rng.choice(np.arange(HOTSPOT_BP, length_bp - HOTSPOT_BP, 2 * HOTSPOT_BP), n_spots, replace=False))
    strength = rng.exponential(size=n_spots)
    morgans = MEAN_RECOMBINATION_RATE * length_bp
    spot_rate = HOTSPOT_SHARE * morgans * strength / strength.sum() / HOTSPOT_BP
    base_rate = (1 - HOTSPOT_SHARE) * morgans / length_bp
    position = np.unique(np.concatenate([[0, length_bp], centres, centres + HOTSPOT_BP]))
    rate = np.full(position.size - 1, base_rate)
    rate[np.searchsorted(position, centres)] += spot_rate
    return msprime.RateMap(position=position.astype(float), rate=rate)


def _choose_sites(frequency: Float[np.ndarray, " sites"], n_variants: int, maf: float) -> Int[np.ndarray, " chosen"]:
    """Return sites of at least the given minor allele frequency, evenly spread in their order."""
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) >= maf)
    if common.size <= n_variants:
        return common
    return common[np.linspace(0, common.size - 1, n_variants).round().astype(np.int64)]


def simulate_chromosome(
    name: str,
    samples: SampleIndex,
    *,
    n_variants: int,
    length_bp: int,
    maf: float,
    rng: np.random.Generator,
) -> SimulatedChromosome:
    """Simulate one chromosome of unrelated people.

    Parameters
    ----------
    n_variants
        Variants to keep, evenly spread among those of sufficient frequency; all are kept if there are fewer.
    maf
        Smallest minor allele frequency.

    Raises
    ------
    MissingExtraError
        msprime is not installed.
    ValueError
        The chromosome is too short to hold any variant of that frequency.
    """
    msprime: Any = import_extra("msprime", extra="simulate")
    n_samples = len(samples)
    ancestry_seed, mutation_seed = (int(s) for s in rng.integers(1, 2**31 - 1, size=2))
    trees = msprime.sim_ancestry(
        n_samples,
        demography=_demography(msprime),
        recombination_rate=_recombination_map(msprime, length_bp, rng),
        random_seed=ancestry_seed,
    )
    sequence = msprime.sim_mutations(
        trees, rate=MUTATION_RATE, random_seed=mutation_seed, model=msprime.BinaryMutationModel()
    )
    frequency = np.array([v.genotypes.mean() for v in sequence.variants()])
    kept = _choose_sites(frequency, n_variants, maf)
    if not kept.size:
        raise ValueError(f"A chromosome of {length_bp} bp has no variant of frequency {maf}; make it longer.")
    drop = np.setdiff1d(np.arange(sequence.num_sites), kept)
    chosen = sequence.delete_sites(drop)
    position = np.maximum.accumulate(chosen.tables.sites.position.astype(np.int64)) + 1
    bases = np.array(["A", "C", "G", "T"])
    other = rng.integers(0, 4, size=kept.size)
    effect = (other + rng.integers(1, 4, size=kept.size)) % 4
    variants = VariantTable(
        np.full(kept.size, name),
        position,
        text_array(bases[effect]),
        text_array(bases[other]),
        text_array([f"{name}:{p}:{bases[o]}:{bases[e]}" for p, o, e in zip(position, other, effect, strict=True)]),
        "simulated",
    )
    return SimulatedChromosome(samples, variants, frequency[kept], chosen)
