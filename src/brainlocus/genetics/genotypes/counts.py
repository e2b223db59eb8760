"""Genotype counts of every variant and every person in one streaming pass.

Hard calls are counted as they are; a dosage counts as the nearest whole number for genotype counts and as
itself for the frequency.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8
from numba import njit

from brainlocus.core.genotypes import (
    GenotypeSource,
    SelectedGenotypes,
    block_size_for,
)
from brainlocus.genetics.genotypes.bits import EVEN, call_words, pack_calls, people_bits
from brainlocus.numerics.bits import popcount
from brainlocus.numerics.packed import read_packed

__all__ = ["GenotypeCounts", "count_genotypes", "counts_peak_bytes"]

_BLOCK = 4096
"""Variants read at once in two bits a call."""


@dataclass(frozen=True, slots=True, eq=False)
class GenotypeCounts:
    """What one pass over the genotypes knows."""

    variant: Int64[np.ndarray, "variants 4"]
    """People with two effect alleles, one, none, and without a call."""
    founder: Int64[np.ndarray, "variants 4"]
    """The same among the people named for Hardy-Weinberg tests."""
    dosage_sum: Float[np.ndarray, " variants"]
    sample_missing: Int64[np.ndarray, "samples sets"]
    """Missing calls of each person in each set of variants."""
    sample_het: Int64[np.ndarray, "samples sets"]
    sample_expected_het: Float[np.ndarray, "samples sets"]
    """Expected heterozygotes among the person's calls: sum of 2 p (1 - p) 2n / (2n - 1)."""
    set_size: Int64[np.ndarray, " sets"]

    @property
    def n_called(self) -> Int[np.ndarray, " variants"]:
        """People with a call."""
        return np.asarray(self.variant[:, :3].sum(axis=1))

    @property
    def effect_allele_frequency(self) -> Float[np.ndarray, " variants"]:
        """NaN where nobody has a call."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.dosage_sum / (2.0 * self.n_called))

    @property
    def missing_rate(self) -> Float[np.ndarray, " variants"]:
        """Share of people without a call."""
        return np.asarray(self.variant[:, 3] / max(int(self.variant[:1].sum()), 1), dtype=np.float64)

    @property
    def minor_allele_count(self) -> Float[np.ndarray, " variants"]:
        """Copies of the rarer allele."""
        return np.asarray(np.minimum(self.dosage_sum, 2.0 * self.n_called - self.dosage_sum))


def count_genotypes(
    source: GenotypeSource,
    *,
    sets: Int[np.ndarray, " variants"] | None = None,
    founders: Bool[np.ndarray, " samples"] | None = None,
    expected_het: Float[np.ndarray, " variants"] | None = None,
    memory_bytes: int = 1 << 28,
) -> GenotypeCounts:
    """Count genotypes in one pass.

    Parameters
    ----------
    sets
        Set of each variant for the counts by person: 0, 1, 2 ...; -1 for none. None: all in set 0.
    founders
        People counted in `GenotypeCounts.founder`; None: everyone.
    expected_het
        Expected heterozygosity of a call of each variant; NaN or None: from the frequency among the people counted.

    Notes
    -----
    Expected heterozygosity is that of Nei's unbiased estimator among all people of the source, as in the
    F of PLINK (Purcell et al. 2007, 10.1086/519795).
    """
    n_variants, n_samples = len(source.variants), len(source.samples)
    which = np.zeros(n_variants, dtype=np.int64) if sets is None else sets.astype(np.int64)
    of_interest = np.ones(n_samples, dtype=bool) if founders is None else founders
    n_sets = max(int(which.max(initial=0)) + 1, 1)
    variant, founder = np.zeros((n_variants, 4), dtype=np.int64), np.zeros((n_variants, 4), dtype=np.int64)
    dosage_sum, share = np.zeros(n_variants), np.zeros(n_sets)
    whole, people = _everyone(source)
    chosen = np.zeros((2, len(whole.samples)), dtype=bool)
    chosen[0, people], chosen[1, people[of_interest]] = True, True
    masks = np.stack([people_bits(mask) for mask in chosen])
    expected = np.full(n_variants, np.nan) if expected_het is None else expected_het
    counters = _Counters(len(whole.samples), n_sets)
    for start, codes, sums in _blocks(whole, chosen[0], memory_bytes):
        rows = slice(start, start + codes.shape[0])
        dosage_sum[rows] = sums
        _count_words(
            call_words(codes, len(whole.samples)), which[rows], masks, variant[rows], founder[rows], dosage_sum[rows],
            expected[rows], counters.planes, counters.filled, counters.totals, counters.lost, share,
        )  # fmt: skip
    counters.finish()
    missing, het = (counters.totals[kind][people] for kind in range(2))
    sizes = np.bincount(which[which >= 0], minlength=n_sets)
    return GenotypeCounts(variant, founder, dosage_sum, missing, het, share - counters.lost[people], sizes)


def _everyone(source: GenotypeSource) -> tuple[GenotypeSource, Int64[np.ndarray, " samples"]]:
    """Return the source with all people of its file, and the rows of its own: a mask spares packing them again."""
    if not isinstance(source, SelectedGenotypes):
        return source, np.arange(len(source.samples))
    samples, variants = source.source.samples, source.variant_indices
    whole = SelectedGenotypes(source.source, samples, source.variants, np.arange(len(samples)), variants)
    return whole, source.sample_indices.astype(np.int64)


def _blocks(
    source: GenotypeSource, people: Bool[np.ndarray, " samples"], memory_bytes: int
) -> Iterator[tuple[int, UInt8[np.ndarray, "variants bytes"], Float[np.ndarray, " variants"]]]:
    """Yield packed calls and the sums of dosages among some people: NaN where the calls are all there is."""
    n_variants, start = len(source.variants), 0
    while start < n_variants:
        block = read_packed(source, start, min(start + _BLOCK, n_variants))
        if block is not None:
            codes, sums = block.codes, np.full(block.codes.shape[0], np.nan)
        else:
            size = block_size_for(len(source.samples), memory_bytes)
            dosage = np.ascontiguousarray(source.read(start, min(start + size, n_variants)).dosage)
            codes, sums = pack_calls(dosage), np.empty(dosage.shape[0])
            _sum_dosages(dosage, people, sums)
        yield start, codes, sums
        start += codes.shape[0]


class _Counters:
    """Counts by person in bit slices: counter k of a word's 64 people is bit k of eight words.

    A count is added to 64 people with a few logical operations; every 255 variants the slices are emptied.
    """

    def __init__(self, n_people: int, n_sets: int) -> None:
        n_words = (n_people + 63) // 64
        self.planes = np.zeros((n_sets, 2, 8, n_words), dtype=np.uint64)
        self.filled = np.zeros(n_sets, dtype=np.int64)
        self.totals = np.zeros((2, n_words * 64, n_sets), dtype=np.int64)
        """Missing calls and heterozygous calls."""
        self.lost = np.zeros((n_words * 64, n_sets))
        """Expected heterozygosity of the variants without a call."""

    def finish(self) -> None:
        """Empty the slices into the totals."""
        for s in range(self.filled.size):
            _empty_slices(self.planes[s], self.totals, s)


def counts_peak_bytes(n_samples: int, n_variants: int, block_size: int) -> int:
    """Return an upper estimate of the bytes held during `count_genotypes`."""
    return 4 * n_samples * block_size * 2 + n_variants * 80 + n_samples * 64


@njit(cache=True, nogil=True)
@no_type_check
def _sum_dosages(dosage, people, sums):  # noqa: ANN001, ANN202 - numba
    for j in range(dosage.shape[0]):
        total = 0.0
        for i in range(dosage.shape[1]):
            value = dosage[j, i]
            if people[i] and value == value:
                total += value
        sums[j] = total


@njit(cache=True, nogil=True)
@no_type_check
def _count_words(words, sets, masks, variant, founder, sums, given, planes, filled, totals, lost, share):  # noqa: ANN001, ANN202
    one = np.uint64(1)
    n_words = masks.shape[1]
    carry = np.empty((3, n_words), dtype=np.uint64)
    for row in range(words.shape[0]):
        for w in range(n_words):
            a, b = words[row, 2 * w], words[row, 2 * w + 1]
            low = (a & EVEN) | ((b & EVEN) << one)
            high = ((a >> one) & EVEN) | (b & ~EVEN)
            carry[0, w] = low & ~high
            carry[1, w] = high & ~low
            carry[2, w] = low & high
        for m in range(2):
            absent = het = other = people = np.uint64(0)
            for w in range(n_words):
                absent += popcount(carry[0, w] & masks[m, w])
                het += popcount(carry[1, w] & masks[m, w])
                other += popcount(carry[2, w] & masks[m, w])
                people += popcount(masks[m, w])
            counts = variant if m == 0 else founder
            counts[row, 0] = np.int64(people) - np.int64(absent) - np.int64(het) - np.int64(other)
            counts[row, 1] = np.int64(het)
            counts[row, 2] = np.int64(other)
            counts[row, 3] = np.int64(absent)
        if np.isnan(sums[row]):
            sums[row] = 2.0 * variant[row, 0] + variant[row, 1]
        s = sets[row]
        if s < 0:
            continue
        called = 2.0 * (variant[row, 0] + variant[row, 1] + variant[row, 2])
        if called > 0.0:
            p = sums[row] / called
            expected = 2.0 * p * (1.0 - p) * called / (called - 1.0) if np.isnan(given[row]) else given[row]
            share[s] += expected
            if variant[row, 3] > 0:
                _add_lost(carry[0], masks[0], expected, lost, s)
        if filled[s] == 255:
            _empty_slices(planes[s], totals, s)
            filled[s] = 0
        filled[s] += 1
        for kind in range(2):
            for level in range(8):
                for w in range(n_words):
                    both = planes[s, kind, level, w] & carry[kind, w]
                    planes[s, kind, level, w] ^= carry[kind, w]
                    carry[kind, w] = both


@njit(cache=True, nogil=True)
@no_type_check
def _person(word, bit):  # noqa: ANN001, ANN202 - numba
    """Return which person a bit of a plane stands for; see `bits.people_bits`."""
    return 64 * word + (bit >> 1) + 32 * (bit & 1)


@njit(cache=True, nogil=True)
@no_type_check
def _add_lost(absent, mask, expected, lost, s):  # noqa: ANN001, ANN202 - numba
    one = np.uint64(1)
    for w in range(mask.size):
        word = absent[w] & mask[w]
        while word:
            below = (word - one) & ~word
            lost[_person(w, np.int64(popcount(below))), s] += expected
            word &= word - one


@njit(cache=True, nogil=True)
@no_type_check
def _empty_slices(planes, totals, s):  # noqa: ANN001, ANN202 - numba
    for kind in range(2):
        for w in range(planes.shape[2]):
            for level in range(8):
                word = planes[kind, level, w]
                if word:
                    for bit in range(64):
                        here = np.int64((word >> np.uint64(bit)) & np.uint64(1))
                        totals[kind, _person(w, bit), s] += here << level
                planes[kind, level, w] = np.uint64(0)
