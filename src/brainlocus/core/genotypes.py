"""Genotypes as a source of blocks, variants x samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Shaped, UInt8

from brainlocus.core.errors import AlignmentError, ResourceError
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable

__all__ = [
    "ArrayGenotypes",
    "GenotypeBlock",
    "GenotypeSource",
    "PackedBlock",
    "PackedSource",
    "ProbabilityBlock",
    "ProbabilitySource",
    "SelectedGenotypes",
    "block_size_for",
    "iter_blocks",
    "runs",
    "select_genotypes",
]


@dataclass(frozen=True, slots=True, eq=False)
class GenotypeBlock:
    """Consecutive variants of a source."""

    start: int
    """Row of the first variant in the source."""
    dosage: Float32[np.ndarray, "variants samples"]
    """Copies of the effect allele in [0, 2]; NaN = missing."""

    @property
    def stop(self) -> int:
        """Row after the last variant."""
        return self.start + int(self.dosage.shape[0])


@runtime_checkable
class GenotypeSource(Protocol):
    """Where genotypes come from. Picklable, reopens by path, keeps no iteration state."""

    @property
    def samples(self) -> SampleIndex:
        """People, in the order of the columns of every block."""

    @property
    def variants(self) -> VariantTable:
        """Variants, in the order of the rows."""

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedBlock:
    """Hard calls of consecutive variants in two bits each (PLINK 1 coding, see `brainlocus.numerics.packed`)."""

    start: int
    """Row of the first variant in the source."""
    codes: UInt8[np.ndarray, "variants bytes"]
    """Four calls a byte, low bits first: 00 two effect alleles, 01 missing, 10 one, 11 none; 0 past the last person."""
    n_samples: int


@runtime_checkable
class PackedSource(Protocol):
    """A `GenotypeSource` that can also give hard calls as they are packed; use `numerics.packed.read_packed`."""

    def read_packed(self, start: int, stop: int) -> PackedBlock | None:
        """Return variants `start` up to but not including `stop`; None when they are not all hard calls."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityBlock:
    """Genotype probabilities of consecutive variants; no copy has the rest. NaN in both where a call is missing."""

    start: int
    """Row of the first variant in the source."""
    one: Float32[np.ndarray, "variants samples"]
    """Probability of one copy of the effect allele."""
    two: Float32[np.ndarray, "variants samples"]
    """Probability of two copies."""


@runtime_checkable
class ProbabilitySource(Protocol):
    """A `GenotypeSource` that also knows probabilities; use `numerics.imputation.read_probabilities`."""

    def read_probabilities(self, start: int, stop: int) -> ProbabilityBlock:
        """Return variants `start` up to but not including `stop`."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayGenotypes:
    """Genotypes held in memory: for tests, and for small sets that are used more than once.

    Raises
    ------
    AlignmentError
        The matrix does not have one row per variant and one column per sample.
    """

    samples: SampleIndex
    variants: VariantTable
    dosage: Float32[np.ndarray, "variants samples"]

    def __post_init__(self) -> None:
        expected = (len(self.variants), len(self.samples))
        if self.dosage.shape != expected:
            raise AlignmentError(f"Dosage is {self.dosage.shape}, expected (variants, samples) = {expected}.")

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        return GenotypeBlock(start, self.dosage[start:stop])


@dataclass(frozen=True, slots=True, eq=False)
class SelectedGenotypes:
    """Some samples and variants of another source, in a given order."""

    source: GenotypeSource
    samples: SampleIndex
    variants: VariantTable
    sample_indices: Int[np.ndarray, " samples"]
    variant_indices: Int[np.ndarray, " variants"]

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop` of the selection.

        Runs of consecutive variants are read together; whole-cohort selections copy nothing more.
        """
        wanted = self.variant_indices[start:stop]
        everyone = self.sample_indices.size == len(self.source.samples) and bool(
            (np.diff(self.sample_indices) == 1).all()
        )
        dosage = np.empty((wanted.size, self.sample_indices.size), dtype=np.float32)
        row = 0
        for first, last in runs(wanted):
            block = self.source.read(first, last).dosage
            dosage[row : row + last - first] = block if everyone else block[:, self.sample_indices]
            row += last - first
        return GenotypeBlock(start, dosage)


def runs(rows: Int[np.ndarray, " rows"]) -> list[tuple[int, int]]:
    """Return ``(first, last + 1)`` of every run of consecutive rows.

    Examples
    --------
    >>> runs(np.array([3, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    if not rows.size:
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    first = rows[np.concatenate([[0], breaks])]
    last = rows[np.concatenate([breaks - 1, [rows.size - 1]])]
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))


def select_genotypes(
    source: GenotypeSource,
    *,
    samples: SampleIndex | None = None,
    variants: Shaped[np.ndarray, " selected"] | None = None,
) -> GenotypeSource:
    """Return a source with only the given samples (in their order) and variants.

    Parameters
    ----------
    samples
        Each must be in the source; None keeps all.
    variants
        Integer rows or a boolean mask over the source's variants; None keeps all.

    Raises
    ------
    AlignmentError
        A sample is not in the source.
    """
    people = source.samples if samples is None else samples
    sample_indices = source.samples.indices_of(people)
    absent = sample_indices < 0
    if absent.any():
        names = ", ".join(repr(str(i)) for i in people.ids[absent][:5])
        raise AlignmentError(f"{int(absent.sum())} participants have no genotypes: {names}.")
    rows = np.arange(len(source.variants))
    if variants is None:
        return SelectedGenotypes(source, people, source.variants, sample_indices, rows)
    rows = rows[variants] if variants.dtype == bool else variants.astype(np.int64)
    return SelectedGenotypes(source, people, source.variants.take(rows), sample_indices, rows)


def block_size_for(
    n_samples: int, memory_bytes: int, *, copies: int = 3, smallest: int = 64, largest: int = 4096
) -> int:
    """Return how many variants a float32 block may hold so that `copies` of it fit in `memory_bytes`.

    Raises
    ------
    ResourceError
        Fewer than `smallest` variants would fit; the message has the memory needed.
    """
    per_variant = 4 * max(n_samples, 1) * copies
    size = memory_bytes // per_variant
    if size < smallest:
        raise ResourceError(
            f"Blocks of {smallest} variants x {n_samples} people need {smallest * per_variant / 2**20:.0f} MiB, "
            f"{memory_bytes / 2**20:.0f} MiB are left. Raise --memory."
        )
    return int(min(size, largest))


def iter_blocks(source: GenotypeSource, block_size: int) -> Iterator[GenotypeBlock]:
    """Yield the source's variants in order, `block_size` at a time."""
    for start in range(0, len(source.variants), block_size):
        yield source.read(start, min(start + block_size, len(source.variants)))
