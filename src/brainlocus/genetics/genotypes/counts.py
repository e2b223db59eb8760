"""Genotype counts of every variant and every person in one streaming pass.

Hard calls are counted as they are; a dosage counts as the nearest whole number for genotype counts and as
itself for the frequency.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from numba import njit

from brainlocus.core.genotypes import GenotypeSource, block_size_for, iter_blocks

__all__ = ["GenotypeCounts", "count_genotypes", "counts_peak_bytes"]


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
    memory_bytes: int = 1 << 28,
) -> GenotypeCounts:
    """Count genotypes in one pass.

    Parameters
    ----------
    sets
        Set of each variant for the counts by person: 0, 1, 2 ...; -1 for none. None: all in set 0.
    founders
        People counted in `GenotypeCounts.founder`; None: everyone.

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
    dosage_sum = np.zeros(n_variants)
    missing, het = np.zeros((n_samples, n_sets), dtype=np.int64), np.zeros((n_samples, n_sets), dtype=np.int64)
    expected = np.zeros((n_samples, n_sets))
    for block in iter_blocks(source, block_size_for(n_samples, memory_bytes)):
        rows = slice(block.start, block.stop)
        _count_block(
            block.dosage,
            which[rows],
            of_interest,
            variant[rows],
            founder[rows],
            dosage_sum[rows],
            missing,
            het,
            expected,
        )
    return GenotypeCounts(
        variant, founder, dosage_sum, missing, het, expected, np.bincount(which[which >= 0], minlength=n_sets)
    )


def counts_peak_bytes(n_samples: int, n_variants: int, block_size: int) -> int:
    """Return an upper estimate of the bytes held during `count_genotypes`."""
    return 4 * n_samples * block_size * 2 + n_variants * 80 + n_samples * 64


@njit(cache=True, nogil=True)
@no_type_check
def _count_block(dosage, sets, founders, variant, founder, dosage_sum, missing, het, expected):  # noqa: ANN001, ANN202
    n_samples = dosage.shape[1]
    for j in range(dosage.shape[0]):
        total = 0.0
        s = sets[j]
        for i in range(n_samples):
            value = dosage[j, i]
            if value != value:
                code = 3
            else:
                total += value
                code = 2 - int(value + 0.5)
            variant[j, code] += 1
            if founders[i]:
                founder[j, code] += 1
            if s >= 0:
                if code == 3:
                    missing[i, s] += 1
                elif code == 1:
                    het[i, s] += 1
        dosage_sum[j] = total
        called = n_samples - variant[j, 3]
        if s >= 0 and called > 0:
            p = total / (2.0 * called)
            share = 2.0 * p * (1.0 - p) * (2.0 * called) / (2.0 * called - 1.0)
            for i in range(n_samples):
                if dosage[j, i] == dosage[j, i]:
                    expected[i, s] += share
